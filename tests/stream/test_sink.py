"""Alerts, dead letters and offsets: together or not at all, whatever breaks."""

import gc
import random
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from stream.clients import TRANSACTION_TIMEOUT_MS
from stream.sink import AtLeastOnceSink, Outgoing, RetryBatch, Stopped, TransactionalSink
from stream.source import Source
from stream.topics import LARGE_MESSAGES, ROOMY, create_topics
from tests.kafka import committed, end_offsets, produce, read_all
from tests.stream.rig import Logs, Rig, denied

# A topic that does not exist is otherwise hoped for during half a minute.
IMPATIENT: dict[str, Any] = {"topic.metadata.propagation.max.ms": 200}


class Crash(Exception):
    """What stands for a process that ends at once."""


def outgoing(topic: str, value: bytes | None = b"alert", **more: Any) -> Outgoing:
    return Outgoing(**{"record_id": "flows-0-0", "topic": topic, "key": b"key", "value": value, "headers": [], **more})


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
    sink = TransactionalSink(place.producer(), source.consumer, denied=denied)
    sink.publish(
        [
            outgoing(place.alerts, b"first", headers=[("a", b"\xff"), ("b", None), ("a", b"")]),
            outgoing(place.dead, b"\xfegarbage", key=None),
            outgoing(place.alerts, b"second"),
            outgoing(place.dead, None),
        ],
        offsets(place, 2),
    )
    assert values(place.servers, place.alerts) == [b"first", b"second"]
    assert values(place.servers, place.dead) == [b"\xfegarbage", None]
    assert done(place) == 2
    first, garbage = read_all(place.servers, place.alerts)[0], read_all(place.servers, place.dead)[0]
    assert (first.key(), garbage.key()) == (b"key", None)
    assert list(first.headers() or ()) == [("a", b"\xff"), ("b", None), ("a", b"")]
    # A transaction has an end mark in every topic that it wrote to.
    assert end_offsets(place.servers, place.alerts)[0] == end_offsets(place.servers, place.dead)[0] == 3


def test_a_batch_without_messages_still_commits_its_offsets(place: Rig, source: Source) -> None:
    TransactionalSink(place.producer(), source.consumer, denied=denied).publish([], offsets(place))
    assert done(place) == 3


def test_one_message_that_fails_takes_the_whole_batch_with_it(place: Rig, source: Source, logs: Logs) -> None:
    sink = TransactionalSink(place.producer(**IMPATIENT), source.consumer, denied=denied)
    with pytest.raises(RetryBatch, match="Unknown topic"):
        sink.publish([outgoing(place.alerts), outgoing(f"{place.alerts}-gone")], offsets(place))
    assert values(place.servers, place.alerts) == []
    assert done(place) < 0
    [line] = logs.of("transaction failed")
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
        TransactionalSink(place.producer(DiesBeforeCommit), source.consumer, denied=denied).publish(
            [outgoing(place.alerts), outgoing(place.dead)], offsets(place)
        )
    assert end_offsets(place.servers, place.alerts)[0] == 0, "read_committed sees an open transaction"
    assert values(place.servers, place.alerts) == values(place.servers, place.dead) == []

    restarted = TransactionalSink(place.producer(), source.consumer, denied=denied)
    assert done(place) < 0
    assert values(place.servers, place.alerts) == values(place.servers, place.dead) == []
    assert end_offsets(place.servers, place.alerts)[0] == 2, "the message and the abort stand there"
    restarted.publish([outgoing(place.alerts, b"once")], offsets(place))
    assert values(place.servers, place.alerts) == [b"once"]
    assert done(place) == 3


def test_what_a_worker_that_is_gone_for_good_left_open_keeps_subscribers_waiting_for_less_than_15_s(
    place: Rig, source: Source
) -> None:
    looks_every_s = 10  # a broker's default transaction.abort.timed.out.transaction.cleanup.interval.ms
    assert TRANSACTION_TIMEOUT_MS / 1000 + looks_every_s < 15

    producer = place.producer()()
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(place.alerts, b"of one that is gone")
    producer.flush(30)
    produce(place.servers, place.alerts, [b"later"])
    assert values(place.servers, place.alerts) == []
    began, deadline = time.monotonic(), time.monotonic() + 60
    while values(place.servers, place.alerts) != [b"later"]:
        assert time.monotonic() < deadline, "the transaction is still open"
        time.sleep(0.2)
    print(f"a subscriber waited for {time.monotonic() - began:.1f} s")


def test_a_producer_whose_transactional_id_another_took_publishes_nothing_until_it_takes_it_back(
    place: Rig, source: Source, logs: Logs
) -> None:
    first = TransactionalSink(place.producer(), source.consumer, denied=denied)
    first.publish([outgoing(place.alerts, b"of the first")], offsets(place, 1))
    second = TransactionalSink(place.producer(), source.consumer, denied=denied)
    with pytest.raises(RetryBatch) as raised:
        first.publish([outgoing(place.alerts, b"of the fenced")], offsets(place, 2))
    assert raised.value.after_s > 2, "the consumer has time to notice that another has its name"
    second.publish([outgoing(place.alerts, b"of the second")], offsets(place, 2))
    assert values(place.servers, place.alerts) == [b"of the first", b"of the second"]
    assert len(logs.of("producer is given up")) == 1
    first.publish([outgoing(place.alerts, b"of the first again")], offsets(place, 3))
    assert values(place.servers, place.alerts)[2:] == [b"of the first again"]
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


def troubled(place: Rig, **troubles: list[KafkaError]) -> Callable[[], Producer]:
    """Makes such producers; the second one has what troubles the first has left."""

    def make() -> Producer:
        producer = cast(Troubled, place.producer(Troubled)())
        producer.troubles = troubles
        return producer

    return make


def test_ending_a_transaction_is_tried_again(place: Rig, source: Source, logs: Logs) -> None:
    away = [KafkaError(KafkaError._TIMED_OUT, "away", retriable=True) for _ in range(4)]
    abortable = KafkaError(KafkaError._INCONSISTENT, "broken", txn_requires_abort=True)
    sink = TransactionalSink(
        troubled(place, commit=[*away[:2], abortable], abort=away[2:]), source.consumer, denied=denied
    )
    with pytest.raises(RetryBatch, match="broken"):
        sink.publish([outgoing(place.alerts, b"first try")], offsets(place))
    assert len(logs.of("commit is retried")) == len(logs.of("abort is retried")) == 2
    sink.publish([outgoing(place.alerts, b"second try")], offsets(place))
    assert values(place.servers, place.alerts) == [b"second try"]


@pytest.mark.parametrize("step", ["commit", "abort"])
def test_a_producer_that_no_broker_answers_is_given_up(
    place: Rig, source: Source, logs: Logs, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr("stream.sink._PATIENCE_S", 0.0)
    away = KafkaError(KafkaError._TIMED_OUT, "away", retriable=True)
    abortable = KafkaError(KafkaError._INCONSISTENT, "broken", txn_requires_abort=True)
    troubles = {"commit": [away]} if step == "commit" else {"commit": [abortable], "abort": [away]}
    sink = TransactionalSink(troubled(place, **troubles), source.consumer, denied=denied)
    with pytest.raises(RetryBatch):
        sink.publish([outgoing(place.alerts, b"never")], offsets(place))
    assert logs.of("producer is given up") and not troubles[step]
    sink.publish([outgoing(place.alerts, b"once")], offsets(place))
    assert values(place.servers, place.alerts) == [b"once"] and done(place) == 3


@pytest.mark.parametrize(
    "troubles",
    [
        {"commit": [KafkaError(KafkaError.UNKNOWN_PRODUCER_ID, "who are you", fatal=True)]},
        {
            "commit": [KafkaError(KafkaError._INCONSISTENT, "broken", txn_requires_abort=True)],
            "abort": [KafkaError(KafkaError.PRODUCER_FENCED, "someone else")],
        },
    ],
    ids=["at the commit", "at the abort"],
)
def test_a_producer_that_cannot_go_on_is_replaced_by_one_that_ends_what_it_left_open(
    place: Rig, source: Source, logs: Logs, troubles: dict[str, list[KafkaError]]
) -> None:
    sink = TransactionalSink(troubled(place, **troubles), source.consumer, denied=denied)
    with pytest.raises(RetryBatch) as raised:
        sink.publish([outgoing(place.alerts, b"never")], offsets(place))
    assert raised.value.maybe_committed
    sink.settle()
    assert values(place.servers, place.alerts) == [] and done(place) < 0
    sink.publish([outgoing(place.alerts, b"once")], offsets(place))
    assert values(place.servers, place.alerts) == [b"once"] and done(place) == 3


@pytest.mark.parametrize("cannot_abort", [False, True])
def test_a_producer_that_is_given_up_is_gone_at_once(place: Rig, source: Source, cannot_abort: bool) -> None:
    class Fails(Producer):
        def send_offsets_to_transaction(self, *_: Any) -> None:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_PRODUCER_ID, "who are you", fatal=not cannot_abort))

        def abort_transaction(self, *timeout: float) -> None:
            super().abort_transaction(*timeout)
            super().abort_transaction(*timeout)  # which the client refuses

    made: list[weakref.ref[Producer]] = []
    make = place.producer(Fails)

    def noted() -> Producer:
        producer = make()
        made.append(weakref.ref(producer))
        return producer

    sink = TransactionalSink(noted, source.consumer, denied=denied)
    gc.disable()  # it takes no collector of rubbish
    try:
        with suppress(RetryBatch):
            sink.publish([outgoing(place.alerts)], offsets(place))
        assert made[0]() is None, "its threads and connections live on"
    finally:
        gc.enable()


def test_waiting_for_kafka_ends_when_the_worker_is_to_stop(place: Rig, source: Source) -> None:
    away = [KafkaError(KafkaError._TIMED_OUT, "away", retriable=True) for _ in range(4)]
    calls: list[int] = []

    def waiting() -> None:
        calls.append(1)
        if len(calls) == 4:  # start, commit, and twice more
            raise Stopped

    sink = TransactionalSink(troubled(place, commit=away), source.consumer, denied=denied, waiting=waiting)
    with pytest.raises(Stopped):
        sink.publish([outgoing(place.alerts)], offsets(place))
    assert len(away) == 2 and done(place) < 0


def test_a_publication_that_is_bounded_in_time_gives_up(place: Rig, source: Source, logs: Logs) -> None:
    away = [KafkaError(KafkaError._TIMED_OUT, "away", retriable=True) for _ in range(2)]
    sink = TransactionalSink(troubled(place, commit=away[:1], abort=away[1:]), source.consumer, denied=denied)
    with pytest.raises(RetryBatch, match="away"):
        sink.publish([outgoing(place.alerts)], offsets(place), within_s=0.0)
    assert logs.of("producer is given up") and done(place) < 0


def at_least_once(place: Rig, consumer: Consumer, **kafka: str | int) -> AtLeastOnceSink:
    """Its first producer is configured by `kafka`."""
    common: dict[str, str | int | bool] = {
        "bootstrap.servers": place.servers,
        "enable.idempotence": True,
        "log_level": 0,
    }
    first = [kafka]
    return AtLeastOnceSink(lambda: Producer({**common, **(first.pop() if first else {})}), consumer, denied=denied)


def test_at_least_once_commits_what_is_confirmed(place: Rig, source: Source) -> None:
    sink = at_least_once(place, source.consumer)
    sink.publish([outgoing(place.alerts), outgoing(place.dead)], offsets(place))
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
    monkeypatch.setattr("stream.sink._CONFIRM_S", 0.2)
    sink = at_least_once(place, source.consumer, **{"bootstrap.servers": "127.0.0.1:1"})
    with pytest.raises(RetryBatch, match="1 messages not confirmed in time"):
        sink.publish([outgoing(place.alerts)], offsets(place))
    assert done(place) < 0
    monkeypatch.undo()
    sink.publish([outgoing(place.alerts)], offsets(place))  # that producer would never have found its way
    assert values(place.servers, place.alerts) == [b"alert"] and done(place) == 3


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


FENCED_MEMBER = KafkaError(KafkaError.FENCED_INSTANCE_ID, "someone has my name", fatal=True)


def test_at_least_once_leaves_it_to_the_consumer_to_say_that_it_is_fenced(place: Rig, source: Source) -> None:
    consumer = cast(Consumer, LosesItsPlace(source.consumer, FENCED_MEMBER))
    with pytest.raises(RetryBatch, match="someone has my name") as raised:
        at_least_once(place, consumer).publish([outgoing(place.alerts)], offsets(place))
    assert raised.value.after_s > 1, "no time for the consumer to hear of it"


def test_exactly_once_leaves_it_to_the_consumer_to_say_that_it_is_fenced(place: Rig, source: Source) -> None:
    # It may have fenced itself: slept in mid-transaction, and joined again meanwhile.
    class Fenced(Producer):
        def send_offsets_to_transaction(self, *_: Any) -> None:
            raise KafkaException(KafkaError(KafkaError.FENCED_INSTANCE_ID, "someone has my name"))

    sink = TransactionalSink(place.producer(Fenced), source.consumer, denied=denied)
    with pytest.raises(RetryBatch, match="someone has my name") as raised:
        sink.publish([outgoing(place.alerts)], offsets(place))
    assert raised.value.after_s > 1, "no time for the consumer to hear of it"
    assert not raised.value.maybe_committed


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_a_message_that_no_retry_makes_smaller_is_named(place: Rig, source: Source, guarantee: str) -> None:
    noise = random.Random(1).randbytes(1_100_000)  # more than a topic takes by default, and compression does not help
    sink = (
        TransactionalSink(place.producer(), source.consumer, denied=denied)
        if guarantee == "exactly-once"
        else at_least_once(place, source.consumer, **{"message.max.bytes": ROOMY})
    )
    large = outgoing(place.dead, noise)
    with pytest.raises(RetryBatch) as raised:
        sink.publish([outgoing(place.alerts), large], offsets(place))
    assert list(raised.value.too_large) == [large]
    assert done(place) < 0
    if guarantee == "exactly-once":
        assert values(place.servers, place.alerts) == []


def test_a_message_that_our_own_client_does_not_take_is_named(place: Rig, source: Source) -> None:
    large = outgoing(place.dead, bytes(2000))
    small: dict[str, Any] = {"message.max.bytes": 1000}
    sink = TransactionalSink(place.producer(**small), source.consumer, denied=denied)
    with pytest.raises(RetryBatch) as raised:
        sink.publish([large], offsets(place))
    assert list(raised.value.too_large) == [large]


def test_a_large_dead_letter_fits_the_topic_that_is_made_for_it(place: Rig, source: Source) -> None:
    roomy = f"{place.dead}-roomy"
    admin = AdminClient({"bootstrap.servers": place.servers})
    create_topics(admin, {roomy: LARGE_MESSAGES})
    noise = random.Random(1).randbytes(5_000_000)
    try:
        TransactionalSink(place.producer(), source.consumer, denied=denied).publish(
            [outgoing(roomy, noise)], offsets(place)
        )
        assert values(place.servers, roomy) == [noise]
    finally:
        admin.delete_topics([roomy])[roomy].result(30)


@pytest.mark.parametrize("guarantee", ["exactly-once", "at-least-once"])
def test_more_messages_than_the_producer_holds_at_once_all_arrive(place: Rig, source: Source, guarantee: str) -> None:
    small: dict[str, Any] = {"queue.buffering.max.messages": 3}
    sink = (
        TransactionalSink(place.producer(**small), source.consumer, denied=denied)
        if guarantee == "exactly-once"
        else at_least_once(place, source.consumer, **small)
    )
    sink.publish([outgoing(place.alerts, b"%d" % number) for number in range(50)], offsets(place))
    assert values(place.servers, place.alerts) == [b"%d" % number for number in range(50)]
