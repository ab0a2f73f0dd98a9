"""The same prepared rows under another split: what experiments train and test on."""

from dataclasses import replace

import numpy as np

from schemas.flow import Kind
from schemas.params import DataParams
from trainer.cleaning import vector_groups
from trainer.prepare import Prepared
from trainer.preprocessing import fit
from trainer.splitting import SPLITS

__all__ = ["LEFT_OUT", "absent", "leave_out", "resplit", "thin"]

LEFT_OUT = -1
"""The split of rows that belong to none."""


def resplit(prepared: Prepared, split: np.ndarray, params: DataParams) -> Prepared:
    """Give rows other sides and learn anew, from the new training rows alone, all that preprocessing learns from them.

    Args:
        split: int8[N], an index into `SPLITS`, or `LEFT_OUT`.

    A category that no training row has becomes unknown, as it would be for a detector trained on these rows.
    """
    schema = prepared.schema
    train = split == SPLITS.index("train")
    x = prepared.x.copy()
    vocabularies: dict[str, tuple[str, ...]] = {}
    for feature in schema.categorical:
        column = schema.names.index(feature.name)
        before = prepared.preprocessor.vocabularies[feature.name]
        seen = np.unique(x[train, column].astype(np.int64))
        kept = [code for code in seen.tolist() if 0 < code <= len(before)]
        recoded = np.full(len(before) + 2, len(kept) + 1, dtype=np.float32)
        recoded[0] = 0
        recoded[kept] = np.arange(1, len(kept) + 1)
        x[:, column] = recoded[x[:, column].astype(np.int64)]
        vocabularies[feature.name] = tuple(before[code - 1] for code in kept)
    preprocessor = fit(
        x[train], prepared.y[train] == 1, schema, vocabularies, n_quantiles=params.n_quantiles, seed=params.seed
    )
    return replace(prepared, x=x, split=split.astype(np.int8), preprocessor=preprocessor)


def absent(prepared: Prepared) -> np.ndarray:
    """What stands for a missing value, by column: f32[F]."""
    numeric = [feature.kind is Kind.NUMERIC for feature in prepared.schema.features]
    return np.where(numeric, np.float32(np.nan), np.float32(0))


def leave_out(prepared: Prepared, rows: np.ndarray) -> np.ndarray:
    """The split with these rows, int64[K], on no side, nor any other row that has a vector of theirs: int8[N]."""
    vectors = vector_groups(prepared.x)
    return np.where(np.isin(vectors, vectors[rows]), np.int8(LEFT_OUT), prepared.split)


def thin(split: np.ndarray, family: np.ndarray, rows: int, *, name: str = "train", seed: int) -> np.ndarray:
    """Keep about so many rows of one side, each family with its share and at least one row: int8[N], int[N] → int8[N]."""
    rng = np.random.default_rng(seed)
    side = np.flatnonzero(split == SPLITS.index(name))
    thinned = split.copy()
    for number in np.unique(family[side]) if rows < len(side) else ():
        members = rng.permutation(side[family[side] == number])
        thinned[members[max(1, round(len(members) * rows / len(side))) :]] = LEFT_OUT
    return thinned
