"""Whether flows are still like those that the bundle was trained on: counted on the fly, measured once a pane.

Of the flows that were judged some, evenly spaced, fall into the cells of the bundle's histograms. The counts of the last
panes are the sliding window; each feature and score of it is held against the reference by effect sizes, the population stability
index and the Wasserstein distance (`export.histograms`), not by a test: with so many flows every difference is significant.
The reference is the mixture of benign flows and attacks in which attacks have the share that alerts have in the window.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from export.bundle import Manifest
from export.detector import Scores
from export.drift_reference import NOVELTY, SCORE, DriftReference
from export.histograms import Categories, Distances, Variable
from schemas.alert import BundleRef
from schemas.event import DriftEvent, DriftState
from schemas.params import DriftParams

__all__ = ["DriftPicture", "DriftWatch", "watch_of"]

_ROWS_AT_ONCE = 1024  # that are kept as they are before they are counted: one by one would cost more than scoring


@dataclass(frozen=True, slots=True)
class DriftPicture:
    """A window: how many `flows` of it were counted, the `distances` of each feature and score (none of too few flows), and
    the events that are due."""

    flows: int
    distances: Mapping[str, Distances]
    events: tuple[DriftEvent, ...]


@dataclass(frozen=True, slots=True)
class _Pane:
    began_s: float
    ended_s: float
    counts: np.ndarray
    flows: int
    alerts: int


class DriftWatch:
    """Watches the flows of one worker, judged by one bundle. Its memory is bounded, whatever comes."""

    def __init__(
        self,
        reference: DriftReference,
        params: DriftParams,
        *,
        bundle: BundleRef,
        worker: str,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            bundle, worker: as they stand in events.
            clock: seconds that nobody sets; `now` is asked once for the time of day that belongs to them.
        """
        self._knows_attacks = reference.rows.attack > 0
        self._params, self._bundle, self._worker, self._clock = params, bundle, worker, clock
        self._variables: tuple[Variable, ...] = (*reference.features, *reference.scores)
        ends = np.cumsum([variable.cells for variable in self._variables]).tolist()
        places = {it.name: slice(end - it.cells, end) for it, end in zip(self._variables, ends, strict=True)}
        self._categories = [(it, places[it.name]) for it in self._variables if isinstance(it, Categories)]
        self._numbers = [(it, places[it.name]) for it in self._variables if not isinstance(it, Categories)]
        self._places = places
        self._cells: int = ends[-1]
        self._panes: deque[_Pane] = deque(maxlen=params.panes)
        self._rng = np.random.default_rng()
        self._drifted: set[str] = set()
        self._began_s = self._filled_s = clock()
        self._began_at = now() - self._began_s
        self._allowed = self._burst
        self._empty()

    @property
    def _burst(self) -> float:
        return max(1.0, self._params.flows_per_s)

    def _empty(self) -> None:
        self._counts, self._flows, self._alerts = np.zeros(self._cells, dtype=np.int64), 0, 0
        self._waiting: list[np.ndarray] = []
        self._rows_waiting = 0

    def observe(self, columns: Mapping[str, np.ndarray], scores: Scores, alerting: np.ndarray) -> None:
        """Take in what was judged: features as the decoder gives them, f64[B] or object[B], what was said of them, and which
        flows were alerts, bool[B]."""
        taken = self._allowance(len(scores))
        if not taken:
            return
        begin = self._rng.random()
        rows = np.minimum(((np.arange(taken) + begin) * (len(scores) / taken)).astype(np.intp), len(scores) - 1)
        for variable, place in self._categories:
            self._counts[place] += variable.count(columns[variable.name][rows])
        told = {SCORE: scores.score, NOVELTY: scores.novelty}
        numbers = np.array([told[it.name] if it.name in told else columns[it.name] for it, _ in self._numbers])
        self._waiting.append(numbers[:, rows])
        self._flows += taken
        self._alerts += int(np.count_nonzero(alerting[rows]))
        self._rows_waiting += taken
        if self._rows_waiting >= _ROWS_AT_ONCE:
            self._count()

    def look(self) -> DriftPicture | None:
        """The window that has just ended, once for each pane; None in between. To be called again and again."""
        now_s = self._clock()
        if now_s - self._began_s < self._params.window_s / self._params.panes:
            return None
        self._count()
        self._panes.append(_Pane(self._began_s, now_s, self._counts, self._flows, self._alerts))
        self._began_s = now_s
        self._empty()
        while self._panes[0].ended_s <= now_s - self._params.window_s:
            self._panes.popleft()
        flows = sum(pane.flows for pane in self._panes)
        if flows < self._params.min_flows:
            return DriftPicture(flows, {}, ())
        counts = np.sum([pane.counts for pane in self._panes], axis=0)
        attack_share = sum(pane.alerts for pane in self._panes) / flows if self._knows_attacks else 0.0
        distances = {it.name: it.distances(counts[self._places[it.name]], attack_share) for it in self._variables}
        return DriftPicture(flows, distances, tuple(self._events(distances, flows, attack_share)))

    def _allowance(self, flows: int) -> int:
        """How many of so many flows may be counted now."""
        now_s = self._clock()
        self._allowed = min(self._burst, self._allowed + (now_s - self._filled_s) * self._params.flows_per_s)
        self._filled_s = now_s
        taken = min(flows, int(self._allowed))
        self._allowed -= taken
        return taken

    def _count(self) -> None:
        if not self._waiting:
            return
        together = np.concatenate(self._waiting, axis=1)
        for (variable, place), values in zip(self._numbers, together, strict=True):
            self._counts[place] += variable.count(values)
        self._waiting, self._rows_waiting = [], 0

    def _events(self, distances: Mapping[str, Distances], flows: int, attack_share: float) -> list[DriftEvent]:
        """Of each variable that has passed the bound; and of each that had, and is now below half of it: one that hovers
        about the bound is told once."""
        events = []
        for name, found in distances.items():
            if name not in self._drifted and found.psi >= self._params.psi_bound:
                self._drifted.add(name)
                events.append(self._event(DriftState.DRIFTED, name, found, flows, attack_share))
            elif name in self._drifted and found.psi < self._params.psi_bound / 2:
                self._drifted.remove(name)
                events.append(self._event(DriftState.RETURNED, name, found, flows, attack_share))
        return events

    def _event(self, state: DriftState, name: str, found: Distances, flows: int, attack_share: float) -> DriftEvent:
        return DriftEvent(
            state=state,
            feature=name,
            psi=found.psi,
            psi_bound=self._params.psi_bound,
            wasserstein=found.wasserstein,
            missing_share=found.missing,
            unknown_share=found.unknown,
            out_of_range_share=found.out_of_range,
            window_begin=self._time(self._panes[0].began_s),
            window_end=self._time(self._panes[-1].ended_s),
            flows=flows,
            attack_share=attack_share,
            bundle=self._bundle,
            worker=self._worker,
        )

    def _time(self, at_s: float) -> datetime:
        return datetime.fromtimestamp(self._began_at + at_s, UTC)


def watch_of(manifest: Manifest, params: DriftParams, *, worker: str) -> DriftWatch | None:
    """None: it is not wanted, or the bundle has nothing to measure drift against."""
    if manifest.drift is None or not params.enabled:
        return None
    bundle = BundleRef(name=manifest.name, version=manifest.version, hash=manifest.hash)
    return DriftWatch(manifest.drift, params, bundle=bundle, worker=worker)
