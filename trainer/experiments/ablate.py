"""`trainer ablate`: which of them, by name."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from schemas.errors import FlowsentryError
from schemas.params import Params
from trainer.experiments.ablations import missing_features, permutation_importance, pretraining
from trainer.experiments.shortcuts import shortcuts
from trainer.experiments.table import Table
from trainer.experiments.time import cuts, over_time
from trainer.model import TabularExpert
from trainer.prepare import Prepared
from trainer.stages import new_model
from trainer.training import build_model, load_checkpoint, same_preprocessing

__all__ = ["ablate"]


def ablate(
    what: str,
    prepared: Prepared,
    params: Params,
    checkpoint: Path,
    sources: Callable[[], Sequence[Path]],
    device: torch.device,
) -> list[Table]:
    """One of them, or `all` that the data set allows.

    Args:
        checkpoint: the finetuned model of the run, which `importance` and `missing` look at.
        sources: the CSVs that `prepared` was made of.

    Raises:
        FlowsentryError: there is no such checkpoint, or the rows have no times.
    """
    ways: dict[str, Callable[[], Table]] = {
        "pretraining": lambda: pretraining(prepared, params, device),
        "shortcuts": lambda: shortcuts(prepared, params, sources, device),
        "importance": lambda: permutation_importance(_model(checkpoint, prepared, params), prepared),
        "missing": lambda: missing_features(_model(checkpoint, prepared, params), prepared),
        "time": lambda: over_time(prepared, params, device),
    }
    if what != "all":
        return [ways[what]()]
    if not cuts(prepared):
        del ways["time"]
    return [way() for way in ways.values()]


def _model(checkpoint: Path, prepared: Prepared, params: Params) -> TabularExpert:
    saved = load_checkpoint(checkpoint, schema_hash=prepared.schema.fingerprint())
    model = build_model(saved)
    if not same_preprocessing(model, new_model(prepared, params.train).state_dict()):
        raise FlowsentryError(
            f"{checkpoint} was trained on rows prepared otherwise: run `python -m trainer finetune` again"
        )
    return model
