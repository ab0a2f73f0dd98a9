"""`trainer evaluate`: a bundle and labelled CSVs → figures, plots and a page."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from export.bundle import sha256_of
from export.detector import load
from export.reading import read_flows
from tests.bundles import make_bundle
from tests.flows import flows
from trainer.__main__ import main

HISTORY = [
    {"stage": stage, "epoch": epoch, "criterion": "validation_auc", "loss": 1 / epoch, "validation_auc": 1 - 1 / epoch}
    for stage in ("pretrain", "finetune")
    for epoch in (1, 2, 3)
]
PLOTS = {"roc", "precision_recall", "confusion_matrix", "calibration", "score_histogram", "learning_curves"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny", "unsw-nb15", training={"history": HISTORY})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of 300 rows, one of which cannot be used."""
    folder = tmp_path_factory.mktemp("data")
    table = flows("unsw-partition", rows=200, seed=1)
    table.set(3, "dur", "soon")
    table.write(folder / "one.csv")
    flows("unsw-raw", rows=100, seed=2).write(folder / "two.csv.gz")
    return folder


@pytest.fixture(scope="module")
def report(bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "reports"
    assert main(["evaluate", "--bundle", str(bundle), "--data", str(data), "--out", str(out)]) == 0
    return out


def metrics(directory: Path) -> Any:
    return json.loads((directory / "metrics.json").read_text(encoding="utf-8"))


def test_rows_are_scored_as_export_score_does_and_counted(report: Path, bundle: Path, data: Path) -> None:
    got = metrics(report)
    assert got["rows"] == {"in": 300, "used": 299, "refused": 1, "refused_by_reason": {"wrong_type": 1}}
    detector = load(bundle)
    parts = [
        (
            detector.score(batch.columns).score,
            [label.strip() != "Normal" and label.strip() != "" for label in batch.labels["attack_cat"]],
        )
        for path in sorted(data.iterdir())
        for batch in read_flows(path, detector.schema, min_feature_coverage=0.5)
    ]
    scores, y = np.concatenate([part for part, _ in parts]), np.concatenate([np.array(part) for _, part in parts])
    hits = scores >= 0.5
    assert got["confusion_matrix"] == [
        [int((~hits & ~y).sum()), int((hits & ~y).sum())],
        [int((~hits & y).sum()), int((hits & y).sum())],
    ]
    assert (
        got["attacks"]
        == int(y.sum())
        == sum(family["count"] for name, family in got["families"].items() if name != "Benign")
    )
    assert [(file["file"], file["used"], file["sha256"]) for file in got["files"]] == [
        ("one.csv", 199, sha256_of(data / "one.csv")), ("two.csv.gz", 100, sha256_of(data / "two.csv.gz")),
    ]  # fmt: skip


def test_every_figure_that_was_promised_is_there(report: Path) -> None:
    got = metrics(report)
    for name in (
        "accuracy", "precision", "recall", "f1_score", "auc", "average_precision", "recall_at_0.1%_fpr",
        "recall_at_1%_fpr", "recall_at_5%_fpr", "brier_score", "expected_calibration_error",
    ):  # fmt: skip
        assert isinstance(got[name], float) and 0 <= got[name] <= 1, name
    for name in ("auc", "recall", "recall_at_0.1%_fpr", "recall_at_1%_fpr", "recall_at_5%_fpr"):
        low, high = got["intervals"][name]
        assert low <= got[name] <= high, name
    assert [point["target_fpr"] for point in got["operating_points"]] == [0.0001, 0.001, 0.005, 0.01, 0.05]


def test_a_bundle_that_tells_no_novelty_has_none_in_its_report(report: Path) -> None:
    assert metrics(report)["novelty"] is None
    assert "Novelty" not in (report / "report.html").read_text(encoding="utf-8")


def test_novelty_is_measured_alone_and_in_the_verdict(data: Path, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny", "unsw-nb15", novelty=True)
    assert main(["evaluate", "--bundle", str(bundle), "--data", str(data), "--out", str(tmp_path / "r")]) == 0
    got, detector = metrics(tmp_path / "r"), load(bundle)
    batches = [
        batch
        for path in sorted(data.iterdir())
        for batch in read_flows(path, detector.schema, min_feature_coverage=0.5)
    ]
    scores = [detector.score(batch.columns) for batch in batches]
    for point in got["operating_points"]:
        policy = detector.manifest.policy_of(point["target_fpr"], None, novel=True)
        alerts = sum(int(policy.alerts(part.score, part.novelty).sum()) for part in scores)
        assert sum(counts[1] for counts in point["confusion_matrix"]) == alerts
        assert point["novelty"] == policy.novelty
    assert set(got["novelty"]["families"]) == set(got["families"])
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert f"AUC {got['novelty']['auc']:.5f}; recall at 1%" in page


def test_the_page_needs_no_other_file_and_shows_the_figures_and_every_plot(report: Path) -> None:
    page, got = (report / "report.html").read_text(encoding="utf-8"), metrics(report)
    assert {path.stem for path in (report / "figures").iterdir()} == PLOTS
    assert page.count('src="data:image/svg+xml;base64,') == len(PLOTS)
    assert not re.search(r'(?:src|href)="(?!data:)', page) and "http" not in page
    assert f"{got['auc']:.5f}" in page and "Fuzzers" in page and "wrong_type: 1" in page


def test_the_same_rows_give_the_same_files_byte_for_byte(
    report: Path, bundle: Path, data: Path, tmp_path: Path
) -> None:
    assert main(["evaluate", "--bundle", str(bundle), "--data", str(data), "--out", str(tmp_path)]) == 0
    for path in sorted(report.rglob("*.*")):
        assert (tmp_path / path.relative_to(report)).read_bytes() == path.read_bytes(), path.name


def test_the_terminal_shows_figures_families_and_where_they_are_written(
    bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--bundle", str(bundle), "--data", str(data), "--out", str(tmp_path / "r")]) == 0
    shown = capsys.readouterr().out
    assert "300 rows in, 299 used, 1 refused (wrong_type: 1)" in shown
    assert f"{metrics(tmp_path / 'r')['auc']:.5f}" in shown and "Fuzzers" in shown
    assert f"to {tmp_path / 'r'}" in shown


def test_mlflow_is_told_if_it_is_wanted(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    words = [
        "--bundle",
        str(bundle),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "r"),
        "--set",
        f"tracking.mlflow_uri={uri}",
    ]
    assert main(["evaluate", *words, "--track"]) == 0
    client = MlflowClient(uri)
    [experiment] = client.search_experiments(filter_string="name = 'flowsentry-unsw-nb15'")
    [run] = client.search_runs([experiment.experiment_id])
    got = metrics(tmp_path / "r")
    assert run.data.metrics["auc"] == got["auc"] and run.data.metrics["recall_at_1pct_fpr"] == got["recall_at_1%_fpr"]
    assert run.data.tags["input.1"] == f"{sha256_of(data / 'one.csv')}  one.csv"
    kept = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert kept == {"metrics.json", "report.html", bundle.name}
    assert f"{bundle.name}/model.onnx" in {item.path for item in client.list_artifacts(run.info.run_id, bundle.name)}


@pytest.mark.parametrize(("words", "threshold"), [(["--threshold", "0.9"], 0.9), (["--target-fpr", "0.01"], 0.75)])
def test_a_threshold_of_ones_own_or_the_bundles(
    words: list[str], threshold: float, bundle: Path, data: Path, tmp_path: Path
) -> None:
    assert main(["evaluate", "--bundle", str(bundle), "--data", str(data), "--out", str(tmp_path), *words]) == 0
    got = metrics(tmp_path)
    assert got["threshold"] == threshold
    assert got["recall"] < 1 and got["confusion_matrix"][1][1] == round(got["recall"] * got["attacks"])


def test_a_file_that_the_bundle_was_trained_on_is_told(data: Path, tmp_path: Path) -> None:
    used = make_bundle(
        tmp_path / "tiny", "unsw-nb15", data={"inputs": [{"file": "x", "sha256": sha256_of(data / "one.csv")}]}
    )
    assert main(["evaluate", "--bundle", str(used), "--data", str(data), "--out", str(tmp_path / "r")]) == 0
    assert [file["trained_on"] for file in metrics(tmp_path / "r")["files"]] == [True, False]
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "one.csv</b> is a file that this bundle was made from" in page
    assert "learning_curves" not in {path.stem for path in (tmp_path / "r" / "figures").iterdir()}, "nothing is known"


def test_benign_rows_alone_have_a_report_too(bundle: Path, tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=60, seed=3)
    for row in range(60):
        table.set(row, "attack_cat", "Normal")
        table.set(row, "label", "0")
    path = table.write(tmp_path / "benign.csv")
    assert main(["evaluate", "--bundle", str(bundle), "--data", str(path), "--out", str(tmp_path / "r")]) == 0
    got = metrics(tmp_path / "r")
    assert got["auc"] is None and got["recall"] is None and got["false_positive_rate"] is not None
    assert {path.stem for path in (tmp_path / "r" / "figures").iterdir()} == {
        "confusion_matrix", "score_histogram", "learning_curves",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--threshold", "1.5"], "--threshold 1.5: expected a score from 0 to 1"),
        (["--target-fpr", "0.2"], "no threshold for a false-positive rate of 0.2: it has"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(
    words: list[str], says: str, bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--bundle", str(bundle), "--data", str(data), "--out", str(tmp_path), *words]) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_evaluated_is_named(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = flows("unsw-partition", rows=20, seed=1)
    table.drop("attack_cat")
    table.drop("label")
    unlabelled = table.write(tmp_path / "bare.csv")
    assert main(["evaluate", "--bundle", str(bundle), "--data", str(unlabelled), "--out", str(tmp_path / "r")]) == 2
    assert "bare.csv: no label column: expected attack_cat or label" in capsys.readouterr().err
