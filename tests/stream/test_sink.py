"""Alerts, dead letters and offsets: together or not at all, whatever breaks."""

import random
from collections.abc import Callable
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.errors import FlowsentryError
from stream.sink import AtLeastOnceSink, Outgoing, RetryBatch, TransactionalSink
from stream.source import Source
from stream.topics import ROOMY, create_topics
from tests.kafka import committed, end_offsets, produce, read_all
from tests.stream.rig import Logs, Rig

# A topic that does not exist is otherwise hoped for during half a minute.
IMPATIENT: dict[str, Any] = {"topic.metadata.propagation.max.ms": 200}


class Crash(Exception):
    """What stands for a process that ends at once."""


def outgoing(topic: str, value: bytes | None = b"alert", **more: Any) -> Outgoing:
    return Outgoing(**{"topic": topic, "key": b"key", "value": value, "headers": [], **more})


def values(servers: str, topic: str) -> list[bytes | None]:
    return [message.value() for message in read_all(servers, topic)]


@pytest.fixture
def place(rig: Callable[..., Rig]) -> Rig:
    """A rig with three flows waiting."""
    made = rig()
    produce(made.servers, made.flows, [b"0", b"1", b"2"])
    return made


@pytest.fixture
def source(place: Rig) -> Source:
    """The worker's consumer, which has read the three."""
    made = place.source()
    place.batch(made, 3)
    return made


def offsets(place: Rig, offset: int = 3) -> list[TopicPartition]:
    return [TopicPartition(place.flows, 0, offset)]


def done(place: Rig) -> int:
    """The offset that is committed; negative where none is."""
    return committed(place.servers, place.flows, place.flows)[0]


def test_messages_and_offsets_go_in_one_transaction(place: Rig, source: Source) -> None:
    sink = TransactionalSink(place.producer(), source.consumer)
    sink.publish(
        [
            outgoing(place.alerts, b"first", headers=[("a", b"\xff"), ("b", None), ("a", b"")]),
            outgoing(place.dead, b"\xfegarbage", key=None),
            outgoing(place.alerts, b"second"),
            outgoing(place.dead, None),
        ],
        offsets(place, 2),
    )
    sink.close()
    assert values(place.servers, place.alerts) == [b"first", b"second"]
    assert values(place.servers, place.dead) == [b"\xfegarbage", None]
    assert done(place) == 2
    first, garbage = read_all(place.servers, place.alerts)[0], read_all(place.servers, place.dead)[0]
    assert (first.key(), garbage.key()) == (b"key", None)
    assert list(first.headers() or ()) == [("a", b"\xff"), ("b", None), ("a", b"")]
    # A transaction has an end mark in every topic that it wrote to.
    assert end_offsets(place.servers, place.alerts)[0] == end_offsets(place.servers, place.dead)[0] == 3


def test_a_batch_without_messages_still_commits_its_offsets(place: Rig, source: Source) -> None:
    TransactionalSink(place.producer(), source.consumer).publish([], offsets(place))
    assert done(place) == 3


def test_one_message_that_fails_takes_the_whole_batch_with_it(place: Rig, source: Source, logs: Logs) -> None:
    sink = TransactionalSink(place.producer(**IMPATIENT), source.consumer)
    with pytest.raises(RetryBatch, match="Unknown topic"):
        sink.publish([outgoing(place.alerts), outgoing(f"{place.alerts}-gone")], offsets(place))
    assert values(place.servers, place.alerts) == []
    assert done(place) < 0
    [line] = logs.of("transaction aborted")
    assert "Unknown topic" in line["error"]
    sink.publish([outgoing(place.alerts, b"again")], offsets(place))
    assert values(place.servers, place.alerts) == [b"again"]
    assert done(place) == 3


def test_a_worker_that_dies_before_the_commit_has_published_nothing(place: Rig, source: Source) -> None:
    class DiesBeforeCommit(Producer):
        def commit_transaction(self, *_: Any) -> None:
            self.flush(30)
            raise Crash

    with pytest.raises(Crash):
        TransactionalSink(place.producer(DiesBeforeCommit), source.consumer).publish(
            [outgoing(place.alerts), outgoing(place.dead)], offsets(place)
        )
    assert end_offsets(place.servers, place.alerts)[0] == 0, "read_committed sees an open transaction"
    assert values(place.servers, place.alerts) == values(place.servers, place.dead) == []

    restarted = TransactionalSink(place.producer(), source.consumer)
    assert done(place) < 0
    assert values(place.servers, place.alerts) == values(place.servers, place.dead) == []
    assert end_offsets(place.servers, place.alerts)[0] == 2, "the message and the abort stand there"
    restarted.publish([outgoing(place.alerts, b"once")], offsets(place))
    assert values(place.servers, place.alerts) == [b"once"]
    assert done(place) == 3


def test_a_second_worker_with_the_same_name_fences_the_first_which_says_what_to_do(
    place: Rig, source: Source, logs: Logs
) -> None:
    first = TransactionalSink(place.producer(), source.consumer)
    first.publish([outgoing(place.alerts, b"of the first")], offsets(place, 1))
    second = TransactionalSink(place.producer(), source.consumer)
    for _ in range(2):
        with pytest.raises(FlowsentryError, match=r"fenced: another worker .* its own stream\.instance"):
            first.publish([outgoing(place.alerts, b"of the fenced")], offsets(place, 2))
    second.publish([outgoing(place.alerts, b"of the second")], offsets(place, 3))
    assert values(place.servers, place.alerts) == [b"of the first", b"of the second"]
    assert done(place) == 3


class Troubled(Producer):
    """A real producer of which single calls fail, as `troubles` says: method → errors, in turn."""

    troubles: dict[str, list[KafkaError]]

    def _trouble(self, name: str) -> None:
        if errors := self.troubles.get(name):
            raise KafkaException(errors.pop(0))

    def commit_transaction(self, *timeout: float) -> None:
        self._trouble("commit")
        super().commit_transaction(*timeout)

    def abort_transaction(self, *timeout: float) -> None:
        self._trouble("abort")
        super().abort_transaction(*timeout)


def troubled(place: Rig, **troubles: list[KafkaError]) -> Troubled:
    producer = cast(Troubled, place.producer(Troubled))
    producer.troubles = troubles
    return producer


def test_ending_a_transaction_is_tried_until_kafka_is_back(place: Rig, source: Source, logs: Logs) -> None:
    away = [KafkaError(KafkaError._TIMED_OUT, "away", retriable=True) for _ in range(4)]
    abortable = KafkaError(KafkaError._INCONSISTENT, "broken", txn_requires_abort=True)
    sink = TransactionalSink(troubled(place, commit=[*away[:2], abortable], abort=away[2:]), source.consumer)
    with pytest.raises(RetryBatch, match="broken"):
        sink.publish([outgoing(place.alerts, b"first try")], offsets(place))
    assert len(logs.of("commit is retried")) == len(logs.of("abort is retried")) == 2
    sink.publish([outgoing(place.alerts, b"second try")], offsets(place))
    assert values(place.servers, place.alerts) == [b"second try"]


def test_being_fenced_while_aborting_is_said_as_well(place: Rig, source: Source) -> None:
    abortable = KafkaError(KafkaError._INCONSISTENT, "broken", txn_requires_abort=True)
    fenced = KafkaError(KafkaError.PRODUCER_FENCED, "someone else")
    sink = TransactionalSink(troubled(place, commit=[abortable], abort=[fenced]), source.consumer)
    with pytest.raises(FlowsentryError, match=r"stream\.instance"):
        sink.publish([outgoing(place.alerts)], offsets(place))


def test_a_producer_that_cannot_go_on_says_so(place: Rig, source: Source) -> None:
    fatal = KafkaError(KafkaError.UNKNOWN_PRODUCER_ID, "who are you", fatal=True)
    sink = TransactionalSink(troubled(place, commit=[fatal]), source.consumer)
    with pytest.raises(FlowsentryError, match="the producer cannot go on: who are you"):
        sink.publish([outgoing(place.alerts)], offsets(place))


def at_least_once(place: Rig, consumer: Consumer, **kafka: str | int) -> AtLeastOnceSink:
    producer = Producer({"bootstrap.servers": place.servers, "enable.idempotence": True, "log_level": 0, **kafka})
    return AtLeastOnceSink(producer, consumer)


def test_at_least_once_commits_what_is_confirmed(place: Rig, source: Source) -> None:
    sink = at_least_once(place, source.consumer)
    sink.publish([outgoing(place.alerts), outgoing(place.dead)], offsets(place))
    sink.close()
    assert values(place.servers, place.alerts) == values(place.servers, place.dead) == [b"alert"]
    assert done(place) == 3


def test_at_least_once_commits_nothing_when_a_message_is_not_confirmed(place: Rig, source: Source) -> None:
    sink = at_least_once(place, source.consumer, **{"message.timeout.ms": 500, **IMPATIENT})
    with pytest.raises(RetryBatch, match=r"Unknown topic|timed out"):
        sink.publish([outgoing(place.alerts), outgoing(f"{place.alerts}-gone")], offsets(place))
    assert done(place) < 0
    sink.publish([outgoing(place.alerts)], offsets(place))
    assert values(place.servers, place.alerts) == [b"alert", b"alert"], "that is what at least once means"
    assert done(place) == 3


def test_at_least_once_does_not_wait_for_ever(place: Rig, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.sink._TIMEOUT_S", 0.2)
    sink = at_least_once(place, source.consumer, **{"bootstrap.servers": "127.0.0.1:1"})
    with pytest.raises(RetryBatch, match="1 messages not confirmed in 0 s"):
        sink.publish([outgoing(place.alerts)], offsets(place))
    assert done(place) < 0


class LosesItsPlace:
    """A consumer whose first commits are refused, as after its partitions went to another."""

    def __init__(self, consumer: Consumer, *errors: KafkaError) -> None:
        self._consumer, self._errors = consumer, list(errors)

    def commit(self, **arguments: Any) -> None:
        if self._errors:
            raise KafkaException(self._errors.pop(0))
        self._consumer.commit(**arguments)


def test_at_least_once_does_a_batch_again_whose_offsets_could_not_be_committed(place: Rig, source: Source) -> None:
    lost = KafkaError(KafkaError.ILLEGAL_GENERATION, "you were away")
    consumer = cast(Consumer, LosesItsPlace(source.consumer, lost))
    sink = at_least_once(place, consumer)
    with pytest.raises(RetryBatch, match="you were away"):
        sink.publish([outgoing(place.alerts)], offsets(place))
    assert done(place) < 0
    sink.publish([outgoing(place.alerts)], offsets(place))
    assert done(place) == 3


def test_at_least_once_ends_when_the_consumer_cannot_go_on(place: Rig, source: Source) -> None:
    fatal = KafkaError(KafkaError.FENCED_INSTANCE_ID, "someone has my name", fatal=True)
    consumer = cast(Consumer, LosesItsPlace(source.consumer, fatal))
    with pytest.raises(FlowsentryError, match="cannot go on: someone has my name"):
        at_least_once(place, consumer).publish([outgoing(place.alerts)], offsets(place))


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_a_message_that_no_retry_makes_smaller_is_an_error_not_an_endless_loop(
    place: Rig, source: Source, guarantee: str
) -> None:
    noise = random.Random(1).randbytes(1_100_000)  # more than a topic takes by default, and compression does not help
    sink = (
        TransactionalSink(place.producer(), source.consumer)
        if guarantee == "exactly-once"
        else at_least_once(place, source.consumer, **{"message.max.bytes": ROOMY})
    )
    with pytest.raises(FlowsentryError, match=r"too large .*max\.message\.bytes"):
        sink.publish([outgoing(place.alerts), outgoing(place.dead, noise)], offsets(place))
    assert done(place) < 0
    if guarantee == "exactly-once":
        assert values(place.servers, place.alerts) == []


def test_a_large_dead_letter_fits_the_topic_that_is_made_for_it(place: Rig, source: Source) -> None:
    roomy = f"{place.dead}-roomy"
    admin = AdminClient({"bootstrap.servers": place.servers})
    create_topics(admin, [roomy], roomy=[roomy])
    noise = random.Random(1).randbytes(5_000_000)
    try:
        TransactionalSink(place.producer(), source.consumer).publish([outgoing(roomy, noise)], offsets(place))
        assert values(place.servers, roomy) == [noise]
    finally:
        admin.delete_topics([roomy])[roomy].result(30)


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_more_messages_than_the_producer_holds_at_once_all_arrive(place: Rig, source: Source, guarantee: str) -> None:
    small: dict[str, Any] = {"queue.buffering.max.messages": 3}
    sink = (
        TransactionalSink(place.producer(**small), source.consumer)
        if guarantee == "exactly-once"
        else at_least_once(place, source.consumer, **small)
    )
    sink.publish([outgoing(place.alerts, b"%d" % number) for number in range(50)], offsets(place))
    assert values(place.servers, place.alerts) == [b"%d" % number for number in range(50)]
