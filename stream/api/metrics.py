"""What Prometheus sees of the API."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from export.bundle import Manifest

__all__ = ["ApiMetrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_ROWS = (1, 4, 16, 64, 256, 1024, 4096)


class ApiMetrics:
    """The API's metrics, in a registry of their own."""

    def __init__(self, manifest: Manifest) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "flowsentry_api_requests", "Requests answered.", ("path", "status"), registry=self.registry
        )
        self.latency_seconds = Histogram(
            "flowsentry_api_latency_seconds",
            "Seconds from a request's head to the end of its answer.",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.flows = Counter("flowsentry_api_flows", "Flows judged.", ("prediction",), registry=self.registry)
        self.waiting = Gauge("flowsentry_api_waiting_flows", "Flows that wait for a batch.", registry=self.registry)
        self.batch_size = Histogram(
            "flowsentry_api_batch_size", "Flows per batch.", buckets=_ROWS, registry=self.registry
        )
        self.seconds = Histogram(
            "flowsentry_api_batch_seconds", "Seconds to judge a batch.", buckets=_SECONDS, registry=self.registry
        )
        bundle = Gauge(
            "flowsentry_bundle_info",
            "The bundle in use.",
            ("name", "version", "hash", "dataset"),
            registry=self.registry,
        )
        bundle.labels(manifest.name, manifest.version, manifest.hash, manifest.schema.name).set(1)
