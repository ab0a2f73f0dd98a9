"""A worker as far as HTTP tells: real metrics on a real server."""

from dataclasses import dataclass, field

import numpy as np

from stream import http
from stream.metrics import Metrics
from stream.status import Status

__all__ = ["Worker"]


@dataclass(slots=True)
class Worker:
    metrics: Metrics = field(default_factory=Metrics)
    status: Status = field(default_factory=Status)
    port: int = 0

    def __post_init__(self) -> None:
        self.port = http.serve(self.metrics.registry, self.status, "127.0.0.1", self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"

    def become_ready(self) -> None:
        self.status.bundle, self.status.partitions = "9f", 2
        self.status.broker_seen()
        self.metrics.bundle.labels("tiny", "0.0.1", "9f" * 32, "unsw-nb15").set(1)
        self.metrics.set_lags({0: 0, 1: 7})

    def judge(self, flows: int, *, family: str = "DoS", alerts: int = 0, dead: int = 0, seconds: float = 0.02) -> None:
        """Count a batch as the service does."""
        self.metrics.alerts.labels(family, "high").inc(alerts)
        self.metrics.latency_seconds.observe(np.full(alerts, seconds))
        self.metrics.dead_letters.labels("not_json").inc(dead)
        self.metrics.stage_seconds.labels("score").observe(0.004)
        self.metrics.flows.inc(flows)
