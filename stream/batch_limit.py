"""How many records the next batch may have: as many as are wanted, or as can be done soon."""

__all__ = ["BatchLimit"]

_SHARE_OF_INTERVAL = 0.2
_LONGEST_S = 1.0
_FIRST = 64  # before anything has been measured
_FORGET = 0.9  # of a slow batch's measure, with each faster one after it


class BatchLimit:
    """At most `rows` records, fewer where those would take longer than a second.

    A member that is amid a batch holds up the whole group's rebalance, and what comes after its partitions' first batch.
    And a consumer that does not poll for `max_poll_interval_s` (`max.poll.interval.ms`) loses its partitions: a fifth of
    that is a bound too.
    """

    def __init__(self, rows: int, max_poll_interval_s: float) -> None:
        self._most = rows
        self._budget_s = min(_LONGEST_S, max_poll_interval_s * _SHARE_OF_INTERVAL)
        self._seconds_per_row: float | None = None

    @property
    def rows(self) -> int:
        """For the next batch; at least 1."""
        if self._seconds_per_row is None:
            return min(self._most, _FIRST)
        if self._seconds_per_row * self._most <= self._budget_s:
            return self._most
        return max(1, int(self._budget_s / self._seconds_per_row))

    def observe(self, rows: int, seconds: float) -> None:
        """What a batch took, from decoding to its commit. Slow ones count at once, fast ones by and by."""
        self._seconds_per_row = max(seconds / rows, (self._seconds_per_row or 0.0) * _FORGET)
