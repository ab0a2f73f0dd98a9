"""`demo`: the whole path at work. A Kafka, a replay of labelled flows, the detector, and a live look at its alerts."""

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.live import Live

from schemas.alert import Alert
from schemas.errors import FlowsentryError
from schemas.flow import BENIGN, FlowSchema
from stream.batch import headers_of
from stream.broker import broker
from stream.encode import SOURCE_TIME_HEADER
from stream.replay import replay
from stream.top.scrape import Unreachable, read_metrics
from stream.topics import UNPACKED, create_topics, partitions_of
from stream.view import Picture, render, summary_line

__all__ = ["SAMPLE", "DemoResult", "run_demo"]

SAMPLE = Path(__file__).parent / "sample" / "cicids2017-improved.csv.gz"

_READY_S = 30.0
_LINE_EVERY_S = 2.0
_LOOK_EVERY_S = 0.25
_DRAIN_S = 120.0


@dataclass(slots=True)
class DemoResult:
    """What came of it. `truth` maps a record's id to whether its label is an attack."""

    flows: int
    alerted: set[str]
    truth: dict[str, bool]
    picture: Picture
    families: dict[str, int] = field(default_factory=dict)

    @property
    def precision(self) -> float:
        hits = sum(self.truth.get(alert, False) for alert in self.alerted)
        return hits / len(self.alerted) if self.alerted else float("nan")

    @property
    def recall(self) -> float:
        attacks = [record for record, is_attack in self.truth.items() if is_attack]
        return len(self.alerted.intersection(attacks)) / len(attacks) if attacks else float("nan")


def run_demo(
    bundle: Path, files: list[Path], schema: FlowSchema, *, rate: float, limit: int | None, console: Console
) -> DemoResult:
    """Run it to its end.

    Raises:
        FlowsentryError: no broker, no bundle, a file that does not fit, or a detector that stopped.
    """
    console.print("starting Kafka …", style="dim")
    with broker() as servers:
        name = f"flowsentry-demo-{uuid.uuid4().hex[:8]}"
        topics = {"flows": name, "alerts": f"{name}.alerts", "dead": f"{name}.dead"}
        with _topics(servers, list(topics.values())):
            console.print(
                f"Kafka answers at {servers}; starting the detector with {bundle} …", style="dim", markup=False
            )
            with _detector(bundle, servers, topics) as service:
                result = _watch(service, servers, topics, files, schema, rate, limit, console)
            if service.process.returncode:
                raise FlowsentryError(
                    f"the detector stopped with status {service.process.returncode}; its log is above"
                )
    return result


def _admin(servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": servers, "log_level": 3})


@contextmanager
def _topics(servers: str, topics: list[str]) -> Iterator[None]:
    """Topics for the while: a Kafka that is not ours is left as it was, whatever comes."""
    admin = _admin(servers)
    create_topics(admin, dict.fromkeys(topics, UNPACKED))
    try:
        yield
    finally:
        for future in admin.delete_topics(topics).values():
            with suppress(KafkaException):  # it may be Kafka that is gone
                future.result(timeout=30)


@dataclass(slots=True)
class _Service:
    """The detector's process and where its metrics are."""

    process: subprocess.Popen[bytes]
    metrics_port: int

    def counters(self) -> dict[str, float]:
        """Its counters now, summed over labels.

        Raises:
            FlowsentryError: it has stopped.
        """
        try:
            samples = read_metrics(f"http://127.0.0.1:{self.metrics_port}/metrics")
        except Unreachable:
            if self.process.poll() is not None:
                raise FlowsentryError(f"the detector stopped with status {self.process.returncode}") from None
            return {}
        totals: dict[str, float] = {}
        for (name, _), value in samples.items():
            totals[name] = totals.get(name, 0.0) + value
        return totals


@contextmanager
def _detector(bundle: Path, servers: str, topics: Mapping[str, str]) -> Iterator[_Service]:
    port = _free_port()
    options = {
        "bundle": bundle,
        "bootstrap-servers": servers,
        "input": topics["flows"],
        "alerts": topics["alerts"],
        "dead-letters": topics["dead"],
        "set": "stream.events=null",
        "group": topics["flows"],
        "metrics-port": port,
    }
    command = [sys.executable, "-m", "stream", "run", "--quiet"]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield _Service(process, port)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _watch(
    service: _Service,
    servers: str,
    topics: Mapping[str, str],
    files: list[Path],
    schema: FlowSchema,
    rate: float,
    limit: int | None,
    console: Console,
) -> DemoResult:
    _until(
        lambda: service.counters().get("flowsentry_assigned_partitions", 0) > 0,
        _READY_S,
        "the detector gets no partition",
    )
    stop, replayed = threading.Event(), threading.Event()
    problems: list[BaseException] = []

    def produce() -> None:
        try:
            replay(
                files, schema, bootstrap_servers=servers, topic=topics["flows"], kafka={}, stop=stop, rate=rate,
                limit=limit,
            )  # fmt: skip
        except FlowsentryError as error:
            problems.append(error)
        finally:
            replayed.set()

    producer = threading.Thread(target=produce, name="replay", daemon=True)
    picture = Picture(f"flowsentry · {service_name(files)} at {rate:g} flows/s")
    alerted: set[str] = set()
    families: dict[str, int] = {}
    consumer = _reader(servers, topics["alerts"])
    began = time.monotonic()
    drain_until = float("inf")
    try:
        with _screen(picture, console) as refresh:
            producer.start()
            while True:
                for alert, latency_ms in _arrivals(consumer, _LOOK_EVERY_S):
                    picture.add(alert, latency_ms)
                    alerted.add(alert.id)
                    families[alert.family] = families.get(alert.family, 0) + 1
                counters = service.counters()
                picture.observe(
                    time.monotonic() - began,
                    int(counters.get("flowsentry_flows_total", picture.flows)),
                    int(counters.get("flowsentry_lag", picture.lag)),
                    int(counters.get("flowsentry_dead_letters_total", picture.dead_letters)),
                )
                refresh()
                if not replayed.is_set():
                    continue
                drain_until = min(drain_until, time.monotonic() + _DRAIN_S)
                produced = _end_offsets(consumer, topics["flows"], servers)
                if picture.flows >= produced and picture.alerts >= int(counters.get("flowsentry_alerts_total", 0)):
                    break
                if time.monotonic() > drain_until:
                    raise FlowsentryError(f"{produced - picture.flows} flows were not judged within {_DRAIN_S:.0f} s")
    finally:
        stop.set()
        producer.join(timeout=10)
        consumer.close()
    if problems:
        raise problems[0]
    return DemoResult(picture.flows, alerted, _truth(servers, topics["flows"]), picture, families)


def _arrivals(consumer: Consumer, seconds: float) -> Iterator[tuple[Alert, float]]:
    """The alerts of the next `seconds`, each with its latency in ms at the moment that it arrived."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        message = consumer.poll(left)
        if message is None:
            return
        error = message.error()
        if error is not None:
            raise KafkaException(error)
        arrived_ms = time.time() * 1000
        sent_ms = int(_header(message, SOURCE_TIME_HEADER) or 0)
        yield Alert.model_validate_json(message.value() or b""), arrived_ms - sent_ms


def service_name(files: list[Path]) -> str:
    """What is replayed, in a word."""
    return files[0].name.removesuffix(".gz").removesuffix(".csv") if files else "nothing"


@contextmanager
def _screen(picture: Picture, console: Console) -> Iterator[Callable[[], None]]:
    """A live picture on a terminal, else a line every 2 s."""
    if console.is_terminal:
        with Live(render(picture, console), console=console, refresh_per_second=4) as live:
            yield lambda: live.update(render(picture, console))
        return
    printed_at = float("-inf")

    def line() -> None:
        nonlocal printed_at
        if picture.seconds - printed_at >= _LINE_EVERY_S:
            console.print(summary_line(picture), soft_wrap=True, highlight=False)
            printed_at = picture.seconds

    yield line


def _reader(servers: str, topic: str) -> Consumer:
    """A plain subscriber of every partition, from the beginning, committed messages only."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"{topic}-view",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": False,
            "fetch.wait.max.ms": 50,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions_of(consumer, topic, servers)])
    return consumer


def _end_offsets(consumer: Consumer, topic: str, servers: str) -> int:
    places = [TopicPartition(topic, partition) for partition in partitions_of(consumer, topic, servers)]
    return sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)


def _truth(servers: str, topic: str) -> dict[str, bool]:
    """Record id → is its label an attack; read back from the topic's headers, where the detector never looks."""
    consumer = _reader(servers, topic)
    try:
        total = _end_offsets(consumer, topic, servers)
        truth: dict[str, bool] = {}
        deadline = time.monotonic() + _READY_S
        while len(truth) < total and time.monotonic() < deadline:
            for message in consumer.consume(1000, 0.5):
                error = message.error()
                if error is not None:
                    raise KafkaException(error)
                label = _header(message, "label")
                if label is not None:
                    truth[f"{message.topic()}-{message.partition()}-{message.offset()}"] = label != BENIGN
        return truth
    finally:
        consumer.close()


def _header(message: Message, name: str) -> str | None:
    value = dict(headers_of(message)).get(name)
    return None if value is None else value.decode()


def _until(condition: Callable[[], bool], seconds: float, problem: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise FlowsentryError(f"{problem} within {seconds:.0f} s; its log is above")
        time.sleep(0.1)
