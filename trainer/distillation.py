"""What trees teach the FT-Transformer: softer labels, and labels for flows that nobody has captured.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; Bucilă et al. 2006, "Model Compression". A teacher that had
learnt the rows by heart would only repeat their labels, so each row, and each flow made of rows, is judged by trees of the
other folds. Shapes: K training rows, F features, M flows.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from export.progress import track
from schemas.params import TrainParams
from trainer.baselines.trees import Trees
from trainer.cleaning import vector_groups
from trainer.model import FlowClassifier
from trainer.prepare import Prepared
from trainer.splitting import SPLITS
from trainer.stages import model_inputs
from trainer.subsets import LEFT_OUT
from trainer.training import Inputs, Rows

__all__ = ["Teacher", "training_rows"]

_FOLDS = 5
_MOST_EXCHANGED = 0.5
_CANDIDATES = 5  # for each flow that is made
_LEAST_DOUBT = 0.05


class Teacher:
    """Trees, those of each fold taught without it; equal feature vectors are in one fold."""

    def __init__(self, prepared: Prepared, *, seed: int, threads: int | None) -> None:
        train = prepared.rows("train")
        self._x = prepared.x[train]
        groups = vector_groups(self._x)
        self._fold = np.random.default_rng(seed).integers(0, _FOLDS, int(groups.max()) + 1)[groups]
        self._trees = []
        for number in track(list(range(_FOLDS)), "teachers"):
            split = np.full(len(prepared.x), LEFT_OUT, dtype=np.int8)
            split[train[self._fold != number]] = SPLITS.index("train")
            others = replace(prepared, split=split)
            self._trees.append(Trees(others, threads=threads or 0, seed=seed, sampled=True))

    def probabilities(self) -> np.ndarray:
        """Attack probability of each training row: f32[K]."""
        return self._judged(self._x, self._fold)

    def recombined(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """So many flows, each a training row with some features of another one of its fold, and their attack probabilities:
        f32[M, F], f32[M]. How many features are exchanged is drawn for each flow, up to half of them.

        There is more to learn from flows of which the trees are in doubt, so these are likelier to be drawn: a sample without
        replacement, by weights (Efraimidis and Spirakis 2006).
        """
        flows, probability = self._exchanged(_CANDIDATES * count, rng)
        weight = _LEAST_DOUBT + 4 * probability * (1 - probability)
        drawn = np.argsort(rng.exponential(size=len(weight)) / weight)[:count]
        return flows[drawn], probability[drawn]

    def _exchanged(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        first = rng.integers(0, len(self._x), count)
        second, fold = first.copy(), self._fold[first]
        for number in range(_FOLDS):
            here = fold == number
            second[here] = rng.choice(np.flatnonzero(self._fold == number), int(here.sum()))
        exchanged = rng.random((count, self._x.shape[1])) < rng.uniform(0, _MOST_EXCHANGED, (count, 1))
        flows = np.where(exchanged, self._x[second], self._x[first])
        return flows, self._judged(flows, fold)

    def _judged(self, x: np.ndarray, fold: np.ndarray) -> np.ndarray:
        probability = np.empty(len(x), dtype=np.float32)
        for number, trees in enumerate(self._trees):
            here = fold == number
            if here.any():
                probability[here] = trees.score(x[here])
        return probability


@dataclass(frozen=True, slots=True)
class _Recombining:
    """Rows to which each epoch adds other flows."""

    rows: Inputs
    teacher: Teacher
    prepared: Prepared
    model: FlowClassifier
    added: int
    seed: int

    def __len__(self) -> int:
        return len(self.rows) + self.added

    def of_epoch(self, epoch: int) -> Inputs:
        flows, probabilities = self.teacher.recombined(self.added, np.random.default_rng((self.seed, epoch)))
        nothing = np.zeros(len(flows), dtype=np.int16)
        made = replace(self.prepared, x=flows, y=nothing, family=nothing)
        inputs = model_inputs(made, np.arange(len(flows)), self.model)
        inputs = replace(inputs, y=torch.from_numpy(probabilities))
        names = (field.name for field in fields(Inputs))
        return Inputs(*(torch.cat([getattr(self.rows, name), getattr(inputs, name)]) for name in names))


def training_rows(
    prepared: Prepared, model: FlowClassifier, params: TrainParams, *, seed: int, teacher: Teacher | None = None
) -> Rows:
    """What an epoch of finetuning is trained on: the training rows, with targets of which `teacher_weight` is what trees say,
    and `recombined_share` times as many flows made of them.

    Cross-entropy is linear in its target, so a mixed target gives the weighted sum of both losses.
    """
    rows = model_inputs(prepared, prepared.rows("train"), model)
    if params.teacher_weight == params.recombined_share == 0:
        return rows
    teacher = teacher or Teacher(prepared, seed=seed, threads=params.threads)
    weight = params.teacher_weight
    rows = replace(rows, y=(1 - weight) * rows.y + weight * torch.from_numpy(teacher.probabilities()))
    added = round(params.recombined_share * len(rows))
    return _Recombining(rows, teacher, prepared, model, added, seed) if added else rows
