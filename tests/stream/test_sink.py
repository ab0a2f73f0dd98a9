"""Messages that are too large for a broker or a client, or too many at once, under either guarantee."""

import random
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from stream.sink import RetryBatch, TransactionalSink
from stream.source import Source
from stream.topics import LARGE_MESSAGES, ROOMY, create_topics
from tests.stream.rig import Rig, denied
from tests.stream.sinks import at_least_once, done, offsets, outgoing, values


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
