"""Where a member of the consumer group goes on in each partition: after what the group has committed.

librdkafka would look it up itself and fall back on `auto.offset.reset`. But it does so as well when a partition comes back
while the answer is still held up by another worker's open transaction: then it begins at the first record that there is,
and everything is judged twice. So it is told where to begin, and never falls back on anything.
"""

import time
from collections.abc import Callable, Iterable

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from stream.connection import Outage
from stream.metrics import Metrics
from stream.status import Status

__all__ = ["LOST_ITS_PLACE", "Offsets"]

log = structlog.get_logger()

LOST_ITS_PLACE = (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION, KafkaError.OFFSET_OUT_OF_RANGE)
"""Errors with which the client stops reading a partition until it is told where to go on."""

_TIMEOUT_S = 5.0
_PATIENCE_S = 60.0
_RETRY_AFTER_S = 0.1
_MADE_ANEW_AFTER_S = 30.0  # a partition may seem shorter for a moment, when its leader has just changed


class Offsets:
    """`start` is OFFSET_BEGINNING or OFFSET_END, for partitions of which nothing is committed.

    Its methods wait for Kafka, and raise Outage if it does not answer in a minute.
    """

    def __init__(
        self, consumer: Consumer, *, start: int, status: Status, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._consumer = consumer
        self._start = start
        self._status = status
        self._expired = metrics.expired
        self._clock = clock
        self._short_since: dict[int, float] = {}
        self._done: dict[int, int] = {}

    def done(self, places: Iterable[TopicPartition]) -> None:
        """Take note of what was committed: a coordinator that knows of less has lost its memory, see `_check`."""
        self._done |= {place.partition: place.offset for place in places}

    def committed(self, places: Iterable[TopicPartition]) -> list[TopicPartition]:
        """What the group has committed, once no transaction is open that might change it; negative: nothing."""
        asked = [TopicPartition(place.topic, place.partition) for place in places]
        found: list[TopicPartition] = []
        if not asked:
            return found

        def ask() -> None:
            found[:] = self._consumer.committed(asked, timeout=_TIMEOUT_S)
            for place in found:
                if place.error is not None:
                    raise KafkaException(place.error)
                self._check(place)

        self._insist("committed offsets", ask)
        return found

    def to_begin_at(self, places: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Where to begin in partitions that have been assigned."""
        return [
            TopicPartition(place.topic, place.partition, place.offset if place.offset >= 0 else self._start)
            for place in self.committed(places)
        ]

    def to_go_on_at(self, place: TopicPartition) -> TopicPartition | None:
        """Where to go on in a partition when there is no record any more where it was; None: it must be asked again.

        Records that were deleted before they were read are told and counted. A partition that ends before what is
        committed, and not just for a moment, is another one under the same name: it is read from its beginning.
        """
        [began] = self.to_begin_at([place])
        low, high = self._bounds(place)
        if began.offset < 0 or low <= began.offset <= high:
            self._short_since.pop(place.partition, None)
            return began
        if began.offset < low:
            count = low - began.offset
            log.error("records were deleted before they were read", first=_name(began), next=low, count=count)
            self._expired.inc(count)
            return TopicPartition(place.topic, place.partition, low)
        since = self._short_since.setdefault(place.partition, self._clock())
        if self._clock() - since < _MADE_ANEW_AFTER_S:
            return None
        del self._short_since[place.partition]
        log.error("partition was made anew, and is read from its beginning", committed=_name(began), end=high)
        return TopicPartition(place.topic, place.partition, low)

    def _check(self, place: TopicPartition) -> None:
        """Kafka 4.3 can answer before it has loaded all that was committed (docs/reliability.md): then with less, or nothing."""
        done = self._done.get(place.partition)
        if done is not None and place.offset < done:
            why = f"{place.topic}-{place.partition}: {place.offset} is said to be committed, and {done} was"
            raise KafkaException(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, why))

    def _bounds(self, place: TopicPartition) -> tuple[int, int]:
        bounds: list[tuple[int, int]] = []
        self._insist("bounds", lambda: bounds.append(self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)))
        return bounds[0]

    def _insist(self, what: str, ask: Callable[[], None]) -> None:
        until = self._clock() + _PATIENCE_S
        while True:
            self._status.beat()
            try:
                return ask()
            except KafkaException as error:
                problem: KafkaError = error.args[0]
            if self._clock() > until:
                raise Outage(f"where to go on is not known, the {what} cannot be had: {problem.str()}")
            log.warning(f"{what} are asked for again", error=problem.str())
            time.sleep(_RETRY_AFTER_S)


def _name(place: TopicPartition) -> str:
    return f"{place.topic}-{place.partition}-{place.offset}"
