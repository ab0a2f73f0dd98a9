"""Flow records as they stand on the topic, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import structlog
from confluent_kafka import Message, TopicPartition

__all__ = ["Batch", "FlowRecord", "headers_of", "record_of"]

log = structlog.get_logger()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """One flow record as it stands on the topic; `undecodable` says why it could not be unpacked, then all else is empty."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int
    undecodable: str = ""

    @property
    def id(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"

    @property
    def time(self) -> datetime:
        """Its Kafka timestamp; a producer may have made it one that no calendar holds: then the nearest that one does."""
        try:
            return _EPOCH + timedelta(milliseconds=self.timestamp_ms)
        except OverflowError:
            return (datetime.max if self.timestamp_ms > 0 else datetime.min).replace(tzinfo=UTC)

    @property
    def size(self) -> int:
        """Bytes that it holds in memory, more or less."""
        headers = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.value or b"") + len(self.key or b"") + headers


@dataclass(frozen=True)
class Batch:
    """Records in the order of their partitions."""

    records: Sequence[FlowRecord]

    @cached_property
    def values(self) -> list[bytes | None]:
        return [record.value for record in self.records]

    @cached_property
    def next_offsets(self) -> list[TopicPartition]:
        """Where to go on once this batch is done: the one place that adds 1 to an offset."""
        last = {(record.topic, record.partition): record.offset for record in self.records}
        return [TopicPartition(topic, partition, offset + 1) for (topic, partition), offset in last.items()]

    @cached_property
    def first_offsets(self) -> list[TopicPartition]:
        """Where this batch began."""
        first: dict[tuple[str, int], int] = {}
        for record in self.records:
            first.setdefault((record.topic, record.partition), record.offset)
        return [TopicPartition(topic, partition, offset) for (topic, partition), offset in first.items()]

    def __len__(self) -> int:
        return len(self.records)


def record_of(message: Message) -> FlowRecord:
    """The record in a message that is no error."""
    _, timestamp_ms = message.timestamp()
    return FlowRecord(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=message.key(),
        value=message.value(),
        headers=headers_of(message),
        timestamp_ms=timestamp_ms,
    )


def headers_of(message: Message) -> tuple[tuple[str, bytes | None], ...]:
    """A message's headers as they stand on the topic: in order, repeated names and all.

    None where one has a name that is not UTF-8: the client library cannot hand them over then.
    """
    try:
        given = message.headers() or ()
    except SystemError as error:
        place = f"{message.topic()}-{message.partition()}-{message.offset()}"
        log.warning("headers left out", record=place, why=str(error.__cause__))
        return ()
    pairs = given.items() if isinstance(given, dict) else given
    return tuple((name, value.encode() if isinstance(value, str) else value) for name, value in pairs)
