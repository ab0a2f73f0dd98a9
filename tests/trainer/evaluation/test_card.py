"""`trainer card`: what a bundle says of itself to people."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from export.bundle import read_bundle
from tests.flows import flows
from tests.trainer.conftest import Pipeline
from trainer.__main__ import main


@pytest.fixture(scope="module")
def bundle(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(pipeline.bundle, tmp_path_factory.mktemp("bundle") / "copy")


@pytest.fixture(scope="module")
def evaluation(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation")
    data = flows("unsw-partition", rows=150, seed=9, families={"Benign": 100, "DoS": 45, "Worms": 5}).write(
        out / "x.csv"
    )
    assert main(["evaluate", "--bundle", str(bundle), "--data", str(data), "--out", str(out)]) == 0
    return out


def carded(bundle: Path, evaluation: Path) -> str:
    assert main(["card", "--bundle", str(bundle), "--report", str(evaluation)]) == 0
    return (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_a_card_says_what_a_bundle_was_made_of_and_what_it_is_worth(bundle: Path, evaluation: Path) -> None:
    before = read_bundle(bundle).manifest.hash
    card = carded(bundle, evaluation)
    metrics: Any = json.loads((evaluation / "metrics.json").read_text())
    low, high = metrics["intervals"]["auc"]
    assert f"| AUC | {metrics['auc']:.5f} | {low:.5f} – {high:.5f} |" in card
    assert "| flows (1).csv | 260 | 0 |" in card and "Moustafa" in card
    assert "Worms (5, share found" in card and "Benign (" not in card
    assert "twin" not in card and "tells by a second model" in card
    assert (bundle / "report.html").read_bytes() == (evaluation / "report.html").read_bytes()
    assert read_bundle(bundle).manifest.hash == before


def test_figures_of_another_bundle_are_said_to_be_of_a_twin(bundle: Path, evaluation: Path, tmp_path: Path) -> None:
    metrics: Any = json.loads((evaluation / "metrics.json").read_text())
    metrics["bundle"]["hash"] = "0" * 64
    for name, text in (("metrics.json", json.dumps(metrics)), ("report.html", "page")):
        (tmp_path / name).write_text(text)
    assert "Of a twin: the same recipe on fewer rows" in carded(bundle, tmp_path)


def test_without_an_evaluation_or_with_one_of_other_data_there_is_no_card(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", "--bundle", str(bundle), "--report", str(tmp_path)]) == 2
    assert "metrics.json: missing. Run `python -m trainer evaluate --out` first" in capsys.readouterr().err
    (tmp_path / "metrics.json").write_text(json.dumps({"bundle": {"dataset": "cicids2017"}}))
    assert main(["card", "--bundle", str(bundle), "--report", str(tmp_path)]) == 2
    assert f"{tmp_path} is of cicids2017, {bundle} of unsw-nb15" in capsys.readouterr().err
