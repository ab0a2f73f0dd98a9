"""Committed messages of a topic from one offset to another, one at a time, however large the topic is."""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.errors import FlowsentryError
from schemas.params import Params
from stream.batch import FlowRecord, record_of
from stream.clients import probe_properties
from stream.topics import TIMEOUT_S, error_text, partitions_of

__all__ = ["Advance", "Reader", "Span"]

_POLL_S = 0.5
_SILENCE_S = 60.0
_REFUSALS = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART)

Advance = Callable[[int], None]
"""Told how many offsets further the reading is."""


@dataclass(frozen=True, slots=True)
class Span:
    """The offsets of a partition from `start` to before `end`."""

    topic: str
    partition: int
    start: int
    end: int

    def __len__(self) -> int:
        return max(0, self.end - self.start)


class Reader:
    """Reads spans of topics for a command; it belongs to no group's members and commits nothing.

    Raises:
        FlowsentryError: from any of its methods: a wrong setting, no answer from Kafka, or it refuses.
    """

    def __init__(self, params: Params) -> None:
        self.servers = params.stream.bootstrap_servers
        self.group = params.stream.group  # only a name, for access rules
        # Letters that were purged while they were to be read are passed over.
        properties = {**probe_properties(params), "auto.offset.reset": "earliest"}
        try:
            self._consumer = Consumer(properties)
        except KafkaException as error:
            raise FlowsentryError(f"kafka: {error_text(error)}") from None

    def partitions(self, topic: str) -> list[int]:
        """The partition numbers of a topic, ascending; none if there is no such topic."""
        return partitions_of(self._consumer, topic, self.servers)

    def spans(self, topic: str, partitions: Collection[int] = ()) -> list[Span]:
        """All that is committed by now, of every partition or of `partitions`; none if there is no such topic."""
        found = self.partitions(topic)
        if found and (absent := sorted(set(partitions).difference(found))):
            raise FlowsentryError(f"--partition {absent[0]}: topic {topic!r} has partitions 0 to {found[-1]}")
        chosen = [number for number in found if not partitions or number in partitions]
        try:
            marks = [self._consumer.get_watermark_offsets(TopicPartition(topic, it), TIMEOUT_S) for it in chosen]
        except KafkaException as error:
            raise self._unreadable(topic, error) from None
        return [Span(topic, number, low, high) for number, (low, high) in zip(chosen, marks, strict=True)]

    def since(self, spans: Sequence[Span], time_ms: int) -> list[Span]:
        """The same without what lies before the first message of that time or later."""
        if not spans:
            return []
        try:
            found = self._consumer.offsets_for_times(
                [TopicPartition(span.topic, span.partition, max(0, time_ms)) for span in spans], timeout=TIMEOUT_S
            )
        except KafkaException as error:
            raise self._unreadable(spans[0].topic, error) from None
        # Negative: no message is as late as that.
        firsts = {place.partition: place.offset for place in found if place.offset >= 0}
        return [replace(span, start=max(span.start, firsts.get(span.partition, span.end))) for span in spans]

    def read(self, spans: Sequence[Span], advance: Advance = lambda _: None) -> Iterator[FlowRecord]:
        """The messages in the spans, of each partition in order."""
        reached = {(span.topic, span.partition): span.start for span in spans if len(span)}
        ends = {(span.topic, span.partition): span.end for span in spans if len(span)}
        self._consumer.assign([TopicPartition(*place, start) for place, start in reached.items()])
        heard_s, told = time.monotonic(), ""
        while ends:
            message = self._consumer.poll(_POLL_S)
            if message is None:
                if time.monotonic() - heard_s > _SILENCE_S:
                    raise FlowsentryError(
                        f"no answer from Kafka at {self.servers} for {_SILENCE_S:.0f} s {told}".rstrip()
                    )
                continue
            place = (message.topic() or "", message.partition() or 0)
            error = message.error()
            if error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                continue  # librdkafka looks for a group's coordinator, needed or not: nothing is committed here
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                if error.fatal() or error.code() in _REFUSALS:
                    raise FlowsentryError(f"reading {_topics(spans)} as group {self.group!r}: {error.str()}")
                told = f"({error.str()})"
                continue
            heard_s = time.monotonic()
            if place not in ends:
                continue
            offset, end = message.offset() or 0, ends[place]
            after = min(offset + 1, end) if error is None else end
            if error is None and offset < end:
                yield record_of(message)
            advance(after - reached[place])
            reached[place] = after
            if after == end:
                del ends[place]
                self._consumer.incremental_unassign([TopicPartition(*place)])

    def record_at(self, topic: str, partition: int, offset: int) -> FlowRecord | None:
        """The record that stands at one place; None where none does (any more)."""
        here = [it for it in self.spans(topic) if it.partition == partition and it.start <= offset < it.end]
        return next(self.read([Span(topic, partition, offset, offset + 1)]), None) if here else None

    def close(self) -> None:
        self._consumer.close()

    def _unreadable(self, topic: str, error: KafkaException) -> FlowsentryError:
        return FlowsentryError(f"topic {topic!r} at {self.servers} cannot be read: {error_text(error)}")


def _topics(spans: Sequence[Span]) -> str:
    return ", ".join(sorted({span.topic for span in spans}))
