"""The part of bundle.json that drift is measured against: a histogram of each feature and of each score; numpy alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.histograms import Categories, Numbers, Variable, categories_of, numbers_of, scores_of
from schemas.flow import FlowSchema, Kind

__all__ = ["NOVELTY", "SCORE", "DriftReference", "reference_from_json", "reference_of"]

SCORE, NOVELTY = "score", "novelty"
"""Names of what a bundle tells of a flow, beside those of features."""
_MOST_BINS = 64
_LARGEST_NUMBER = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class DriftReference:
    """Of `rows` training rows each feature, in the schema's order, and of `score_rows` validation rows each score."""

    rows: int
    score_rows: int
    features: tuple[Variable, ...]
    scores: tuple[Numbers, ...]

    def to_json(self) -> dict[str, Any]:
        """As it stands in bundle.json."""
        return {
            "rows": self.rows,
            "score_rows": self.score_rows,
            "features": [feature.to_json() for feature in self.features],
            "scores": [score.to_json() for score in self.scores],
        }


def reference_of(
    schema: FlowSchema,
    vocabularies: Mapping[str, Sequence[str]],
    x: np.ndarray,
    score: np.ndarray | None,
    novelty: np.ndarray | None,
) -> DriftReference:
    """The reference that rows make.

    Args:
        x: training rows f32[N, F] in schema order, categories as codes (0 = missing, 1 = the first of its vocabulary).
        score: attack probabilities f32[M] of validation rows; None: the bundle tells none.
        novelty: their novelty f32[M]; None: the bundle tells none.
    """
    features: list[Variable] = []
    for index, feature in enumerate(schema.features):
        if feature.kind is Kind.NUMERIC:
            features.append(numbers_of(feature.name, x[:, index]))
        else:
            features.append(categories_of(feature.name, vocabularies[feature.name], x[:, index]))
    scores = [] if score is None else [scores_of(SCORE, score)]
    scores += [] if novelty is None else [numbers_of(NOVELTY, novelty)]
    score_rows = next((len(told) for told in (score, novelty) if told is not None), 0)
    return DriftReference(len(x), score_rows, tuple(features), tuple(scores))


def reference_from_json(
    content: Mapping[str, Any], vocabularies: Sequence[tuple[str, Sequence[str] | None]], scores: Sequence[str]
) -> DriftReference:
    """Read back what `to_json` gave, checked.

    Args:
        vocabularies: each feature's name, in order, with its categories (None: it is a number).
        scores: the names of what the bundle tells.

    Raises:
        KeyError, TypeError, ValueError: a field is missing or not what it must be; its argument names the field.
    """
    for key, names in (("features", [name for name, _ in vocabularies]), ("scores", [*scores])):
        if [item["name"] for item in content[key]] != names:
            raise ValueError(f"'drift.{key}'")
    return DriftReference(
        rows=_count(content, "rows"),
        score_rows=_count(content, "score_rows"),
        features=tuple(
            _numbers(item) if categories is None else _categories(item, categories)
            for item, (_, categories) in zip(content["features"], vocabularies, strict=True)
        ),
        scores=tuple(_numbers(item) for item in content["scores"]),
    )


def _numbers(item: Mapping[str, Any]) -> Numbers:
    uppers = _floats(item, "uppers", item["uppers"]).astype(np.float32)
    low, high = (None if item[key] is None else float(_floats(item, key, [item[key]])[0]) for key in ("low", "high"))
    if not (np.diff(uppers) > 0).all():
        raise _wrong(item, "uppers")
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise _wrong(item, "low")
    shares, missing = _shares(item, len(uppers) + 1)
    if len(shares) > _MOST_BINS:
        raise _wrong(item, "shares")
    return Numbers(item["name"], uppers, shares, missing, low, high)


def _categories(item: Mapping[str, Any], vocabulary: Sequence[str]) -> Categories:
    shares, missing = _shares(item, len(vocabulary))
    return Categories(item["name"], tuple(vocabulary), shares, missing)


def _shares(item: Mapping[str, Any], cells: int) -> tuple[np.ndarray, float]:
    """Of the cells and of missing values; together they are all rows, but for rounding."""
    shares = _floats(item, "shares", [*item["shares"], item["missing"]])
    if len(shares) != cells + 1 or (shares < 0).any() or abs(shares.sum() - 1) > 1e-3:
        raise _wrong(item, "shares")
    return shares[:-1], float(shares[-1])


def _floats(item: Mapping[str, Any], key: str, given: object) -> np.ndarray:
    """Numbers that a float32 can hold."""
    if not isinstance(given, list) or not all(
        type(value) in (int, float) and abs(value) <= _LARGEST_NUMBER for value in given
    ):
        raise _wrong(item, key)
    return np.array(given, dtype=np.float64)


def _count(content: Mapping[str, Any], key: str) -> int:
    value = content[key]
    if type(value) is not int or value < 1:
        raise TypeError(f"'drift.{key}'")
    return value


def _wrong(item: Mapping[str, Any], key: str) -> ValueError:
    return ValueError(f"'drift.{item['name']}.{key}'")
