"""Replay: flow records from CSV files onto a Kafka topic, evenly paced, in their own time, or as fast as it goes."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from schemas.errors import FlowsentryError, ParamsError
from schemas.flow import FlowSchema
from stream.csv_records import ReplayRecord, detect_schema, records
from stream.topics import ensure_topic, error_text

__all__ = ["Pace", "ReplayRecord", "ReplaySummary", "detect_schema", "records", "replay", "shown_progress"]

# Below the user's own properties; what keeps records from being lost or doubled is laid above them.
_DEFAULTS = {"linger.ms": 5, "message.timeout.ms": 60_000, "queue.buffering.max.messages": 20_000}
_CERTAIN = {"enable.idempotence": True, "acks": "all"}
_SHORTEST_WAIT_S = 0.002
_LONGEST_WAIT_S = 0.1
_POLL_EVERY = 256
_REPORT_EVERY_S = 0.2
_LINE_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What was replayed; Kafka has confirmed every record. `bytes` counts values; the last of `passes` over the files may be
    unfinished: `stopped` tells."""

    produced: int
    bytes: int
    seconds: float
    passes: int
    stopped: bool

    @property
    def flows_s(self) -> float:
        return self.produced / self.seconds if self.seconds > 0 else 0.0


class Pace:
    """When each record is due: evenly at `rate` flows/s, by its own time `speed` times as fast, or at once.

    Due times follow from the start, not from the record before, so a delay is caught up with. In own time every file
    begins at once, and a record earlier than the file's first is due at once.

    Raises:
        ParamsError: both are given, or one is not above zero.
    """

    def __init__(self, *, rate: float | None, speed: float | None, clock: Callable[[], float]) -> None:
        if rate is not None and speed is not None:
            raise ParamsError("--rate and --speed: give one of them, both set the pace")
        for name, value in (("--rate", rate), ("--speed", speed)):
            if value is not None and not 0 < value < float("inf"):
                raise ParamsError(f"{name} {value:g}: expected a number above 0")
        self._rate, self._speed, self._clock = rate, speed, clock
        self._count = 0
        self._began_s: float | None = None
        self._first_us = 0

    def begin_file(self) -> None:
        if self._speed is not None:
            self._began_s = None

    def ahead_s(self, record: ReplayRecord) -> float:
        """Seconds until the next record is due; 0 or less when it is.

        Raises:
            FlowsentryError: it is to come in its own time and has none.
        """
        if self._speed is not None and record.timestamp_us is None:
            name = dict(record.headers)["file"].decode()
            raise FlowsentryError(
                f"{name}: data row {record.row} has no timestamp that can be read, so --speed cannot be kept: "
                "use --rate FLOWS_PER_SECOND"
            )
        if self._rate is None and self._speed is None:
            return 0.0
        if self._began_s is None:
            self._began_s, self._first_us = self._clock(), record.timestamp_us or 0
        if self._rate is not None:
            due_s = self._count / self._rate
            self._count += 1
        else:
            due_s = ((record.timestamp_us or 0) - self._first_us) / 1e6 / (self._speed or 1.0)
        return self._began_s + due_s - self._clock()


def replay(
    files: Sequence[Path],
    schema: FlowSchema | None,
    *,
    bootstrap_servers: str,
    topic: str,
    kafka: Mapping[str, str | int | float | bool],
    stop: threading.Event,
    rate: float | None = None,
    speed: float | None = None,
    limit: int | None = None,
    loop: bool = False,
    create_topics: bool = False,
    on_progress: Callable[[int, float], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ReplaySummary:
    """Produce the files' records, in order, until they end (with `loop`: never), `limit` is reached or `stop` is set.

    `schema` None detects each file's. `on_progress(records, seconds)` is called a few times a second. What is in flight
    is always waited for. The first record that Kafka refuses ends the replay.

    Raises:
        FlowsentryError: a file, the pace or the topic is wrong, or Kafka did not confirm every record.
    """
    pace = Pace(rate=rate, speed=speed, clock=clock)
    schemas = [schema or detect_schema(path) for path in files]  # a wrong file is told before anything is sent
    ensure_topic(bootstrap_servers, topic, kafka=kafka, create=create_topics)
    outbox = _Outbox(bootstrap_servers, topic, kafka, stop)
    began_s = reported_s = clock()
    passes = 0
    try:
        while not stop.is_set() and (loop or not passes):
            for path, file_schema in zip(files, schemas, strict=True):
                pace.begin_file()
                for record in records(path, file_schema):
                    if stop.is_set() or outbox.sent == limit:
                        break
                    ahead_s = pace.ahead_s(record)
                    if ahead_s > 0:
                        _wait(ahead_s, outbox, stop, clock)
                        if stop.is_set():
                            break
                    outbox.send(record)
                    if outbox.sent % _POLL_EVERY == 0 or ahead_s > 0:
                        outbox.check()
                        if on_progress and (now_s := clock()) - reported_s >= _REPORT_EVERY_S:
                            reported_s = now_s
                            on_progress(outbox.sent, now_s - began_s)
            passes += 1
            if outbox.sent == limit:
                break
            if not outbox.sent and not stop.is_set():
                raise FlowsentryError(f"no data rows in {', '.join(map(str, files)) or 'no files'}: nothing to replay")
    finally:
        outbox.flush()
    outbox.check()
    seconds = clock() - began_s
    if on_progress:
        on_progress(outbox.sent, seconds)
    return ReplaySummary(outbox.sent, outbox.bytes, seconds, passes, stop.is_set())


def _wait(seconds: float, outbox: "_Outbox", stop: threading.Event, clock: Callable[[], float]) -> None:
    """Wait, not shorter than is worth a sleep, so that fast paces go in small groups; deliveries go on meanwhile."""
    until_s = clock() + max(seconds, _SHORTEST_WAIT_S)
    while (left_s := until_s - clock()) > 0 and not stop.wait(min(left_s, _LONGEST_WAIT_S)):
        outbox.check()


class _Outbox:
    """An idempotent producer that counts what it sent and what Kafka confirmed."""

    def __init__(
        self, servers: str, topic: str, kafka: Mapping[str, str | int | float | bool], stop: threading.Event
    ) -> None:
        try:
            self._producer = Producer({**_DEFAULTS, **kafka, **_CERTAIN, "bootstrap.servers": servers})
        except KafkaException as error:
            raise FlowsentryError(f"kafka: {error_text(error)}") from None
        self._topic, self._stop = topic, stop
        self.sent = self.bytes = self._confirmed = 0
        self._failure = ""

    def send(self, record: ReplayRecord) -> None:
        headers = cast("list[tuple[str, str | bytes | None]]", record.headers)
        while True:
            try:
                self._producer.produce(self._topic, record.value, headers=headers, on_delivery=self._delivered)
            except BufferError:  # more than Kafka takes: wait for it
                self._producer.poll(_LONGEST_WAIT_S)
                self.check()
                if self._stop.is_set():
                    return None
                continue
            except KafkaException as error:
                self._failure = self._failure or f"{_origin(record.headers)}: {error_text(error)}"
                return self.check()
            self.sent += 1
            self.bytes += len(record.value)
            return None

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._confirmed += 1
        elif not self._failure:
            self._failure = f"{_origin(cast('list[tuple[str, bytes]]', message.headers() or []))}: {error.str()}"

    def check(self) -> None:
        """Take in what Kafka answered.

        Raises:
            FlowsentryError: it refused a record, or did not take it in time.
        """
        self._producer.poll(0)
        if self._failure:
            self.flush()
            raise FlowsentryError(
                f"Kafka confirmed {self._confirmed} records of {self.sent} on topic {self._topic!r}; the first that it "
                f"did not: {self._failure}"
            )

    def flush(self) -> None:
        """Wait until every record is confirmed or refused (message.timeout.ms bounds it); Ctrl-C breaks it off."""
        while len(self._producer):
            self._producer.flush(_LONGEST_WAIT_S)


def _origin(headers: Sequence[tuple[str, bytes]]) -> str:
    found = dict(headers)
    return f"{found.get('file', b'?').decode()} data row {found.get('row', b'?').decode()}"


@contextmanager
def shown_progress(limit: int | None, console: Console | None = None) -> Iterator[Callable[[int, float], None]]:
    """An `on_progress` that shows itself on stderr: on a terminal a bar (without `limit` a count), else a line now and
    then."""
    console = console or Console(file=sys.stderr)
    if console.is_terminal:
        count = MofNCompleteColumn() if limit is not None else TextColumn("{task.completed:,.0f}")
        note = TextColumn("flows, {task.fields[flows_s]:,.0f}/s")
        with Progress(
            SpinnerColumn(), TextColumn("replay"), BarColumn(), count, note, TimeElapsedColumn(), console=console
        ) as bar:
            task = bar.add_task("replay", total=limit, flows_s=0.0)
            yield lambda sent, seconds: bar.update(task, completed=sent, flows_s=sent / max(seconds, 1e-9))
        return
    next_s = _LINE_EVERY_S

    def line(sent: int, seconds: float) -> None:
        nonlocal next_s
        if seconds >= next_s:
            next_s += _LINE_EVERY_S
            print(f"replay: {sent} flows in {seconds:.0f} s ({sent / seconds:.0f}/s)", file=console.file, flush=True)

    yield line
