"""Flows that are like no benign one: alerts of their own kind."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from export.detector import Detector, Scores, load
from export.thresholds import Policy
from schemas.alert import Alert, Severity, Verdict
from schemas.errors import BundleError
from schemas.flow import UNKNOWN
from stream.batch import Batch, FlowRecord
from stream.decode import Decoder
from stream.detect import detect
from stream.judge import Judge
from stream.reload import Shadow, shadow
from stream.subscribe import as_table_row
from tests.bundles import make_bundle
from tests.stream.alerts import as_read
from tests.stream.rig import attack, benign


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return load(make_bundle(tmp_path_factory.mktemp("novel") / "bundle", "unsw-nb15", novelty=True), threads=1)


def calm(**fields: object) -> bytes:
    """A benign flow that surprises nobody, but for what is changed."""
    return benign(**{"dpkts": 20, **fields})


def batch_of(*values: bytes) -> Batch:
    return Batch([FlowRecord("flows", 3, offset, b"key", value, (), 0) for offset, value in enumerate(values)])


def judged(detector: Detector, policy: Policy, *values: bytes) -> dict[int, Alert]:
    batch = batch_of(*values)
    decoded = Decoder(detector.schema, min_feature_coverage=0.5).decode(batch.values)
    scores = detector.score(decoded.columns)
    alerts = detect(batch, decoded, scores, policy.alerts(scores.score, scores.novelty), detector, policy)
    return {int(alert.id.removeprefix("flows-3-")): alert for alert in as_read(alerts)}


def test_what_is_no_known_attack_may_be_novel(detector: Detector) -> None:
    policy = detector.manifest.policy_for(0.01)
    found = judged(detector, policy, calm(), calm(rate=1e9), attack(), attack(rate=1e9))
    assert sorted(found) == [1, 2, 3]
    novel = found[1]
    assert (novel.verdict, novel.family, novel.family_probability, novel.techniques) == (
        Verdict.NOVEL,
        UNKNOWN,
        None,
        (),
    )
    assert novel.score is not None and novel.threshold is not None and novel.score < novel.threshold
    assert novel.novelty is not None and novel.novelty_threshold is not None
    assert novel.novelty >= novel.novelty_threshold == 9.5
    assert novel.severity is Severity.CRITICAL, "by its novelty, not by its score"
    assert novel.reasons[0].feature == "rate"
    for offset in (2, 3):
        assert found[offset].verdict is Verdict.KNOWN and found[offset].family != UNKNOWN
        assert (found[offset].score or 0) >= (found[offset].threshold or 1)
    assert found[3].novelty is not None and found[3].novelty > 9.9


def test_novel_flows_are_no_alerts_where_they_are_not_wanted(detector: Detector) -> None:
    policy = detector.manifest.policy_of(0.01, None, novel=False)
    found = judged(detector, policy, calm(rate=1e9), attack())
    assert list(found) == [1]
    assert found[1].novelty_threshold is None and found[1].novelty is not None


def test_a_category_that_training_has_not_seen_can_make_a_flow_novel(detector: Detector) -> None:
    policy = detector.manifest.policy_for(0.05)
    found = judged(detector, policy, calm(proto="carrier-pigeon"), calm())
    assert [(offset, alert.verdict) for offset, alert in found.items()] == [(0, Verdict.NOVEL)]
    assert found[0].reasons[0].feature == "proto" and found[0].reasons[0].benign_share == 0.0


def test_a_bundle_that_knows_no_attacks_has_novel_alerts_without_a_score(tmp_path: Path) -> None:
    detector = load(make_bundle(tmp_path / "bundle", "unsw-nb15", novelty=True, classifies=False), threads=1)
    found = judged(detector, detector.manifest.policy_for(0.01), calm(), calm(rate=1e9), attack(rate=1e9))
    assert sorted(found) == [1, 2]
    for alert in found.values():
        assert (alert.verdict, alert.family, alert.score, alert.threshold) == (Verdict.NOVEL, UNKNOWN, None, None)
        assert alert.novelty is not None and alert.severity is Severity.CRITICAL
        assert as_table_row(alert)[4] == "–"
    assert shadow(judge_of(detector), judge_of(detector), batch_of(calm(), calm(rate=1e9))) == Shadow(2, 0)


def test_a_threshold_that_no_score_reaches_is_told_as_none(detector: Detector) -> None:
    [alert] = judged(detector, Policy(float(np.nextafter(np.float32(1), np.float32(2))), 9.5), calm(rate=1e9)).values()
    assert alert.threshold is None and alert.score is not None


class Broken(Detector):
    """Tells a novelty that is no number."""

    def score(self, columns: Mapping[str, np.ndarray]) -> Scores:
        scores = super().score(columns)
        assert scores.novelty is not None
        scores.novelty[1] = np.nan
        return scores


def test_a_new_bundle_whose_novelty_is_no_number_is_refused(detector: Detector) -> None:
    batch = batch_of(calm(), calm(rate=1e9), attack())
    old = judge_of(detector)
    assert shadow(old, judge_of(detector), batch) == Shadow(3, 0)
    strict = judge_of(detector, Policy(0.75, 99.0))
    assert shadow(old, strict, batch) == Shadow(3, 1), "a verdict that novelty makes is one too"
    with pytest.raises(BundleError, match="novelty of 3 rows of a batch: not 3 surprises"):
        shadow(old, judge_of(Broken(detector.manifest, detector._session)), batch)


def judge_of(detector: Detector, policy: Policy | None = None) -> Judge:
    decoder = Decoder(detector.schema, min_feature_coverage=0.5)
    return Judge(detector, decoder, policy or detector.manifest.policy_for(0.01), lambda name: nullcontext())
