"""Raw feature values → model inputs: fitted on training rows alone, then frozen into the model's graph.

Numeric: a piecewise-linear map onto a standard normal (the quantile transform, so that heavy tails do not drown the
rest). Categorical: a code per category seen in training; 0 is missing, the code after the last one never seen.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import numpy as np
from scipy.stats import norm
from sklearn.preprocessing import QuantileTransformer

from schemas.flow import FlowSchema

__all__ = ["FeatureRange", "Preprocessor", "encode", "fit"]

# Beyond these quantiles a value of a flow counts as unusual for a benign one.
_BENIGN_QUANTILES = (0.01, 0.5, 0.99)
_CLIP = 1e-4


@dataclass(frozen=True, slots=True)
class FeatureRange:
    """What benign training rows show of one numeric feature: 1st percentile, median, 99th percentile."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Everything that was learnt from the training rows before the model was.

    `knots` and `heights` are f32[n_numeric, K], rows ascending: the map through (knot, height) points, constant outside
    them. `vocabularies` lists each categorical feature's categories; category i has code i + 1 (see `encode`).
    """

    dataset: str
    knots: np.ndarray
    heights: np.ndarray
    vocabularies: dict[str, tuple[str, ...]]
    benign: dict[str, FeatureRange]
    benign_categories: dict[str, dict[str, float]]

    def save(self, path: Path) -> None:
        """Write it as plain arrays, numbers and names, so that reading it needs no class of ours."""
        joblib.dump(asdict(self), path)

    @classmethod
    def load(cls, path: Path) -> "Preprocessor":
        """Read what `save` wrote."""
        content = joblib.load(path)
        benign = {name: FeatureRange(**limits) for name, limits in content.pop("benign").items()}
        return cls(benign=benign, **content)


def encode(values: np.ndarray, categories: tuple[str, ...]) -> np.ndarray:
    """K categories → codes: object[N] → f32[N]; 0 for missing (None), K + 1 for unknown."""
    codes: dict[str | None, int] = {category: code for code, category in enumerate(categories, start=1)}
    codes[None] = 0
    return np.array([codes.get(value, len(categories) + 1) for value in values], dtype=np.float32)


def fit(
    matrix: np.ndarray,
    is_attack: np.ndarray,
    schema: FlowSchema,
    vocabularies: dict[str, tuple[str, ...]],
    *,
    n_quantiles: int,
    seed: int,
) -> Preprocessor:
    """Fit on training rows: f32[N, F] raw values (codes for categories), bool[N]."""
    numeric = [schema.names.index(feature.name) for feature in schema.numeric]
    n_points = min(n_quantiles, len(matrix))
    quantiles, ranges = [], {}
    for feature, column in zip(schema.numeric, numeric, strict=True):  # one by one: all at once take several copies
        values = matrix[:, column].astype(np.float64)
        if np.isnan(values).all():
            values[:] = 0.0  # a feature without any value has no quantiles
        transformer = QuantileTransformer(n_quantiles=n_points, subsample=None, random_state=seed).fit(values[:, None])
        quantiles.append(transformer.quantiles_[:, 0])
        ranges[feature.name] = FeatureRange(*_quantiles(matrix[~is_attack, column]))
    knots, heights = _map_points(np.array(quantiles), np.linspace(0, 1, n_points))
    benign = ~is_attack
    shares = {
        name: _shares(matrix[benign, schema.names.index(name)], categories) for name, categories in vocabularies.items()
    }
    return Preprocessor(schema.name, knots, heights, vocabularies, ranges, shares)


def _map_points(quantiles: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles f64[n, Q] at the levels f64[Q] → strictly rising map points, padded to one width by repeating the last.

    A value that many rows share spans several levels; its height is that of their middle.
    """
    levels = np.clip(references, _CLIP, 1 - _CLIP)
    knots = np.zeros(quantiles.shape, dtype=np.float32)
    heights = np.zeros(quantiles.shape, dtype=np.float32)
    for row, column in enumerate(quantiles.astype(np.float32)):
        points, first, counts = np.unique(column, return_index=True, return_counts=True)
        middle = (levels[first] + levels[first + counts - 1]) / 2
        height = norm.ppf(middle)
        knots[row], heights[row] = points[-1], height[-1]
        knots[row, : len(points)], heights[row, : len(points)] = points, height
    return knots, heights


def _quantiles(values: np.ndarray) -> tuple[float, ...]:
    present = values[~np.isnan(values)]
    if not len(present):
        return (0.0, 0.0, 0.0)
    return tuple(float(value) for value in np.quantile(present, _BENIGN_QUANTILES))


def _shares(codes: np.ndarray, categories: tuple[str, ...]) -> dict[str, float]:
    counts = np.bincount(codes.astype(np.int64), minlength=len(categories) + 1)[1:]
    return {category: float(count / max(1, len(codes))) for category, count in zip(categories, counts, strict=True)}
