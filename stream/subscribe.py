"""Alerts as they come: a read-only look at the alerts topic, for people (a table) or programs (JSON lines)."""

import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from itertools import islice
from typing import Any, Literal, TextIO

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin._acl import AclOperation
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from schemas.alert import Alert, Severity
from schemas.cli import leave_unread
from schemas.errors import FlowsentryError
from stream.access import Right
from stream.connection import brokers_are_forgotten
from stream.topics import TIMEOUT_S, Cluster, error_text, partitions_of
from stream.wording import COLOURS, UNKNOWN, endpoint, printable, reason_in_words

__all__ = ["as_table_row", "print_table", "run_subscriber", "subscribe"]

_LOOK_EVERY_S = 5.0
_LOOK_FOR_TOPIC_EVERY_S = 0.5
_POLL_S = 0.1
_HEADINGS = ("time (UTC)", "severity", "source → destination", "family", "score", "strongest reason")
_WIDTHS = (19, 8, 43, 26, 5)


def subscribe(
    bootstrap_servers: str,
    topic: str,
    *,
    kafka: Mapping[str, str | int | float | bool],
    from_beginning: bool,
    min_severity: Severity | None,
    stop: threading.Event,
    group: str | None = None,
    report: Callable[[str], None] | None = None,
) -> Generator[Alert, None, None]:
    """Committed alerts of every partition, as they come, until `stop` is set. Nothing is committed or taken from others.

    Without `from_beginning` it starts after the alerts there are now. A topic that does not exist is waited for; that
    one, and partitions that are added later, are read from their beginning. `group` is only a name, for access rules.
    `report` is told what happens (default: stderr): waiting, ready, and messages that are no alerts, which are skipped.

    Raises:
        FlowsentryError: no Kafka answers at the start, or access is refused.
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
    view = _View(settings, topic, report or _to_stderr)
    try:
        view.look(at_end=not from_beginning)
        while not stop.is_set():
            view.look_again()
            alert = view.poll()
            if alert is not None and (min_severity is None or alert.severity.rank >= min_severity.rank):
                yield alert
    finally:
        view.close()


class _View:
    """Which partitions are read, up to where, and what has been told of them."""

    def __init__(self, settings: dict[str, Any], topic: str, report: Callable[[str], None]) -> None:
        self._settings, self._topic, self._report = settings, topic, report
        self._servers = settings["bootstrap.servers"]
        self._next: dict[int, int] = {}  # offset by partition
        self._forgotten = False
        self._consumer = self._new_consumer()
        self._looked_s = 0.0
        self._invalid = 0
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
            where = "new alerts" if at_end else "alerts from the beginning"
            self._report(f"reading {self._topic!r}, partitions {', '.join(map(str, new))}: {where}")
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

    def poll(self) -> Alert | None:
        """The next alert, if one comes at once."""
        if self._forgotten:
            self._consumer.close()
            self._forgotten, self._consumer = False, self._new_consumer()
            self._consumer.assign([TopicPartition(self._topic, number, at) for number, at in self._next.items()])
        message = self._consumer.poll(_POLL_S)
        return None if message is None else self._read(message)

    def close(self) -> None:
        self._consumer.close()
        if self._invalid:
            self._report(f"messages that were no alerts: {self._invalid}")

    def _new_consumer(self) -> Consumer:
        try:
            return Consumer({**self._settings, "stats_cb": self._heard})
        except KafkaException as error:
            raise FlowsentryError(f"kafka: {error_text(error)}") from None

    def _heard(self, statistics: str) -> None:
        self._forgotten = brokers_are_forgotten(statistics)

    def _read(self, message: Message) -> Alert | None:
        """The alert in a message; None, and told, when it holds none."""
        error = message.error()
        if error is not None:
            if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                return None  # librdkafka looks for a group's coordinator, needed or not: nothing is committed here
            if error.fatal() or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise FlowsentryError(f"topic {self._topic!r} cannot be read: {error.str()}")
            self._tell_once(f"Kafka: {error.str()}")
            return None
        self._next[message.partition() or 0] = (message.offset() or 0) + 1
        try:
            return Alert.model_validate_json(message.value() or b"")
        except ValidationError as problem:
            self._invalid += 1
            if self._invalid == 10 ** (len(str(self._invalid)) - 1):  # the 1st, 10th, 100th, …
                first = problem.errors(include_url=False, include_input=False)[0]
                place = ".".join(map(str, first["loc"]))
                self._report(
                    f"{self._topic}-{message.partition()}-{message.offset()} is no alert, skipped "
                    f"({printable(place + ': ' if place else '')}{first['msg']}); {self._invalid} so far"
                )
            return None

    def _tell_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._report(what)


def _to_stderr(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def as_table_row(alert: Alert) -> tuple[str, str, str, str, str, str]:
    """Time (UTC), severity, source → destination, family, score, and the strongest reason in words."""
    return (
        f"{alert.event_time:%Y-%m-%d %H:%M:%S}",
        alert.severity.value,
        endpoint(alert.flow),
        printable(alert.family),
        "–" if alert.score is None else f"{alert.score:.3f}",
        reason_in_words(alert.reasons[0]) if alert.reasons else UNKNOWN,
    )


def print_table(alerts: Iterable[Alert], out: TextIO | None = None) -> None:
    """Print each alert on a line of its own as it comes; coloured and cut to the width on a terminal."""
    console = Console(file=out or sys.stdout, highlight=False)
    _print_line(console, _HEADINGS, "bold", "bold")
    for alert in alerts:
        _print_line(console, as_table_row(alert), "", COLOURS[alert.severity])


def _print_line(console: Console, cells: tuple[str, ...], style: str, severity_style: str) -> None:
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=False)]
    if console.is_terminal:
        line = Text("  ", style).join([Text(padded[0]), Text(padded[1], severity_style), *map(Text, padded[2:])])
        line.append("  " + cells[-1])
        console.print(line, no_wrap=True, overflow="ellipsis")
    else:
        print(*padded, cells[-1], sep="  ", file=console.file, flush=True)


def run_subscriber(
    bootstrap_servers: str,
    topic: str,
    *,
    kafka: Mapping[str, str | int | float | bool],
    from_beginning: bool,
    min_severity: Severity | None,
    format: Literal["table", "json"],
    limit: int | None,
    stop: threading.Event,
    group: str | None = None,
    out: TextIO | None = None,
) -> int:
    """Print alerts to stdout until `stop` is set, `limit` is reached or the reader of a pipe is gone. → exit status 0.

    Raises:
        FlowsentryError: no Kafka answers at the start, or access is refused.
    """
    alerts = subscribe(
        bootstrap_servers, topic, kafka=kafka, from_beginning=from_beginning, min_severity=min_severity, stop=stop,
        group=group,
    )  # fmt: skip
    stream = out or sys.stdout
    try:
        shown = islice(alerts, limit)
        if format == "table":
            print_table(shown, stream)
        else:
            for alert in shown:
                print(alert.model_dump_json(), file=stream, flush=True)
    except BrokenPipeError:
        leave_unread(stream)
    finally:
        alerts.close()
    return 0
