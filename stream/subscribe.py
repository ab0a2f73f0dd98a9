"""Alerts as they come: a read-only look at the alerts topic, for people (a table) or programs (JSON lines)."""

import sys
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from itertools import islice
from typing import Literal, TextIO

from confluent_kafka import Message
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from schemas.alert import Alert, Severity
from schemas.cli import leave_unread
from stream.viewing import open_view
from stream.wording import COLOURS, UNKNOWN, endpoint, printable, reason_in_words

__all__ = ["as_table_row", "print_table", "run_subscriber", "subscribe"]

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
    view = open_view(
        bootstrap_servers, topic, kafka=kafka, from_beginning=from_beginning, what="alerts", group=group, report=report
    )
    reader = _Reader(topic, view.report)
    try:
        while not stop.is_set():
            message = view.poll()
            alert = None if message is None else reader.read(message)
            if alert is not None and (min_severity is None or alert.severity.rank >= min_severity.rank):
                yield alert
    finally:
        view.close()
        reader.close()


class _Reader:
    """Makes alerts of messages, and tells of those that are none."""

    def __init__(self, topic: str, report: Callable[[str], None]) -> None:
        self._topic, self._report = topic, report
        self._invalid = 0

    def read(self, message: Message) -> Alert | None:
        """The alert in a message; None, and told, when it holds none."""
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

    def close(self) -> None:
        if self._invalid:
            self._report(f"messages that were no alerts: {self._invalid}")


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
