"""Exactly once: alerts, dead letters and offsets together or not at all, whatever breaks."""

import gc
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from stream.clients import TRANSACTION_TIMEOUT_MS
from stream.sink import Hung, RetryBatch, Stopped, TransactionalSink
from stream.source import Source
from tests.kafka import end_offsets, produce, read_all
from tests.stream.rig import Logs, Rig, denied
from tests.stream.sinks import IMPATIENT, done, offsets, outgoing, values


class Crash(Exception):
    """What stands for a process that ends at once."""


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


def test_a_call_that_does_not_come_back_ends_the_worker(
    place: Rig, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    class Hangs(Producer):
        def send_offsets_to_transaction(self, *_: Any) -> None:
            over.wait(60)

    monkeypatch.setattr("stream.sink._TIMEOUT_S", 0.5)
    sink = TransactionalSink(place.producer(Hangs), source.consumer, denied=denied)
    try:
        with pytest.raises(Hung, match="does not come back"):
            sink.publish([outgoing(place.alerts)], offsets(place))
    finally:
        over.set()
    assert values(place.servers, place.alerts) == [] and done(place) < 0


def test_a_publication_that_is_bounded_in_time_gives_up(place: Rig, source: Source, logs: Logs) -> None:
    away = [KafkaError(KafkaError._TIMED_OUT, "away", retriable=True) for _ in range(2)]
    sink = TransactionalSink(troubled(place, commit=away[:1], abort=away[1:]), source.consumer, denied=denied)
    with pytest.raises(RetryBatch, match="away"):
        sink.publish([outgoing(place.alerts)], offsets(place), within_s=0.0)
    assert logs.of("producer is given up") and done(place) < 0


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
