"""Labels softened by what trees say of rows that they were not shown.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; a teacher that had learnt the rows by heart would only repeat
their labels, so each row is judged by trees of the other folds.
"""

from dataclasses import replace

import numpy as np
import torch

from export.progress import track
from schemas.params import TrainParams
from trainer.baselines.trees import Trees
from trainer.cleaning import vector_groups
from trainer.prepare import Prepared
from trainer.splitting import SPLITS
from trainer.subsets import LEFT_OUT
from trainer.training import Inputs

__all__ = ["mixed", "softened", "taught"]

_FOLDS = 5


def softened(rows: Inputs, prepared: Prepared, params: TrainParams, *, seed: int) -> Inputs:
    """The training rows, as `model_inputs` gives them, with targets of which `teacher_weight` is what trees say."""
    if params.teacher_weight == 0:
        return rows
    return mixed(rows, taught(prepared, seed=seed, threads=params.threads), params.teacher_weight)


def mixed(rows: Inputs, teacher: np.ndarray, weight: float) -> Inputs:
    """Rows whose targets are `weight` times the teacher's f32[K], and labels for the rest.

    Cross-entropy is linear in its target, so this is the weighted sum of both losses.
    """
    return replace(rows, y=(1 - weight) * rows.y + weight * torch.from_numpy(teacher))


def taught(prepared: Prepared, *, seed: int, threads: int | None) -> np.ndarray:
    """Attack probability of each training row by trees of the folds that it is not in: f32[K].

    Equal feature vectors are in one fold.
    """
    train = prepared.rows("train")
    groups = vector_groups(prepared.x[train])
    fold = np.random.default_rng(seed).integers(0, _FOLDS, int(groups.max()) + 1)[groups]
    probability = np.empty(len(train), dtype=np.float32)
    for number in track(list(range(_FOLDS)), "teachers"):
        held_out = fold == number
        split = np.full(len(prepared.x), LEFT_OUT, dtype=np.int8)
        split[train[~held_out]] = SPLITS.index("train")
        trees = Trees(replace(prepared, split=split), threads=threads or 0, seed=seed)
        probability[held_out] = trees.score(prepared.x[train[held_out]])
    return probability
