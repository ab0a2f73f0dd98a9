"""A bundle is exchanged under load, through the service as its users run it: each flow is judged once, by one of the two.

The second bundle takes benign flows for attacks and the reverse, so every record of the topic says which of the two judged
it: an alert on an attack came from the first, one on a benign flow from the second, and none can be missing unseen.
"""

import os
import shutil
import signal
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from export.bundle import MODEL, read_bundle
from tests.bundles import make_bundle
from tests.kafka import committed, produce, read_all, wait_until_consumed
from tests.stream.rig import Command, alerts_on, attack, benign, command, workers_of

DATASET = "unsw-nb15"
CHUNK = 100


@contextmanager
def load_on(servers: str, topic: str) -> Iterator[None]:
    """Attacks and benign flows by turns on a topic, without end, while other things happen."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.wait(0.02):
                produce(servers, topic, [attack(), benign()] * (CHUNK // 2))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert failures == []


@contextmanager
def service(servers: str, bundle: Path, flows: str, *options: str) -> Iterator[Command]:
    """`python -m stream run` on its own topics, which must end well; and in small batches, so that there are many."""
    words = ["run", "--bundle", str(bundle), "--bootstrap-servers", servers, "--input", flows, "--group", flows]
    words += ["--alerts", f"{flows}.alerts", "--dead-letters", f"{flows}.dead", "--create-topics"]
    with command(*words, "--metrics-port", "0", "--batch-size", "40", *options) as running:
        running.logged("running")
        yield running
        assert running.stop() == 0


def judged_by(servers: str, flows: str, old: str, new: str) -> dict[str, int]:
    """Check each record of the topic against the alerts; how many records each of the two bundles judged."""
    alerts = alerts_on(servers, f"{flows}.alerts")
    hash_of = {alert.id: alert.bundle.hash for alert in alerts}
    assert len(hash_of) == len(alerts), "an alert came twice"
    records: dict[int, list[bool]] = defaultdict(list)
    for message in read_all(servers, flows):
        records[message.partition() or 0].append(message.value() == attack())
    counts = {old: 0, new: 0}
    for partition, are_attacks in records.items():
        hashes = [hash_of.pop(f"{flows}-{partition}-{offset}", None) for offset in range(len(are_attacks))]
        # Of one bundle's records exactly the attacks have an alert, of the other's exactly the benign flows.
        judges = [
            old if is_attack == (hash is not None) else new for is_attack, hash in zip(are_attacks, hashes, strict=True)
        ]
        assert {(hash, judge) for hash, judge in zip(hashes, judges, strict=True) if hash} <= {(old, old), (new, new)}
        switch = judges.index(new) if new in judges else len(judges)
        assert set(judges[:switch]) <= {old}
        assert set(judges[switch:]) <= {new}, f"partition {partition}: more than one switch"
        counts[old] += switch
        counts[new] += len(judges) - switch
    assert hash_of == {}, "alerts on records that are not there"
    return counts


@pytest.fixture
def old_and_new(tmp_path: Path) -> tuple[Path, Path]:
    """The two bundles, beside each other."""
    return (
        make_bundle(tmp_path / "old", DATASET, version="1"),
        make_bundle(tmp_path / "new", DATASET, version="2", gain=-1.0),
    )


def hash_of(bundle: Path) -> str:
    return read_bundle(bundle).manifest.hash


@pytest.mark.parametrize("workers", [1, 2])
def test_a_link_is_switched_under_load_and_every_flow_is_judged_once_by_one_of_the_two(
    bootstrap_servers: str, topic: Callable[..., str], tmp_path: Path, old_and_new: tuple[Path, Path], workers: int
) -> None:
    flows, (old, new), live = topic("flows", 4), old_and_new, tmp_path / "live"
    live.symlink_to(old)
    with service(bootstrap_servers, live, flows, "--workers", str(workers)) as running:
        # A partition that goes to a worker which has not switched yet would be judged by the old one again.
        running.until(
            lambda: members(bootstrap_servers, flows) == [4 // workers] * workers, "partitions of each worker"
        )
        with load_on(bootstrap_servers, flows):
            running.until(lambda: done(bootstrap_servers, flows) > CHUNK, "flows that the old one judged")
            (tmp_path / "next").symlink_to(new)
            (tmp_path / "next").replace(live)
            running.until(lambda: takeovers(running) == workers, "the new bundle in every worker")
        produce(bootstrap_servers, flows, [attack(), benign()] * CHUNK)
        wait_until_consumed(bootstrap_servers, flows, flows)
    line = running.logged("bundle takes over")
    assert (line["old"], line["new"]) == (hash_of(old)[:12], hash_of(new)[:12])
    assert line["rows"] == line["verdicts_differing"] > 0
    counts = judged_by(bootstrap_servers, flows, hash_of(old), hash_of(new))
    assert min(counts.values()) >= CHUNK, counts
    assert read_all(bootstrap_servers, f"{flows}.dead") == []


def done(servers: str, flows: str) -> int:
    """Records that the service has committed so far."""
    return sum(max(0, offset) for offset in committed(servers, flows, flows).values())


def members(servers: str, group: str) -> list[int]:
    """How many partitions each member of a consumer group has."""
    admin = AdminClient({"bootstrap.servers": servers})
    described = admin.describe_consumer_groups([group])[group].result(10)
    return [len(member.assignment.topic_partitions) for member in described.members]


def takeovers(running: Command) -> int:
    return sum(line["event"] == "bundle takes over" for line in running.logs)


def test_a_directory_is_swapped_under_load(
    bootstrap_servers: str, topic: Callable[..., str], tmp_path: Path, old_and_new: tuple[Path, Path]
) -> None:
    flows, (old, new) = topic("flows", 2), old_and_new
    live = Path(shutil.copytree(old, tmp_path / "live"))
    with service(bootstrap_servers, live, flows) as running:
        with load_on(bootstrap_servers, flows):
            running.until(lambda: done(bootstrap_servers, flows) > CHUNK, "flows that the old one judged")
            live.rename(tmp_path / "aside")
            shutil.copytree(new, tmp_path / "incoming").rename(live)
            running.until(lambda: takeovers(running) == 1, "the new bundle")
        produce(bootstrap_servers, flows, [attack(), benign()] * CHUNK)
        wait_until_consumed(bootstrap_servers, flows, flows)
    counts = judged_by(bootstrap_servers, flows, hash_of(old), hash_of(new))
    assert min(counts.values()) >= CHUNK, counts


def test_a_bad_bundle_is_refused_and_counted_under_load_and_a_good_one_after_it_is_taken(
    bootstrap_servers: str, topic: Callable[..., str], tmp_path: Path, old_and_new: tuple[Path, Path]
) -> None:
    flows, (old, new), live = topic("flows", 2), old_and_new, tmp_path / "live"
    damaged = Path(shutil.copytree(new, tmp_path / "damaged"))
    (damaged / MODEL).write_bytes((damaged / MODEL).read_bytes()[:-1])
    other = make_bundle(tmp_path / "other", "cicids2017")
    live.symlink_to(old)
    with service(bootstrap_servers, live, flows) as running:
        with load_on(bootstrap_servers, flows):
            running.until(lambda: done(bootstrap_servers, flows) > CHUNK, "flows that the old one judged")
            for number, (target, why) in enumerate([(damaged, "sha256 is"), (other, "is of data set cicids2017")]):
                (tmp_path / "next").symlink_to(target)
                (tmp_path / "next").replace(live)
                line = running.logged("bundle refused", why=why)
                assert line["goes_on_with"] == hash_of(old)[:12]
                with urllib.request.urlopen(running.logged("running")["metrics"]) as answer:
                    assert f"flowsentry_bundle_refusals_total {number + 1}.0" in answer.read().decode()
            assert takeovers(running) == 0
            (tmp_path / "next").symlink_to(new)
            (tmp_path / "next").replace(live)
            running.until(lambda: takeovers(running) == 1, "the new bundle")
        produce(bootstrap_servers, flows, [attack(), benign()] * CHUNK)
        wait_until_consumed(bootstrap_servers, flows, flows)
    counts = judged_by(bootstrap_servers, flows, hash_of(old), hash_of(new))
    assert min(counts.values()) >= CHUNK, counts


@pytest.mark.parametrize("what", ["damaged", "of another data set", "gone"])
def test_a_worker_that_dies_while_a_bad_bundle_is_there_goes_on_with_the_good_one(
    bootstrap_servers: str, topic: Callable[..., str], tmp_path: Path, old_and_new: tuple[Path, Path], what: str
) -> None:
    flows, (old, new) = topic("flows"), old_and_new
    live = Path(shutil.copytree(new, tmp_path / "live"))
    with service(bootstrap_servers, live, flows) as running:
        produce(bootstrap_servers, flows, [benign()])
        wait_until_consumed(bootstrap_servers, flows, flows)
        live.rename(tmp_path / "aside")
        shutil.copytree(old, tmp_path / "incoming").rename(live)
        running.until(lambda: load_once(bootstrap_servers, flows) and takeovers(running) == 1, "the next bundle")
        running.logged("bundle kept for workers that are started again", bundle=hash_of(old)[:12])
        live.rename(tmp_path / "good")
        if what == "damaged":
            shutil.copytree(new, live)
            (live / MODEL).write_bytes(b"nothing")
        elif what == "of another data set":
            make_bundle(live, "cicids2017")
        killed = workers_of(running.process.pid)
        os.kill(killed[0], signal.SIGKILL)
        assert running.logged("worker died and is started again")["status"] == -signal.SIGKILL
        running.until(lambda: workers_of(running.process.pid) not in ([], killed), "another worker")
        produce(bootstrap_servers, flows, [attack()] * 3)
        wait_until_consumed(bootstrap_servers, flows, flows)
        assert running.logged("bundle refused")["goes_on_with"] == hash_of(old)[:12]
    last = [alert.bundle.hash for alert in alerts_on(bootstrap_servers, f"{flows}.alerts")[-3:]]
    assert last == [hash_of(old)] * 3
    assert read_all(bootstrap_servers, f"{flows}.dead") == []


def load_once(servers: str, flows: str) -> bool:
    """A few flows to try a new bundle on."""
    produce(servers, flows, [attack(), benign()])
    return True
