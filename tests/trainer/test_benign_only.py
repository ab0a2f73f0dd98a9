"""Flows without labels: prepared, learnt from and built into a bundle that tells what is novel."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from export.__main__ import main as export_main
from export.detector import load
from export.reading import read_flows
from tests.flows import flows
from tests.trainer.conftest import DATASET, Pipeline
from trainer.__main__ import main
from trainer.prepare import load_prepared


@pytest.fixture(scope="module")
def benign_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """prepare --benign-only → novelty → export build, on a file without labels and one with."""
    made = Pipeline(tmp_path_factory.mktemp("benign"))
    bare = flows("unsw-partition", families={"Benign": 200}, seed=1)
    bare.drop("attack_cat")
    bare.drop("label")
    bare.write(made.data / "bare.csv")
    flows("unsw-raw", families={"Benign": 100, "DoS": 40}, seed=2).write(made.data / "labelled.csv")
    before = Path.cwd()
    os.chdir(made.root)
    try:
        assert made.trainer("prepare", "--data", str(made.data), "--benign-only") == 0
        assert made.trainer("novelty") == 0
        words = ["build", "--dataset", DATASET, "--runs", str(made.root / "runs"), "--out", str(made.bundle)]
        assert export_main(words) == 0
        yield made
    finally:
        os.chdir(before)


def test_attacks_that_have_labels_are_left_out_and_counted(benign_only: Pipeline) -> None:
    prepared = load_prepared(benign_only.run / "prepared", labelled=False)
    assert len(prepared.x) == 300 and not prepared.y.any() and prepared.benign_only
    inputs: object = prepared.metadata["inputs"]
    assert isinstance(inputs, list)
    assert [(it["file"], it["attacks_left_out"]) for it in inputs] == [("bare.csv", 0), ("labelled.csv", 40)]
    assert all(len(prepared.rows(name)) for name in ("train", "validation", "test"))


@pytest.mark.parametrize("command", [["pretrain"], ["finetune"], ["unseen"], ["tune", "--trials", "1"]])
def test_what_needs_attacks_says_what_can_be_done_instead(
    command: list[str], benign_only: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benign_only.trainer(*command) == 2
    told = capsys.readouterr().err
    assert "is of benign flows alone, which say nothing of attacks: `python -m trainer novelty`, then" in told


def test_the_bundle_is_verified_and_finds_what_is_unlike_benign_flows(
    benign_only: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_main(["verify", str(benign_only.bundle), "--run", str(benign_only.run)]) == 0
    told = capsys.readouterr().out
    assert "held-out   torch and ONNX Runtime agree on" in told and "max |Δnovelty|" in told
    assert export_main(["verify", str(benign_only.bundle)]) == 0
    assert "held-out   measured at build on" in capsys.readouterr().out
    detector = load(benign_only.bundle)
    assert not detector.manifest.classifies and detector.manifest.families == ()
    policy = detector.manifest.policy_of(0.05, None, novel=True)

    def share(family: str, seed: int) -> float:
        path = flows("unsw-partition", families={family: 200}, seed=seed, separation=5.0).write(tmp_path / "more.csv")
        [batch] = read_flows(path, detector.schema, min_feature_coverage=0.5)
        scores = detector.score(batch.columns)
        return float(np.mean(policy.alerts(scores.score, scores.novelty)))

    drift = detector.manifest.drift
    assert drift is not None and drift.rows.attack == drift.score_rows.attack == 0
    assert [score.name for score in drift.scores] == ["novelty"]
    assert share("Benign", 7) < 0.25 and share("DoS", 8) > 0.9


def test_it_cannot_be_evaluated_as_a_classifier(benign_only: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(benign_only.data / "labelled.csv")
    assert main(["evaluate", "--bundle", str(benign_only.bundle), "--data", data, "--out", "r"]) == 2
    assert "bundle unsw-nb15 knows no attacks: there is no score to be measured" in capsys.readouterr().err


def test_only_attacks_are_no_flows_to_learn_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Pipeline(tmp_path)
    flows("unsw-partition", families={"DoS": 40}, seed=2).write(made.data / "attacks.csv")
    assert made.trainer("prepare", "--data", str(made.data), "--benign-only") == 2
    assert "none of the files has usable rows of unsw-nb15" in capsys.readouterr().err
