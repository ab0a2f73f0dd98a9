"""Bundles that tell how novel a flow is: what the detector makes of it, and what is refused."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export.bundle import MANIFEST, MODEL, REFERENCE, read_bundle, write_manifest
from export.detector import Detector, load
from export.reference import load_checked
from export.scoring import score_file
from export.thresholds import Policy, choose, choose_novel
from schemas.errors import BundleError
from schemas.flow import BENIGN, UNKNOWN
from tests.bundles import make_bundle, make_model
from tests.flows import flows

OBJECT = object


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("novel") / "bundle", "unsw-nb15", novelty=True)


@pytest.fixture(scope="module")
def detector(bundle: Path) -> Detector:
    return load(bundle, threads=1)


def columns(*protos: str | None, rate: float = 1.0) -> dict[str, np.ndarray]:
    return {"rate": np.full(len(protos), rate), "proto": np.array(protos, dtype=OBJECT)}


def test_a_flow_is_as_novel_as_its_features_are_surprising(detector: Detector) -> None:
    scores = detector.score(columns("tcp", "never seen", None))
    assert scores.novelty is not None and scores.surprise is not None
    assert scores.novelty[0] < 1.0
    assert scores.novelty[1] == pytest.approx(5.0), "a category that training has not seen"
    assert scores.novelty[2] == scores.novelty[0], "a missing one surprises nobody"
    assert scores.surprise.shape == (3, 42)


def test_more_rows_than_one_run_takes_each_get_their_own(detector: Detector) -> None:
    rates = np.arange(300.0)
    scores = detector.score({"rate": rates})
    assert scores.novelty is not None
    np.testing.assert_allclose(scores.novelty, 10 * (rates / (rates + 20)) ** 2, rtol=1e-4)


def test_a_bundle_that_does_not_tell_takes_the_unknown_for_missing(tmp_path: Path) -> None:
    plain = load(make_bundle(tmp_path / "plain", "unsw-nb15"), threads=1)
    scores = plain.score(columns("never seen", None))
    assert scores.novelty is None and scores.surprise is None
    assert scores.score[0] == scores.score[1]
    assert plain.manifest.policy_for(0.01) == Policy(0.75, None)


def test_reasons_of_a_novel_flow_are_its_surprises(detector: Detector) -> None:
    flow = {"rate": np.array([1e5]), "sttl": np.array([10.0]), "proto": np.array(["never seen"], dtype=OBJECT)}
    scores = detector.score(flow)
    reasons = detector.reasons(flow, scores, 0, novel=True)
    assert [reason.feature.name for reason in reasons][:2] == ["rate", "proto"]
    assert reasons[0].weight > reasons[1].weight > reasons[2].weight > 0


def test_severity_of_a_novel_flow_is_by_its_novelty(detector: Detector) -> None:
    assert [detector.severity(novelty, novel=True) for novelty in (9.6, 9.7, 9.8, 9.95)] == [
        "low", "medium", "high", "critical",
    ]  # fmt: skip


def test_policies_by_rate_by_threshold_and_without_novelty(detector: Detector) -> None:
    manifest = detector.manifest
    assert manifest.policy_of(0.01, None, novel=True) == Policy(0.75, 9.5)
    assert manifest.policy_of(0.01, 0.2, novel=True) == Policy(0.2, 9.5)
    assert manifest.policy_of(0.01, 0.2, novel=False) == Policy(0.2, None)
    assert manifest.policy_of(0.3, 0.2, novel=False) == Policy(0.2, None), "no rate is needed then"
    with pytest.raises(BundleError, match=r"no threshold for a false-positive rate of 0\.3"):
        manifest.policy_of(0.3, 0.2, novel=True)


def test_an_alert_is_known_or_novel() -> None:
    score, novelty = np.array([0.9, 0.1, 0.1], dtype=np.float32), np.array([0.0, 9.5, 9.4], dtype=np.float32)
    assert Policy(0.75, 9.5).alerts(score, novelty).tolist() == [True, True, False]
    assert Policy(0.75, None).alerts(score, novelty).tolist() == [True, False, False]
    assert Policy(0.75, 9.5).alerts(score, None).tolist() == [True, False, False]


def test_two_thresholds_share_the_false_positives() -> None:
    rng = np.random.default_rng(4)
    y = np.repeat([0, 1], (2000, 500))
    scores, novelty = rng.random((2, 2500)).astype(np.float32)
    novelty[2000:2250] = 40.0  # attacks that only novelty finds
    for threshold in choose(y, scores, (0.01, 0.1), novelty=novelty * 3, novelty_share=0.25):
        assert threshold.novelty is not None
        benign = y == 0
        assert (scores[benign] >= threshold.threshold).sum() == pytest.approx(1500 * threshold.target_fpr, abs=1)
        assert (novelty[benign] * 3 >= threshold.novelty).sum() == pytest.approx(500 * threshold.target_fpr, abs=1)
        assert threshold.false_positives <= 2000 * threshold.target_fpr
        assert threshold.detected >= 250


def test_scored_files_name_what_is_novel(detector: Detector, tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=60)
    for row in range(0, 60, 3):
        table.set(row, "rate", "1e9")
    target = tmp_path / "scores.csv"
    score_file(
        table.write(tmp_path / "flows.csv"), target, detector,
        policy=Policy(0.75, 9.9), min_feature_coverage=0.5, rejects=None,
    )  # fmt: skip
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["row", "score", "verdict", "family", "novelty"]
    for scored in rows:
        known, novel = float(scored["score"]) >= 0.75, float(scored["novelty"]) >= 9.9
        assert scored["verdict"] == str(int(known or novel))
        if known:
            assert scored["family"] in detector.manifest.families
        else:
            assert scored["family"] == (UNKNOWN if novel else BENIGN)
    assert sum(scored["family"] == UNKNOWN for scored in rows) >= 5


def changed(bundle: Path, target: Path) -> Path:
    shutil.copytree(bundle, target)
    return target


def rewritten(directory: Path, **fields: object) -> Path:
    content = json.loads((directory / MANIFEST).read_text())
    for key in ("format", "files"):
        del content[key]
    write_manifest(directory, content | fields)
    return directory


def test_the_reference_answers_are_compared_too(bundle: Path, tmp_path: Path) -> None:
    load_checked(read_bundle(bundle))
    other = changed(bundle, tmp_path / "other")
    with np.load(bundle / REFERENCE) as reference:
        arrays = {name: reference[name] for name in reference.files}
    np.savez_compressed(other / REFERENCE, **{**arrays, "novelty": arrays["novelty"] + np.float32(0.1)})
    with pytest.raises(BundleError, match=r"differ in novelty by 1\.0e-01 \(allowed 1e-02\)"):
        load_checked(read_bundle(rewritten(other)))
    del arrays["novelty"]
    np.savez_compressed(other / REFERENCE, **arrays)
    with pytest.raises(BundleError, match=r"expected novelty of shape \(100,\)"):
        load_checked(read_bundle(rewritten(other)))


def test_a_graph_must_tell_what_the_manifest_says(bundle: Path, tmp_path: Path) -> None:
    other = changed(bundle, tmp_path / "other")
    make_model(other / MODEL, read_bundle(bundle).manifest.schema)
    with pytest.raises(BundleError, match="novelty has shape None"):
        load(rewritten(other))
    with pytest.raises(BundleError, match=r"has attack_probability, .*, novelty, surprise, expected"):
        load(rewritten(changed(bundle, tmp_path / "silent"), tells_novelty=False))
    with pytest.raises(BundleError, match="field 'tells_novelty' is missing or of the wrong type"):
        load(rewritten(changed(bundle, tmp_path / "wrong"), tells_novelty="yes"))


# Made of benign flows alone, a bundle tells nothing else.


@pytest.fixture(scope="module")
def benign_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("benign") / "bundle", "unsw-nb15", novelty=True, classifies=False)


def test_a_bundle_that_knows_no_attacks_tells_novelty_as_another_does(detector: Detector, benign_only: Path) -> None:
    ours, flows_of = load_checked(read_bundle(benign_only), threads=1), columns("tcp", "never seen", None, rate=30.0)
    expected, scores = detector.score(flows_of), ours.score(flows_of)
    assert scores.novelty is not None and scores.surprise is not None
    assert expected.novelty is not None and expected.surprise is not None
    np.testing.assert_array_equal(scores.novelty, expected.novelty)
    np.testing.assert_array_equal(scores.surprise, expected.surprise)
    assert not ours.manifest.classifies and not scores.score.any() and not scores.attention.any()
    assert ours.reasons(flows_of, scores, 1, novel=True)[0].feature.name == "proto"


def test_it_alerts_on_what_is_novel_and_cannot_be_asked_for_anything_else(benign_only: Path) -> None:
    manifest = load(benign_only).manifest
    policy = manifest.policy_of(0.01, None, novel=True)
    assert policy.novelty == 9.5
    zeros, novelty = np.zeros(3, dtype=np.float32), np.array([9.4, 9.5, 9.6], dtype=np.float32)
    assert policy.alerts(zeros, novelty).tolist() == [False, True, True]
    assert not policy.known(zeros + 1).any()
    with pytest.raises(BundleError, match=r"tells only what is novel: a threshold of 0\.5 would leave no alert"):
        manifest.policy_of(0.01, 0.5, novel=True)
    with pytest.raises(BundleError, match=r"only what is novel: stream\.novel_alerts = false would leave no alert"):
        manifest.policy_of(0.01, None, novel=False)


def test_scored_offline_it_leaves_the_score_empty(benign_only: Path, tmp_path: Path) -> None:
    source = flows("unsw-partition", rows=30).write(tmp_path / "flows.csv")
    detector = load(benign_only)
    policy = detector.manifest.policy_for(0.05)
    score_file(source, tmp_path / "out.csv", detector, policy=policy, min_feature_coverage=0.5, rejects=None)
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert len(rows) == 30 and {row["score"] for row in rows} == {""}
    for row in rows:
        assert (float(row["novelty"]) >= 4.0) == (row["verdict"] == "1") == (row["family"] == UNKNOWN)
    assert {row["verdict"] for row in rows} == {"0", "1"}


def test_thresholds_of_novelty_alone_keep_to_the_rate() -> None:
    novelty = np.arange(1000, dtype=np.float32)
    strict, lenient = choose_novel(novelty, (0.05, 0.001))
    assert (strict.target_fpr, strict.false_positives, lenient.false_positives) == (0.001, 1, 50)
    assert strict.novelty == 998.5 and strict.threshold > 1 and strict.attack_rows == 0
