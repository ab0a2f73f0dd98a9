"""A trained model for an experiment: no checkpoint that stays, no tracking."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from schemas.params import TrainParams
from trainer.distillation import softened
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
from trainer.tracking import Untracked
from trainer.training import Inputs, Stage, Trained, train

__all__ = ["Untracked", "fit_expert", "fit_network", "fit_novelty", "score_rows"]


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
        softened(rows, prepared, params, seed=seed) if labelled is None else model_inputs(prepared, labelled, model)
    )
    validation = model_inputs(prepared, prepared.rows("validation"), model)
    stages: list[tuple[Stage[Any], Inputs]] = [(finetune_stage(params, validation), with_labels)]
    if params.epochs_pretrain and isinstance(model, TabularExpert):
        stages.insert(0, (pretrain_stage(params, validation, seed), rows))
    _run(stages, model, prepared, params, seed, device)
    calibrate(model.eval(), validation)
    return model


def _run(
    stages: Sequence[tuple[Stage[Trained], Inputs]],
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
