"""Replay: flow records from CSV files onto a Kafka topic, evenly paced, in their own time, or as fast as it goes."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from schemas.errors import FlowsentryError
from schemas.flow import FlowSchema
from stream.csv_records import ReplayRecord, detect_schema, records
from stream.pace import Pace
from stream.topics import UNPACKED, ensure_topic, error_text

__all__ = ["ReplayRecord", "ReplaySummary", "detect_schema", "records", "replay", "shown_progress"]

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
    """What was replayed, every record confirmed by Kafka. `bytes` counts values; `stopped` tells of an early end."""

    produced: int
    bytes: int
    seconds: float
    stopped: bool

    @property
    def flows_s(self) -> float:
        return self.produced / self.seconds if self.seconds > 0 else 0.0


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
    ensure_topic(bootstrap_servers, topic, kafka=kafka, create=create_topics, config=UNPACKED)
    outbox = _Outbox(bootstrap_servers, topic, kafka, stop)
    began_s = reported_s = clock()
    try:
        for record in islice(_rows(files, schemas, pace, loop), limit):
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
    finally:
        outbox.flush()
    outbox.check()
    seconds = clock() - began_s
    if on_progress:
        on_progress(outbox.sent, seconds)
    return ReplaySummary(outbox.confirmed, outbox.bytes, seconds, stop.is_set())


def _rows(files: Sequence[Path], schemas: Sequence[FlowSchema], pace: Pace, loop: bool) -> Iterator[ReplayRecord]:
    while True:
        empty = True
        for path, schema in zip(files, schemas, strict=True):
            pace.begin_file()
            for record in records(path, schema):
                empty = False
                yield record
        if empty:
            raise FlowsentryError(f"no data rows in {', '.join(map(str, files)) or 'no files'}: nothing to replay")
        if not loop:
            return


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
        self.sent = self.bytes = self.confirmed = 0
        self._failure = ""

    def send(self, record: ReplayRecord) -> None:
        headers = cast("list[tuple[str, str | bytes | None]]", record.headers)
        delivered = partial(self._delivered, record)  # a delivery report does not bring the headers back
        while True:
            try:
                self._producer.produce(self._topic, record.value, headers=headers, on_delivery=delivered)
            except BufferError:  # more than Kafka takes: wait for it
                self._producer.poll(_LONGEST_WAIT_S)
                self.check()
                if self._stop.is_set():
                    return None
                continue
            except KafkaException as error:
                self._failure = self._failure or f"{record.origin}: {error_text(error)}"
                return self.check()
            self.sent += 1
            self.bytes += len(record.value)
            return None

    def _delivered(self, record: ReplayRecord, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.confirmed += 1
        elif not self._failure:
            self._failure = f"{record.origin}: {error.str()}"

    def check(self) -> None:
        """Take in what Kafka answered.

        Raises:
            FlowsentryError: it refused a record, or did not take it in time.
        """
        self._producer.poll(0)
        if self._failure:
            self.flush()
            raise FlowsentryError(
                f"Kafka confirmed {self.confirmed} records of {self.sent} on topic {self._topic!r}; the first that it "
                f"did not: {self._failure}"
            )

    def flush(self) -> None:
        """Wait until every record is confirmed or refused (message.timeout.ms bounds it); Ctrl-C breaks it off."""
        while len(self._producer):
            self._producer.flush(_LONGEST_WAIT_S)


@contextmanager
def shown_progress(
    limit: int | None, console: Console | None = None, *, what: str = "replay"
) -> Iterator[Callable[[int, float], None]]:
    """An `on_progress` that shows itself on stderr: on a terminal a bar (without `limit` a count), else a line now and
    then."""
    console = console or Console(file=sys.stderr)
    if console.is_terminal:
        count = MofNCompleteColumn() if limit is not None else TextColumn("{task.completed:,.0f}")
        note = TextColumn("flows, {task.fields[flows_s]:,.0f}/s")
        with Progress(
            SpinnerColumn(), TextColumn(what), BarColumn(), count, note, TimeElapsedColumn(), console=console
        ) as bar:
            task = bar.add_task(what, total=limit, flows_s=0.0)
            yield lambda sent, seconds: bar.update(task, completed=sent, flows_s=sent / max(seconds, 1e-9))
        return
    next_s = _LINE_EVERY_S

    def line(sent: int, seconds: float) -> None:
        nonlocal next_s
        if seconds >= next_s:
            next_s += _LINE_EVERY_S
            print(f"{what}: {sent} flows in {seconds:.0f} s ({sent / seconds:.0f}/s)", file=console.file, flush=True)

    yield line
