"""A read-only look at a topic: committed messages of every partition, as they come. Nothing is committed or taken from others."""

import sys
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin._acl import AclOperation

from schemas.errors import FlowsentryError
from stream.access import Right
from stream.connection import brokers_are_forgotten
from stream.topics import TIMEOUT_S, Cluster, error_text, partitions_of

__all__ = ["View", "open_view"]

_LOOK_EVERY_S = 5.0
_LOOK_FOR_TOPIC_EVERY_S = 0.5
_POLL_S = 0.1


def open_view(
    bootstrap_servers: str,
    topic: str,
    *,
    kafka: Mapping[str, str | int | float | bool],
    from_beginning: bool,
    what: str,
    group: str | None = None,
    report: Callable[[str], None] | None = None,
) -> "View":
    """Begin to read a topic; without `from_beginning`, after the messages that there are now.

    A topic that does not exist is waited for; that one, and partitions that are added later, are read from their beginning.
    `group` is only a name, for access rules. `report` is told what happens (default: stderr); `what` it calls the messages.

    Raises:
        FlowsentryError: no Kafka answers, or access is refused.
    """
    settings: dict[str, Any] = {
        **kafka,
        "bootstrap.servers": bootstrap_servers,
        "group.id": group or f"flowsentry-subscribe-{uuid.uuid4().hex}",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",  # where retention has overtaken us
        "statistics.interval.ms": 1_000,
    }
    cluster = Cluster({**kafka, "bootstrap.servers": bootstrap_servers})
    cluster.missing([topic], [Right("topic", topic, AclOperation.READ)], TIMEOUT_S)
    view = View(settings, topic, report or _to_stderr, what)
    try:
        view.look(at_end=not from_beginning)
    except BaseException:
        view.close()
        raise
    return view


class View:
    """Which partitions are read, up to where, and what has been told of them. It is closed by whoever opened it."""

    def __init__(self, settings: dict[str, Any], topic: str, report: Callable[[str], None], what: str) -> None:
        self._settings, self._topic, self.report, self._what = settings, topic, report, what
        self._servers = settings["bootstrap.servers"]
        self._next: dict[int, int] = {}  # offset by partition
        self._forgotten = False
        self._consumer = self._new_consumer()
        self._looked_s = 0.0
        self._told: set[str] = set()

    def look(self, *, at_end: bool = False, timeout_s: float = TIMEOUT_S) -> None:
        """Assign what partitions there are now and were not before."""
        found = set(partitions_of(self._consumer, self._topic, self._servers, timeout_s))
        self._looked_s = time.monotonic()
        if not found:
            if self._next:
                self._consumer.unassign()
                self._next = {}
            self._tell_once(f"topic {self._topic!r} does not exist at {self._servers} (yet): waiting for it")
        new = sorted(found - self._next.keys())
        if new:
            places = [self._start(partition, at_end) for partition in new]
            self._consumer.incremental_assign(places)
            self._next |= {place.partition: place.offset for place in places}
            where = f"new {self._what}" if at_end else f"{self._what} from the beginning"
            self.report(f"reading {self._topic!r}, partitions {', '.join(map(str, new))}: {where}")
            self._told.clear()

    def look_again(self) -> None:
        """Look again now and then; Kafka may be away meanwhile."""
        every_s = _LOOK_EVERY_S if self._next else _LOOK_FOR_TOPIC_EVERY_S
        if time.monotonic() - self._looked_s < every_s:
            return
        try:
            self.look(timeout_s=1.0)
        except FlowsentryError as error:
            self._looked_s = time.monotonic()
            self._tell_once(f"{error}; trying again")

    def _start(self, partition: int, at_end: bool) -> TopicPartition:
        place = TopicPartition(self._topic, partition, OFFSET_BEGINNING)
        if at_end:
            try:  # now, not when the first fetch asks: what comes in between is new. In read_committed this is the
                # last stable offset, before transactions that are still open.
                place.offset = self._consumer.get_watermark_offsets(place, timeout=TIMEOUT_S)[1]
            except KafkaException as error:
                raise FlowsentryError(f"topic {self._topic!r} cannot be read: {error_text(error)}") from None
        return place

    def poll(self) -> Message | None:
        """The next message, if one comes at once."""
        self.look_again()
        if self._forgotten:
            self._consumer.close()
            self._forgotten, self._consumer = False, self._new_consumer()
            self._consumer.assign([TopicPartition(self._topic, number, at) for number, at in self._next.items()])
        message = self._consumer.poll(_POLL_S)
        return None if message is None or self._is_error(message) else message

    def close(self) -> None:
        self._consumer.close()

    def _new_consumer(self) -> Consumer:
        try:
            return Consumer({**self._settings, "stats_cb": self._heard})
        except KafkaException as error:
            raise FlowsentryError(f"kafka: {error_text(error)}") from None

    def _heard(self, statistics: str) -> None:
        self._forgotten = brokers_are_forgotten(statistics)

    def _is_error(self, message: Message) -> bool:
        """Whether a message is none but tells an error."""
        error = message.error()
        if error is None:
            self._next[message.partition() or 0] = (message.offset() or 0) + 1
            return False
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return True  # librdkafka looks for a group's coordinator, needed or not: nothing is committed here
        if error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise FlowsentryError(f"topic {self._topic!r} cannot be read: {error.str()}")
        self._tell_once(f"Kafka: {error.str()}")
        return True

    def _tell_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self.report(what)


def _to_stderr(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
