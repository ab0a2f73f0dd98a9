"""A uniform sample of a stream of flows, in bounded memory: of all that came, or of those of the last seconds."""

import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from schemas.flow import FlowSchema

__all__ = ["RecentReservoir", "Reservoir"]

_PANES = 10
_MOST_COUNTED = 10**9  # what numpy's hypergeometric draw takes


class Reservoir:
    """At most `size` flows, each flow that came with the same probability (Vitter, Random sampling with a reservoir, 1985,
    Algorithm R)."""

    def __init__(self, schema: FlowSchema, size: int, rng: np.random.Generator) -> None:
        self._numeric = [feature.name for feature in schema.numeric]
        self._categorical = [feature.name for feature in schema.categorical]
        self._size, self._rng = size, rng
        self._numbers = np.empty((size, len(self._numeric)), dtype=np.float32)
        self._names = np.empty((size, len(self._categorical)), dtype=object)
        self.seen = 0

    def __len__(self) -> int:
        return min(self.seen, self._size)

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take in flows: f64[B] (NaN = missing) and object[B] (None = missing) columns, one for each feature."""
        rows = len(next(iter(columns.values())))
        number = np.arange(self.seen, self.seen + rows)
        # The i-th flow takes a place among i: one below `size` is a place in the sample, whose flow gives way.
        places = np.where(number < self._size, number, (self._rng.random(rows) * (number + 1)).astype(np.int64))
        [taken] = np.nonzero(places < self._size)
        _, last = np.unique(places[taken][::-1], return_index=True)
        taken = taken[::-1][last]  # of those that take the same place the last one stays
        for index, name in enumerate(self._numeric):
            self._numbers[places[taken], index] = columns[name][taken]
        for index, name in enumerate(self._categorical):
            self._names[places[taken], index] = columns[name][taken]
        self.seen += rows

    def draw(self, count: int) -> dict[str, np.ndarray]:
        """So many of the flows that are kept, at random: f32[count] and object[count] columns."""
        rows = self._rng.choice(len(self), count, replace=False)
        return {name: self._numbers[rows, index] for index, name in enumerate(self._numeric)} | {
            name: self._names[rows, index] for index, name in enumerate(self._categorical)
        }


class RecentReservoir:
    """The same of the flows that came within the last `seconds`, give or take a tenth; None: of all of them.

    Each tenth of that time has a reservoir of its own. What is drawn from each is as much as a uniform sample of all of them
    together would have of it: a hypergeometric draw.
    """

    def __init__(
        self,
        schema: FlowSchema,
        size: int,
        seconds: float | None,
        *,
        seed: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._schema, self._size, self._clock = schema, size, clock
        self._window_s = float("inf") if seconds is None else seconds
        self._rng = np.random.default_rng(seed)
        self._panes: deque[tuple[float, Reservoir]] = deque()  # when each began, and its flows

    @property
    def seen(self) -> int:
        """Flows that the sample stands for."""
        return sum(pane.seen for _, pane in self._panes)

    def __len__(self) -> int:
        return min(self.seen, self._size)

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take in flows that come now: as `Reservoir.add`."""
        self._forget()
        now_s = self._clock()
        if not self._panes or now_s - self._panes[-1][0] >= self._window_s / _PANES:
            self._panes.append((now_s, Reservoir(self._schema, self._size, self._rng)))
        self._panes[-1][1].add(columns)

    def sample(self) -> dict[str, np.ndarray]:
        """The flows of the sample, in no order: a column f32[n] or object[n] for each feature, in the schema's order."""
        self._forget()
        counts = np.array([pane.seen for _, pane in self._panes], dtype=np.int64)
        while counts.sum() >= _MOST_COUNTED:
            counts = (counts + 1) // 2
        shares = self._rng.multivariate_hypergeometric(counts, min(len(self), int(counts.sum())), method="marginals")
        drawn = [pane.draw(int(share)) for (_, pane), share in zip(self._panes, shares, strict=True)]
        return {name: np.concatenate([part[name] for part in drawn]) for name in self._schema.names} if drawn else {}

    def _forget(self) -> None:
        """Panes that began more than the window and a pane ago."""
        oldest_s = self._clock() - self._window_s * (1 + 1 / _PANES)
        while self._panes and self._panes[0][0] <= oldest_s:
            self._panes.popleft()
