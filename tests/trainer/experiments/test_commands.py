"""`trainer compare` and `trainer ablate`: tables for a terminal, a file, and the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from schemas.datasets import SCHEMAS
from schemas.params import ExperimentsParams, Params
from tests.trainer.conftest import Pipeline
from trainer.__main__ import main
from trainer.experiments import ablations, compare, unseen
from trainer.experiments.table import Table, between_seeds, read_tables
from trainer.prepare import Prepared, load_prepared
from trainer.subsets import LEFT_OUT


def table(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less of everything that only makes figures steadier."""
    monkeypatch.setattr(compare, "_SPEED_S", 0.05)
    monkeypatch.setattr(ablations, "LABEL_SHARES", (0.5, 1.0))


@pytest.mark.usefixtures("few")
def test_compare_puts_the_detector_beside_what_one_would_use_instead(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline.trainer("compare", "--out", str(tmp_path)) == 0
    got = table(tmp_path / "tables" / "compare.json")
    names = [row[0] for row in got["rows"]]
    assert names == ["FT-Transformer", "TabTransformer", "MLP", "logistic regression", "LightGBM"]
    for _, auc, strict, lenient, accuracy, size, seconds, speed in got["rows"]:
        assert 0.5 < auc <= 1 and 0 <= strict <= lenient <= 1 and 0.5 < accuracy <= 1
        assert int(size.split()[0].replace(",", "")) > 100 and float(seconds) >= 0 and speed > 100
    shown = capsys.readouterr().out
    assert "Beside other models" in shown and f"wrote {tmp_path / 'tables' / 'compare.json'}" in shown


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("what", "first_column"),
    [
        ("pretraining", ["50%", "100%"]),
        ("shortcuts", ["with the TTL features", "without the TTL features"]),
        ("missing", ["0% at random", "10% at random", "20% at random", "40% at random", "60% at random", "80% at random",
                     "all but the 13 of a Zeek conn.log"]),
    ],
)  # fmt: skip
def test_ablations_write_their_tables(what: str, first_column: list[str], pipeline: Pipeline, tmp_path: Path) -> None:
    assert pipeline.trainer("ablate", "--what", what, "--seeds", "1", "--out", str(tmp_path)) == 0
    assert [row[0] for row in table(tmp_path / "tables" / f"{what}.json")["rows"]] == first_column


def test_unseen_leaves_a_family_out_and_keeps_the_budget_of_false_positives(pipeline: Pipeline, tmp_path: Path) -> None:
    words = ("--families", "DoS", "Fuzzers", "--seeds", "2", "--rows", "150", "--out", str(tmp_path))
    assert pipeline.trainer("unseen", *words) == 0
    left_out = table(tmp_path / "tables" / "unseen.json")
    assert [row[0] for row in left_out["rows"]] == ["DoS", "Fuzzers", "mean"]
    found = np.array([[float(cell.split()[0]) for cell in row[1:5]] for row in left_out["rows"]])
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found[2], found[:2].mean(axis=0), atol=1e-4)
    assert left_out["rows"][2][5] == pytest.approx(found[2, 3] - found[2, 0], abs=2e-4)
    false_positives = float(left_out["note"].split("Known or novel: at most ")[1].split("%")[0]) / 100
    assert false_positives <= unseen.FPR
    alone = table(tmp_path / "tables" / "novelty.json")["rows"]
    assert {row[0] for row in alone} > {"DoS", "Fuzzers", "mean"}
    compared = table(tmp_path / "tables" / "novelty_scores.json")
    assert compared["columns"] == ["left out", "novelty", "Mahalanobis", "neighbours", "entropy", "energy"]
    assert [row[1] for row in compared["rows"]] == [row[3] for row in left_out["rows"]]
    assert all(0 <= float(cell.split()[0]) <= 1 for row in compared["rows"] for cell in row[1:])


def test_what_is_left_out_reaches_no_detector(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = load_prepared(pipeline.run / "prepared")
    number = [family.name for family in prepared.schema.families].index("DoS")
    learnt: list[tuple[str, Prepared]] = []

    def stop(kind: str) -> Callable[..., Any]:
        def take(part: Prepared, *_: object, **__: object) -> Any:
            learnt.append((kind, part))
            return Mock(score=lambda x: np.zeros(len(x), dtype=np.float32))

        return take

    monkeypatch.setattr(unseen, "fit_expert", stop("classifier"))
    monkeypatch.setattr(unseen, "Trees", stop("trees"))
    monkeypatch.setattr(unseen, "fit_novelty", stop("novelty"))
    monkeypatch.setattr(unseen, "score_rows", lambda model, part, rows: np.zeros(len(rows), dtype=np.float32))
    nothing = Mock(of=lambda rows: {"entropy": np.zeros(len(rows), dtype=np.float32)})
    monkeypatch.setattr(unseen, "NoveltyScores", lambda *_: nothing)
    monkeypatch.setattr(unseen, "novelty_of", lambda model, inputs: np.zeros(len(inputs), dtype=np.float32))
    params = Params(experiments=ExperimentsParams(rows=None, seeds=1))
    unseen.unseen(prepared, params, families=["DoS"], device=torch.device("cpu"))
    assert {kind for kind, _ in learnt} == {"classifier", "trees", "novelty"}
    for kind, part in learnt:
        sides = part.split[part.family == number]
        assert len(sides) and (sides == LEFT_OUT).all(), kind
        if kind == "novelty":
            assert (part.split[part.y == 1] == LEFT_OUT).all(), "it is shown no attack at all"


@pytest.mark.usefixtures("few")
def test_all_ablations_are_those_that_the_data_set_allows(pipeline: Pipeline, tmp_path: Path) -> None:
    words = ("--what", "all", "--seeds", "1", "--epochs", "1", "--rows", "120", "--out", str(tmp_path))
    assert pipeline.trainer("ablate", *words) == 0
    written = {path.stem for path in (tmp_path / "tables").iterdir()}
    assert written == {"pretraining", "shortcuts", "importance", "missing"}, "its days cannot be cut"
    assert "at most 120 training rows, 1 epochs, 1 seeds" in table(tmp_path / "tables" / "shortcuts.json")["note"]


def test_importance_finds_the_features_that_a_model_looks_at(pipeline: Pipeline, tmp_path: Path) -> None:
    assert pipeline.trainer("ablate", "--what", "importance", "--out", str(tmp_path)) == 0
    falls = [float(fall) for _, fall in table(tmp_path / "tables" / "importance.json")["rows"]]
    assert len(falls) == 15 and falls == sorted(falls, reverse=True) and falls[0] > 0


def test_fewer_features_are_worse_than_all_of_them(pipeline: Pipeline, tmp_path: Path) -> None:
    assert pipeline.trainer("ablate", "--what", "missing", "--out", str(tmp_path)) == 0
    rows = dict(table(tmp_path / "tables" / "missing.json")["rows"])
    measured = json.loads((pipeline.run / "metrics.json").read_text())["test"]["auc"]
    assert rows["0% at random"] == pytest.approx(measured), "the model of the run on its test rows"
    assert rows["80% at random"] < rows["0% at random"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--what", "pretraining", "--seeds", "0"],
            "experiments.seeds = 0: Input should be greater than or equal to 1",
        ),
        (
            ["--what", "pretraining", "--rows", "-1"],
            "experiments.rows = -1: Input should be greater than or equal to 1",
        ),
        (["--what", "missing", "--runs", "nowhere"], "Run `python -m trainer prepare` first"),
    ],
)
def test_what_cannot_be_done_is_said(
    words: list[str], says: str, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline.trainer("ablate", *words) == 2
    assert says in capsys.readouterr().err


def test_the_report_shows_the_tables_that_lie_beside_it(tmp_path: Path, pipeline: Pipeline) -> None:
    found = Table(
        "missing", "Missing features", "A note.", ("missing", "AUC"), (("80% at <random>", 0.51234), ("–", None))
    )
    assert found.write(tmp_path) == tmp_path / "tables" / "missing.json"
    assert read_tables(tmp_path) == [found]
    data = pipeline.data / "flows (1).csv"
    assert main(["evaluate", "--bundle", str(pipeline.bundle), "--data", str(data), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Missing features</h2>" in page and "80% at &lt;random&gt;" in page and "0.5123" in page


def test_seeds_are_shown_with_the_least_and_the_most() -> None:
    assert between_seeds([0.5, 0.7, 0.6]) == "0.6000 (0.5000 – 0.7000)"
    assert between_seeds([0.5]) == "0.5000"
    assert np.isfinite(float(between_seeds([1 / 3])))


def test_a_family_that_is_not_there_is_said(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline.trainer("unseen", "--families", "Wurms") == 2
    assert "no row of the attack family 'Wurms': there are Backdoor, DoS, Fuzzers" in capsys.readouterr().err


def test_what_is_left_out_where_nobody_says_which_are_attack_families() -> None:
    assert unseen.UNSEEN.keys() == SCHEMAS.keys()
    for name, families in unseen.UNSEEN.items():
        assert set(families) <= {family.name for family in SCHEMAS[name].attack_families}, name
