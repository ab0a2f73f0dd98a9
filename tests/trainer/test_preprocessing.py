"""The map onto a normal shape, the category codes, and what is written of them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.stats import norm

from schemas.datasets import SCHEMAS
from trainer.prepare import Prepared
from trainer.preprocessing import Preprocessor, encode, fit

UNSW = SCHEMAS["unsw-nb15"]
VOCABULARIES = {"proto": ("tcp", "udp"), "service": ("dns",), "state": ("con", "fin")}
DUR = 0
"""Place of `dur`, among all features and among the numeric ones."""


def fitted(column: np.ndarray, *, n_quantiles: int = 64, is_attack: np.ndarray | None = None) -> Preprocessor:
    """Fitted on rows whose `dur` is `column` and whose other features say nothing."""
    matrix = np.ones((len(column), len(UNSW.names)), dtype=np.float32)
    matrix[:, DUR] = column
    attacks = np.zeros(len(column), dtype=bool) if is_attack is None else is_attack
    return fit(matrix, attacks, UNSW, VOCABULARIES, n_quantiles=n_quantiles, seed=0)


def mapped(preprocessor: Preprocessor, values: np.ndarray, feature: int = DUR) -> np.ndarray:
    heights: np.ndarray = np.interp(values, preprocessor.knots[feature], preprocessor.heights[feature])
    return heights


def test_a_heavy_tailed_feature_looks_normal_on_the_rows_it_was_fitted_on() -> None:
    values = np.exp(np.random.default_rng(0).normal(3.0, 2.0, 4000)).astype(np.float32)
    shape = mapped(fitted(values, n_quantiles=128), values)
    assert abs(shape.mean()) < 0.02
    assert 0.97 < shape.std() < 1.03
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.quantile(shape, quantile) == pytest.approx(norm.ppf(quantile), abs=0.03)


FINITE = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(max_examples=40, deadline=None)
@given(
    npst.arrays(np.float32, st.integers(2, 60), elements=st.one_of(FINITE, st.sampled_from([0.0, -0.0, 1.0, np.nan]))),
    st.integers(2, 40),
)
def test_the_map_rises_strictly_in_value_and_never_falls_in_height(column: np.ndarray, n_quantiles: int) -> None:
    result = fitted(column, n_quantiles=n_quantiles)
    knots, heights = result.knots[DUR], result.heights[DUR]
    assert knots.shape == heights.shape == (min(n_quantiles, len(column)),)
    assert np.isfinite(knots).all() and np.isfinite(heights).all()
    points = len(np.unique(knots))
    assert (np.diff(knots[:points]) > 0).all()
    assert (np.diff(heights[:points]) >= 0).all()
    assert (knots[points - 1 :] == knots[points - 1]).all(), "padding repeats the last point"
    assert (heights[points - 1 :] == heights[points - 1]).all()
    present = column[~np.isnan(column)]
    if len(present):
        assert (knots[0], knots[-1]) == (present.min(), present.max()), "the map covers what it was fitted on"


def test_missing_values_take_no_part() -> None:
    values = np.random.default_rng(1).exponential(size=300).astype(np.float32)
    gaps = np.concatenate([values, np.full(300, np.nan, dtype=np.float32)])
    assert fitted(gaps).knots.tobytes() == fitted(values).knots.tobytes()


def test_a_feature_without_any_value_maps_to_the_middle_without_a_warning() -> None:
    result = fitted(np.full(50, np.nan, dtype=np.float32))
    assert mapped(result, np.array([-5.0, 0.0, 5.0])).tolist() == [0, 0, 0]
    limits = result.benign["dur"]
    assert (limits.low, limits.median, limits.high) == (0, 0, 0)


def test_a_constant_feature_maps_to_the_middle() -> None:
    result = fitted(np.full(50, 3.5, dtype=np.float32))
    assert mapped(result, np.array([0.0, 3.5, 9.0])).tolist() == [0, 0, 0]


def test_a_value_that_many_rows_share_stands_at_the_middle_of_its_levels() -> None:
    values = np.concatenate([np.zeros(800), np.linspace(1, 2, 200)]).astype(np.float32)
    result = fitted(values, n_quantiles=101)
    assert mapped(result, np.array([0.0]))[0] == pytest.approx(norm.ppf(0.4), abs=0.02)
    assert mapped(result, np.array([2.0]))[0] == pytest.approx(norm.ppf(1 - 1e-4), abs=1e-4)


def test_fewer_rows_than_quantiles_are_enough() -> None:
    assert fitted(np.array([1.0, 2.0, 3.0], dtype=np.float32), n_quantiles=500).knots[DUR].tolist() == [1, 2, 3]


def test_benign_ranges_and_shares_come_from_benign_rows() -> None:
    column = np.concatenate([np.arange(101), np.full(200, 1e6)]).astype(np.float32)
    is_attack = np.arange(301) > 100
    result = fitted(column, is_attack=is_attack)
    limits = result.benign["dur"]
    assert (limits.low, limits.median, limits.high) == (1, 50, 99)
    # Every row has code 1 in each category.
    assert result.benign_categories == {
        "proto": {"tcp": 1.0, "udp": 0.0}, "service": {"dns": 1.0}, "state": {"con": 1.0, "fin": 0.0}
    }  # fmt: skip


def test_prepare_fits_on_the_training_rows_and_on_no_other(prepared: Prepared) -> None:
    stored = prepared.preprocessor
    train = prepared.rows("train")
    assert 0 < len(train) < len(prepared.x)

    def again(rows: np.ndarray) -> Preprocessor:
        return fit(
            prepared.x[rows], prepared.y[rows] == 1, prepared.schema, stored.vocabularies, n_quantiles=24, seed=7
        )  # fmt: skip

    same, all_rows = again(train), again(np.arange(len(prepared.x)))
    assert same.knots.tobytes() == stored.knots.tobytes() and same.heights.tobytes() == stored.heights.tobytes()
    assert (same.benign, same.benign_categories) == (stored.benign, stored.benign_categories)
    assert all_rows.knots.tobytes() != stored.knots.tobytes() and all_rows.benign != stored.benign


def test_saved_and_loaded_is_the_same(prepared: Prepared, tmp_path: Path) -> None:
    before = prepared.preprocessor
    before.save(tmp_path / "preprocessor.joblib")
    after = Preprocessor.load(tmp_path / "preprocessor.joblib")
    assert after.knots.tobytes() == before.knots.tobytes() and after.heights.tobytes() == before.heights.tobytes()
    assert after.knots.dtype == after.heights.dtype == np.float32
    assert (after.dataset, after.vocabularies, after.benign, after.benign_categories) == (
        before.dataset, before.vocabularies, before.benign, before.benign_categories
    )  # fmt: skip


_READ_WITHOUT_US = """
import sys
for ours in ("trainer", "export", "schemas", "sklearn", "torch"):
    sys.modules[ours] = None
import joblib

def kinds(value):
    yield type(value).__name__
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    for part in parts:
        yield from kinds(part)

print(*sorted(set(kinds(joblib.load(sys.argv[1])))))
"""


def test_what_is_saved_can_be_read_without_our_classes(prepared: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "preprocessor.joblib"
    prepared.preprocessor.save(path)
    shown = subprocess.run(
        [sys.executable, "-I", "-c", _READ_WITHOUT_US, path], capture_output=True, text=True, timeout=60, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.split() == ["dict", "float", "ndarray", "str", "tuple"]


def test_codes_start_at_one_zero_is_missing_and_the_one_after_the_last_unknown() -> None:
    values = np.array(["udp", None, "tcp", "never seen"], dtype=object)
    codes = encode(values, ("tcp", "udp"))
    assert codes.tolist() == [2, 0, 1, 3]
    assert codes.dtype == np.float32
