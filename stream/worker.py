"""One worker process: params → objects → the loop, with signals handled; and several of them side by side."""

import logging
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from types import FrameType

import numpy as np
import structlog
from confluent_kafka import Consumer, KafkaException, Producer

from export.detector import Detector, load
from schemas.errors import FlowsentryError
from schemas.params import Params
from stream.clients import admin_properties, consumer_properties, producer_properties
from stream.decode import Decoder
from stream.detect import Policy
from stream.logs import configure_logging
from stream.metrics import Metrics
from stream.service import BatchFailed, Service
from stream.sink import AtLeastOnceSink, Sink, TransactionalSink
from stream.source import Source
from stream.topics import error_text, wait_for_topics

__all__ = ["run_workers", "serve"]

log = structlog.get_logger()

_STOPPING = (signal.SIGTERM, signal.SIGINT)


def run_workers(params: Params, *, quiet: bool = False) -> int:
    """Run `stream.workers` workers until SIGTERM or SIGINT; the exit status."""
    if params.stream.workers == 1:
        stop = _stop_on_signals()
        try:
            serve(params, 0, stop.is_set)
        except BatchFailed:  # logged where it happened
            return 1
        return 0
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_worker_main, args=(params, index, quiet), name=f"worker-{index}", daemon=False)
        for index in range(params.stream.workers)
    ]
    stop = _stop_on_signals()
    # A worker inherits the mask: a signal that comes while it starts waits until it has its own handlers.
    multiprocessing.resource_tracker.ensure_running()  # which would unblock them
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    for worker in workers:
        worker.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    sentinels = [worker.sentinel for worker in workers]
    while not stop.is_set() and len(multiprocessing.connection.wait(sentinels, timeout=0.2)) == 0:
        pass
    for worker in workers:
        if worker.is_alive() and worker.pid is not None:
            os.kill(worker.pid, signal.SIGTERM)
    for worker in workers:
        worker.join()
    failed = [f"{worker.name} (status {worker.exitcode})" for worker in workers if worker.exitcode != 0]
    if failed:
        log.error("workers failed, the others were stopped", workers=failed)
        return 1
    return 0


def _worker_main(params: Params, index: int, quiet: bool) -> None:
    configure_logging(quiet=quiet)
    stop = _stop_on_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    try:
        serve(params, index, stop.is_set)
    except FlowsentryError as error:
        log.error("worker stops", why=str(error))
        raise SystemExit(1) from None
    except BatchFailed:
        raise SystemExit(1) from None


def serve(params: Params, index: int, stopping: Callable[[], bool]) -> None:
    """Build one worker and run it until `stopping()`.

    Raises:
        FlowsentryError: the bundle, the topics or the broker are not as they must be.
        BatchFailed: a bug.
    """
    stream = params.stream
    detector = load(stream.bundle, threads=max(1, (os.cpu_count() or 1) // stream.workers))
    manifest = detector.manifest
    threshold = manifest.threshold_for(stream.target_fpr) if stream.threshold is None else stream.threshold
    _warm_up(detector)

    metrics = Metrics()
    metrics.set_bundle(manifest)
    metrics_port = _serve_metrics(
        metrics, stream.metrics_host, stream.metrics_port + index if stream.metrics_port else 0
    )

    topics = (stream.input, stream.alerts, stream.dead_letters)
    ready = wait_for_topics(
        admin_properties(params),
        topics,
        create=stream.create_topics,
        roomy=[stream.dead_letters],
        stopping=stopping,
    )
    if not ready:
        return
    name = f"{stream.group}-{stream.instance or socket.gethostname()}-{index}"
    librdkafka = logging.getLogger("librdkafka")
    try:
        consumer = Consumer(consumer_properties(params, name), logger=librdkafka)
    except KafkaException as error:
        raise FlowsentryError(f"kafka: {error_text(error)}") from None
    source = Source(consumer, stream.input, batch_size=stream.batch_size, max_wait_s=stream.max_wait_ms / 1000)
    try:
        sink = _sink(params, name, consumer)
        service = Service(
            source=source,
            decoder=Decoder(detector.schema, min_feature_coverage=stream.min_feature_coverage),
            detector=detector,
            policy=Policy(threshold),
            sink=sink,
            alerts_topic=stream.alerts,
            dead_letters_topic=stream.dead_letters,
            metrics=metrics,
        )
        log.info(
            "running",
            worker=name,
            bundle=f"{manifest.name} {manifest.version} {manifest.hash[:12]}",
            threshold=threshold,
            input=stream.input,
            alerts=stream.alerts,
            delivery=stream.delivery,
            metrics=f"http://{stream.metrics_host}:{metrics_port}/metrics",
        )
        service.run(stopping)
    finally:
        source.close()
    log.info("stopped", worker=name)


def _sink(params: Params, name: str, consumer: Consumer) -> Sink:
    librdkafka = logging.getLogger("librdkafka")
    try:
        if params.stream.delivery == "exactly-once":
            producer = Producer(producer_properties(params, transactional_id=name), logger=librdkafka)
            return TransactionalSink(producer, consumer)
        return AtLeastOnceSink(Producer(producer_properties(params), logger=librdkafka), consumer)
    except KafkaException as error:
        raise FlowsentryError(f"kafka: {error_text(error)}") from None


def _warm_up(detector: Detector) -> None:
    """The first run of a graph allocates and plans; better before the first flow than after it."""
    columns: Mapping[str, np.ndarray] = {detector.schema.numeric[0].name: np.zeros(64)}
    detector.score(columns)


def _serve_metrics(metrics: Metrics, host: str, port: int) -> int:
    try:
        return metrics.serve(host, port)
    except (OSError, OverflowError) as error:  # the latter: PORT + i is no port any more
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise FlowsentryError(
            f"stream.metrics_port {port} on {host}: {why}. Choose another with --metrics-port, 0 for any"
        ) from None


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def handle(number: int, _: FrameType | None) -> None:
        stop.set()

    for number in _STOPPING:
        signal.signal(number, handle)
    return stop
