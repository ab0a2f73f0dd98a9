"""A study that searches hyper-parameters, is killed and goes on."""

from pathlib import Path

import mlflow
import optuna
import pytest
import torch
from mlflow.tracking import MlflowClient
from optuna.trial import TrialState

from schemas.params import DataParams, Params, TrackingParams
from tests.flows import flows
from tests.trainer.conftest import DATASET, TINY
from trainer import tuning
from trainer.prepare import prepare
from trainer.tuning import SPACE, tune


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # MLflow keeps artefacts of a SQLite store in the working directory
    path = flows("unsw-partition", rows=300, seed=11).write(tmp_path / "flows.csv")
    prepare([path], DataParams(dataset=DATASET, n_quantiles=24), tmp_path / "run" / "prepared")
    return tmp_path / "run"


def params(directory: Path) -> Params:
    return Params(
        data=DataParams(dataset=DATASET, n_quantiles=24),
        train=TINY,
        tracking=TrackingParams(mlflow_uri=f"sqlite:///{directory.parent / 'mlflow.db'}"),
    )


def search(directory: Path, trials: int) -> dict[str, object]:
    return tune(params(directory), directory, trials=trials, rows=100, epochs=2, device=torch.device("cpu"))


def study(directory: Path) -> optuna.Study:
    return optuna.load_study(study_name=None, storage=f"sqlite:///{directory / 'tune.db'}")


def test_a_study_finds_settings_draws_its_plots_and_goes_on_where_it_was(directory: Path) -> None:
    best = search(directory, 3)
    assert best.keys() == SPACE.keys()
    assert {path.name for path in directory.glob("tune-*.svg")} == {"tune-history.svg", "tune-importance.svg"}
    assert len(study(directory).trials) == 3
    first = study(directory).trials[0].params
    assert first.keys() == SPACE.keys()
    assert (first["weight_decay"], first["teacher_weight"]) == (TINY.weight_decay, TINY.teacher_weight), (
        "to be bettered"
    )
    assert first["batch_size"] != TINY.batch_size, "that is not searched"
    search(directory, 3)
    assert len(study(directory).trials) == 3, "it has as many as are wanted"
    search(directory, 4)
    assert len(study(directory).trials) == 4

    client = MlflowClient(mlflow.get_tracking_uri())
    [experiment] = [it for it in client.search_experiments() if it.name == f"flowsentry-{DATASET}"]
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len(parents) == 3 and len(nested) == 4
    for run in nested:
        assert set(run.data.params) == set(SPACE)
        assert [it.step for it in client.get_metric_history(run.info.run_id, "validation_auc")][:1] == [1]


def test_a_trial_that_was_killed_is_done_again_with_its_settings(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        search(directory, 2)
    [broken] = study(directory).trials
    assert broken.state is TrialState.RUNNING
    monkeypatch.undo()
    monkeypatch.chdir(directory.parent)
    search(directory, 2)
    first, again, other = study(directory).trials
    assert (first.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert again.params == broken.params != other.params
