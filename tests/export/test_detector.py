"""The detector: feature columns in, scores, reasons and severities out."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import export
from export.detector import Detector, Scores, load
from schemas.datasets import SCHEMAS
from tests.bundles import LEVERS, make_bundle

Columns = dict[str, np.ndarray]


def columns_of(dataset: str, rows: int, seed: int = 0) -> Columns:
    """Plausible flows, one value in ten missing, some categories unknown."""
    schema, rng = SCHEMAS[dataset], np.random.default_rng(seed)
    columns: Columns = {}
    for feature in schema.numeric:
        values = np.exp(rng.normal(3, 2, rows))
        columns[feature.name] = np.where(rng.random(rows) < 0.1, np.nan, values)
    for feature in schema.categorical:
        names = np.array(["tcp", "udp", "http", "dns", "6", "17", "never seen", None], dtype=object)
        columns[feature.name] = rng.choice(names, rows)
    return columns


def take(columns: Columns, rows: list[int]) -> Columns:
    return {name: values[rows] for name, values in columns.items()}


def by_hand(columns: Columns, dataset: str) -> np.ndarray:
    """What the tiny graph is meant to compute."""
    logit = np.zeros(len(next(iter(columns.values()))))
    for name, lever in LEVERS[dataset].items():
        if isinstance(lever, dict):
            logit += [lever.get(category, 0.0) for category in columns[name]]
        else:
            x = np.nan_to_num(columns[name])
            logit += lever[0] * x / (np.abs(x) + lever[1])
    probability: np.ndarray = 1 / (1 + np.exp(-logit))
    return probability


@pytest.mark.parametrize("dataset", SCHEMAS)
def test_scores_are_what_the_graph_says_and_both_verdicts_occur(tiny_bundles: dict[str, Path], dataset: str) -> None:
    detector = load(tiny_bundles[dataset])
    columns = columns_of(dataset, 300)
    scores = detector.score(columns)
    np.testing.assert_allclose(scores.score, by_hand(columns, dataset), atol=1e-5)
    assert 30 < (scores.score >= detector.manifest.threshold_for(0.01)).sum() < 270
    assert len(scores) == 300
    assert scores.score.dtype == scores.family_probability.dtype == scores.attention.dtype == np.float32
    assert scores.attention.shape == (300, len(detector.schema.features))
    np.testing.assert_allclose(scores.attention.sum(axis=1), 1, atol=1e-5)
    assert set(scores.family.tolist()) <= set(range(len(detector.manifest.families)))
    assert ((scores.family_probability > 0) & (scores.family_probability <= 1)).all()


@settings(deadline=None, max_examples=25)
@given(order=st.lists(st.integers(0, 199), min_size=1, max_size=200))
def test_a_score_does_not_depend_on_the_rest_of_the_batch(detector: Detector, order: list[int]) -> None:
    columns = columns_of("unsw-nb15", 200)
    whole, part = detector.score(columns), detector.score(take(columns, order))
    np.testing.assert_allclose(part.score, whole.score[order], atol=1e-6)
    np.testing.assert_allclose(part.attention, whole.attention[order], atol=1e-6)
    np.testing.assert_allclose(part.family_probability, whole.family_probability[order], atol=1e-6)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 129])
def test_batches_of_any_size_are_scored_whole(detector: Detector, rows: int) -> None:
    scores = detector.score(columns_of("unsw-nb15", rows))
    assert len(scores) == len(scores.family) == len(scores.family_probability) == len(scores.attention) == rows
    assert np.isfinite(scores.score).all()


def test_an_empty_batch_has_no_scores(detector: Detector) -> None:
    for columns in ({}, take(columns_of("unsw-nb15", 3), [])):
        scores = detector.score(columns)
        assert len(scores) == 0
        assert scores.attention.shape == (0, 42)


def test_a_column_that_is_not_there_is_missing_in_every_row(detector: Detector) -> None:
    columns = columns_of("unsw-nb15", 10)
    without = {name: values for name, values in columns.items() if name not in ("sttl", "service")}
    missing = columns | {"sttl": np.full(10, np.nan), "service": np.full(10, None, dtype=object)}
    np.testing.assert_array_equal(detector.score(without).score, detector.score(missing).score)


def test_an_unknown_category_counts_as_a_missing_one(detector: Detector) -> None:
    services = {name: np.array([name], dtype=object) for name in ("http", "gopher")} | {
        "missing": np.array([None], dtype=object)
    }
    scores = {name: float(detector.score({"service": column}).score[0]) for name, column in services.items()}
    assert scores["gopher"] == scores["missing"] != scores["http"]


def test_what_no_float32_holds_is_missing(detector: Detector) -> None:
    scores = detector.score({"sttl": np.array([np.nan, np.inf, -np.inf, 1e300, -1e300])}).score
    assert len(set(scores.tolist())) == 1


def test_a_name_that_is_no_feature_is_refused(detector: Detector) -> None:
    with pytest.raises(ValueError, match="'src_ip' is not a feature of unsw-nb15"):
        detector.score({"dur": np.zeros(2), "src_ip": np.zeros(2)})


def test_columns_of_unequal_length_are_refused(detector: Detector) -> None:
    with pytest.raises(ValueError, match=r"columns have different lengths: \[2, 3\]"):
        detector.score({"dur": np.zeros(2), "sttl": np.zeros(3)})


def test_encoded_rows_score_as_their_columns_do(detector: Detector) -> None:
    columns = columns_of("unsw-nb15", 70)
    numeric = np.stack([columns[feature.name] for feature in detector.schema.numeric], axis=1).astype(np.float32)
    codes = np.zeros((70, 3), dtype=np.int64)
    for index, feature in enumerate(detector.schema.categorical):
        (info,) = (info for info in detector.manifest.features if info.name == feature.name)
        known = {category: code for code, category in enumerate(info.vocabulary, start=1)}
        codes[:, index] = [known.get(value, 0) for value in columns[feature.name]]
    np.testing.assert_array_equal(detector.score_matrix(numeric, codes).score, detector.score(columns).score)


def test_reasons_of_all_features_share_one_whole_strongest_first(detector: Detector) -> None:
    columns = columns_of("unsw-nb15", 20)
    scores = detector.score(columns)
    for row in range(20):
        spoken = detector.reasons(columns, scores, row, top=42)
        assert {reason.feature.name for reason in spoken} == set(detector.schema.names)
        assert math.fsum(reason.weight for reason in spoken) == pytest.approx(1)
        weights = [reason.weight for reason in spoken]
        assert weights == sorted(weights, reverse=True)
        assert detector.reasons(columns, scores, row) == spoken[:3]


def test_flows_have_the_same_reasons_together_as_alone(tmp_path: Path) -> None:
    detector = load(make_bundle(tmp_path / "bundle", "unsw-nb15", novelty=True), threads=1)
    columns = columns_of("unsw-nb15", 20)
    columns["sttl"][3] = columns["dur"][4] = np.nan
    columns["service"][5:7] = None, "never seen"
    scores = detector.score(columns)
    rows, novel = np.array([1, 3, 4, 5, 6, 19]), np.array([False, True, False, True, False, True])
    reasons = detector.reasons_of(columns, scores, rows, novel, top=42)
    for flow, (row, is_novel) in enumerate(zip(rows.tolist(), novel.tolist(), strict=True)):
        assert reasons.of(flow) == detector.reasons(columns, scores, row, novel=is_novel, top=42)
    none = detector.reasons_of(columns, scores, rows[:0], novel[:0])
    assert none.feature.shape == none.weight.shape == none.category.shape == (0, 3)


def test_a_reason_shows_the_flows_own_value_and_none_where_it_is_missing(detector: Detector) -> None:
    columns: Columns = {
        "sttl": np.array([254.0, np.nan]),
        "service": np.array(["http", None], dtype=object),
        "state": np.array(["zzz", "fin"], dtype=object),
    }
    scores = detector.score(columns)
    first, second = (
        {reason.feature.name: reason for reason in detector.reasons(columns, scores, row, top=42)} for row in (0, 1)
    )
    assert (first["sttl"].value, second["sttl"].value) == (254.0, None)
    assert (first["service"].value, first["service"].benign_share) == ("http", 0.2)
    assert (second["service"].value, second["service"].benign_share) == (None, None)
    assert (first["state"].value, first["state"].benign_share) == ("zzz", 0.0)
    assert (second["state"].value, second["state"].benign_share) == ("fin", 0.5)
    assert first["dur"].value is None
    assert first["proto"].value is None
    assert first["sttl"].benign_share is None


def test_of_features_that_got_like_attention_the_unusual_one_speaks_louder(detector: Detector) -> None:
    columns: Columns = {
        "dur": np.array([5.0]),
        "rate": np.array([5e6]),
        "proto": np.array(["tcp"], dtype=object),
        "state": np.array(["never seen"], dtype=object),
    }
    even = Scores(np.zeros(1), np.zeros(1, dtype=np.int64), np.zeros(1), np.full((1, 42), 1 / 42, dtype=np.float32))
    spoken = {reason.feature.name: reason.weight for reason in detector.reasons(columns, even, 0, top=42)}
    assert spoken["rate"] > spoken["state"] > spoken["proto"] > spoken["dur"]
    assert spoken["dur"] == spoken["sttl"] == spoken["service"]  # what is missing is not unusual


@pytest.mark.parametrize(
    ("score", "severity"),
    [
        (0.0, "low"),
        (0.89, "low"),
        (0.9, "medium"),
        (0.949, "medium"),
        (0.95, "high"),
        (0.98, "critical"),
        (1.0, "critical"),
    ],
)
def test_severity_is_the_highest_step_that_the_score_reaches(detector: Detector, score: float, severity: str) -> None:
    assert detector.severity(score) == severity


def test_a_bundle_without_severities_knows_only_low(tmp_path: Path) -> None:
    assert load(make_bundle(tmp_path / "plain", "cicids2017", severity={})).severity(1.0) == "low"


def test_the_package_offers_load_and_takes_a_string(tiny_bundle: Path) -> None:
    detector = export.load(str(tiny_bundle), threads=1)
    assert isinstance(detector, export.Detector)
    assert len(detector.score({"dur": np.zeros(2)})) == 2
