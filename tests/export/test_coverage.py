"""How much of a record must be there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.coverage import check_coverage, feature_counts
from schemas.datasets import SCHEMAS
from schemas.dead_letter import Reason

UNSW = SCHEMAS["unsw-nb15"]


def columns_of(*counts: int) -> dict[str, np.ndarray]:
    """Rows with so many values each, the first features having them."""
    columns = {}
    for index, feature in enumerate(UNSW.features):
        present = np.array([index < count for count in counts])
        if feature in UNSW.categorical:
            columns[feature.name] = np.array(["x" if here else None for here in present], dtype=object)
        else:
            columns[feature.name] = np.where(present, 0.0, np.nan)
    return columns


def test_numbers_and_categories_count_alike() -> None:
    assert feature_counts(columns_of(0, 1, 2, 42), 4).tolist() == [0, 1, 2, 42]
    assert feature_counts({}, 3).tolist() == [0, 0, 0]


def test_a_row_at_the_minimum_passes_and_one_below_is_told_how_much_is_there() -> None:
    (found,) = check_coverage(columns_of(21, 20, 42), 3, UNSW, 0.5)
    row, (reason, detail) = found
    assert (row, reason) == (1, Reason.TOO_FEW_FEATURES)
    assert detail == "20 of 42 features of unsw-nb15 have a value, at least 50% are needed"


@pytest.mark.parametrize("minimum", [0.0, 0.5, 1.0])
def test_a_row_without_any_value_never_passes(minimum: float) -> None:
    (found,) = check_coverage(columns_of(42, 0), 2, UNSW, minimum)
    assert found == (1, (Reason.NO_KNOWN_FIELD, "no feature of unsw-nb15 has a value"))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 42), max_size=8), st.floats(0, 1))
def test_exactly_the_rows_below_the_minimum_are_refused(counts: list[int], minimum: float) -> None:
    refused = [row for row, _ in check_coverage(columns_of(*counts), len(counts), UNSW, minimum)]
    assert refused == [row for row, count in enumerate(counts) if count == 0 or count < minimum * 42]
