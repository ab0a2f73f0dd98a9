"""Where flow records come from: batches of records out of a Kafka consumer group."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import FlowsentryError

__all__ = ["Batch", "FlowRecord", "Source", "headers_of"]

log = structlog.get_logger()

_TIMEOUT_S = 10.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """One flow record as it stands on the topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int

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


class Source:
    """A member of the consumer group. Offsets are committed by the sink, never here."""

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        *,
        batch_size: int,
        max_wait_s: float,
    ) -> None:
        self.consumer = consumer
        self._batch_size = batch_size
        self._max_wait_s = max_wait_s
        self._committed: dict[int, int] = {}
        consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def poll(self) -> Batch:
        """Up to `batch_size` records, or what has come within `max_wait_s`; the batch may be empty.

        Raises:
            FlowsentryError: not authorised, or the consumer cannot go on. All else passes and is logged, such as a
                broker that is away or a topic that was deleted.
        """
        messages = self.consumer.consume(self._batch_size, self._max_wait_s)
        return Batch([record for message in messages if (record := _record(message)) is not None])

    def rewind(self, batch: Batch) -> None:
        """Go back to the beginning of a batch whose transaction was aborted."""
        assigned = {(partition.topic, partition.partition) for partition in self.consumer.assignment()}
        for place in batch.first_offsets:
            if (place.topic, place.partition) in assigned:
                self.consumer.seek(place)

    def lags(self) -> dict[int, int]:
        """Records of each assigned partition that are still to come, as far as the client knows."""
        lags = {}
        for position in self.consumer.position(self.consumer.assignment()):
            low, high = self.consumer.get_watermark_offsets(position, cached=True)
            # Before its first record a partition has no position: it stands at its committed offset, or the beginning.
            reached = position.offset if position.offset >= 0 else max(low, self._committed.get(position.partition, 0))
            if high >= 0:
                lags[position.partition] = max(0, high - reached)
        return lags

    def close(self) -> None:
        """Leave the group."""
        self.consumer.close()

    # The loop polls only between batches, each committed before the next: there is nothing to drain on revoke.
    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        log.info("partitions assigned", partitions=[partition.partition for partition in partitions])
        try:
            places = self.consumer.committed(partitions, timeout=_TIMEOUT_S)
        except KafkaException as error:
            # Only the lag of partitions not read yet hangs on it; the records do not.
            log.info("committed offsets not known yet", error=error.args[0].str())
            places = []
        self._committed |= {place.partition: place.offset for place in places}

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        log.info("partitions revoked", partitions=[partition.partition for partition in partitions])

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        log.warning("partitions lost", partitions=[partition.partition for partition in partitions])


def _record(message: Message) -> FlowRecord | None:
    error = message.error()
    if error is not None:
        if error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
            raise FlowsentryError(f"the broker refuses: {error.str()}")
        if error.fatal():
            raise FlowsentryError(f"the consumer cannot go on: {error.str()}")
        log.warning("consumer", error=error.str())
        return None
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
    """A message's headers as they stand on the topic: in order, repeated names and all."""
    given = message.headers() or ()
    pairs = given.items() if isinstance(given, dict) else given
    return tuple((name, value.encode() if isinstance(value, str) else value) for name, value in pairs)
