"""A training run on disk, as `python -m trainer` leaves it: what a bundle is built from and checked against."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schemas.datasets import schema_named
from schemas.errors import FlowsentryError
from schemas.flow import FlowSchema, Kind

__all__ = ["Run", "read_run"]

_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Run:
    """Paths and arrays of a run. `x` f32[N, F] in schema order, `y` int8[N], `family` int16[N], `split` int8[N].

    One of benign flows alone has no `model`; another may have no `novelty`.
    """

    schema: FlowSchema
    model: Path | None
    novelty: Path | None
    preprocessor: Path
    x: np.ndarray
    y: np.ndarray
    family: np.ndarray
    split: np.ndarray
    metadata: dict[str, Any]
    training: dict[str, Any]

    def rows(self, name: str) -> np.ndarray:
        """Row numbers of one split: int64[K]."""
        return np.flatnonzero(self.split == _SPLITS.index(name))

    def inputs(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The graph's inputs of those rows: raw numeric f32[K, N], category codes i64[K, C]."""
        numeric = np.array([feature.kind is Kind.NUMERIC for feature in self.schema.features])
        x = self.x[rows]
        return np.ascontiguousarray(x[:, numeric]), x[:, ~numeric].astype(np.int64)


def read_run(directory: Path) -> Run:
    """Read what `trainer prepare` and `trainer finetune` wrote, and `trainer novelty` if it was run.

    Raises:
        FlowsentryError: a file is missing, or the data was prepared with another schema.
    """
    prepared = directory / "prepared"
    _require(prepared / "metadata.json", "prepare")
    _require(prepared / "preprocessor.joblib", "prepare")
    metadata = json.loads((prepared / "metadata.json").read_text())
    schema = schema_named(metadata["dataset"])
    if metadata["schema"]["hash"] != schema.fingerprint():
        raise FlowsentryError(f"{prepared} was prepared with another {schema.name} schema: run `trainer prepare` again")
    arrays = {name: np.load(prepared / f"{name}.npy") for name in ("X", "y", "family", "split")}
    benign_only = not arrays["y"].any()
    if benign_only:
        _require(directory / "novelty.pt2", "novelty")
    else:
        _require(directory / "model.pt2", "finetune")
        _require(directory / "training.json", "finetune")
    return Run(
        schema=schema,
        model=None if benign_only else directory / "model.pt2",
        novelty=directory / "novelty.pt2" if (directory / "novelty.pt2").exists() else None,
        preprocessor=prepared / "preprocessor.joblib",
        x=arrays["X"],
        y=arrays["y"],
        family=arrays["family"],
        split=arrays["split"],
        metadata=metadata,
        training={} if benign_only else json.loads((directory / "training.json").read_text()),
    )


def _require(path: Path, command: str) -> None:
    if not path.exists():
        raise FlowsentryError(f"{path}: missing. Run `python -m trainer {command}` first")
