"""How features and scores were spread when a bundle was made: histograms that a stream is held against; numpy alone.

Each variable has cells: its bins, or its categories, and one for values that are missing. What fell into the cells in a window
is held against the reference by the population stability index, and by the Wasserstein distance.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

__all__ = ["BINS", "Categories", "Distances", "Numbers", "Variable", "categories_of", "numbers_of", "psi", "scores_of"]

BINS = 20
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


class Variable(Protocol):
    """A feature or a score, with what it was like in the reference."""

    @property
    def name(self) -> str: ...

    @property
    def cells(self) -> int:
        """How many counts it needs."""

    def count(self, values: np.ndarray) -> np.ndarray:
        """N values → how many fell into each cell: i64[cells]."""

    def distances(self, counts: np.ndarray) -> Distances:
        """What the counts i64[cells] of a window say; at least one of them is above 0."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in bundle.json."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A number's histogram: K bins, each from above the bound before up to its own (`uppers` f32[K-1], ascending), the first
    and last without an end; `shares` f64[K] and `missing` are of all rows. `low` and `high`: of the values, if there are any.

    Cells: the bins, missing, and (counted besides) out of range.
    """

    name: str
    uppers: np.ndarray
    shares: np.ndarray
    missing: float
    low: float | None
    high: float | None

    @property
    def cells(self) -> int:
        return len(self.shares) + 2

    def count(self, values: np.ndarray) -> np.ndarray:
        """Of numbers f[N], NaN = missing."""
        with np.errstate(over="ignore"):
            numbers = values.astype(np.float32)
        present = numbers[np.isfinite(numbers)]
        counts = np.zeros(self.cells, dtype=np.int64)
        bins = len(self.shares)
        counts[:bins] = np.bincount(np.searchsorted(self.uppers, present, side="left"), minlength=bins)
        counts[bins] = len(numbers) - len(present)
        if self.low is not None and self.high is not None:
            counts[bins + 1] = np.count_nonzero((present < self.low) | (present > self.high))
        return counts

    def distances(self, counts: np.ndarray) -> Distances:
        bins = len(self.shares)
        total = counts[: bins + 1].sum()
        return Distances(
            psi=psi(np.append(self.shares, self.missing), counts[: bins + 1] / total),
            wasserstein=self._wasserstein(counts[:bins]),
            missing=float(counts[bins] / total),
            unknown=None,
            out_of_range=float(counts[bins + 1] / total),
        )

    def _wasserstein(self, counts: np.ndarray) -> float:
        """The first Wasserstein distance of the values that are present, each at its rank among the reference's: 0 to ½,
        whatever the unit. A tenth means that values have moved past a tenth of the reference's flows on average.

        In one dimension it is the area between the two distribution functions (Ramdas, García Trillos & Cuturi, On
        Wasserstein two-sample testing, 2017). A bin stands at the middle of its ranks.
        """
        there, here = self.shares.sum(), counts.sum()
        if there == 0 or here == 0:
            return 0.0 if there == here == 0 else 0.5
        reference, window = self.shares / there, counts / here
        ranks = np.cumsum(reference) - reference / 2
        return float((np.abs(np.cumsum(window - reference)[:-1]) * np.diff(ranks)).sum())

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "uppers": [float(upper) for upper in self.uppers],
            "shares": _rounded(self.shares),
            "missing": round(self.missing, 6),
            "low": self.low,
            "high": self.high,
        }


@dataclass(frozen=True, slots=True)
class Categories:
    """The share of each category of training, `shares` f64[V], and `missing`, of all rows.

    Cells: each category, unknown, missing. Those of less than 1% of the rows count as one in distances: of each alone a
    window says nothing but noise.
    """

    name: str
    vocabulary: tuple[str, ...]
    shares: np.ndarray
    missing: float

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

    def distances(self, counts: np.ndarray) -> Distances:
        window = counts / counts.sum()
        reference = np.concatenate([self.shares, [0.0, self.missing]])
        rare = np.append(self.shares < _RARE, [False, False])
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
        return {"name": self.name, "shares": _rounded(self.shares), "missing": round(self.missing, 6)}


def numbers_of(name: str, values: np.ndarray) -> Numbers:
    """The histogram of numbers f32[N] (NaN = missing): at most 41 bins.

    A value that is a twentieth of all gets a bin of its own; the others are cut at their quantiles into bins of like share,
    fewer where such values take their place.
    """
    present = np.sort(values[np.isfinite(values)].astype(np.float32))
    points, counts = np.unique(present, return_counts=True)
    own = points[counts * BINS >= max(1, len(present))]
    others = present[~np.isin(present, own)]
    bins = max(1, BINS - 2 * len(own))
    cuts = others[np.arange(1, bins) * len(others) // bins] if len(others) else others
    below = np.where(own == 0, _JUST_BELOW_0, np.nextafter(own, np.float32(-np.inf)))
    if len(present):
        cuts = cuts[cuts < present[-1]]
    uppers = np.unique(np.concatenate([cuts, own, below]).astype(np.float32))
    return _filled(name, uppers, values)


def scores_of(name: str, scores: np.ndarray) -> Numbers:
    """The histogram of probabilities f32[N] over bins that are as wide as each other in log-odds."""
    logits = np.linspace(-_LARGEST_LOGIT, _LARGEST_LOGIT, BINS - 1)
    return _filled(name, (1 / (1 + np.exp(-logits))).astype(np.float32), scores)


def categories_of(name: str, vocabulary: Sequence[str], codes: np.ndarray) -> Categories:
    """The shares of categories, by codes i64[N] (0 = missing, 1 = the first of `vocabulary`)."""
    counts = np.bincount(codes.astype(np.int64), minlength=len(vocabulary) + 1)[: len(vocabulary) + 1]
    shares = counts / max(1, len(codes))
    return Categories(name, tuple(vocabulary), shares[1:], float(shares[0]))


def _filled(name: str, uppers: np.ndarray, values: np.ndarray) -> Numbers:
    present = values[np.isfinite(values)]
    low, high = (float(present.min()), float(present.max())) if len(present) else (None, None)
    empty = Numbers(name, uppers, np.zeros(len(uppers) + 1), 0.0, low, high)
    shares = empty.count(values)[:-1] / max(1, len(values))
    return Numbers(name, uppers, shares[:-1], float(shares[-1]), low, high)


def _rounded(shares: np.ndarray) -> list[float]:
    return [round(float(share), 6) for share in shares]
