"""Does a detector of the first days find what comes on later ones?"""

from datetime import UTC, datetime

import numpy as np
import torch

from schemas.errors import FlowsentryError
from schemas.params import Params
from trainer.baselines.trees import Trees
from trainer.evaluation.metrics import Curve, area_under_roc, recall_at
from trainer.experiments.fitting import fit_expert, score_rows, seeds_of, short_training, thinned, told_of
from trainer.experiments.table import Table, between_seeds
from trainer.prepare import Prepared
from trainer.splitting import SPLITS
from trainer.subsets import LEFT_OUT, resplit

__all__ = ["cuts", "over_time"]

_DAY_S = 86_400


def over_time(prepared: Prepared, params: Params, device: torch.device) -> Table:
    """Test figures on the rows of all days after the first ones, for each way to cut them; LightGBM beside.

    The validation rows are those of the first days that were validation rows before.

    Raises:
        FlowsentryError: the rows have no times, or there is no cut with both classes on either side.
    """
    names, seeds = [family.name for family in prepared.schema.families], seeds_of(params)
    rows: list[tuple[str | float | int | None, ...]] = []
    for last, split in cuts(prepared):
        part = thinned(resplit(prepared, split, params.data), params)
        test = part.rows("test")
        y = part.y[test]
        figures: dict[str, list[tuple[float, float]]] = {"trees": [], "expert": []}
        for seed in seeds:
            figures["trees"].append(_figures(y, Trees(part, seed=seed).score(part.x[test])))
            expert = fit_expert(part, short_training(params), seed=seed, device=device)
            figures["expert"].append(_figures(y, score_rows(expert, part, test)))
        new = set(part.family[test].tolist()) - set(part.family[part.rows("train")].tolist())
        rows.append(
            (
                datetime.fromtimestamp(last * _DAY_S, UTC).strftime("%a %d %b"),
                len(part.rows("train")),
                len(test),
                *(between_seeds(values) for what in figures for values in zip(*figures[what], strict=True)),
                ", ".join(names[number] for number in sorted(new)) or "none",
            )
        )
    if not rows:
        raise FlowsentryError(
            f"{prepared.schema.name}: no day has benign flows and attacks before and after it: prepare files with timestamps"
        )
    return Table(
        name="time",
        title="Trained on the first days, tested on later ones",
        note=f"{told_of(params)}. Recall is at 1% false positives of the benign test rows.",
        columns=(
            "trained until", "training rows", "test rows", "LightGBM AUC", "LightGBM recall", "FT-Transformer AUC",
            "FT-Transformer recall", "families that training had not",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def cuts(prepared: Prepared) -> list[tuple[float, np.ndarray]]:
    """The days after which rows can be cut, as days since 1970, each with the split int8[N] that it makes; both classes are on
    every side."""
    day = np.floor(prepared.time / _DAY_S)
    found = []
    for last in np.unique(day[~np.isnan(day)])[:-1].tolist():
        split = np.full(len(day), LEFT_OUT, dtype=np.int8)
        split[day <= last] = SPLITS.index("train")
        split[(day <= last) & (prepared.split == SPLITS.index("validation"))] = SPLITS.index("validation")
        split[day > last] = SPLITS.index("test")
        if all(_has_both(prepared.y[split == side]) for side in range(len(SPLITS))):
            found.append((last, split))
    return found


def _has_both(y: np.ndarray) -> bool:
    return 0 < int((y == 1).sum()) < len(y)


def _figures(y: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    curve = Curve.of(y, scores)
    auc = area_under_roc(curve.true_positives, curve.false_positives)
    recall = recall_at(curve.true_positives, curve.false_positives, 0.01)
    assert auc is not None and recall is not None, "both classes are there"
    return auc, recall
