"""Why a flow is an alert: the features that spoke most for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.bundle import FeatureInfo

__all__ = ["Reasoner", "Reasons", "Spoken"]


@dataclass(frozen=True, slots=True)
class Spoken:
    """A feature that spoke for an alert: its value in the flow, what is usual, and its weight among the reasons."""

    feature: FeatureInfo
    value: float | str | None
    benign_share: float | None
    weight: float


@dataclass(frozen=True, slots=True)
class Reasons:
    """The k features that spoke most for each of n flows, strongest first.

    `feature` i64[n, k] are places in `order`, `weight` f64[n, k] is out of 1 for all features. `number` f64[n, k] is NaN
    and `category` object[n, k] None where the feature is not of that kind, or is missing; `benign_share` f64[n, k] is NaN
    where there is no category.
    """

    order: tuple[FeatureInfo, ...]
    feature: np.ndarray
    weight: np.ndarray
    number: np.ndarray
    category: np.ndarray
    benign_share: np.ndarray

    def of(self, flow: int) -> list[Spoken]:
        """Those of one of the flows."""
        return [
            Spoken(
                feature=self.order[feature],
                value=category if category is not None else None if np.isnan(number) else number,
                benign_share=None if np.isnan(share) else share,
                weight=weight,
            )
            for feature, weight, number, category, share in zip(
                self.feature[flow].tolist(),
                self.weight[flow].tolist(),
                self.number[flow].tolist(),
                self.category[flow].tolist(),
                self.benign_share[flow].tolist(),
                strict=True,
            )
        ]


class Reasoner:
    """Finds the reasons, by a bundle's features and what is usual for them."""

    def __init__(self, numeric: Sequence[FeatureInfo], categorical: Sequence[FeatureInfo]) -> None:
        self._numeric = numeric
        self._categorical = categorical
        self._order = (*numeric, *categorical)
        self._low = np.array([_finite(info.benign_low) for info in numeric], dtype=np.float32)
        self._high = np.array([_finite(info.benign_high) for info in numeric], dtype=np.float32)
        self._shares: list[dict[str | None, float]] = [
            {None: np.nan, **dict(zip(info.vocabulary, info.benign_shares, strict=True))} for info in categorical
        ]

    def reasons(
        self,
        columns: Mapping[str, np.ndarray],
        attention: np.ndarray,
        surprise: np.ndarray | None,
        novel: np.ndarray,
        top: int,
    ) -> Reasons:
        """Of n flows: their feature columns, `attention` and `surprise` f32[n, F], `novel` bool[n].

        The weight is the attention that the verdict paid to a feature times how unusual its value is for a benign flow
        (1 within the benign range, more outside it). Those of a flow that is `novel` are weighed by their surprise.
        """
        numbers, categories, shares = self._values(columns, len(novel))
        known = numbers.shape[1]
        unusual = np.clip(np.nan_to_num(np.maximum(self._low - numbers, numbers - self._high)), 0, None)
        weights = attention.astype(np.float64)
        weights[:, :known] *= 1 + 3 * np.log1p(unusual / np.maximum(self._high - self._low, 1e-9))
        # A category that is missing is like a number that is: nothing unusual.
        weights[:, known:] *= np.where(np.isnan(shares), 1, 1 + 3 * (1 - shares))
        if surprise is not None:
            weights[novel] = surprise[novel].astype(np.float64) + 1e-9
        weights /= weights.sum(axis=1, keepdims=True)
        strongest = _strongest(weights, top)
        flow, place = np.nonzero(strongest >= known)
        is_category = (flow, place), (flow, strongest[flow, place] - known)
        flow, place = np.nonzero(strongest < known)
        is_number = (flow, place), (flow, strongest[flow, place])
        return Reasons(
            order=self._order,
            feature=strongest,
            weight=np.take_along_axis(weights, strongest, axis=1),
            number=_spread(numbers, strongest.shape, np.nan, *is_number),
            category=_spread(categories, strongest.shape, None, *is_category),
            benign_share=_spread(shares, strongest.shape, np.nan, *is_category),
        )

    def _values(self, columns: Mapping[str, np.ndarray], flows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Numbers f64[n, N], categories object[n, C] and their benign shares f64[n, C]; 0 for one that was never seen."""
        numbers = np.full((len(self._numeric), flows), np.nan)
        for index, info in enumerate(self._numeric):
            if info.name in columns:
                numbers[index] = columns[info.name]
        categories = np.full((flows, len(self._categorical)), None, dtype=object)
        shares = np.full((flows, len(self._categorical)), np.nan)
        for index, (info, known) in enumerate(zip(self._categorical, self._shares, strict=True)):
            if info.name in columns:
                names = [None if name is None else str(name) for name in columns[info.name].tolist()]
                categories[:, index] = names
                shares[:, index] = [known.get(name, 0.0) for name in names]
        return np.ascontiguousarray(numbers.T), categories, shares


def _strongest(weights: np.ndarray, top: int) -> np.ndarray:
    """The places of the largest weights of each row, the largest first and of equal ones the first: f64[n, F] → i64[n, top]."""
    left = weights.copy()
    rows = np.arange(len(left))
    strongest = np.empty((len(left), min(top, left.shape[1])), dtype=np.int64)
    for place in range(strongest.shape[1]):
        strongest[:, place] = left.argmax(axis=1)
        left[rows, strongest[:, place]] = -np.inf
    return strongest


def _spread(
    values: np.ndarray,
    shape: tuple[int, ...],
    otherwise: float | None,
    to: tuple[np.ndarray, np.ndarray],
    of: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    spread = np.full(shape, otherwise, dtype=values.dtype)
    spread[to] = values[of]
    return spread


def _finite(value: float | None) -> float:
    return 0.0 if value is None else value
