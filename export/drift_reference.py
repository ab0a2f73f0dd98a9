"""The part of bundle.json that drift is measured against: of each feature and each score a histogram of benign flows and one
of attacks; numpy alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from export.histograms import Categories, Numbers, Shares, Variable, categories_of, numbers_of, scores_of
from schemas.flow import FlowSchema, Kind

__all__ = ["NOVELTY", "SCORE", "DriftReference", "Rows", "reference_from_json", "reference_of"]

SCORE, NOVELTY = "score", "novelty"
"""Names of what a bundle tells of a flow, beside those of features."""
_MOST_BINS = 64
_LARGEST_NUMBER = float(np.finfo(np.float32).max)


class Rows(NamedTuple):
    """How many there were of each class."""

    benign: int
    attack: int


@dataclass(frozen=True, slots=True)
class DriftReference:
    """Of `rows` training rows each feature, in the schema's order, and of `score_rows` validation rows each score."""

    rows: Rows
    score_rows: Rows
    features: tuple[Variable, ...]
    scores: tuple[Numbers, ...]

    def to_json(self) -> dict[str, Any]:
        """As it stands in bundle.json."""
        return {
            "rows": self.rows._asdict(),
            "score_rows": self.score_rows._asdict(),
            "features": [feature.to_json() for feature in self.features],
            "scores": [score.to_json() for score in self.scores],
        }


def reference_of(
    schema: FlowSchema,
    vocabularies: Mapping[str, Sequence[str]],
    x: np.ndarray,
    y: np.ndarray,
    *,
    score: np.ndarray | None,
    novelty: np.ndarray | None,
    score_y: np.ndarray,
) -> DriftReference:
    """The reference that rows make.

    Args:
        x: training rows f32[N, F] in schema order, categories as codes (0 = missing, 1 = the first of its vocabulary).
        y: which of them are attacks (1) or benign (0): int[N].
        score: attack probabilities f32[M] of validation rows; None: the bundle tells none.
        novelty: their novelty f32[M]; None: the bundle tells none.
        score_y: which of those are attacks: int[M].
    """
    features: list[Variable] = []
    for index, feature in enumerate(schema.features):
        classes = _by_class(x[:, index], y)
        if feature.kind is Kind.NUMERIC:
            features.append(numbers_of(feature.name, classes))
        else:
            features.append(categories_of(feature.name, vocabularies[feature.name], classes))
    scores = [] if score is None else [scores_of(SCORE, _by_class(score, score_y))]
    scores += [] if novelty is None else [numbers_of(NOVELTY, _by_class(novelty, score_y))]
    return DriftReference(_rows_of(y), _rows_of(score_y), tuple(features), tuple(scores))


def _by_class(values: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Of benign rows, and of attacks if there are any."""
    return [values[y == 0], values[y == 1]] if y.any() else [values]


def _rows_of(y: np.ndarray) -> Rows:
    attacks = int(np.count_nonzero(y))
    return Rows(len(y) - attacks, attacks)


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
    if not isinstance(content, dict):
        raise TypeError("'drift'")
    for key, names in (("features", [name for name, _ in vocabularies]), ("scores", [*scores])):
        items = content[key]
        if not isinstance(items, list) or [isinstance(it, dict) and it.get("name") for it in items] != names:
            raise ValueError(f"'drift.{key}'")
    rows, score_rows = _rows(content, "rows"), _rows(content, "score_rows")
    return DriftReference(
        rows=rows,
        score_rows=score_rows,
        features=tuple(
            _numbers(item, rows) if categories is None else _categories(item, categories, rows)
            for item, (_, categories) in zip(content["features"], vocabularies, strict=True)
        ),
        scores=tuple(_numbers(item, score_rows) for item in content["scores"]),
    )


def _numbers(item: Mapping[str, Any], rows: Rows) -> Numbers:
    uppers = _floats(item, "uppers", item["uppers"]).astype(np.float32)
    low, high = (None if item[key] is None else float(_floats(item, key, [item[key]])[0]) for key in ("low", "high"))
    if len(uppers) >= _MOST_BINS or not (np.diff(uppers) > 0).all():
        raise _wrong(item, "uppers")
    if (low is None) != (high is None) or (low is not None and high is not None and low > high):
        raise _wrong(item, "low")
    return Numbers(item["name"], uppers, _shares(item, len(uppers) + 1, rows), low, high)


def _categories(item: Mapping[str, Any], vocabulary: Sequence[str], rows: Rows) -> Categories:
    return Categories(item["name"], tuple(vocabulary), _shares(item, len(vocabulary), rows))


def _shares(item: Mapping[str, Any], cells: int, rows: Rows) -> Shares:
    """Of each class of which there are rows: of attacks there need be none."""
    if rows.attack == 0 and item.get("attack") is not None:
        raise _wrong(item, "attack")
    benign = _of_class(item, "benign", cells)
    return Shares(benign, _of_class(item, "attack", cells) if rows.attack else None)


def _of_class(item: Mapping[str, Any], name: str, cells: int) -> np.ndarray:
    """Of the cells and of missing values; together they are all rows, but for rounding."""
    given = item.get(name)
    if not isinstance(given, dict) or not isinstance(given.get("shares"), list):
        raise _wrong(item, f"{name}.shares")
    shares = _floats(item, f"{name}.shares", [*given["shares"], given.get("missing")])
    if len(shares) != cells + 1 or (shares < 0).any() or abs(shares.sum() - 1) > 1e-3:
        raise _wrong(item, f"{name}.shares")
    return shares


def _floats(item: Mapping[str, Any], key: str, given: object) -> np.ndarray:
    """Numbers that a float32 can hold."""
    if not isinstance(given, list) or not all(
        type(value) in (int, float) and abs(value) <= _LARGEST_NUMBER for value in given
    ):
        raise _wrong(item, key)
    return np.array(given, dtype=np.float64)


def _rows(content: Mapping[str, Any], key: str) -> Rows:
    given = content[key]
    if not isinstance(given, dict):
        raise TypeError(f"'drift.{key}'")
    for name, least in (("benign", 1), ("attack", 0)):
        if type(given.get(name)) is not int or given[name] < least:
            raise TypeError(f"'drift.{key}.{name}'")
    return Rows(given["benign"], given["attack"])


def _wrong(item: Mapping[str, Any], key: str) -> ValueError:
    return ValueError(f"'drift.{item['name']}.{key}'")
