"""At least once: nothing is committed before it is confirmed."""

from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from stream.sink import RetryBatch
from stream.source import Source
from tests.stream.rig import Rig
from tests.stream.sinks import IMPATIENT, at_least_once, done, offsets, outgoing, values


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
