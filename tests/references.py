"""Made-up rows of a tiny bundle's data set, and the drift reference that they make: `make_bundle(…, drift=…)` takes it."""

from typing import Any

import numpy as np

from export.drift_reference import reference_of
from schemas.datasets import SCHEMAS
from schemas.flow import Kind
from tests.bundles import VOCABULARIES

__all__ = ["columns_of", "made_up_columns", "reference_content"]

_SHARES = (0.5, 0.3, 0.2)


def made_up_columns(dataset: str, rows: int, *, seed: int = 0, attacks: int = 0) -> dict[str, np.ndarray]:
    """Feature columns: numbers f64[rows], a tenth of them missing but where they follow from others, and known categories
    object[rows]. So many rows, the first, are attacks, unlike the others in every feature."""
    schema, rng = SCHEMAS[dataset], np.random.default_rng(seed)
    columns = {}
    for feature in schema.features:
        if feature.kind is Kind.NUMERIC:
            columns[feature.name] = np.exp(rng.normal(2, 1, rows))
            columns[feature.name][:attacks] *= np.exp(4)
            columns[feature.name][rng.random(rows) < 0.1] = np.nan
        else:
            names = np.array(VOCABULARIES[feature.name], dtype=object)
            columns[feature.name] = rng.choice(names, rows, p=_SHARES)
            columns[feature.name][:attacks] = rng.choice(names, attacks, p=_SHARES[::-1])
    schema.derive(columns)
    return columns


def columns_of(dataset: str, columns: dict[str, np.ndarray]) -> np.ndarray:
    """Columns as a training run has them: f32[rows, F] in schema order, categories as codes."""
    matrix = []
    for feature in SCHEMAS[dataset].features:
        values = columns[feature.name]
        if feature.kind is Kind.CATEGORICAL:
            codes = {name: code for code, name in enumerate(VOCABULARIES[feature.name], start=1)} | {None: 0}
            values = np.array([codes[value] for value in values.tolist()])
        matrix.append(values.astype(np.float32))
    return np.column_stack(matrix)


def reference_content(
    dataset: str,
    columns: dict[str, np.ndarray] | None = None,
    *,
    attacks: int = 1000,
    score: np.ndarray | None = None,
    novelty: bool = False,
) -> dict[str, Any]:
    """The key `drift` of a tiny bundle's bundle.json, of rows of which the first are attacks: made-up ones, if none are given,
    with made-up scores."""
    columns = made_up_columns(dataset, 5000, attacks=attacks) if columns is None else columns
    rows = columns_of(dataset, columns)
    y = (np.arange(len(rows)) < attacks).astype(np.int8)
    rng = np.random.default_rng(7)
    score = rng.random(len(rows), dtype=np.float32) if score is None else score
    told = rng.exponential(1, len(rows)).astype(np.float32) if novelty else None
    return reference_of(SCHEMAS[dataset], VOCABULARIES, rows, y, score=score, novelty=told, score_y=y).to_json()
