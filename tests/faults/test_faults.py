"""Nothing lost, nothing twice: each promise under the fault that would break it, and then several faults at random.

Every test ends with the same account (`tests.faults.check`): the alerts are those of `export score`, id by id, and the
dead letters the malformed records, each exactly once, for a subscriber with read_committed.
"""

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition

from schemas.dead_letter import Reason
from schemas.params import Params, StreamParams
from stream.clients import admin_properties
from stream.subscribe import subscribe
from stream.topics import PLAIN, wait_for_topics
from tests.faults.clock import Clock
from tests.faults.given import BUNDLE, Given, flows
from tests.faults.harness import Harness, run_faults
from tests.faults.kafka import FaultyKafka
from tests.faults.schedule import KINDS, Fault, every_kind
from tests.kafka import committed, produce
from tests.stream.alerts import alert

POISON = "123456789"
# A transaction that is too old is looked for twice as often. Not each second: a broker that finds one while it still starts
# (Kafka 4.3.1) notes that it is aborted, and never says so to its partitions.
QUICK = {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "5000"}
# A long wait for a large batch, and few flows: a worker mostly holds the first records of one.
FILLING = ("--batch-size", "4096", "--max-wait-ms", "3000")
SLOWLY_FILLING = ("--batch-size", "4096", "--max-wait-ms", "20000")  # for longer than a session
FEW = 60.0
ATTEMPTS = 5
TOO_OLD_S = 6.0  # for a session; a transaction is, and is aborted the next time that the broker looks


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyKafka]:
    with FaultyKafka(tmp_path_factory.mktemp("kafka"), QUICK) as kafka:
        yield kafka


@pytest.fixture
def harness(kafka: FaultyKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Harness]]:
    """Factory of one harness, `harness(**options) -> Harness`, whose service runs already and is fed."""
    kafka.heal()
    with ExitStack() as stack:

        def make(**options: object) -> Harness:
            replay = f"python -m pytest '{request.node.nodeid}'"
            made = stack.enter_context(Harness(kafka, tmp_path, seed=1, replay=replay, **options))  # type: ignore[arg-type]
            made.feed.start()
            made.flowing()
            return made

        yield make


def check(harness: Harness) -> None:
    """Account for every record; also, nothing may have ended or been logged that should not."""
    report = harness.finish()
    print(report)
    assert report.problems == []


def test_a_worker_killed_between_produce_and_commit(harness: Callable[..., Harness]) -> None:
    run = harness()
    for sign in ("kill-before-offsets", "kill-before-commit", "kill-after-commit"):
        run.main.doom(run.sign(sign))
        run.flowing()
    check(run)


def test_what_a_killed_worker_left_open_does_not_wait_for_its_time_out(harness: Callable[..., Harness]) -> None:
    run = harness(options=("--set", "kafka.transaction.timeout.ms=300000"))
    run.main.doom(run.sign("kill-before-commit"))
    run.flowing()
    check(run)


def test_a_worker_that_sleeps_in_mid_batch_while_another_takes_its_partitions(harness: Callable[..., Harness]) -> None:
    # The transaction waits for it: only the group can tell that it comes too late.
    run = harness(options=("--set", "kafka.transaction.timeout.ms=60000"))
    sleeper = run.sign("stop-before-offsets")
    run.overtaken()
    run.thaw(sleeper)
    run.flowing()
    sleeper = run.sign("stop-before-commit")
    run.pause(run.session_timeout_s + 2)
    run.thaw(sleeper)
    run.flowing()
    check(run)


def had_in_hand(run: Harness, event: str) -> bool:
    """Whether a worker has had to give up partitions while it held records of a batch that filled."""
    lines = [line for each in run.instances for line in each.log_lines() if isinstance(line, dict)]
    return any(line["event"] == event and line["in_hand"] > 0 for line in lines)


def test_a_worker_that_sleeps_while_its_batch_fills(harness: Callable[..., Harness]) -> None:
    # It wakes with records in hand of partitions that another has by then, and goes on to fill its batch.
    run = harness(options=SLOWLY_FILLING, workers=1, rate=FEW)
    other = run.add("other", 1, "--max-wait-ms", "200")
    other.start()
    run.until(lambda: "partitions assigned" in other.log_file.read_text(), "its partitions")
    for _ in range(ATTEMPTS):
        run.flowing()
        run.pause(1.0)
        [sleeper] = run.main.workers()
        run.main.send(sleeper, signal.SIGSTOP)
        run.overtaken()
        run.thaw(sleeper)
        run.flowing()
        if had_in_hand(run, "partitions lost"):
            break
    assert had_in_hand(run, "partitions lost")
    check(run)


def test_the_supervisor_killed_and_terminated(harness: Callable[..., Harness], kafka: FaultyKafka) -> None:
    run = harness()
    workers = run.main.workers()
    kafka.proxy.stall()  # so that no new worker can end an old one
    run.cause(Fault("kill supervisor"))
    run.until(lambda: not any(map(psutil.pid_exists, workers)), "the end of its workers", 8)
    kafka.proxy.resume()
    run.flowing()
    run.cause(Fault("terminate service"))
    run.flowing()
    check(run)


def pass_through(run: Harness) -> None:
    """A member of the group that comes, is given partitions, and goes without having read a record of them."""
    member = Consumer(
        {
            "bootstrap.servers": run.kafka.direct,
            "group.id": run.topics.group,
            "partition.assignment.strategy": "range",
            "enable.auto.commit": False,
        }
    )
    assigned = threading.Event()

    def refuse(_: Consumer, places: list[TopicPartition]) -> None:
        member.assign([])
        assigned.set()

    member.subscribe([run.topics.flows], on_assign=refuse)
    run.until(lambda: member.poll(0) is None and assigned.is_set(), "its partitions")
    member.close()


def test_instances_that_join_and_leave_while_batches_fill(harness: Callable[..., Harness]) -> None:
    # The group rebalances while a worker holds the first records of a batch.
    run = harness(options=FILLING, workers=1, rate=FEW)
    other = run.add("other", 1)
    other.start()
    run.until(lambda: "partitions assigned" in other.log_file.read_text(), "its partitions")
    run.more()
    run.remove(other)
    for _ in range(ATTEMPTS):
        run.flowing()
        run.pause(2.0)
        pass_through(run)
        if had_in_hand(run, "partitions revoked"):
            break
    assert had_in_hand(run, "partitions revoked")
    run.flowing()
    check(run)


def test_the_broker_killed_in_mid_stream(harness: Callable[..., Harness], kafka: FaultyKafka) -> None:
    run = harness()
    run.cause(Fault("kill broker", lasts_s=TOO_OLD_S))
    run.flowing()
    run.cause(Fault("restart broker"))
    run.flowing()
    check(run)


def test_the_brokers_disk_full(harness: Callable[..., Harness], kafka: FaultyKafka) -> None:
    run = harness()
    sleeper = run.sign("stop-before-commit")
    kafka.fill_disk()
    run.until(lambda: not kafka.is_alive, "the broker's end")
    run.pause(TOO_OLD_S)
    kafka.start()
    run.thaw(sleeper)
    run.flowing()
    check(run)


def test_partitions_that_are_added(harness: Callable[..., Harness]) -> None:
    run = harness(partitions=2)
    for _ in range(2):
        run.pause(5.0)  # by then no worker joins once more, as it does after its start: it must look for partitions
        run.cause(Fault("raise partitions"))
        run.flowing()
    check(run)


def test_a_network_that_stalls_for_longer_than_requests_and_transactions_may_take(
    harness: Callable[..., Harness], kafka: FaultyKafka
) -> None:
    run = harness()
    sleeper = run.sign("stop-before-commit")
    kafka.proxy.stall()
    run.thaw(sleeper)
    run.pause(TOO_OLD_S + 6)  # the broker looks every 5 s
    kafka.proxy.resume()
    run.flowing()
    check(run)
    assert run.main.told()["warning: producer is given up"] >= 1


def test_connections_that_are_cut_and_refused(harness: Callable[..., Harness]) -> None:
    run = harness()
    for kind in ("cut network", "cut network", "refuse connections"):
        run.cause(Fault(kind, lasts_s=2.0))
        run.flowing()
    check(run)


def test_clients_that_are_told_that_there_are_no_brokers(harness: Callable[..., Harness]) -> None:
    # So the last broker answers that shuts down; a client that hears it never finds one again.
    run = harness()
    for _ in range(ATTEMPTS):
        run.cause(Fault("name no broker", lasts_s=2.0))
        run.flowing()
        told = run.main.log_file.read_text()
        if "the client library forgot" in told and "producer is given up" in told:
            break
    check(run)
    assert "the client library forgot" in told and "producer is given up" in told


def test_a_subscriber_that_is_told_that_there_are_no_brokers(kafka: FaultyKafka) -> None:
    topic, stop, ids = f"alerts-{uuid.uuid4().hex[:8]}", threading.Event(), list[str]()
    kafka.create(topic, 1)

    def subscribed() -> None:
        asks: dict[str, str | int | float | bool] = {"topic.metadata.refresh.interval.ms": 300}
        for seen in subscribe(kafka.proxied, topic, kafka=asks, from_beginning=True, min_severity=None, stop=stop):
            ids.append(seen.id)

    def arrive(count: int) -> bool:
        deadline = time.monotonic() + 60
        while len(ids) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        return len(ids) == count

    thread = threading.Thread(target=subscribed)
    thread.start()
    try:
        for number in range(3):
            produce(kafka.direct, topic, [alert(number).model_dump_json().encode()])
            assert arrive(number + 1)
            kafka.proxy.name_no_broker()
            kafka.proxy.cut()
            time.sleep(1.5)
            kafka.proxy.name_brokers()
        produce(kafka.direct, topic, [alert(3).model_dump_json().encode()])
        assert arrive(4)
    finally:
        stop.set()
        thread.join(30)
        kafka.heal()
    assert ids == [f"flows-0-{number}" for number in range(4)]


def test_a_worker_that_waits_for_its_topics_and_is_told_that_there_are_no_brokers(kafka: FaultyKafka) -> None:
    topic, stop = f"late-{uuid.uuid4().hex[:8]}", threading.Event()
    params = Params(stream=StreamParams(bundle=BUNDLE, bootstrap_servers=kafka.proxied))
    with ThreadPoolExecutor() as aside:
        found = aside.submit(
            wait_for_topics, admin_properties(params), {topic: PLAIN}, create=False, stopping=stop.is_set
        )
        try:
            time.sleep(1.5)
            kafka.proxy.name_no_broker()
            kafka.proxy.cut()
            time.sleep(3)
            kafka.heal()
            kafka.create(topic, 1)
            assert found.result(30)
        finally:
            stop.set()


def test_a_batch_that_could_not_be_published_is_done_again(harness: Callable[..., Harness], kafka: FaultyKafka) -> None:
    # Messages time out, and their transaction with them, long before the worker would lose its partitions.
    run = harness(options=("--set", "kafka.message.timeout.ms=1000"))

    def done_again() -> bool:
        lines = [line for line in run.main.log_lines() if isinstance(line, dict)]
        return any(line["event"] == "batch is done again" and "Message timed out" in line["why"] for line in lines)

    kafka.proxy.lose_messages()
    run.until(done_again, "a batch of which messages timed out")
    kafka.proxy.forward_messages()
    run.flowing()
    check(run)


def test_a_clock_that_jumps(harness: Callable[..., Harness], tmp_path: Path) -> None:
    """The clock of the service's processes, librdkafka's threads too; time goes on evenly."""
    clock = Clock(tmp_path)
    run = harness(environment=clock.environment, options=("--batch-size", "4096"))
    for ahead_s in (7200, -7200, 0):
        clock.set(ahead_s)
        run.pause(2.0)
        run.more()
    check(run)


def poison() -> Given:
    """A flow that a bug meets: scoring it raises."""
    [value] = {each.value for each in flows()[:1]}
    assert value is not None
    before, _, after = value.partition(b'"Flow Duration":')
    return Given(before + b'"Flow Duration":' + POISON.encode() + b"," + after.split(b",", 1)[1], reason=Reason.POISON)


def test_a_record_that_a_bug_meets_is_set_aside_alone_if_that_is_wanted(harness: Callable[..., Harness]) -> None:
    run = harness(
        more=[poison()],
        environment={"FLOWSENTRY_TEST_POISON": POISON},
        options=("--set", "stream.on_poison=dead-letter"),
    )
    for partition in (0, 3):
        run.feed.give_one(len(run.given) - 1, partition)
    run.flowing()
    check(run)


def test_a_record_that_a_bug_meets_stops_its_partition_there_until_the_bug_is_mended(
    harness: Callable[..., Harness], kafka: FaultyKafka
) -> None:
    run = harness(more=[poison()], environment={"FLOWSENTRY_TEST_POISON": POISON})
    offset = run.feed.give_one(len(run.given) - 1, 0)
    run.until(lambda: f"{run.topics.flows}-0-{offset}" in run.main.log_file.read_text(), "a message that says where")
    run.pause(2.0)
    assert committed(kafka.direct, run.topics.group, run.topics.flows)[0] <= offset
    assert all(place < (0, offset) for place in run.watch.counts if place[0] == 0)

    del run.main.environment["FLOWSENTRY_TEST_POISON"]  # mended
    run.main.send(run.main.pid, signal.SIGTERM)
    run.given[-1] = Given(run.given[-1].value, 0.0, alert=False)
    run.flowing()
    report = run.finish()
    assert (report.outcome.wrong, report.outcome.feed) == ({}, [])


@pytest.mark.parametrize("part", [0, 1])
def test_faults_at_random(kafka: FaultyKafka, tmp_path: Path, part: int) -> None:
    """Every kind of fault once, in an order that the seed decides."""
    kafka.heal()
    faults = every_kind(20171103, list(KINDS))[part::2]
    replay = f"python -m pytest 'tests/faults/test_faults.py::test_faults_at_random[{part}]'"
    report = run_faults(kafka, tmp_path, faults, seed=20171103 + part, replay=replay)
    assert report.problems == []
