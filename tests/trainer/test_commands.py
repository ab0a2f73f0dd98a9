"""The commands from CSVs to a verified bundle, what each leaves behind, and what each says if a step is missing."""

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from export import graph
from export.__main__ import main as export_main
from export.bundle import sha256_of
from export.detector import load
from export.run import read_run
from schemas.datasets import SCHEMAS
from tests.flows import flows
from tests.trainer.conftest import DATASET, TINY, Pipeline
from trainer import commands
from trainer.__main__ import main
from trainer.prepare import load_prepared
from trainer.splitting import SPLITS
from trainer.stages import model_inputs, predict
from trainer.training import build_model, load_checkpoint

SCHEMA = SCHEMAS[DATASET]


def content(path: Path) -> Any:
    return json.loads(path.read_text())


# What the pipeline leaves behind.


def test_every_stage_leaves_its_artefacts(pipeline: Pipeline) -> None:
    assert {file.name for file in pipeline.run.iterdir()} == {
        "prepared", "pretrain.pt", "novelty.pt", "novelty.pt2", "finetune.pt", "metrics.json", "model.pt2", "training.json",
        "learning_curve.json",
    }  # fmt: skip
    assert {file.name for file in pipeline.bundle.iterdir()} == {
        "bundle.json", "bundle.json.sha256", "model.onnx", "reference.npz",
    }  # fmt: skip


def test_metrics_are_those_of_the_finetuned_weights_on_the_held_out_rows(pipeline: Pipeline) -> None:
    metrics = content(pipeline.run / "metrics.json")
    prepared = load_prepared(pipeline.run / "prepared")
    model = build_model(load_checkpoint(pipeline.run / "finetune.pt", schema_hash=SCHEMA.fingerprint()))
    assert set(metrics) == {"validation", "test"}
    for name, figures in metrics.items():
        rows = prepared.rows(name)
        assert (figures["rows"], figures["attacks"]) == (len(rows), int(prepared.y[rows].sum()))
        inputs = model_inputs(prepared, rows, model)
        scores, families = predict(model, inputs)
        attacks, benign = scores[inputs.y.numpy() == 1], scores[inputs.y.numpy() == 0]
        ahead = (attacks[:, None] > benign).mean() + (attacks[:, None] == benign).mean() / 2
        assert figures["auc"] == pytest.approx(ahead), "the share of attack-benign pairs in the right order"
        hits = families[inputs.y.numpy() == 1] == inputs.family.numpy()[inputs.y.numpy() == 1]
        assert figures["family_accuracy"] == pytest.approx(hits.mean())
        assert figures["auc"] > 0.7 and 0 <= figures["recall_at_0.1%_fpr"] <= figures["recall_at_1%_fpr"] <= 1


def test_training_json_says_how_the_model_was_made(pipeline: Pipeline) -> None:
    training = content(pipeline.run / "training.json")
    model = build_model(load_checkpoint(pipeline.run / "finetune.pt", schema_hash=SCHEMA.fingerprint()))
    assert training["params"] == TINY.model_dump(mode="json")
    assert training["seed"] == 7
    assert training["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert training["parameters_backbone"] == sum(parameter.numel() for parameter in model.backbone.parameters())
    metrics = content(pipeline.run / "metrics.json")
    assert training["best_epoch"]["validation_auc"] == pytest.approx(metrics["validation"]["auc"])


def test_finetuning_begins_where_pretraining_ended(pipeline: Pipeline) -> None:
    pretrained = load_checkpoint(pipeline.run / "pretrain.pt", schema_hash=SCHEMA.fingerprint())
    finetuned = load_checkpoint(pipeline.run / "finetune.pt", schema_hash=SCHEMA.fingerprint())
    assert pretrained["step"] == pretrained["total_steps"]
    # The reconstruction head takes no part in finetuning: no gradient, and it is spared from weight decay.
    for name in ("masked_head.weight", "masked_head.bias", "masked_head.categories.0.weight"):
        assert torch.equal(pretrained["weights"][name], finetuned["model"][name])
    assert not torch.equal(pretrained["weights"]["tokenizer.cls"], finetuned["model"]["tokenizer.cls"])


def test_the_bundle_carries_the_run_and_answers_as_torch_did(
    pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = content(pipeline.bundle / "bundle.json")
    metadata = content(pipeline.run / "prepared" / "metadata.json")
    assert manifest["training"] == content(pipeline.run / "training.json")
    assert manifest["data"]["inputs"] == metadata["inputs"]
    assert manifest["data"]["splits"] == metadata["splits"]
    assert manifest["source"] == {name: sha256_of(pipeline.run / name) for name in ("model.pt2", "novelty.pt2")}
    assert manifest["tells_novelty"] and all(item["novelty"] > 0 for item in manifest["thresholds"])
    assert manifest["parity"]["rows"] == sum(metadata["splits"]["test"].values())
    assert manifest["parity"]["max_difference"] < 1e-5 and manifest["parity"]["verdicts_differing"] == 0
    for name, figures in content(pipeline.run / "metrics.json").items():
        assert manifest["metrics"][name]["auc"] == pytest.approx(figures["auc"], abs=1e-6)

    assert export_main(["verify", str(pipeline.bundle), "--run", str(pipeline.run)]) == 0
    shown = capsys.readouterr().out
    assert f"held-out   torch and ONNX Runtime agree on {manifest['parity']['rows']} rows" in shown


def test_the_bundle_carries_what_its_training_rows_and_validation_scores_were_like(pipeline: Pipeline) -> None:
    run, detector = read_run(pipeline.run), load(pipeline.bundle, threads=1)
    drift = detector.manifest.drift
    assert drift is not None
    train, validation = run.rows("train"), run.rows("validation")
    y, score_y = run.y[train] == 1, run.y[validation] == 1
    for told_rows, attacks in ((drift.rows, y), (drift.score_rows, score_y)):
        assert told_rows.benign == (~attacks).sum() > 0 and told_rows.attack == attacks.sum() > 0
    scores = detector.score_matrix(*run.inputs(validation))
    told = {"score": scores.score, "novelty": scores.novelty}
    assert [score.name for score in drift.scores] == list(told)
    vocabularies = {info.name: info.vocabulary for info in detector.manifest.features}
    for index, variable in enumerate((*drift.features, *drift.scores)):
        values: Any = told[variable.name] if variable.name in told else run.x[train, index]
        if names := vocabularies.get(variable.name):
            values = np.array([None, *names], dtype=object)[values.astype(int)]
        attack = score_y if variable.name in told else y
        for rows, attack_share in ((~attack, 0.0), (attack, 1.0), (slice(None), attack.mean())):
            found = variable.distances(variable.count(values[rows]), attack_share)
            assert found.psi < 1e-4 and not found.unknown and not found.out_of_range, variable.name


def test_a_bundle_scores_raw_rows_as_the_checkpoint_does(pipeline: Pipeline) -> None:
    prepared, run = load_prepared(pipeline.run / "prepared"), read_run(pipeline.run)
    model = build_model(load_checkpoint(pipeline.run / "finetune.pt", schema_hash=SCHEMA.fingerprint()))
    rows = prepared.rows("test")
    expected, _ = predict(model, model_inputs(prepared, rows, model))
    got = load(pipeline.bundle, threads=1).score_matrix(*run.inputs(rows)).score
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_a_bundle_tells_novelty_as_the_model_of_benign_rows_does(pipeline: Pipeline) -> None:
    prepared, run = load_prepared(pipeline.run / "prepared"), read_run(pipeline.run)
    assert run.novelty is not None
    rows = np.arange(len(prepared.x))
    numeric, codes = run.inputs(rows)
    expected = graph.run_novelty(graph.load_program(run.novelty), numeric, codes)
    scores = load(pipeline.bundle, threads=1).score_matrix(numeric, codes)
    assert scores.novelty is not None and scores.surprise is not None
    np.testing.assert_allclose(scores.novelty, expected, atol=1e-4)
    assert scores.surprise.shape == (len(rows), len(SCHEMA.features)) and (scores.surprise >= 0).all()
    benign = (prepared.y == 0) & (prepared.split == SPLITS.index("validation"))
    threshold = content(pipeline.bundle / "bundle.json")["thresholds"][-1]
    assert (scores.novelty[benign] >= threshold["novelty"]).mean() <= 0.05 * 0.4


def test_features_of_the_bundle_carry_what_benign_rows_show(pipeline: Pipeline) -> None:
    prepared = load_prepared(pipeline.run / "prepared")
    features = {item["name"]: item for item in content(pipeline.bundle / "bundle.json")["features"]}
    assert list(features) == list(SCHEMA.names)
    limits = prepared.preprocessor.benign["dur"]
    assert (features["dur"]["benign_low"], features["dur"]["benign_high"]) == (limits.low, limits.high)
    assert features["proto"]["vocabulary"] == list(prepared.preprocessor.vocabularies["proto"]) == ["arp", "tcp", "udp"]
    assert sum(features["proto"]["benign_shares"]) == pytest.approx(1)


# What MLflow holds.


def runs_of(pipeline: Pipeline) -> dict[str, Run]:
    client = MlflowClient(pipeline.tracking)
    experiment = client.get_experiment_by_name(f"flowsentry-{DATASET}")
    assert experiment is not None, "one experiment per data set"
    return {run.data.tags["stage"]: run for run in client.search_runs([experiment.experiment_id])}


def test_mlflow_has_a_named_run_per_stage_with_every_parameter(pipeline: Pipeline) -> None:
    runs = runs_of(pipeline)
    assert set(runs) == {"pretrain", "novelty", "finetune"}
    inputs = content(pipeline.run / "prepared" / "metadata.json")["inputs"]
    assert [report["file"] for report in inputs] == ["flows (1).csv", "raw.csv.gz"]
    for stage, run in runs.items():
        assert run.info.status == "FINISHED"
        assert re.fullmatch(rf"{stage}-\d{{8}}-\d{{6}}", run.info.run_name)
        for name, value in TINY.model_dump(mode="json").items():
            assert run.data.params[f"train.{name}"] == str(value)
        assert (run.data.params["data.dataset"], run.data.params["data.n_quantiles"]) == (DATASET, "24")
        assert run.data.tags["schema"] == SCHEMA.fingerprint()
        for number, report in enumerate(inputs, start=1):
            assert run.data.tags[f"input.{number}"] == f"{report['sha256']}  {report['file']}"


def test_mlflow_has_metrics_per_epoch_and_the_artefacts_of_finetuning(pipeline: Pipeline) -> None:
    client, runs = MlflowClient(pipeline.tracking), runs_of(pipeline)
    for stage, name, epochs in (
        ("pretrain", "validation_score", 1),
        ("novelty", "validation_score", 3),
        ("finetune", "validation_auc", 3),
    ):
        for metric in ("loss", name):
            history = client.get_metric_history(runs[stage].info.run_id, metric)
            assert [entry.step for entry in history] == [*range(1, epochs + 1)], f"{stage} {metric}"
    final = runs["finetune"].data.metrics
    test = content(pipeline.run / "metrics.json")["test"]
    assert final["test.auc"] == test["auc"] and final["test.recall_at_1pct_fpr"] == test["recall_at_1%_fpr"]
    artefacts = {item.path for item in client.list_artifacts(runs["finetune"].info.run_id)}
    assert artefacts == {"metrics.json", "model.pt2", "training.json", "finetune.pt"}


# What each command says if a step before it is missing or no longer fits. None of these gets as far as training.


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    command = export_main if words[0] == "build" else main
    assert command(words) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.err


@pytest.fixture
def copy(pipeline: Pipeline, tmp_path: Path) -> Pipeline:
    """A copy of the pipeline's run that may be spoilt."""
    shutil.copytree(pipeline.run, tmp_path / "runs" / DATASET)
    return Pipeline(tmp_path)


def build(pipeline: Pipeline) -> list[str]:
    return ["build", "--dataset", DATASET, "--runs", str(pipeline.root / "runs"), "--out", str(pipeline.root / "out")]


@pytest.mark.parametrize(
    ("command", "missing", "next_command"),
    [
        ("pretrain", "prepared", "prepare"),
        ("finetune", "prepared", "prepare"),
        ("finetune", "pretrain.pt", "pretrain"),
        ("build", "prepared", "prepare"),
        ("build", "prepared/preprocessor.joblib", "prepare"),
        ("build", "model.pt2", "finetune"),
        ("build", "training.json", "finetune"),
    ],
)
def test_a_missing_step_is_named_with_its_command(
    command: str, missing: str, next_command: str, copy: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = copy.run / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    words = build(copy) if command == "build" else [command, *copy.options()]
    message = refused(words, capsys)
    assert str(gone) in message and f"python -m trainer {next_command}` first" in message
    assert not (copy.root / "out").exists() and not (copy.root / "mlflow.db").exists()


def test_pretraining_that_was_broken_off_is_not_finetuned(copy: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy.run / "pretrain.pt"
    saved = load_checkpoint(path, schema_hash=SCHEMA.fingerprint())
    torch.save({**saved, "step": 1}, path)
    message = refused(["finetune", *copy.options()], capsys)
    assert f"{path} stands at step 1 of {saved['total_steps']}: run `python -m trainer pretrain` to its end" in message


def test_a_pretrained_model_of_another_size_is_refused_with_the_difference(
    copy: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(["finetune", *copy.options(), "--set", "train.d_feedforward=64"], capsys)
    assert (
        "pretrain.pt is of another model (d_feedforward 32, now 64): run `python -m trainer pretrain` again" in message
    )


def test_neither_finetune_nor_build_takes_up_what_was_trained_on_rows_prepared_otherwise(
    copy: Pipeline, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert copy.trainer("prepare", "--data", str(pipeline.data), "--set", "data.seed=8") == 0
    message = refused(["finetune", *copy.options()], capsys)
    assert "pretrain.pt was trained on rows prepared otherwise: run `python -m trainer pretrain` again" in message
    message = refused(build(copy), capsys)
    assert (
        "model.pt2 was trained on rows prepared otherwise" in message
        and "`python -m trainer finetune` again" in message
    )


def test_a_novelty_model_of_rows_prepared_otherwise_is_not_built_in(
    copy: Pipeline, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, command in ((8, "novelty"), (7, None)):
        assert copy.trainer("prepare", "--data", str(pipeline.data), "--set", f"data.seed={seed}") == 0
        assert command is None or copy.trainer(command) == 0
    message = refused(build(copy), capsys)
    assert "novelty.pt2 was trained on rows prepared otherwise: run `python -m trainer novelty` again" in message


def test_a_run_prepared_with_another_schema_is_not_built(copy: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy.run / "prepared" / "metadata.json"
    metadata = content(path)
    metadata["schema"]["hash"] = "0" * 64
    path.write_text(json.dumps(metadata))
    assert "prepared with another unsw-nb15 schema: run `trainer prepare` again" in refused(build(copy), capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_an_error(copy: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert "train.device = 'cuda'" in refused(["pretrain", *copy.options(), "--set", "train.device=cuda"], capsys)


class Untracked:
    """A tracker that remembers nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None: ...

    def log_artifact(self, path: Path) -> None: ...


def without_test_rows(run: Path) -> None:
    """Turn the test rows of a prepared set into validation rows, as if data.test_share had been 0."""
    split = np.load(run / "prepared" / "split.npy")
    np.save(run / "prepared" / "split.npy", np.minimum(split, 1))


def test_finetuning_alone_needs_no_pretraining_and_no_test_rows(
    copy: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pretrain.pt", "finetune.pt", "model.pt2", "metrics.json", "training.json"):
        (copy.run / name).unlink()
    without_test_rows(copy.run)
    monkeypatch.setattr(commands, "tracked_stage", lambda *_: nullcontext(Untracked()))
    assert copy.trainer("finetune", "--set", "train.epochs_pretrain=0", "--set", "train.threads=null") == 0
    assert set(content(copy.run / "metrics.json")) == {"validation"}
    assert content(copy.run / "training.json")["params"]["epochs_pretrain"] == 0
    assert (copy.run / "model.pt2").exists()
    assert f"wrote {copy.run / 'model.pt2'} and {copy.run / 'metrics.json'}" in capsys.readouterr().err


def test_a_bundle_without_test_rows_has_its_parity_measured_on_validation_rows(
    copy: Pipeline, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_test_rows(copy.run)
    # Translating the models once was slow enough: the graph is the same.
    monkeypatch.setattr(
        graph, "write_onnx", lambda program, path, outputs=(): shutil.copy(pipeline.bundle / "model.onnx", path)
    )
    monkeypatch.setattr(graph, "merge", lambda path, other: None)
    assert export_main(build(copy)) == 0
    manifest = content(copy.root / "out" / "bundle.json")
    assert set(manifest["metrics"]) == {"validation"}
    assert manifest["parity"]["rows"] == manifest["metrics"]["validation"]["rows"] > 80


def test_a_file_that_was_skipped_does_not_reach_training(copy: Pipeline, tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=60)
    folder = table.write(tmp_path / "some" / "flows.csv").parent
    (folder / "other.csv").write_text("a,b\n1,2\n")
    assert copy.trainer("prepare", "--data", str(folder)) == 0
    assert len(load_prepared(copy.run / "prepared").x) == 60
