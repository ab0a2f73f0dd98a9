"""What is published through a sink in tests, and what came of it."""

from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from stream.sink import AtLeastOnceSink, Outgoing
from tests.kafka import committed, read_all
from tests.stream.rig import Rig, denied

__all__ = ["IMPATIENT", "at_least_once", "done", "offsets", "outgoing", "values"]

# A topic that does not exist is otherwise hoped for during half a minute.
IMPATIENT: dict[str, Any] = {"topic.metadata.propagation.max.ms": 200}


def outgoing(topic: str, value: bytes | None = b"alert", **more: Any) -> Outgoing:
    return Outgoing(**{"record_id": "flows-0-0", "topic": topic, "key": b"key", "value": value, "headers": [], **more})


def values(servers: str, topic: str) -> list[bytes | None]:
    return [message.value() for message in read_all(servers, topic)]


def offsets(place: Rig, offset: int = 3) -> list[TopicPartition]:
    return [TopicPartition(place.flows, 0, offset)]


def done(place: Rig) -> int:
    """The offset that is committed; negative where none is."""
    return committed(place.servers, place.flows, place.flows)[0]


def at_least_once(place: Rig, consumer: Consumer, **kafka: str | int) -> AtLeastOnceSink:
    """Its first producer is configured by `kafka`."""
    common: dict[str, str | int | bool] = {
        "bootstrap.servers": place.servers,
        "enable.idempotence": True,
        "log_level": 0,
    }
    first = [kafka]
    return AtLeastOnceSink(lambda: Producer({**common, **(first.pop() if first else {})}), consumer, denied=denied)
