"""What a number, a missing value and a category are in a CSV."""

import math
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.cells import FLOAT32_MAX, CellError, category_cells, is_missing, is_numeric, numeric_cells, parse_number
from schemas.dead_letter import Reason
from schemas.flow import Feature, Kind

PLAIN = Feature(name="dur", unit="s")
ZERO_IF_BLANK = Feature(name="is_ftp_login", unit="0 or 1", blank=0.0)


@pytest.mark.parametrize(
    "cell",
    ["", "  ", "NaN", "nan", "Infinity", "-Infinity", "+inf", "-inf", "INF", "null", "None", "NA", "n/a", " NaN\t"],
)
def test_a_cell_without_a_finite_value_is_missing(cell: str) -> None:
    assert is_missing(cell)
    assert math.isnan(parse_number(cell))
    assert category_cells([cell]).tolist() == [None]


@pytest.mark.parametrize(
    ("cell", "number"),
    [("1", 1.0), (" -2.5 ", -2.5), ("1e3", 1000.0), ("1E-3", 0.001), ("007", 7.0), (".5", 0.5), ("3.4e38", 3.4e38)],
)
def test_a_number_is_read_in_any_spelling(cell: str, number: float) -> None:
    assert parse_number(cell) == number


@pytest.mark.parametrize(
    ("cell", "reason", "told"),
    [
        ("0x1F", Reason.WRONG_TYPE, "expected a number, got '0x1F'"),
        ("tcp", Reason.WRONG_TYPE, "expected a number, got 'tcp'"),
        ("1,5", Reason.WRONG_TYPE, "expected a number, got '1,5'"),
        ("-", Reason.WRONG_TYPE, "expected a number, got '-'"),
        ("5\x00", Reason.WRONG_TYPE, "expected a number"),
        ("1e400", Reason.OUT_OF_RANGE, "expected a number up to ±3.4e+38, got 1e400"),
        ("-1e39", Reason.OUT_OF_RANGE, "expected a number up to ±3.4e+38, got -1e39"),
    ],
)
def test_a_cell_that_no_rule_reads_is_an_error_that_shows_it(cell: str, reason: Reason, told: str) -> None:
    with pytest.raises(CellError, match=re.escape(told)) as caught:
        parse_number(cell)
    assert caught.value.reason is reason


def test_an_error_shows_a_long_cell_shortened() -> None:
    with pytest.raises(CellError) as caught:
        parse_number("x" * 100_000)
    assert len(str(caught.value)) < 200


def test_the_largest_number_is_a_float32() -> None:
    assert np.float32(FLOAT32_MAX) == np.finfo(np.float32).max
    assert parse_number(repr(FLOAT32_MAX)) == FLOAT32_MAX


def test_a_column_of_plain_numbers() -> None:
    values, errors = numeric_cells(PLAIN, ["1", "-2.5", "1e3"])
    assert values.dtype == np.float64
    assert values.tolist() == [1.0, -2.5, 1000.0]
    assert errors == {}


def test_bad_cells_are_told_by_row_and_the_others_are_read() -> None:
    values, errors = numeric_cells(PLAIN, ["1", "word", "", "1e400", "Infinity", "0x1", "2"])
    np.testing.assert_array_equal(values, [1.0, np.nan, np.nan, np.nan, np.nan, np.nan, 2.0])
    wrong, too_large = Reason.WRONG_TYPE, Reason.OUT_OF_RANGE
    assert {row: error.reason for row, error in errors.items()} == {1: wrong, 3: too_large, 5: wrong}


def test_a_blank_cell_is_what_the_release_says_it_is() -> None:
    values, errors = numeric_cells(ZERO_IF_BLANK, ["", " ", "1", "NaN"])
    np.testing.assert_array_equal(values, [0.0, 0.0, 1.0, np.nan])
    assert errors == {}


def test_an_empty_column_is_empty() -> None:
    values, errors = numeric_cells(PLAIN, [])
    assert (values.tolist(), errors) == ([], {})
    assert category_cells([]).tolist() == []


CELLS = st.one_of(
    st.floats().map(repr),
    st.integers().map(str),
    st.text(max_size=8),
    st.sampled_from(["", " ", "5\x00", "1_0", "nan", "-inf", "1e400", "0x10", "１２", "word", "-0"]),
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([PLAIN, ZERO_IF_BLANK]), st.lists(CELLS, max_size=8))
def test_a_cell_is_read_alike_in_any_company(feature: Feature, cells: list[str]) -> None:
    values, errors = numeric_cells(feature, cells)
    for row, cell in enumerate(cells):
        alone, error = numeric_cells(feature, [cell])
        np.testing.assert_array_equal(values[row], alone[0])
        assert (row in errors) == bool(error)
        assert math.isnan(alone[0]) or abs(alone[0]) <= FLOAT32_MAX


def test_one_huge_cell_does_not_cost_memory_for_every_row() -> None:
    cells = ["1"] * 2000 + ["9" * 100_000]
    tracemalloc.start()
    try:
        _, errors = numeric_cells(PLAIN, cells)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert errors[2000].reason is Reason.OUT_OF_RANGE
    assert peak < 10e6


def test_categories_have_one_spelling() -> None:
    cells = ["TCP", " tcp ", "6.0", "6", "-", "a/n", "None", ""]
    assert category_cells(cells).tolist() == ["tcp", "tcp", "6", "6", "-", "a/n", None, None]


def test_which_columns_are_numbers() -> None:
    assert is_numeric(PLAIN)
    assert not is_numeric(Feature(name="proto", kind=Kind.CATEGORICAL))
