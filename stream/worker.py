"""One worker process: params → objects → the loop."""

import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from export.bundle import Bundle, Manifest, read_bundle
from export.detector import Detector, open_detector
from export.reference import load_checked
from export.signing import Trust
from schemas.errors import BundleError, FencedError, FlowsentryError
from schemas.params import Params
from stream import http
from stream.access import Right, access_denied, event_rights, is_secured, service_rights
from stream.batch_limit import BatchLimit
from stream.clients import (
    admin_properties,
    consumer_properties,
    is_named,
    probe_properties,
    producer_properties,
    shares_step_by_step,
    start_offset,
)
from stream.connection import Outage, Properties, brokers_are_forgotten, brokers_are_up, error_text
from stream.decode import Decoder
from stream.drift import watch_of
from stream.judge import Judge
from stream.metrics import Metrics
from stream.ownership import Ownership
from stream.record import limits_of
from stream.reload import Reloader, check_same_schema
from stream.service import Service
from stream.sink import AtLeastOnceSink, Denied, Sink, Stopped, TransactionalSink
from stream.source import Source
from stream.status import BROKER_SEEN_WITHIN_S, Status
from stream.topics import LARGE_MESSAGES, PLAIN, UNPACKED, lacking, wait_for_topics, warn_if_packed

__all__ = ["serve"]

log = structlog.get_logger()


def serve(
    params: Params,
    index: int,
    stopping: Callable[[], bool],
    *,
    restarts: int = 0,
    kept: Bundle | None = None,
    progressed: Callable[[], None] = lambda: None,
    in_use: Callable[[str], None] = lambda _: None,
) -> None:
    """Build worker number `index` and run it until `stopping()`.

    Args:
        kept: the bundle that was in use before, for when the one at its place cannot be used.
        progressed: called after each batch.
        in_use: called with the hash of the bundle that is in use from now on.

    Raises:
        FlowsentryError: the bundle, the topics or the broker are not as they must be.
        Outage: Kafka was away, and only a new worker can go on.
        BatchFailed: a bug.
    """
    stream = params.stream
    metrics, status = Metrics(), Status()
    metrics.restarts.set(restarts)
    limits = limits_of(stream)
    name = f"{stream.group}-{stream.instance or socket.gethostname()}-{index}"
    trust = Trust(stream.trusted_keys, required=stream.require_signature)

    def judge_of(bundle: Bundle) -> Judge:
        detector = _detector_of(bundle, kept, threads=max(1, (os.cpu_count() or 1) // stream.workers))
        policy = detector.manifest.policy_of(stream.target_fpr, stream.threshold, novel=stream.novel_alerts)
        decoder = Decoder(detector.schema, min_feature_coverage=stream.min_feature_coverage, limits=limits)
        return Judge(detector, decoder, policy, metrics.stage, watch_of(detector.manifest, params.drift, worker=name))

    def taken_over(manifest: Manifest) -> None:
        metrics.set_bundle(manifest)
        status.bundle = manifest.hash
        metrics.begin_drift(measured=params.drift.enabled and manifest.drift is not None)
        if index == 0 and params.drift.enabled and manifest.drift is None:
            log.info(
                "drift is not measured", bundle=manifest.hash[:12], why="the bundle has no reference: build it again"
            )
        in_use(manifest.hash)

    judge = _first_judge(stream.bundle, trust, judge_of, kept)
    manifest = judge.detector.manifest
    taken_over(manifest)
    port = _serve_http(metrics, status, stream.metrics_host, stream.metrics_port + index if stream.metrics_port else 0)

    def ends() -> bool:
        return stopping() or status.brokers_forgotten

    def waiting() -> None:
        status.beat()
        if ends():
            raise Stopped

    rights, of_events, admin = service_rights(params, name), event_rights(params), admin_properties(params)

    def denied(error: KafkaError) -> FlowsentryError:
        return access_denied(error, admin, [*rights, *of_events])

    def ends_waiting() -> bool:
        status.beat()
        return stopping()

    ready = wait_for_topics(
        admin,
        {stream.input: UNPACKED, stream.alerts: PLAIN, stream.dead_letters: LARGE_MESSAGES}
        | ({stream.events: PLAIN} if stream.events is not None and stream.create_topics else {}),
        create=stream.create_topics,
        rights=rights if is_secured(admin) else (),
        stopping=ends_waiting,
    )
    if not ready:
        return
    if index == 0 and restarts == 0:
        warn_if_packed(admin, stream.input)
    consumer = _consumer(params, name, status)
    limit = BatchLimit(stream.batch_size, float(consumer_properties(params, name)["max.poll.interval.ms"]) / 1000)
    source = Source(
        consumer,
        stream.input,
        limit=limit,
        max_wait_s=stream.max_wait_ms / 1000,
        max_batch_bytes=stream.max_batch_bytes,
        status=status,
        metrics=metrics,
        probe=lambda: Consumer(probe_properties(params), logger=logging.getLogger("librdkafka")),
        denied=denied,
        ownership=_ownership(params) if is_named(params) else None,
        start=start_offset(params),
        step_by_step=shares_step_by_step(params),
    )
    reloader = Reloader(
        stream.bundle,
        current=manifest,
        load_judge=lambda directory: judge_of(read_bundle(directory, trust)),
        trust=trust,
        on_refusal=metrics.bundle_refusals.inc,
        on_takeover=taken_over,
    )
    try:
        service = Service(
            source=source,
            judge=judge,
            sink=_sink(params, name, consumer, metrics, waiting, denied),
            succession=reloader if stream.reload else None,
            limit=limit,
            alerts_topic=stream.alerts,
            dead_letters_topic=stream.dead_letters,
            events_topic=_events_topic(params, admin, of_events),
            on_poison=stream.on_poison,
            metrics=metrics,
            status=status,
            progressed=progressed,
        )
        log.info(
            "running",
            name=name,
            bundle=f"{manifest.name} {manifest.version} {manifest.hash[:12]}",
            signature=str(manifest.signature),
            threshold=judge.policy.threshold,
            input=stream.input,
            alerts=stream.alerts,
            delivery=stream.delivery,
            metrics=f"http://{stream.metrics_host}:{port}/metrics",
        )
        if stream.reload:
            reloader.start()
        service.run(ends)
    except FencedError as error:
        if not status.troubled:
            raise
        # A member whose joining Kafka has done but not answered, because it went away, is fenced by itself.
        raise Outage(f"{error}, if it was not itself") from error
    except Stopped:
        log.warning("stopped before it could begin")
    finally:
        source.close()
    if status.brokers_forgotten and not stopping():
        raise Outage("it had no brokers any more, and the client library forgot those it knew")
    log.info("stopped", name=name)


def _detector_of(bundle: Bundle, kept: Bundle | None, threads: int) -> Detector:
    """Checked against its reference rows, unless it is the one that was in use: a second less until alerts flow again."""
    if kept is not None and kept.manifest.hash == bundle.manifest.hash:
        return open_detector(bundle, threads=threads)
    return load_checked(bundle, threads=threads)


def _first_judge(place: Path, trust: Trust, judge_of: Callable[[Bundle], Judge], kept: Bundle | None) -> Judge:
    """Of the bundle at its place; of the one that was in use before, if that is no good, as with one that is switched to."""
    try:
        bundle = read_bundle(place, trust)
        if kept is not None:
            check_same_schema(kept.manifest, bundle.manifest, place)
        return judge_of(bundle)
    except BundleError as error:
        if kept is None:
            raise
        log.error("bundle refused", why=str(error), goes_on_with=kept.manifest.hash[:12])
        return judge_of(kept)


def _events_topic(params: Params, admin: Properties, rights: Sequence[Right]) -> str | None:
    """None, and a warning, where it is not there or not ours to write to: alerts do not wait for it."""
    topic = params.stream.events
    if topic is None:
        return None
    if why := lacking(admin, topic, rights if is_secured(admin) else ()):
        log.warning("events of drift are not published, and are told by metrics and log alone", why=why)
        return None
    return topic


def _ownership(params: Params) -> Ownership:
    return Ownership(
        lambda: AdminClient(admin_properties(params), logger=logging.getLogger("librdkafka")),
        params.stream.group,
        params.stream.input,
    )


def _consumer(params: Params, name: str, status: Status) -> Consumer:
    def on_statistics(statistics: str) -> None:
        if brokers_are_up(statistics, BROKER_SEEN_WITHIN_S):
            status.broker_seen()
        status.brokers_forgotten |= brokers_are_forgotten(statistics)

    def on_error(error: KafkaError) -> None:
        if error.code() != KafkaError._FATAL:  # which is told as a message too
            status.trouble()

    properties = {**consumer_properties(params, name), "stats_cb": on_statistics, "error_cb": on_error}
    try:
        return Consumer(properties, logger=logging.getLogger("librdkafka"))
    except KafkaException as error:
        raise FlowsentryError(f"kafka: {error_text(error)}") from None


def _sink(
    params: Params, name: str, consumer: Consumer, metrics: Metrics, waiting: Callable[[], None], denied: Denied
) -> Sink:
    exactly_once = params.stream.delivery == "exactly-once"
    properties = producer_properties(params, transactional_id=name if exactly_once else None)

    def producer() -> Producer:
        metrics.producers.inc()
        return Producer(properties, logger=logging.getLogger("librdkafka"))

    try:
        if exactly_once:
            return TransactionalSink(producer, consumer, denied=denied, waiting=waiting)
        return AtLeastOnceSink(producer, consumer, denied=denied, waiting=waiting)
    except KafkaException as error:
        raise FlowsentryError(f"kafka: {error_text(error)}") from None


def _serve_http(metrics: Metrics, status: Status, host: str, port: int) -> int:
    try:
        return http.serve(metrics.registry, status, host, port)
    except (OSError, OverflowError) as error:  # the latter: PORT + i is no port any more
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise FlowsentryError(
            f"stream.metrics_port {port} on {host}: {why}. Choose another with --metrics-port, 0 for any"
        ) from None
