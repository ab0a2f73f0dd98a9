"""Bundles side by side: their figures, curves and reports."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export.bundle import read_bundle
from schemas.errors import FlowsentryError
from schemas.params import StreamParams
from tests.bundles import make_bundle
from tests.flows import flows
from trainer.dashboard.curves import calibration, described, figures_table, find_report, roc
from trainer.evaluation.evaluate import evaluate


def test_the_roc_starts_at_half_a_false_positive_and_ends_where_all_is_an_alert() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 5000)
    scores = np.clip(0.4 * y + 0.6 * rng.random(5000), 0, 1).astype(np.float32)
    frame = roc(y, scores)
    rates, recall = frame["false-positive rate"].to_numpy(), frame["recall"].to_numpy()
    assert rates[0] == pytest.approx(0.5 / (y == 0).sum()) and (rates[-1], recall[-1]) == (1, 1)
    assert len(frame) <= 400 and (np.diff(rates) > 0).all() and (np.diff(recall) >= 0).all()
    threshold = np.sort(scores[y == 0])[::-1][int(0.1 * (y == 0).sum())]
    assert np.interp(0.1, rates, recall) == pytest.approx((scores[y == 1] > threshold).mean(), abs=0.01)


def test_calibration_has_a_point_for_every_bin_with_rows() -> None:
    y, scores = np.array([0, 0, 1, 1]), np.array([0.01, 0.02, 0.99, 0.51], dtype=np.float32)
    frame = calibration(y, scores)
    assert frame["rows"].to_list() == [2, 1, 1] and frame["share of attacks"].to_list() == [0, 1, 1]


def test_figures_stand_side_by_side_and_those_that_nobody_has_are_left_out() -> None:
    frame = figures_table(["a", "b"], [{"auc": 0.9}, {"auc": None, "brier_score": 0.1}])
    assert frame.rows() == [("AUC", 0.9, None), ("Brier score", None, 0.1)]
    assert len(figures_table(["a"], [{}])) == 0


def test_a_bundle_is_described_though_it_says_little_of_itself(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny", "unsw-nb15", novelty=True)
    told = described(read_bundle(bundle).manifest)
    assert told["data set"] == "unsw-nb15" and told["parameters"] == "–"
    assert told["tells"] == "attacks and what is novel" and told["built"] == "2026-01-01"
    committed = described(read_bundle(Path(__file__).parents[3] / "bundles" / "unsw-nb15").manifest)
    assert committed["training rows"] == "30,793" and committed["parameters"] == "843,569"


def test_a_report_is_found_in_its_place_and_known_to_be_of_the_bundle_or_of_a_twin(tmp_path: Path) -> None:
    bundle, twin = make_bundle(tmp_path / "tiny", "unsw-nb15"), make_bundle(tmp_path / "b", "unsw-nb15", version="2")
    manifest, reports = read_bundle(bundle).manifest, tmp_path / "reports"
    assert find_report(bundle, manifest, reports) is None
    data = flows("unsw-partition", rows=60).write(tmp_path / "flows.csv")
    evaluate(bundle, [data], reports / "tiny", StreamParams())
    found = find_report(bundle, manifest, reports)
    assert found is not None and found.is_own and found.page == reports / "tiny" / "report.html"
    assert found.metrics is not None and found.metrics["rows"]["used"] == 60
    of_twin = find_report(twin, read_bundle(twin).manifest, reports / "tiny")
    assert of_twin is not None and of_twin.is_own is False
    other = make_bundle(tmp_path / "other", "cicids2017")
    assert find_report(other, read_bundle(other).manifest, reports / "tiny") is None
    shutil.copy(found.page, twin / "report.html")
    beside = find_report(twin, read_bundle(twin).manifest, tmp_path / "none")
    assert beside is not None and beside.page == twin / "report.html" and beside.metrics is None


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny", "unsw-nb15")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(FlowsentryError, match=r"metrics\.json: not JSON"):
        find_report(bundle, read_bundle(bundle).manifest, tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps({"bundle": {}}))
    assert find_report(bundle, read_bundle(bundle).manifest, tmp_path) is None
