"""One worker: its parts put together in the test's own process, or `python -m stream …` as its users run it.

Both work on real topics of a real Kafka, with the tiny bundle of `tests.bundles`.
"""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from export.detector import Detector
from export.thresholds import Policy
from schemas.alert import Alert
from schemas.datasets import SCHEMAS
from schemas.errors import FlowsentryError
from schemas.params import Params, StreamParams
from stream.batch import Batch
from stream.batch_limit import BatchLimit
from stream.clients import consumer_properties, probe_properties, producer_properties
from stream.decode import Decoder
from stream.drift import DriftWatch
from stream.judge import Judge, OnPoison
from stream.logs import configure_logging
from stream.metrics import Metrics
from stream.ownership import Ownership
from stream.service import Service
from stream.sink import Sink, TransactionalSink
from stream.source import Source
from stream.status import Status
from tests.kafka import committed, read_all

__all__ = [
    "THRESHOLD",
    "Command",
    "Logs",
    "Rig",
    "alerts_on",
    "attack",
    "benign",
    "command",
    "commit",
    "flow",
    "options",
    "put",
    "settled_limit",
    "workers_of",
]

SCHEMA = SCHEMAS["unsw-nb15"]
THRESHOLD = 0.75  # of the tiny bundle at its usual rate
PATIENCE_S = 60.0


def flow(**fields: Any) -> dict[str, Any]:
    """A whole UNSW-NB15 flow that the tiny bundle takes for an attack; `fields` are changed or added."""
    plain = {feature.name: 1 for feature in SCHEMA.numeric}
    return {**plain, "proto": "tcp", "service": "http", "state": "fin", "sttl": 1000, "dpkts": 0, **fields}


def attack(**fields: Any) -> bytes:
    """A record that becomes an alert."""
    return json.dumps(flow(**fields)).encode()


def benign(**fields: Any) -> bytes:
    """A record that does not."""
    return json.dumps(flow(**{"sttl": 0, "dpkts": 1000, **fields})).encode()


def denied(error: KafkaError) -> FlowsentryError:
    """What a worker makes of a right that it lacks."""
    return FlowsentryError(f"denied: {error.str()}")


def alerts_on(servers: str, topic: str) -> list[Alert]:
    """Every committed alert of a topic."""
    return [Alert.model_validate_json(message.value() or b"") for message in read_all(servers, topic)]


def settled_limit(rows: int) -> BatchLimit:
    """A limit that has seen batches which took no time."""
    limit = BatchLimit(rows, 300.0)
    while limit.rows < rows:
        limit.observe(limit.rows, 0.0)
    return limit


@dataclass(slots=True)
class Rig:
    """Three topics, a group of their own, and what a worker makes of them. Everything is closed by the fixture."""

    servers: str
    flows: str
    alerts: str
    dead: str
    detector: Detector
    metrics: Metrics = field(default_factory=Metrics)
    status: Status = field(default_factory=Status)
    sources: list[Source] = field(default_factory=list)

    @property
    def params(self) -> Params:
        return Params(stream=StreamParams(bootstrap_servers=self.servers, group=self.flows))

    @property
    def ownership(self) -> Ownership:
        """What the coordinator says of this group."""
        return Ownership(lambda: AdminClient({"bootstrap.servers": self.servers}), self.flows, self.flows)

    def source(
        self, *, batch_size: int = 100, max_wait_s: float = 0.2, ownership: Ownership | None = None, **kafka: str | int
    ) -> Source:
        """A member of the group."""
        name = f"{self.flows}-{len(self.sources)}"
        consumer = Consumer({**consumer_properties(self.params, name), **kafka})
        source = self.source_of(consumer, batch_size=batch_size, max_wait_s=max_wait_s, ownership=ownership)
        self.sources.append(source)
        return source

    def source_of(
        self,
        consumer: Consumer,
        topic: str = "",
        *,
        batch_size: int = 100,
        max_wait_s: float = 0.2,
        max_batch_bytes: int = 1 << 24,
        ownership: Ownership | None = None,
        step_by_step: bool = False,
    ) -> Source:
        """A source around a consumer of the test's own, which the test closes."""
        return Source(
            consumer,
            topic or self.flows,
            limit=settled_limit(batch_size),
            max_wait_s=max_wait_s,
            max_batch_bytes=max_batch_bytes,
            status=self.status,
            metrics=self.metrics,
            probe=lambda: Consumer(probe_properties(self.params)),
            denied=denied,
            ownership=ownership,
            start=OFFSET_BEGINNING,
            step_by_step=step_by_step,
        )

    def batch(self, source: Source, records: int) -> Batch:
        """The next so many records, of which there must be no more."""
        found: list[Any] = []
        until = time.monotonic() + PATIENCE_S
        while len(found) < records:
            assert time.monotonic() < until, f"{len(found)} records of {records} came"
            found += source.poll().records
        assert len(found) == records
        return Batch(found)

    def producer(self, kind: type[Producer] = Producer, **kafka: str | int) -> Callable[[], Producer]:
        """Makes the producers of a `TransactionalSink`, with the group's transactional id."""
        properties = {**producer_properties(self.params, transactional_id=self.flows), "log_level": 0, **kafka}
        return lambda: kind(properties)

    def service(
        self,
        *,
        source: Source | None = None,
        sink: Sink | None = None,
        detector: Detector | None = None,
        on_poison: OnPoison = "stop",
        drift: DriftWatch | None = None,
        events: str | None = None,
    ) -> Service:
        """The whole worker, some parts of it given; `events` is a topic."""
        source = source or self.source()
        detector = detector or self.detector
        decoder = Decoder(self.detector.schema, min_feature_coverage=0.5)
        return Service(
            source=source,
            judge=Judge(detector, decoder, Policy(THRESHOLD), self.metrics.stage, drift),
            sink=sink or TransactionalSink(self.producer(), source.consumer, denied=denied),
            succession=None,
            limit=settled_limit(100),
            alerts_topic=self.alerts,
            dead_letters_topic=self.dead,
            events_topic=events,
            on_poison=on_poison,
            metrics=self.metrics,
            status=self.status,
        )

    def value(self, name: str, **labels: str) -> float | None:
        """A metric's value now."""
        return self.metrics.registry.get_sample_value(name, labels)

    def run(self, service: Service, flows: int) -> None:
        """Run until so many flows are published and committed."""
        until = time.monotonic() + PATIENCE_S

        def done() -> bool:
            assert time.monotonic() < until, f"{self.value('flowsentry_flows_total')} flows of {flows} are done"
            return (self.value("flowsentry_flows_total") or 0) >= flows

        service.run(done)

    def close(self) -> None:
        for source in self.sources:
            source.close()


class Logs:
    """What this process logs, as on a machine without a terminal, or with one."""

    def __init__(self, out: io.StringIO) -> None:
        self._out = out
        self.configure()

    def configure(self, **options: bool) -> None:
        with redirect_stderr(self._out):
            configure_logging(**options)

    @property
    def text(self) -> str:
        return self._out.getvalue()

    def of(self, event: str) -> list[dict[str, Any]]:
        """Its lines of one kind."""
        lines: list[dict[str, Any]] = [json.loads(line) for line in self.text.splitlines()]
        return [line for line in lines if line["event"] == event]


class Command:
    """A running `python -m stream …` and the log lines that it has written."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    @property
    def logs(self) -> list[dict[str, Any]]:
        """Its log: nothing but JSON lines."""
        return [json.loads(line) for line in list(self.lines)]

    def logged(self, event: str, **fields: Any) -> dict[str, Any]:
        """Wait for a log line; one of its fields contains what is given for it."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [
                line
                for line in self.logs
                if line["event"] == event and all(str(text) in str(line.get(name)) for name, text in fields.items())
            ]
            return bool(found)

        self.until(look, f"{event} {fields}")
        return found[-1]

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something to come true while the command runs."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            ended = self.process.poll()
            if ended is not None:
                self._reader.join(10)
                assert condition(), f"ended with {ended} before {what}: {self.lines}"
                return
            assert time.monotonic() < deadline, f"{what} did not come: {self.lines}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; the exit status."""
        status = self.process.wait(PATIENCE_S)
        self._reader.join(10)
        return status


@contextmanager
def command(*arguments: str | Path, **environment: str) -> Iterator[Command]:
    """`python -m stream …` in a process group of its own; killed at the end if it is still there."""
    words: Sequence[str] = [sys.executable, "-m", "stream", *map(str, arguments)]
    environ = {name: value for name, value in os.environ.items() if name != "KAFKA_BOOTSTRAP_SERVERS"} | environment
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environ, start_new_session=True)
    running = Command(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        running._reader.join(10)
        assert process.stderr is not None
        process.stderr.close()


def options(servers: str, flows: str, bundle: Path, *more: str) -> list[str]:
    """`run` with topics and a group named after `flows`, and no topic of events unless `more` names one."""
    names = {"input": flows, "alerts": f"{flows}.alerts", "dead-letters": f"{flows}.dead", "group": flows}
    words = ["run", "--bundle", str(bundle), "--bootstrap-servers", servers, "--metrics-port", "0"]
    words += ["--set", "stream.events=null"]
    return [*words, *(word for name, value in names.items() for word in (f"--{name}", value)), *more]


def workers_of(pid: int) -> list[int]:
    """The worker processes of a running command."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


def put(servers: str, topic: str, counts: dict[int, int]) -> None:
    """So many records to each partition."""
    producer = Producer({"bootstrap.servers": servers})
    for partition, count in counts.items():
        for number in range(count):
            producer.produce(topic, b"%d" % number, partition=partition)
    assert producer.flush(30) == 0


def commit(rig: Rig, offsets: dict[int, int]) -> None:
    """For the rig's group, offsets by partition."""
    consumer = Consumer({"bootstrap.servers": rig.servers, "group.id": rig.flows})
    wanted = [TopicPartition(rig.flows, partition, offset) for partition, offset in offsets.items()]
    for _ in range(100):
        try:
            consumer.commit(offsets=wanted, asynchronous=False)
            break
        except KafkaException:  # the group's coordinator takes a moment to load
            time.sleep(0.1)
    consumer.close()
    assert committed(rig.servers, rig.flows, rig.flows).items() >= offsets.items()
