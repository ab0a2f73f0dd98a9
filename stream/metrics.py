"""What Prometheus sees of a worker."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from export.bundle import Manifest
from schemas.alert import Severity
from schemas.dead_letter import Reason
from schemas.event import DriftState
from schemas.flow import UNKNOWN
from stream.drift import DriftPicture
from stream.histogram import BatchHistogram

__all__ = ["STAGES", "Metrics"]

STAGES = ("consume", "decode", "score", "detect", "encode", "publish")
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Of a feature, or of the score: as `export.histograms.Distances` has it, and as Prometheus does.
_DRIFT = {
    "psi": ("psi", "Population stability index of the window against the bundle's reference."),
    "wasserstein": ("wasserstein", "Wasserstein distance of the window from the bundle's reference, by its ranks."),
    "missing": ("missing_share", "Share of the window's flows without a value."),
    "unknown": ("unknown_share", "Share of the window's flows with a category that training did not have."),
    "out_of_range": ("out_of_range_share", "Share of the window's flows below or above all of training."),
}
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
        self.latency_seconds = BatchHistogram(
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
        self.drift_measured = Gauge(
            "flowsentry_drift_measured",
            "1 where drift is measured, 0 where it is off or the bundle has no reference to measure it against.",
            registry=self.registry,
        )
        self.drift_flows = Gauge(
            "flowsentry_drift_window_flows", "Flows counted in the window of drift.", registry=self.registry
        )
        self.drift_events = Counter(
            "flowsentry_drift_events", "Times that drift began or ended.", ("state",), registry=self.registry
        )
        self.drift = {
            measure: Gauge(f"flowsentry_drift_{name}", text, ("feature",), registry=self.registry)
            for measure, (name, text) in _DRIFT.items()
        }
        for state in DriftState:
            self.drift_events.labels(state.value)
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

    def begin_drift(self, *, measured: bool) -> None:
        """A bundle is in use from now on, of which nothing is known yet."""
        self.drift_measured.set(measured)
        self.set_drift(DriftPicture(0, {}, ()))

    def set_drift(self, picture: DriftPicture) -> None:
        """Of a window with too few flows nothing is shown."""
        self.drift_flows.set(picture.flows)
        for measure, gauge in self.drift.items():
            if not picture.distances:
                gauge.clear()
            for feature, distances in picture.distances.items():
                if (value := getattr(distances, measure)) is not None:
                    gauge.labels(feature).set(value)
        for event in picture.events:
            self.drift_events.labels(event.state.value).inc()

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
