"""Text cells → feature values: the one rule for what a number, a missing value and a category are in a CSV."""

import math
from collections.abc import Sequence

import numpy as np

from schemas.dead_letter import Reason
from schemas.flow import FLOAT32_MAX, Feature, Kind

__all__ = ["FLOAT32_MAX", "CellError", "category_cells", "is_missing", "numeric_cells", "parse_number"]

_MISSING = frozenset(
    {"", "nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity", "null", "none", "na", "n/a"}
)


class CellError(ValueError):
    """A cell that no rule can read; `reason` says which kind of wrong it is."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no finite value: blank, NaN, Infinity, null, N/A in any case."""
    return text.strip().lower() in _MISSING


def parse_number(text: str) -> float:
    """One numeric cell → float64; NaN for a missing one.

    Raises:
        CellError: it is no number, or none that a float32 can hold.
    """
    if is_missing(text):
        return math.nan
    try:
        number = float(text)
    except ValueError:
        raise CellError(Reason.WRONG_TYPE, f"expected a number, got {text[:80]!r}") from None
    if not abs(number) <= FLOAT32_MAX:
        raise CellError(Reason.OUT_OF_RANGE, f"expected a number up to ±{FLOAT32_MAX:.3g}, got {text[:80]}")
    return number


def numeric_cells(feature: Feature, cells: Sequence[str]) -> tuple[np.ndarray, dict[int, CellError]]:
    """A column of cells → float64[B] with NaN for missing, and the errors by row (their value is NaN)."""
    errors: dict[int, CellError] = {}
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        values = np.full(len(cells), math.nan)
        doubtful: Sequence[int] = range(len(cells))
    else:
        doubtful = np.flatnonzero(~(np.abs(values) <= FLOAT32_MAX)).tolist()
    for row in doubtful:
        text = cells[row]
        try:
            values[row] = feature.blank if feature.blank is not None and not text.strip() else parse_number(text)
        except CellError as error:
            values[row], errors[row] = math.nan, error
    return values + 0.0, errors  # -0 becomes 0: equal values have equal bits


def category_cells(cells: Sequence[str]) -> np.ndarray:
    """A column of cells → object[B] of canonical category names, None for missing."""
    return np.array([None if is_missing(cell) else category_name(cell) for cell in cells], dtype=object)


def category_name(value: str | int | float) -> str:
    """The canonical spelling of a category: lower case without spaces around, `6.0` and `6` both `"6"`."""
    name = str(value).strip().lower()
    return name.removesuffix(".0")


def is_numeric(feature: Feature) -> bool:
    """Whether the feature's column is float64 (else object)."""
    return feature.kind is Kind.NUMERIC
