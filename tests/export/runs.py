"""A made-up training run on disk, as `python -m trainer` would leave it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schemas.datasets import SCHEMAS
from schemas.flow import Kind

__all__ = ["make_run"]

_SPLITS = ("train", "validation", "test")


def make_run(directory: Path, dataset: str, splits: Sequence[str] = _SPLITS, **metadata: Any) -> Path:
    """Write a run with one row per name in `splits`; its model is no model. Returns `directory`."""
    schema, rng = SCHEMAS[dataset], np.random.default_rng(1)
    prepared = directory / "prepared"
    prepared.mkdir(parents=True)
    x = rng.random((len(splits), len(schema.features)), dtype=np.float32)
    x[:, [feature.kind is Kind.CATEGORICAL for feature in schema.features]] = 1
    arrays: dict[str, np.ndarray] = {
        "X": x,
        "y": np.arange(len(splits), dtype=np.int8) % 2,
        "family": np.zeros(len(splits), dtype=np.int16),
        "split": np.array([_SPLITS.index(split) for split in splits], dtype=np.int8),
    }
    for name, values in arrays.items():
        np.save(prepared / f"{name}.npy", values)
    content = {"dataset": dataset, "schema": {"version": schema.version, "hash": schema.fingerprint()}, **metadata}
    (prepared / "metadata.json").write_text(json.dumps(content))
    (prepared / "preprocessor.joblib").write_bytes(b"no preprocessor")
    (directory / "model.pt2").write_bytes(b"no model")
    (directory / "training.json").write_text(json.dumps({"epochs": 1}))
    return directory
