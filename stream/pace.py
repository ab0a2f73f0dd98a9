"""When a replayed record is due."""

from collections.abc import Callable

from schemas.errors import FlowsentryError, ParamsError
from stream.csv_records import ReplayRecord

__all__ = ["Pace"]


class Pace:
    """When each record is due: evenly at `rate` flows/s, by its own time `speed` times as fast, or at once.

    Due times follow from the start, not from the record before, so a delay is caught up with. In own time every file
    begins at once; a record that lies before the one sent last is due at once, one without a time goes with the last.

    Raises:
        ParamsError: both are given, or one is not above zero.
    """

    def __init__(self, *, rate: float | None, speed: float | None, clock: Callable[[], float]) -> None:
        if rate is not None and speed is not None:
            raise ParamsError("--rate and --speed: give one of them, both set the pace")
        for name, value in (("--rate", rate), ("--speed", speed)):
            if value is not None and not 0 < value < float("inf"):
                raise ParamsError(f"{name} {value:g}: expected a number above 0")
        self._rate, self._speed, self._clock = rate, speed, clock
        self._count = 0
        self._began_s: float | None = None
        self._first_us: int | None = None
        self._last_us: int | None = None

    def begin_file(self) -> None:
        """To be called before a file's first record."""
        if self._speed is not None:
            self._began_s = self._first_us = self._last_us = None

    def ahead_s(self, record: ReplayRecord) -> float:
        """Seconds until the next record is due; 0 or less when it is.

        Raises:
            FlowsentryError: it is to come in its own time, and neither it nor one before it in the file has any.
        """
        if self._rate is not None:
            due_s = self._count / self._rate
            self._count += 1
        elif self._speed is None:
            return 0.0
        else:
            self._last_us = self._last_us if record.timestamp_us is None else record.timestamp_us
            if self._last_us is None:
                raise FlowsentryError(
                    f"{record.origin}: has no timestamp that can be read, so --speed cannot be kept: "
                    "use --rate FLOWS_PER_SECOND"
                )
            self._first_us = self._last_us if self._first_us is None else self._first_us
            due_s = (self._last_us - self._first_us) / 1e6 / self._speed
        if self._began_s is None:
            self._began_s = self._clock()
        return self._began_s + due_s - self._clock()
