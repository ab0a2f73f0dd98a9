"""A Prometheus histogram that counts a whole batch's values at once."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

__all__ = ["BatchHistogram"]


class BatchHistogram(Collector):
    """As `prometheus_client.Histogram`, without labels; `buckets` are upper bounds, ascending, without +Inf."""

    def __init__(self, name: str, documentation: str, *, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = np.array([*buckets, np.inf])
        self._counts = np.zeros(len(self._bounds), dtype=np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()  # a scrape is another thread
        registry.register(self)

    def observe(self, values: np.ndarray) -> None:
        """Count n values, f64[n]."""
        counts = np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._bounds))
        with self._lock:
            self._counts += counts
            self._sum += float(values.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        with self._lock:
            counts, total = self._counts.cumsum().tolist(), self._sum
        bounds = [*map(str, self._bounds[:-1].tolist()), "+Inf"]
        yield HistogramMetricFamily(
            self._name, self._documentation, buckets=list(zip(bounds, counts, strict=True)), sum_value=total
        )
