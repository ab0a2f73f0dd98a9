"""The newest alerts of a topic, kept by a thread that reads along: it takes nothing from others and commits nothing."""

import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import ValidationError

from schemas.alert import Alert

__all__ = ["WINDOW_S", "Seen", "Subscriber"]

WINDOW_S = 300
"""For how long alerts are counted by second."""
_KEPT = 500
_OF_BEFORE = 200  # alerts of a partition that came before this began to read, so that a page is not empty at first
_LOOK_EVERY_S = 5.0
_ANSWER_WITHIN_S = 5.0
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is by now. `alerts` are the newest, the newest first; `by_second` counts those of the last `WINDOW_S` by the
    unix second of their detection and their severity; `problem` says why none may come, '' if they can."""

    alerts: tuple[Alert, ...]
    received: int
    invalid: int
    by_second: Mapping[tuple[int, str], int]
    problem: str


class Subscriber:
    """Reads committed alerts from now on, and a few of before; a topic or broker that is not there is waited for."""

    def __init__(
        self, bootstrap_servers: str, topic: str, kafka: Mapping[str, str | int | float | bool] | None = None
    ) -> None:
        self._servers, self._topic = bootstrap_servers, topic
        self._settings: dict[str, Any] = {
            "reconnect.backoff.max.ms": 500,
            "metadata.recovery.strategy": "none",  # else librdkafka 2.16 may forget its brokers
            "log_level": 0,  # what goes wrong is told on the page
            **(kafka or {}),
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"flowsentry-dashboard-{uuid.uuid4().hex}",  # librdkafka wants one; no group is joined
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",  # where retention has overtaken us
        }
        self._next: dict[int, int] = {}  # offset by partition
        self._alerts: deque[Alert] = deque(maxlen=_KEPT)
        self._by_second: Counter[tuple[int, str]] = Counter()
        self._received, self._invalid, self._problem = 0, 0, f"no answer yet from Kafka at {bootstrap_servers}"
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()

    def seen(self) -> Seen:
        """What there is by now."""
        with self._lock:
            return Seen(
                tuple(reversed(self._alerts)), self._received, self._invalid, dict(self._by_second), self._problem
            )

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._read_along()
            except KafkaException as error:
                cause = error.args[0]
                said = cause.str() if isinstance(cause, KafkaError) else cause
                self._tell(
                    f"no answer from Kafka at {self._servers}: {said}. Start it, or say with --bootstrap-servers where one runs"
                )
                self._stop.wait(1.0)

    def _read_along(self) -> None:
        """With one client, until Kafka is away: one that was told of no broker does not find them again."""
        consumer = Consumer(self._settings)
        try:
            consumer.assign([TopicPartition(self._topic, number, offset) for number, offset in self._next.items()])
            assigned, looked_s = set(self._next), float("-inf")
            while not self._stop.is_set():
                if time.monotonic() - looked_s >= _LOOK_EVERY_S:
                    self._look(consumer, assigned)
                    looked_s = time.monotonic()
                message = consumer.poll(_POLL_S)
                if message is not None:
                    self._take(message)
        finally:
            consumer.close()

    def _look(self, consumer: Consumer, assigned: set[int]) -> None:
        """Assign the partitions that there are now and were not before."""
        cluster = consumer.list_topics(timeout=_ANSWER_WITHIN_S)  # of all: asked for by name, a topic may be made
        if not cluster.brokers:
            raise KafkaException(KafkaError(KafkaError.BROKER_NOT_AVAILABLE))
        found = cluster.topics.get(self._topic)
        if found is None or not found.partitions:
            self._tell(
                f"topic {self._topic!r} is not at {self._servers}, or may not be read: start the service, or choose another "
                "with --alerts"
            )
            return
        for number in sorted(found.partitions.keys() - assigned):
            place = TopicPartition(self._topic, number)
            low, high = consumer.get_watermark_offsets(place, timeout=_ANSWER_WITHIN_S)
            place.offset = self._next.setdefault(number, max(low, high - _OF_BEFORE))
            consumer.incremental_assign([place])
            assigned.add(number)
        self._tell("")

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:  # of a group that is never joined
                self._tell(f"topic {self._topic!r} cannot be read: {error.str()}")
            return
        self._next[message.partition() or 0] = (message.offset() or 0) + 1
        try:
            alert = Alert.model_validate_json(message.value() or b"")
        except ValidationError:
            with self._lock:
                self._invalid += 1
            return
        with self._lock:
            self._received += 1
            self._alerts.append(alert)
            second = int(alert.detection_time.timestamp())
            oldest = int(datetime.now(UTC).timestamp()) - WINDOW_S
            if second >= oldest:
                self._by_second[second, alert.severity.value] += 1
            for past in [key for key in self._by_second if key[0] < oldest]:
                del self._by_second[past]

    def _tell(self, problem: str) -> None:
        with self._lock:
            self._problem = problem
