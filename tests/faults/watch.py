"""A read_committed subscriber of the alerts that looks on during the whole run: when each came, and how often."""

import threading
import time
from array import array
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from stream.connection import brokers_are_forgotten
from tests.faults.kafka import PROMPT

__all__ = ["Place", "Watch", "place_of"]

Place = tuple[int, int]
"""A record of the input topic: partition and offset."""


def place_of(record: bytes) -> Place:
    """`topic-partition-offset` → partition and offset."""
    _, partition, offset = record.rsplit(b"-", 2)
    return int(partition), int(offset)


@dataclass(slots=True)
class _Arrivals:
    """Of the alerts about one partition of the input: when each came (s, monotonic), when it was made (s, wall clock)."""

    came_s: "array[float]" = field(default_factory=lambda: array("d"))
    made_s: "array[float]" = field(default_factory=lambda: array("d"))


class Watch(threading.Thread):
    """Reads the alerts topic from its beginning until `finish`."""

    def __init__(self, servers: str, topic: str, partitions: int) -> None:
        super().__init__(name="watch", daemon=True)
        self.counts: dict[Place, int] = {}
        self.failures: list[str] = []
        self.gap_s, self.gap_until_s = 0.0, 0.0
        self._last_s: float | None = None
        self._arrivals: dict[int, _Arrivals] = defaultdict(_Arrivals)
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._servers, self._topic = servers, topic
        self._next = dict.fromkeys(range(partitions), OFFSET_BEGINNING)
        self._forgotten = False

    def _consumer(self) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self._servers,
                "group.id": f"{self._topic}-watch",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 50,
                "statistics.interval.ms": 1_000,
                "stats_cb": self._heard,
                **PROMPT,
            }
        )
        consumer.assign([TopicPartition(self._topic, number, offset) for number, offset in self._next.items()])
        return consumer

    def _heard(self, statistics: str) -> None:
        self._forgotten = brokers_are_forgotten(statistics)

    def run(self) -> None:
        consumer = self._consumer()
        while not self._finished.is_set():
            if self._forgotten:
                self._forgotten, consumer = False, self._consumer()
            messages = consumer.consume(1000, 0.05)
            now_s = time.monotonic()
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                        self.failures.append(error.str())
                    continue
                self._next[message.partition() or 0] = (message.offset() or 0) + 1
                place = place_of(message.key() or b"--")
                self.counts[place] = self.counts.get(place, 0) + 1
                with self._lock:
                    arrivals = self._arrivals[place[0]]
                    arrivals.came_s.append(now_s)
                    arrivals.made_s.append(message.timestamp()[1] / 1000)
                if self._last_s is not None and now_s - self._last_s > self.gap_s:
                    self.gap_s, self.gap_until_s = now_s - self._last_s, now_s
                self._last_s = now_s
        consumer.close()

    def first_since(self, monotonic_s: float, wall_s: float) -> dict[int, float]:
        """Per partition of the input: when (s, monotonic) the first alert came that was made after a moment.

        Partitions of which no alert has come yet, or none since, are left out.
        """
        found = {}
        with self._lock:
            for partition, arrivals in self._arrivals.items():
                for index in range(bisect_right(arrivals.came_s, monotonic_s), len(arrivals.came_s)):
                    if arrivals.made_s[index] > wall_s:
                        found[partition] = arrivals.came_s[index]
                        break
        return found

    def partitions_before(self, monotonic_s: float) -> set[int]:
        """The partitions of the input of which there had been an alert by then."""
        with self._lock:
            return {number for number, each in self._arrivals.items() if each.came_s and each.came_s[0] <= monotonic_s}

    @property
    def alerts(self) -> int:
        """How many have come."""
        return len(self.counts)

    def finish(self) -> None:
        self._finished.set()
        if self.is_alive():
            self.join(30)
