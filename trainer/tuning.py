"""`tune`: search the hyper-parameters, with a study that can be killed and taken up again.

T. Akiba et al.: Optuna: A Next-generation Hyperparameter Optimization Framework. KDD 2019.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlflow
import optuna
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState
from optuna.visualization import matplotlib as plots

from export.progress import console
from schemas.params import Params, TrainParams
from trainer.distillation import Teacher, training_rows
from trainer.prepare import Prepared, load_prepared
from trainer.stages import finetune_stage, model_inputs, new_model
from trainer.subsets import resplit, thin
from trainer.tracking import tracked_stage
from trainer.training import train

__all__ = ["SPACE", "tune"]

SPACE: Mapping[str, FloatDistribution | CategoricalDistribution] = {
    "learning_rate": FloatDistribution(2e-4, 4e-3, log=True),
    "weight_decay": FloatDistribution(1e-4, 0.3, log=True),
    "finetune_mask_share": FloatDistribution(0.0, 0.3),
    "family_loss_weight": FloatDistribution(0.03, 1.0, log=True),
    "teacher_weight": FloatDistribution(0.0, 1.0),
    "numeric_embedding": CategoricalDistribution(["linear", "piecewise"]),
    "batch_size": CategoricalDistribution([128, 256, 512]),
}
"""What is searched, by its name in params.yaml's section train, and where. Not `average_decay`: how long the average of
weights should be depends on how long a run is, and trials are short."""


class _Reporter:
    """A tracker that tells the study how a trial goes, and breaks it off where others were better by then."""

    def __init__(self, trial: optuna.Trial, criterion: str) -> None:
        self._trial = trial
        self._criterion = criterion

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        mlflow.log_metrics(dict(metrics), step=step)
        self._trial.report(metrics[self._criterion], step)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def tune(
    params: Params, directory: Path, *, trials: int, rows: int, epochs: int, device: torch.device
) -> dict[str, Any]:
    """Go on with the study of `directory` until it has so many trials; the best one's settings.

    Every trial trains on the same `rows` training rows for `epochs` epochs and is judged on the validation rows; test
    rows take no part. The first one has the settings of `params` that lie within
    `SPACE`. `tune.db` is the study, `tune-*.svg` are its plots.
    """
    prepared = load_prepared(directory / "prepared")
    thinned = thin(prepared.split, prepared.family, rows, seed=params.data.seed)
    prepared = resplit(prepared, thinned, params.data)
    teacher = Teacher(prepared, seed=params.data.seed, threads=params.train.threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=f"{params.data.dataset}, {rows} rows, {epochs} epochs",
        storage=f"sqlite:///{directory / 'tune.db'}",
        load_if_exists=True,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    )
    # One that goes on must not draw again what it drew at first.
    study.sampler = optuna.samplers.TPESampler(seed=params.data.seed + len(study.trials))
    for broken in study.get_trials(states=(TrialState.RUNNING,)):  # a run that was killed left it so
        study.tell(broken.number, state=TrialState.FAIL)
        study.enqueue_trial(broken.params)
    if not study.trials:
        study.enqueue_trial(_searched(params.train))
    with tracked_stage(params, "tune", prepared):
        mlflow.log_params({"tune.rows": rows, "tune.epochs": epochs})
        while (done := _done(study)) < trials:
            trial = study.ask(dict(SPACE))
            settings = trial.params
            with mlflow.start_run(run_name=f"trial {trial.number}", nested=True):
                mlflow.log_params(settings)
                value = _value_of(trial, prepared, teacher, params, settings, epochs, device)
            if value is None:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, value)
            shown = "broken off" if value is None else f"{value:.5f}"
            best = f"; best {study.best_value:.5f}" if _values(study) else ""
            console.print(f"tune: trial {done + 1} of {trials}: {shown}, {_told(settings)}{best}", soft_wrap=True)
        for path in _plot(study, directory):
            mlflow.log_artifact(str(path))
        mlflow.log_metric("best", study.best_value)
    return dict(study.best_params)


def _value_of(
    trial: optuna.Trial,
    prepared: Prepared,
    teacher: Teacher,
    params: Params,
    settings: Mapping[str, Any],
    epochs: int,
    device: torch.device,
) -> float | None:
    """The best validation figure of one trial; None where it was broken off."""
    given = params.train.model_dump() | dict(settings) | {"epochs_finetune": epochs, "epochs_pretrain": 0}
    train_params = TrainParams.model_validate(given)
    torch.manual_seed(params.data.seed)
    model = new_model(prepared, train_params)
    validation = model_inputs(prepared, prepared.rows("validation"), model)
    stage = finetune_stage(train_params, validation)
    with TemporaryDirectory() as folder:
        try:
            outcome = train(
                model,
                training_rows(prepared, model, train_params, seed=params.data.seed, teacher=teacher),
                stage,
                train_params,
                path=Path(folder) / "trial.pt",
                schema_hash=prepared.schema.fingerprint(),
                seed=params.data.seed,
                device=device,
                tracker=_Reporter(trial, stage.criterion),
            )
        except optuna.TrialPruned:
            return None
    return outcome.best[stage.criterion]


def _searched(params: TrainParams) -> dict[str, Any]:
    """The settings that are searched for, where they are within reach."""
    given = {name: getattr(params, name) for name in SPACE}
    return {name: value for name, value in given.items() if _within(SPACE[name], value)}


def _within(distribution: FloatDistribution | CategoricalDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return distribution.low <= float(value) <= distribution.high


def _done(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def _values(study: optuna.Study) -> list[float]:
    return [
        trial.value
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.value is not None
    ]


def _told(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )


def _plot(study: optuna.Study, directory: Path) -> list[Path]:
    """History of the study, and how much each setting mattered (of two different values at least)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        drawn = {"history": plots.plot_optimization_history(study)}
        if len(set(_values(study))) > 1:
            drawn["importance"] = plots.plot_param_importances(study)
    written = []
    for name, axes in drawn.items():
        path = directory / f"tune-{name}.svg"
        figure = axes.get_figure(root=True)
        assert figure is not None, "axes that were drawn are of a figure"
        figure.savefig(path, bbox_inches="tight")
        written.append(path)
    return written
