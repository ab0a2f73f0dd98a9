"""What MLflow is told of a run, and what not."""

import json
from pathlib import Path

import pytest

from schemas.params import load_params
from trainer.tracking import tracked_run


def test_mlflow_is_told_nothing_of_kafka(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "metadata.json").write_text(json.dumps({"schema": {"hash": "0" * 64}, "inputs": []}))
    options = {"kafka.sasl.password": "hunter2", "tracking.mlflow_uri": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    with tracked_run(load_params(options, environment={}), "finetune", tmp_path) as run:
        run.log_metrics({"loss": 1.0}, step=1)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"train.learning_rate" in written
    assert b"hunter2" not in written and b"sasl" not in written
