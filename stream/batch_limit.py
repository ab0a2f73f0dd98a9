"""How many records the next batch may have: as many as are wanted, or as can be done soon."""

__all__ = ["BatchLimit"]

_SHARE_OF_INTERVAL = 0.2
_LONGEST_S = 1.0
_FIRST = 64


class BatchLimit:
    """At most `rows` records, fewer where those would take longer than a second.

    A member that is amid a batch holds up the whole group's rebalance, and what comes after its partitions' first batch.
    And a consumer that does not poll for `max_poll_interval_s` (`max.poll.interval.ms`) loses its partitions: a fifth of
    that is a bound too. It begins small; a full batch that takes less than half of the bound doubles it, one that takes
    more than all of it shrinks it to what would have fitted.
    """

    def __init__(self, rows: int, max_poll_interval_s: float) -> None:
        self.rows = min(rows, _FIRST)
        self._most = rows
        self._longest_s = min(_LONGEST_S, max_poll_interval_s * _SHARE_OF_INTERVAL)

    def observe(self, rows: int, seconds: float) -> None:
        """What a batch took, from decoding to its commit."""
        if seconds > self._longest_s:
            self.rows = max(1, int(rows * self._longest_s / seconds))
        elif rows > self.rows / 2 and seconds < self._longest_s / 2:
            self.rows = min(self._most, 2 * self.rows)
