"""How many records the next batch may have: as many as are wanted, or as can be done long before the poll is overdue."""

__all__ = ["BatchLimit"]

_SHARE_OF_INTERVAL = 0.2
_FORGET = 0.9  # of a slow batch's measure, with each faster one after it


class BatchLimit:
    """At most `rows` records, fewer where they take so long that a batch of them would near `max_poll_interval_s`.

    Kafka takes the partitions from a consumer that does not poll for that long (`max.poll.interval.ms`).
    """

    def __init__(self, rows: int, max_poll_interval_s: float) -> None:
        self._most = rows
        self._budget_s = max_poll_interval_s * _SHARE_OF_INTERVAL
        self._seconds_per_row = 0.0

    @property
    def rows(self) -> int:
        """For the next batch; at least 1."""
        if self._seconds_per_row * self._most <= self._budget_s:
            return self._most
        return max(1, int(self._budget_s / self._seconds_per_row))

    def observe(self, rows: int, seconds: float) -> None:
        """What a batch took, from decoding to its commit. Slow ones count at once, fast ones by and by."""
        self._seconds_per_row = max(seconds / rows, self._seconds_per_row * _FORGET)
