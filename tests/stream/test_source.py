"""Records out of a real Kafka: in batches, byte for byte, and again when a batch was not to be."""

import inspect
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from schemas.errors import FlowsentryError
from stream.batch import Batch, FlowRecord, headers_of
from stream.clients import consumer_properties
from stream.metrics import Metrics
from stream.sink import RetryBatch
from stream.source import Source
from stream.status import Status
from tests.kafka import produce
from tests.stream.rig import Logs, Rig, commit, denied, put, settled_limit

PATIENCE_S = 60.0


def record(partition: int, offset: int, topic: str = "flows") -> FlowRecord:
    return FlowRecord(topic, partition, offset, None, b"%d" % offset, (), 0)


def places(offsets: list[TopicPartition]) -> dict[tuple[str, int], int]:
    return {(place.topic, place.partition): place.offset for place in offsets}


def test_a_batch_ends_one_after_the_last_and_begins_at_the_first_of_each_partition() -> None:
    batch = Batch([record(1, 7), record(0, 3), record(1, 8), record(0, 5), record(2, 0), record(1, 9, "other")])
    assert places(batch.next_offsets) == {
        ("flows", 1): 9, ("flows", 0): 6, ("flows", 2): 1, ("other", 1): 10
    }  # fmt: skip
    assert places(batch.first_offsets) == {
        ("flows", 1): 7, ("flows", 0): 3, ("flows", 2): 0, ("other", 1): 9
    }  # fmt: skip
    assert batch.values == [b"7", b"3", b"8", b"5", b"0", b"9"]
    assert len(batch) == 6
    assert Batch([]).next_offsets == Batch([]).first_offsets == []


def test_a_record_s_id_is_its_place_and_its_time_kafka_s() -> None:
    one = FlowRecord("my-flows", 2, 41, None, None, (), 1_499_428_975_371)
    assert one.id == "my-flows-2-41"
    assert one.time == datetime(2017, 7, 7, 12, 2, 55, 371_000, UTC)


def test_keys_values_headers_and_times_come_as_they_are_null_or_not(rig: Callable[..., Rig]) -> None:
    place = rig()
    producer = Producer({"bootstrap.servers": place.servers})
    headers: list[tuple[str, str | bytes | None]] = [("a", b"\xff"), ("b", None), ("a", b"")]
    producer.produce(place.flows, key=b"\x00key", value=b"\xfevalue", headers=headers, timestamp=1_499_428_975_371)
    producer.produce(place.flows, key=None, value=None)
    producer.produce(place.flows, key=b"", value=b"")
    assert producer.flush(30) == 0
    first, null, empty = place.batch(place.source(), 3).records
    assert (first.key, first.value, first.timestamp_ms) == (b"\x00key", b"\xfevalue", 1_499_428_975_371)
    assert first.headers == (("a", b"\xff"), ("b", None), ("a", b""))
    assert (null.key, null.value, null.headers) == (None, None, ())
    assert (empty.key, empty.value) == (b"", b"")
    assert [each.id for each in (first, null, empty)] == [f"{place.flows}-0-{offset}" for offset in range(3)]
    assert abs(null.timestamp_ms / 1000 - time.time()) < 60


def test_headers_in_any_form_that_the_client_gives() -> None:
    as_dict = cast(Message, SimpleNamespace(headers=lambda: {"a": "text", "b": None}))
    none = cast(Message, SimpleNamespace(headers=lambda: None))
    assert headers_of(as_dict) == (("a", b"text"), ("b", None))
    assert headers_of(none) == ()


def test_a_batch_is_full_or_what_came_in_time(rig: Callable[..., Rig]) -> None:
    place = rig()
    produce(place.servers, place.flows, [b"%d" % number for number in range(7)])
    source = place.source(batch_size=3, max_wait_s=0.3)
    sizes: list[int] = []
    deadline = time.monotonic() + PATIENCE_S
    while sum(sizes) < 7:
        assert time.monotonic() < deadline
        sizes += [size] if (size := len(source.poll())) else []
    assert max(sizes) == 3
    began = time.monotonic()
    assert len(source.poll()) == 0
    assert 0.2 < time.monotonic() - began < 5


def test_lags_before_the_first_record_and_after(rig: Callable[..., Rig]) -> None:
    place = rig(4)
    put(place.servers, place.flows, {0: 4, 1: 5, 2: 6})
    commit(place, {1: 2, 2: 6})  # of 2, a former worker has done everything
    source = place.source(batch_size=1, max_wait_s=0.05)
    assert source.lags() == {}, "nothing is known yet"
    to_come = {0: 4, 1: 3, 2: 0, 3: 0}
    lags: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE_S
    while lags != {0: 0, 1: 0, 2: 0, 3: 0}:
        assert time.monotonic() < deadline, lags
        for each in source.poll().records:
            to_come[each.partition] -= 1
        lags = source.lags()
        assert lags.items() <= to_come.items()
    put(place.servers, place.flows, {3: 6})
    place.batch(source, 1)
    assert source.lags()[3] == 5


def test_rewinding_gives_the_batch_again(rig: Callable[..., Rig]) -> None:
    place = rig(2)
    put(place.servers, place.flows, {0: 3, 1: 2})
    source = place.source()
    batch = place.batch(source, 5)
    for _ in range(2):
        source.rewind(batch)
        again = place.batch(source, 5)
        assert sorted(each.id for each in again.records) == sorted(each.id for each in batch.records)
    assert source.lags() == {0: 0, 1: 0}


def test_a_partition_that_is_another_s_by_now_is_not_rewound(rig: Callable[..., Rig]) -> None:
    place = rig()
    put(place.servers, place.flows, {0: 2})
    source = place.source()
    batch = place.batch(source, 2)
    source.rewind(Batch([record(9, 0, place.flows), record(0, 0, "elsewhere")]))
    assert len(source.poll()) == 0
    source.rewind(batch)
    place.batch(source, 2)


def test_partitions_are_shared_with_a_second_worker_and_each_record_goes_to_one(
    rig: Callable[..., Rig], logs: Logs
) -> None:
    place = rig(2)
    first, second = place.source(), place.source()
    deadline = time.monotonic() + PATIENCE_S
    while not len(first.lags()) == len(second.lags()) == 1:
        assert time.monotonic() < deadline, "the partitions were not shared"
        first.poll(), second.poll()
    put(place.servers, place.flows, {0: 3, 1: 4})
    ids: list[str] = []
    while len(ids) < 7:
        assert time.monotonic() < deadline
        ids += [each.id for source in (first, second) for each in source.poll().records]
    assert len(set(ids)) == 7
    assert {each for line in logs.of("partitions assigned") for each in line["partitions"]} == {0, 1}


@contextmanager
def joining(place: Rig, read: list[str]) -> Iterator[None]:
    """A second member that comes when the first has read something, commits what it reads and notes its ids."""
    stop = threading.Event()

    def member() -> None:
        while not place.sources[0]._in_hand and not stop.wait(0.05):
            pass
        time.sleep(0.5)
        source = place.source(max_wait_s=0.1)
        while not stop.is_set():
            batch = source.poll()
            if len(batch):
                source.consumer.commit(offsets=batch.next_offsets, asynchronous=False)
                read.extend(each.id for each in batch.records)

    thread = threading.Thread(target=member)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("drained", [True, False], ids=["drained", "not drained"])
def test_what_is_in_hand_when_partitions_are_revoked_is_done_once(
    rig: Callable[..., Rig], logs: Logs, drained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.source._LOOK_UP_S", 30.0)  # else no record is long in the client library's call
    place = rig(2)
    put(place.servers, place.flows, {0: 100, 1: 100})
    first = place.source(batch_size=1000, max_wait_s=30)  # holds all records in hand when the second member comes
    done: list[str] = []
    read: list[str] = []

    def finish(batch: Batch) -> None:
        first.consumer.commit(offsets=batch.next_offsets, asynchronous=False)
        done.extend(each.id for each in batch.records)

    def drain(batch: Batch) -> None:
        if not drained:
            raise RetryBatch("Kafka is away")
        finish(batch)

    first.drain = drain
    deadline = time.monotonic() + PATIENCE_S
    with joining(place, read):
        while len(done) + len(read) < 200:
            assert time.monotonic() < deadline, (len(done), len(read))
            if len(batch := first.poll()):
                finish(batch)
    assert len({*done, *read}) == len(done) + len(read) == 200
    in_hand = max(line["in_hand"] for line in logs.of("partitions revoked"))
    assert 100 < in_hand < 200, "some were still in the client library's call; they are dropped, and read again"
    assert bool(logs.of("not drained, left to the next owner")) is not drained
    assert len(read) < 10 if drained else len(read) == 100


def test_partitions_that_were_added_while_a_member_was_away_are_shared_out(rig: Callable[..., Rig]) -> None:
    place = rig(2)
    put(place.servers, place.flows, {0: 1, 1: 1})
    place.batch(first := place.source(), 2)
    first.close()
    place.sources.clear()  # the next one has the same name
    admin = AdminClient({"bootstrap.servers": place.servers})
    admin.create_partitions([NewPartitions(place.flows, 3)])[place.flows].result(30)
    while len(admin.list_topics(place.flows, timeout=10).topics[place.flows].partitions) < 3:
        time.sleep(0.1)
    put(place.servers, place.flows, {2: 1})
    second = place.source(ownership=place.ownership)
    deadline = time.monotonic() + PATIENCE_S
    found: list[str] = []
    while f"{place.flows}-2-0" not in found:
        assert time.monotonic() < deadline, found
        found += [each.id for each in second.poll().records]


def test_records_of_a_partition_that_was_lost_are_dropped_not_done(rig: Callable[..., Rig], logs: Logs) -> None:
    place = rig()
    put(place.servers, place.flows, {0: 10})
    impatient: dict[str, Any] = {"max.poll.interval.ms": 6000, "session.timeout.ms": 6000}
    source = place.source(max_wait_s=1, **impatient)
    batch = place.batch(source, 10)
    time.sleep(8)  # too late for the group, which takes the partition away
    again = place.batch(source, 10)
    assert [each.id for each in again.records] == [each.id for each in batch.records]
    assert len(logs.of("partitions lost")) == 1


def test_a_topic_that_is_gone_is_named_in_the_log_and_stops_nothing(rig: Callable[..., Rig], logs: Logs) -> None:
    place = rig()
    consumer = place.source().consumer
    source = place.source_of(consumer, f"{place.flows}-gone")
    deadline = time.monotonic() + PATIENCE_S
    while not (told := logs.of("consumer")):
        assert time.monotonic() < deadline
        assert len(source.poll()) == 0
    assert f"{place.flows}-gone" in told[0]["error"] and "Unknown topic" in told[0]["error"]


class FakeConsumer:
    """A consumer that has nothing but trouble."""

    def __init__(self, *errors: KafkaError) -> None:
        self._errors = errors

    def subscribe(self, topics: list[str], **_: Any) -> None:
        self.topics = topics

    def consume(self, *_: Any) -> list[Any]:
        errors, self._errors = self._errors, ()
        return [SimpleNamespace(error=lambda error=error: error) for error in errors]

    def committed(self, *_: Any, **__: Any) -> list[TopicPartition]:
        raise KafkaException(self._errors[0])


def troubled(*errors: KafkaError) -> Source:
    return Source(
        cast(Consumer, FakeConsumer(*errors)),
        "flows",
        limit=settled_limit(10),
        max_wait_s=0.1,
        max_batch_bytes=1 << 20,
        status=Status(),
        metrics=Metrics(),
        probe=lambda: cast(Consumer, FakeConsumer()),
        denied=denied,
        ownership=None,
        start=OFFSET_BEGINNING,
        step_by_step=False,
    )


@pytest.mark.parametrize("code", [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED])
def test_being_refused_is_an_error_that_says_so(code: int) -> None:
    with pytest.raises(FlowsentryError, match="denied: no, not you"):
        troubled(KafkaError(code, "no, not you")).poll()


def test_a_consumer_that_cannot_go_on_is_an_error_and_what_passes_is_logged(logs: Logs) -> None:
    passing = KafkaError(KafkaError._TRANSPORT, "away for a moment")
    assert len(troubled(passing).poll()) == 0
    assert [line["error"] for line in logs.of("consumer")] == ["away for a moment"]
    with pytest.raises(FlowsentryError, match="the consumer cannot go on: someone has my name"):
        troubled(passing, KafkaError(KafkaError._FATAL, "someone has my name", fatal=True)).poll()


def test_losing_partitions_is_a_warning(logs: Logs) -> None:
    source = troubled()
    source._lost(source.consumer, [TopicPartition("flows", 1), TopicPartition("flows", 2)])
    assert [(line["level"], line["partitions"]) for line in logs.of("partitions lost")] == [("warning", [1, 2])]


BOMB = b"a" * 40_000_000


def packed(place: Rig, *batches: list[bytes]) -> None:
    """Each list in one batch, small as zstd and too large for a consumer."""
    wide: dict[str, Any] = {"compression.type": "zstd", "linger.ms": 5000, "message.max.bytes": 1_000_000_000}
    wide |= {"batch.size": 1_000_000_000, "queue.buffering.max.kbytes": 1_000_000}
    producer = Producer({"bootstrap.servers": place.servers, **wide})
    for values in batches:
        for value in values:
            producer.produce(place.flows, value)
        assert producer.flush(30) == 0


def committed_one_by_one(source: Source, count: int) -> list[FlowRecord]:
    """So many records, each batch's offsets committed."""
    found: list[FlowRecord] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < deadline, [each.id for each in found]
        batch = source.poll()
        found += batch.records
        if len(batch):
            source.consumer.commit(offsets=batch.next_offsets, asynchronous=False)
    return found


def test_a_batch_that_cannot_be_unpacked_is_named_record_by_record_and_passed(
    rig: Callable[..., Rig], logs: Logs
) -> None:
    place = rig()
    packed(place, [b"first"], [b"before", BOMB, b"after"], [BOMB], [b"last"])
    found = committed_one_by_one(place.source(batch_size=2), 6)
    assert [each.offset for each in found] == [0, 1, 2, 3, 4, 5]
    assert [each.value for each in found] == [b"first", None, None, None, None, b"last"]
    assert "with 2 others in a batch that cannot be unpacked" in found[1].undecodable
    assert "with 0 others" in found[4].undecodable and not found[5].undecodable
    assert [line["records"] for line in logs.of("undecodable batch")] == [3, 1]


def test_a_batch_that_cannot_be_unpacked_may_be_all_that_there_is(rig: Callable[..., Rig]) -> None:
    place = rig()
    packed(place, [b"before", BOMB, b"after"])
    source = place.source()
    assert [(each.offset, each.value) for each in committed_one_by_one(source, 3)] == [(0, None), (1, None), (2, None)]
    packed(place, [BOMB])
    assert [each.offset for each in committed_one_by_one(source, 1)] == [3]
    packed(place, [b"last"])
    assert [each.value for each in committed_one_by_one(source, 1)] == [b"last"]


def test_the_newer_protocol_can_be_taken(rig: Callable[..., Rig], logs: Logs) -> None:
    place = rig(2)
    put(place.servers, place.flows, {0: 3, 1: 4})
    kafka: dict[str, str | int | float | bool] = {"group.protocol": "consumer"}
    params = place.params.model_copy(update={"kafka": kafka})
    source = place.source_of(Consumer(consumer_properties(params, "one")), step_by_step=True)
    place.sources.append(source)
    assert len(place.batch(source, 7)) == 7


def test_a_batch_ends_where_it_has_enough_bytes(rig: Callable[..., Rig]) -> None:
    place = rig()
    producer = Producer({"bootstrap.servers": place.servers})
    for _ in range(300):
        producer.produce(place.flows, b"x" * 20_000, partition=0)
    assert producer.flush(30) == 0
    consumer = Consumer(consumer_properties(place.params, place.flows))
    source = place.source_of(consumer, batch_size=1000, max_wait_s=2.0, max_batch_bytes=1_000_000)
    sizes: list[int] = []
    until = time.monotonic() + PATIENCE_S
    while sum(sizes) < 300:
        assert time.monotonic() < until
        sizes.append(len(source.poll()))
    assert max(sizes) <= 64, "64 records are looked at together: more than a million bytes"
    source.close()


def test_waits_are_measured_by_a_clock_that_nobody_sets() -> None:
    assert inspect.signature(Source).parameters["clock"].default is time.monotonic
