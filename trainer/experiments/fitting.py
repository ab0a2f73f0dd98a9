"""A trained model for an experiment: no checkpoint that stays, no tracking."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from schemas.params import Params, TrainParams
from trainer.distillation import training_rows
from trainer.evaluation.metrics import Curve, area_under_roc
from trainer.model import FlowClassifier, TabularExpert
from trainer.novelty import NoveltyModel, new_novelty_model, novelty_inputs, novelty_stage, standardize
from trainer.prepare import Prepared
from trainer.stages import (
    Network,
    calibrate,
    finetune_stage,
    model_inputs,
    new_model,
    new_network,
    predict,
    pretrain_stage,
)
from trainer.subsets import resplit, thin
from trainer.tracking import Untracked
from trainer.training import Rows, Stage, Trained, train

__all__ = [
    "Untracked",
    "area",
    "fit_expert",
    "fit_network",
    "fit_novelty",
    "score_rows",
    "seeds_of",
    "short_training",
    "thinned",
    "told_of",
]


def short_training(params: Params) -> TrainParams:
    """How an experiment trains: few epochs, and no flows but the rows."""
    return params.train.model_copy(update={"epochs_finetune": params.experiments.epochs, "recombined_share": 0.0})


def seeds_of(params: Params) -> range:
    """The seeds of an experiment's repetitions."""
    return range(params.data.seed, params.data.seed + params.experiments.seeds)


def thinned(prepared: Prepared, params: Params) -> Prepared:
    """With as many training rows as an experiment learns from."""
    rows = params.experiments.rows
    if rows is None or rows >= len(prepared.rows("train")):
        return prepared
    return resplit(prepared, thin(prepared.split, prepared.family, rows, seed=params.data.seed), params.data)


def told_of(params: Params) -> str:
    """How an experiment trained, for a table's note."""
    rows = "all" if params.experiments.rows is None else f"at most {params.experiments.rows:,}"
    return f"{rows} training rows, {params.experiments.epochs} epochs, {params.experiments.seeds} seeds: mean (least – most)"


def fit_expert(
    prepared: Prepared, params: TrainParams, *, seed: int, device: torch.device, labelled: np.ndarray | None = None
) -> TabularExpert:
    """Pretrain an FT-Transformer (if the params ask for it) on the training rows, finetune it on them or on those that are
    `labelled` (int64[K]), and calibrate it."""
    torch.manual_seed(seed)
    return _fitted(new_model(prepared, params), prepared, params, seed, device, labelled)


def fit_network(
    kind: type[Network], prepared: Prepared, params: TrainParams, *, seed: int, device: torch.device
) -> Network:
    """The same for any network; only the FT-Transformer is pretrained."""
    torch.manual_seed(seed)
    return _fitted(new_network(kind, prepared, params), prepared, params, seed, device, None)


def _fitted(
    model: Network,
    prepared: Prepared,
    params: TrainParams,
    seed: int,
    device: torch.device,
    labelled: np.ndarray | None,
) -> Network:
    rows = model_inputs(prepared, prepared.rows("train"), model)
    with_labels = (
        training_rows(prepared, model, params, seed=seed)
        if labelled is None
        else model_inputs(prepared, labelled, model)
    )
    validation = model_inputs(prepared, prepared.rows("validation"), model)
    stages: list[tuple[Stage[Any], Rows]] = [(finetune_stage(params, validation), with_labels)]
    if params.epochs_pretrain and isinstance(model, TabularExpert):
        stages.insert(0, (pretrain_stage(params, validation, seed), rows))
    _run(stages, model, prepared, params, seed, device)
    calibrate(model.eval(), validation)
    return model


def _run(
    stages: Sequence[tuple[Stage[Trained], Rows]],
    model: Trained,
    prepared: Prepared,
    params: TrainParams,
    seed: int,
    device: torch.device,
) -> None:
    with TemporaryDirectory() as folder:
        for stage, inputs in stages:
            train(
                model,
                inputs,
                stage,
                params,
                path=Path(folder) / f"{stage.name}.pt",
                schema_hash=prepared.schema.fingerprint(),
                seed=seed,
                device=device,
                tracker=Untracked(),
            )


def fit_novelty(prepared: Prepared, params: TrainParams, *, seed: int, device: torch.device) -> NoveltyModel:
    """Fit a novelty model to the benign training rows."""
    torch.manual_seed(seed)
    train_rows, validation_rows = (
        rows[prepared.y[rows] == 0] for rows in (prepared.rows("train"), prepared.rows("validation"))
    )
    model = new_novelty_model(prepared, train_rows, params)
    validation = novelty_inputs(prepared, validation_rows)
    stage = novelty_stage(params, validation)
    _run([(stage, novelty_inputs(prepared, train_rows))], model, prepared, params, seed, device)
    standardize(model.eval(), validation)
    return model


def score_rows(model: FlowClassifier, prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    """Attack probability of some rows: int64[K] → f32[K]."""
    return predict(model, model_inputs(prepared, rows, model))[0]


def area(y: np.ndarray, scores: np.ndarray) -> float:
    """AUC of rows of both classes: int[N], f32[N]."""
    curve = Curve.of(y, scores)
    auc = area_under_roc(curve.true_positives, curve.false_positives)
    assert auc is not None, "rows are of both classes"
    return auc
