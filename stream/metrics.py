"""What Prometheus sees of a worker."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from export.bundle import Manifest
from schemas.alert import Severity
from schemas.dead_letter import Reason
from schemas.flow import UNKNOWN

__all__ = ["STAGES", "Metrics"]

STAGES = ("consume", "decode", "score", "detect", "encode", "publish")
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 4, 16, 64, 256, 1024, 4096, 16384)


class Metrics:
    """The worker's metrics, in a registry of their own. Counters are there from the beginning, at 0: Prometheus cannot tell
    that one which appears with its first event has grown."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.flows = Counter("flowsentry_flows", "Flow records consumed.", registry=self.registry)
        self.batches = Counter("flowsentry_batches", "Batches published and committed.", registry=self.registry)
        self.retries = Counter("flowsentry_batch_retries", "Batches rewound and done again.", registry=self.registry)
        self.alerts = Counter("flowsentry_alerts", "Alerts published.", ("family", "severity"), registry=self.registry)
        self.dead_letters = Counter(
            "flowsentry_dead_letters", "Records set aside.", ("reason",), registry=self.registry
        )
        self.stage_seconds = Histogram(
            "flowsentry_stage_seconds", "Seconds per batch.", ("stage",), buckets=_SECONDS, registry=self.registry
        )
        self.batch_size = Histogram(
            "flowsentry_batch_size", "Records per batch.", buckets=_ROWS, registry=self.registry
        )
        self.latency_seconds = Histogram(
            "flowsentry_alert_latency_seconds",
            "From the record's Kafka timestamp to its alert's commit.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.lag = Gauge("flowsentry_lag", "Records still to come.", ("partition",), registry=self.registry)
        self.partitions = Gauge("flowsentry_assigned_partitions", "Partitions of this worker.", registry=self.registry)
        self.rebalances = Counter(
            "flowsentry_rebalances", "Times that partitions came or went.", ("event",), registry=self.registry
        )
        self.expired = Counter(
            "flowsentry_expired", "Records that Kafka deleted before they were read.", registry=self.registry
        )
        self.producers = Counter(
            "flowsentry_producers", "Producers made; more than one where one could not go on.", registry=self.registry
        )
        self.restarts = Gauge(
            "flowsentry_worker_restarts", "How often this worker has been started again.", registry=self.registry
        )
        self.bundle_refusals = Counter(
            "flowsentry_bundle_refusals", "New bundles that were refused.", registry=self.registry
        )
        self.bundle = Gauge(
            "flowsentry_bundle_info",
            "The bundle in use.",
            ("name", "version", "hash", "dataset"),
            registry=self.registry,
        )
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for reason in Reason:
            self.dead_letters.labels(reason.value)
        for event in ("assigned", "revoked", "lost"):
            self.rebalances.labels(event)

    def set_bundle(self, manifest: Manifest) -> None:
        self.bundle.clear()
        self.bundle.labels(manifest.name, manifest.version, manifest.hash, manifest.schema.name).set(1)
        for family in (*manifest.families, *([UNKNOWN] if manifest.tells_novelty else [])):
            for severity in Severity:
                self.alerts.labels(family, severity.value)

    def set_lags(self, lags: Mapping[int, int]) -> None:
        self.partitions.set(len(lags))
        self.lag.clear()
        for partition, lag in lags.items():
            self.lag.labels(str(partition)).set(lag)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of one batch."""
        started = perf_counter()
        yield
        self.stage_seconds.labels(name).observe(perf_counter() - started)
