"""Features by which a detector may know the test bed rather than an attack: how it does with and without them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from schemas.flow import Feature, FlowSchema
from schemas.params import Params
from trainer.evaluation.metrics import Curve, recall_at
from trainer.experiments.fitting import area, fit_expert, score_rows, seeds_of, short_training, thinned, told_of
from trainer.experiments.table import Table, between_seeds
from trainer.prepare import Prepared, load_prepared, prepare
from trainer.subsets import absent, resplit

__all__ = ["SHORTCUTS", "shortcuts", "with_columns"]

_PORT = "the destination port", ("dst_port",)
SHORTCUTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "unsw-nb15": ("the TTL features", ("sttl", "dttl", "ct_state_ttl")),
    "cicids2017": _PORT,
    "cicids2017-improved": _PORT,
}
"""Of each data set: what they are, and their names. One that is no feature by the schema is made one for the experiment."""


def shortcuts(prepared: Prepared, params: Params, sources: Callable[[], Sequence[Path]], device: torch.device) -> Table:
    """Test figures of models that were trained with and without a data set's shortcuts.

    Args:
        sources: the CSVs that `prepared` was made of; only asked for where a shortcut is no feature.
    """
    what, names = SHORTCUTS[prepared.schema.name]
    if not set(names) <= set(prepared.schema.names):
        prepared = _prepared_with(names, prepared.schema, params, sources())
    prepared = thinned(prepared, params)
    test = prepared.rows("test")
    y = prepared.y[test]
    rows = []
    for title, gone in ((f"with {what}", ()), (f"without {what}", names)):
        part = _hidden(prepared, gone, params)
        figures: list[tuple[float, float, float]] = []
        for seed in seeds_of(params):
            scores = score_rows(fit_expert(part, short_training(params), seed=seed, device=device), part, test)
            curve = Curve.of(y, scores)
            counts = curve.true_positives, curve.false_positives
            figures.append((area(y, scores), recall_at(*counts, 0.001) or 0.0, recall_at(*counts, 0.01) or 0.0))
        rows.append((title, *(between_seeds(values) for values in zip(*figures, strict=True))))
    return Table(
        name="shortcuts",
        title=f"With and without {what}",
        note=f"{', '.join(names)}. {len(test):,} test rows; {told_of(params)}.",
        columns=("features", "AUC", "recall at 0.1%", "recall at 1%"),
        rows=tuple(rows),
    )


def with_columns(schema: FlowSchema, names: Sequence[str]) -> FlowSchema:
    """The schema with some of its metadata as numeric features."""
    made = tuple(Feature(name=each.name, aliases=each.aliases) for each in schema.metadata if each.name in names)
    left = tuple(each for each in schema.metadata if each.name not in names)
    return replace(schema, features=(*schema.features, *made), metadata=left)


def _prepared_with(names: Sequence[str], schema: FlowSchema, params: Params, files: Sequence[Path]) -> Prepared:
    wider = with_columns(schema, names)
    held_out = [] if params.data.held_out is None else [params.data.held_out]
    with TemporaryDirectory() as folder:
        return load_prepared(prepare(files, params.data, Path(folder), exclude=held_out, schema=wider), schema=wider)


def _hidden(prepared: Prepared, names: Sequence[str], params: Params) -> Prepared:
    """The features missing in every row, as if no file had a column for them."""
    columns = np.isin(prepared.schema.names, names)
    part = replace(prepared, x=np.where(columns, absent(prepared), prepared.x))
    return resplit(part, part.split, params.data)
