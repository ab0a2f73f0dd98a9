"""Distributions, classes and correlations, before and after preprocessing."""

import numpy as np
import polars as pl
import pytest

from tests.flows import flows
from trainer.dashboard import features
from trainer.dashboard.rows import Rows, read_rows, schema_of
from trainer.dashboard.scale import compressed, expanded


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    table = flows("unsw-partition", rows=300, seed=5)
    for row in range(150):
        table.set(row, "sload", "")
    path = table.write(tmp_path_factory.mktemp("flows") / "flows.csv")
    return read_rows(path, schema_of(path), most=1000, min_feature_coverage=0.5)


def test_classes_are_counted_the_most_frequent_first(rows: Rows) -> None:
    first, *others = features.classes(rows).rows()
    assert first == ("Benign", 150, "benign")
    assert sorted(others) == [("Backdoor", 50, "attack"), ("DoS", 50, "attack"), ("Fuzzers", 50, "attack")]


def test_a_histogram_shares_out_each_classs_rows_and_leaves_missing_ones_out() -> None:
    values, is_attack = np.array([0.0, 1, 2, 3, np.nan, 3, 3]), np.array([0, 0, 0, 0, 0, 1, 1], dtype=bool)
    frame = features.histogram(values, is_attack, bins=3)
    of = {name: part["share"].to_list() for (name,), part in frame.group_by("class")}
    assert of["benign"] == pytest.approx([0.2, 0.2, 0.4]) and of["attack"] == [0, 0, 1]
    assert frame["low"].min() == 0 and frame["high"].max() == 3
    assert features.histogram(np.array([np.nan]), None)["share"].sum() == 0


def test_shares_of_categories_add_up_and_name_what_is_missing() -> None:
    categories = np.array(["tcp", "tcp", None, "udp"], dtype=object)
    frame = features.shares(categories, np.array([False, False, True, True]))
    benign, attack = (frame.filter(pl.col("class") == name) for name in ("benign", "attack"))
    assert dict(zip(benign["category"], benign["share"], strict=True)) == {"tcp": 1.0, "missing": 0.0, "udp": 0.0}
    assert attack["share"].sum() == 1


def test_after_preprocessing_every_feature_is_near_a_standard_normal_and_missing_stays_missing(rows: Rows) -> None:
    after = features.normalized(rows)
    names = [feature.name for feature in rows.schema.numeric]
    assert after.shape == (300, len(names))
    dur = after[:, names.index("dur")]
    assert abs(np.mean(dur)) < 0.05 and abs(np.std(dur) - 1) < 0.1
    assert (np.argsort(dur, kind="stable") == np.argsort(rows.column("dur"), kind="stable")).all()
    assert np.isnan(after[:, names.index("sload")]).sum() == 150


def test_features_that_tell_attacks_apart_come_first(rows: Rows) -> None:
    order = features.by_separation(rows)
    told = [value for _, value in order if value is not None]
    assert told == sorted(told, reverse=True) and 0.5 <= told[-1] <= told[0] <= 1 and told[0] > 0.75
    assert {name for name, _ in order} == {feature.name for feature in rows.schema.numeric}


def test_correlations_are_pearsons_and_null_where_nothing_varies() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=50)
    matrix = np.stack([first, -2 * first, rng.normal(size=50), np.ones(50)], axis=1)
    frame = features.correlations(matrix, ["a", "b", "c", "d"])
    r = {(first, second): value for first, second, value in frame.rows()}
    assert len(r) == 16 and r["a", "b"] == -1 and r["a", "a"] == 1
    assert r["a", "c"] == pytest.approx(np.corrcoef(matrix[:, 0], matrix[:, 2])[0, 1], abs=1e-3)
    assert r["a", "d"] is None


def test_a_missing_value_moves_no_correlation_but_its_own_rows() -> None:
    matrix = np.array([[1.0, 1], [2, 2], [3, 3], [np.nan, 2]])
    assert features.correlations(matrix, ["a", "b"])["r"].to_list() == pytest.approx([1, 1, 1, 1])


def test_the_summary_has_a_line_for_every_feature(rows: Rows) -> None:
    frame = features.summary(rows)
    assert frame["feature"].to_list() == list(rows.schema.names)
    sload, service = (frame.row(by_predicate=pl.col("feature") == name, named=True) for name in ("sload", "service"))
    assert sload["missing"] == 0.5 and sload["least"] <= sload["median"] <= sload["greatest"]
    assert service["categories"] == 3 and service["median"] is None


def test_the_compressed_scale_keeps_order_and_can_be_undone() -> None:
    values = np.array([-1e6, -1.0, 0.0, 0.5, 9.0, 1e12])
    places = compressed(values)
    assert (np.diff(places) > 0).all() and places[4] == 1 and places[2] == 0
    assert expanded(places) == pytest.approx(values)
