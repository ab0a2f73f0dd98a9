"""Is the worker alive, and is it ready? What the loop says of itself, for whoever asks over HTTP."""

import time
from collections.abc import Callable

__all__ = ["Status"]

STUCK_AFTER_S = 60.0
TROUBLE_LASTS_S = 30.0
BROKER_SEEN_WITHIN_S = 10.0


class Status:
    """Facts that the worker's thread sets and other threads read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat_at = clock()
        self._broker_seen_at: float | None = None
        self._trouble_at: float | None = None
        self.brokers_forgotten = False
        """The consumer cannot find a broker any more."""
        self.partitions = 0
        self.bundle = ""

    def beat(self) -> None:
        """The loop turns, be it that it waits for a broker."""
        self._beat_at = self._clock()

    def broker_seen(self) -> None:
        """A broker answered."""
        self._broker_seen_at = self._clock()

    def trouble(self) -> None:
        """Kafka is away, or has been."""
        self._trouble_at = self._clock()

    @property
    def troubled(self) -> bool:
        """Whether Kafka was away lately."""
        return self._trouble_at is not None and self._clock() - self._trouble_at < TROUBLE_LASTS_S

    def unhealthy(self) -> list[str]:
        """Why a restart is called for; empty while there is no reason."""
        silent_s = self._clock() - self._beat_at
        return [f"the loop has not turned for {silent_s:.0f} s"] if silent_s > STUCK_AFTER_S else []

    def unready(self) -> list[str]:
        """What is missing for flows to be judged; empty when nothing is."""
        missing = self.unhealthy()
        if not self.bundle:
            missing.append("no bundle is loaded")
        if not self.partitions:
            missing.append("no partition is assigned")
        if self._broker_seen_at is None:
            missing.append("no broker has answered yet")
        elif (silent_s := self._clock() - self._broker_seen_at) > BROKER_SEEN_WITHIN_S:
            missing.append(f"no broker has answered for {silent_s:.0f} s")
        return missing
