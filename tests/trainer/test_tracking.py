"""What MLflow is told of a run, and what not."""

import subprocess
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from schemas.settings import load_params
from trainer.tracking import tracked_run


def test_mlflow_is_told_nothing_of_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"kafka.sasl.password": "hunter2", "tracking.mlflow_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    with tracked_run(load_params(options, environment={}), "finetune", "unsw-nb15", "0" * 64, []) as run:
        run.log_metrics({"loss": 1.0}, step=1)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"train.learning_rate" in written
    assert b"hunter2" not in written and b"sasl" not in written


def test_a_run_names_the_commit_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "trainer"
    package.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("trainer.tracking.__file__", str(package / "tracking.py"))
    params = load_params({"tracking.mlflow_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}, environment={})

    def told() -> str:
        with tracked_run(params, "finetune", "cicids2017-improved", "0" * 64, []):
            pass
        client = MlflowClient(params.tracking.mlflow_uri)
        [experiment] = client.search_experiments(filter_string="name = 'flowsentry-cicids2017-improved'")
        [run, *_] = client.search_runs([experiment.experiment_id])
        return str(run.data.tags["git_commit"])

    def git(*words: str) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        return subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True).stdout.strip()

    assert told() == "unknown"
    git("init")
    (package / "model.py").write_text("1\n")
    git("add", "trainer")
    git("commit", "-m", "one")
    commit = git("rev-parse", "HEAD")
    assert told() == commit
    (package / "model.py").write_text("2\n")
    assert told() == commit + "+"
