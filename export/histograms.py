"""How features and scores were spread when a bundle was made: histograms that a stream is held against; numpy alone.

Each variable has cells: its bins, or its categories, and one for values that are missing. Of each class, benign flows and
attacks, it is known how many rows fell into them. What fell into them in a window is held against the mixture of both in which
attacks have the share that they have in the window, by the population stability index and by the Wasserstein distance: so
that more attacks, or fewer, are no drift by themselves.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = [
    "BINS",
    "Categories",
    "Distances",
    "Numbers",
    "Shares",
    "Variable",
    "categories_of",
    "numbers_of",
    "psi",
    "scores_of",
]

BINS = 30
_FLOOR = 1e-4
_RARE = 0.01
_LARGEST_LOGIT = 9.0
_JUST_BELOW_0 = np.float32(-1e-30)  # the next number below 0 is one that some processors are told to take for 0


@dataclass(frozen=True, slots=True)
class Distances:
    """How far a window is from the reference, and the shares of its values that are missing, that are categories never seen
    in training, and that lie beyond the lowest and highest value of training; None where there is no such thing."""

    psi: float
    wasserstein: float
    missing: float
    unknown: float | None
    out_of_range: float | None


def psi(reference: np.ndarray, window: np.ndarray) -> float:
    """The population stability index of two distributions over the same cells, f64[K] each: Σ (w − r) · ln(w / r).

    It is the symmetrised Kullback-Leibler divergence (Siddiqi, Credit Risk Scorecards, 2006; its distribution without drift:
    Yurdakul & Naranjo, Statistical properties of the population stability index, 2020). By custom up to 0.1 is called
    stable, over 0.2 or 0.25 shifted. A share below 0.0001 counts as that, so that no cell alone makes it infinite.
    """
    r, w = np.maximum(reference, _FLOOR), np.maximum(window, _FLOOR)
    return float(((w - r) * np.log(w / r)).sum())


@dataclass(frozen=True, slots=True)
class Shares:
    """Of each class the share of its rows that fell into each bin or category, and, last, that had no value: f64[K+1]. There
    is no `attack` where no attacks are known."""

    benign: np.ndarray
    attack: np.ndarray | None = None

    def expected(self, attack_share: float) -> np.ndarray:
        """Those of flows of which attacks have that share, f64[K+1]; of benign flows where no attacks are known."""
        if self.attack is None:
            return self.benign
        mixture: np.ndarray = (1 - attack_share) * self.benign + attack_share * self.attack
        return mixture

    def to_json(self) -> dict[str, Any]:
        """As they stand in bundle.json."""
        classes = {"benign": self.benign, "attack": self.attack}
        return {
            name: {"shares": [round(share, 6) for share in each[:-1].tolist()], "missing": round(float(each[-1]), 6)}
            for name, each in classes.items()
            if each is not None
        }


class Variable(Protocol):
    """A feature or a score, with what it was like in the reference."""

    @property
    def name(self) -> str: ...

    @property
    def shares(self) -> Shares: ...

    @property
    def cells(self) -> int:
        """How many counts it needs."""

    def count(self, values: np.ndarray) -> np.ndarray:
        """N values → how many fell into each cell: i64[cells]."""

    def distances(self, counts: np.ndarray, attack_share: float) -> Distances:
        """What the counts i64[cells] of a window say, of which attacks have that share; at least one count is above 0."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in bundle.json."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A number's histogram: K bins, each from above the bound before up to its own (`uppers` f32[K-1], ascending), the first
    and last without an end. `low` and `high`: of the values of all rows, if there are any.

    Cells: the bins, missing, and (counted besides) out of range.
    """

    name: str
    uppers: np.ndarray
    shares: Shares
    low: float | None
    high: float | None

    @property
    def cells(self) -> int:
        return len(self.uppers) + 3

    def count(self, values: np.ndarray) -> np.ndarray:
        """Of numbers f[N], NaN = missing."""
        with np.errstate(over="ignore"):
            numbers = values.astype(np.float32)
        present = numbers[np.isfinite(numbers)]
        counts = np.zeros(self.cells, dtype=np.int64)
        bins = len(self.uppers) + 1
        counts[:bins] = np.bincount(np.searchsorted(self.uppers, present, side="left"), minlength=bins)
        counts[bins] = len(numbers) - len(present)
        if self.low is not None and self.high is not None:
            counts[bins + 1] = np.count_nonzero((present < self.low) | (present > self.high))
        return counts

    def distances(self, counts: np.ndarray, attack_share: float) -> Distances:
        cells, out_of_range = counts[:-1], counts[-1]
        expected, total = self.shares.expected(attack_share), cells.sum()
        return Distances(
            psi=psi(expected, cells / total),
            wasserstein=_wasserstein(expected[:-1], cells[:-1]),
            missing=float(cells[-1] / total),
            unknown=None,
            out_of_range=float(out_of_range / total),
        )

    def to_json(self) -> dict[str, Any]:
        uppers = [float(upper) for upper in self.uppers]
        return {"name": self.name, "uppers": uppers, **self.shares.to_json(), "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Categories:
    """The shares of the V categories of training.

    Cells: each category, unknown, missing. Those of which less than 1% is expected count as one in distances: of each alone
    a window says nothing but noise.
    """

    name: str
    vocabulary: tuple[str, ...]
    shares: Shares

    @property
    def cells(self) -> int:
        return len(self.vocabulary) + 2

    def count(self, values: np.ndarray) -> np.ndarray:
        """Of categories object[N], None = missing."""
        places: dict[str | None, int] = {category: place for place, category in enumerate(self.vocabulary)}
        places[None] = len(self.vocabulary) + 1
        counts = np.zeros(self.cells, dtype=np.int64)
        for category, number in Counter(values.tolist()).items():
            counts[places.get(category, len(self.vocabulary))] += number
        return counts

    def distances(self, counts: np.ndarray, attack_share: float) -> Distances:
        window = counts / counts.sum()
        reference = np.insert(self.shares.expected(attack_share), len(self.vocabulary), 0.0)
        rare = np.append(reference[:-2] < _RARE, [False, False])
        ours, theirs = (np.append(each[~rare], each[rare].sum()) for each in (reference, window))
        return Distances(
            psi=psi(ours, theirs),
            # With a distance of 1 between any two of them, as categories have no order: the total variation.
            wasserstein=float(np.abs(ours - theirs).sum() / 2),
            missing=float(window[-1]),
            unknown=float(window[-2]),
            out_of_range=None,
        )

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, **self.shares.to_json()}


def numbers_of(name: str, classes: Sequence[np.ndarray]) -> Numbers:
    """The histogram of the numbers f32[N] (NaN = missing) of benign rows and, if there are any, of attacks: at most 61 bins.

    Both classes weigh the same, however many rows each has, so that the bins tell values apart where either has its own. A
    value that is a thirtieth of all gets a bin of its own; the others are cut at their quantiles into bins of like weight,
    fewer where such values take their place.
    """
    present = [each for values in classes if len(each := values[np.isfinite(values)].astype(np.float32))]
    points = np.unique(np.concatenate(present)) if present else np.empty(0, dtype=np.float32)
    weights = np.zeros(len(points))
    for each in present:
        weights += np.bincount(np.searchsorted(points, each), minlength=len(points)) / len(each)
    alone = weights * BINS >= len(present)
    own, others, cumulative = points[alone], points[~alone], np.cumsum(weights[~alone])
    bins = max(1, BINS - 2 * len(own)) if len(others) else 1
    cuts = others[np.searchsorted(cumulative, np.arange(1, bins) / bins * cumulative[-1:])]
    below = np.where(own == 0, _JUST_BELOW_0, np.nextafter(own, np.float32(-np.inf)))
    uppers = np.unique(np.concatenate([cuts[cuts < points[-1:]], own, below]).astype(np.float32))
    return _filled(name, uppers, classes)


def scores_of(name: str, classes: Sequence[np.ndarray]) -> Numbers:
    """The histogram of probabilities f32[N], by class as above, over bins that are as wide as each other in log-odds."""
    logits = np.linspace(-_LARGEST_LOGIT, _LARGEST_LOGIT, BINS - 1)
    return _filled(name, (1 / (1 + np.exp(-logits))).astype(np.float32), classes)


def categories_of(name: str, vocabulary: Sequence[str], classes: Sequence[np.ndarray]) -> Categories:
    """The shares of categories, by class as above, of codes i64[N] (0 = missing, 1 = the first of `vocabulary`)."""
    cells = len(vocabulary) + 1
    counts = [np.bincount(codes.astype(np.int64), minlength=cells)[:cells] for codes in classes]
    return Categories(name, tuple(vocabulary), _shares([np.roll(each, -1) for each in counts]))


def _wasserstein(expected: np.ndarray, counts: np.ndarray) -> float:
    """The first Wasserstein distance of the values that are present, f64[K] by bin, each at its rank among the expected:
    0 to ½, whatever the unit. A tenth means that values have moved past a tenth of the expected flows on average.

    In one dimension it is the area between the two distribution functions (Ramdas, García Trillos & Cuturi, On
    Wasserstein two-sample testing, 2017). A bin stands at the middle of its ranks.
    """
    there, here = expected.sum(), counts.sum()
    if there == 0 or here == 0:
        return 0.0 if there == here == 0 else 0.5
    reference, window = expected / there, counts / here
    ranks = np.cumsum(reference) - reference / 2
    return float((np.abs(np.cumsum(window - reference)[:-1]) * np.diff(ranks)).sum())


def _filled(name: str, uppers: np.ndarray, classes: Sequence[np.ndarray]) -> Numbers:
    empty = Numbers(name, uppers, Shares(np.empty(0)), None, None)
    values = np.concatenate(classes)
    present = values[np.isfinite(values)]
    low, high = (float(present.min()), float(present.max())) if len(present) else (None, None)
    return Numbers(name, uppers, _shares([empty.count(each)[:-1] for each in classes]), low, high)


def _shares(counts: Sequence[np.ndarray]) -> Shares:
    """Of the counts i64[K+1] of each class."""
    return Shares(*(each / max(1, each.sum()) for each in counts))
