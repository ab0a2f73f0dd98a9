"""A flow that is tried: judged as the service would, and moved by what is changed."""

from pathlib import Path

import numpy as np
import pytest

from export.detector import Detector, load
from export.thresholds import Policy
from tests.bundles import make_bundle
from trainer.dashboard.judging import judge, sweep, usual_flow


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return load(make_bundle(tmp_path_factory.mktemp("bundles") / "tiny", "unsw-nb15", novelty=True))


POLICY = Policy(0.75, 9.5)


def test_a_usual_flow_has_the_benign_medians_and_the_most_frequent_categories(detector: Detector) -> None:
    flow = usual_flow(detector.manifest)
    assert set(flow) == set(detector.schema.names)
    assert flow["sttl"] == 60.0 and flow["proto"] == "tcp" and flow["service"] == "-"
    assert judge(detector, POLICY, flow).verdict == "benign"


def test_score_verdict_and_severity_move_with_a_feature(detector: Detector) -> None:
    flow = usual_flow(detector.manifest) | {"dpkts": 0.0}
    before, after = judge(detector, POLICY, flow), judge(detector, POLICY, flow | {"sttl": 0.0})
    assert before.score is not None and after.score is not None
    assert before.score > 0.9 > 0.6 > after.score
    assert (before.verdict, before.family in detector.manifest.families) == ("known", True)
    assert before.severity in ("medium", "high", "critical", "low")
    assert (after.verdict, after.family, after.severity) == ("benign", "Benign", None)


def test_a_judgement_is_what_the_detector_says_of_those_columns(detector: Detector) -> None:
    flow = usual_flow(detector.manifest) | {"dur": None, "service": None, "state": "never seen"}
    columns = {
        info.name: np.array([flow[info.name]], dtype=object)
        if info.vocabulary
        else np.array([np.nan if flow[info.name] is None else flow[info.name]], dtype=np.float64)
        for info in detector.manifest.features
    }
    scores = detector.score(columns)
    found = judge(detector, POLICY, flow)
    assert found.score == float(scores.score[0])
    assert [it.feature for it in found.reasons] == [
        it.feature.name for it in detector.reasons(columns, scores, 0, top=len(detector.schema.names))
    ]
    assert next(it for it in found.reasons if it.feature == "dur").value is None


def test_a_flow_unlike_benign_ones_is_novel_and_its_reasons_are_what_surprises(detector: Detector) -> None:
    found = judge(detector, POLICY, usual_flow(detector.manifest) | {"sttl": 0.0, "dload": 1e9})
    assert (found.verdict, found.family) == ("novel", "Unknown")
    assert found.novelty is not None and found.novelty > 9.5 and found.reasons[0].feature == "dload"
    known_alone = judge(detector, Policy(0.75), usual_flow(detector.manifest) | {"sttl": 0.0, "dload": 1e9})
    assert known_alone.verdict == "benign"


def test_a_bundle_that_knows_no_attacks_tells_novelty_alone(tmp_path: Path) -> None:
    detector = load(make_bundle(tmp_path / "novel", "unsw-nb15", novelty=True, classifies=False))
    found = judge(detector, Policy(2.0, 9.5), usual_flow(detector.manifest) | {"dload": 1e9})
    assert found.score is None and found.verdict == "novel" and found.reasons[0].feature == "dload"
    assert sweep(detector, usual_flow(detector.manifest), "dload").columns == ["value", "novelty"]


def test_a_sweep_spans_the_benign_range_and_the_flows_value(detector: Detector) -> None:
    flow = usual_flow(detector.manifest) | {"dpkts": 0.0, "sttl": 1000.0}
    frame = sweep(detector, flow, "sttl", points=30)
    values, scores = frame["value"].to_numpy(), frame["score"].to_numpy()
    assert len(frame) == 30 and values[0] <= 0 and values[-1] >= 1000
    assert (np.diff(values) > 0).all() and (np.diff(scores) >= 0).all() and scores[-1] - scores[0] > 0.4
    assert np.interp(1000.0, values, scores) == pytest.approx(judge(detector, POLICY, flow).score, abs=0.01)


def test_a_sweep_of_a_missing_feature_needs_no_value(detector: Detector) -> None:
    assert len(sweep(detector, usual_flow(detector.manifest) | {"sttl": None}, "sttl")) == 60
