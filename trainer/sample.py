"""`sample`: a small labelled CSV out of the test rows, for the demo."""

import csv
import gzip
import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from export.reading import open_csv, parse_rows
from schemas.errors import FlowsentryError
from schemas.flow import FlowSchema, Kind
from trainer.prepare import Prepared
from trainer.preprocessing import encode
from trainer.reading import families_of

__all__ = ["sample"]


def sample(
    prepared: Prepared, files: Sequence[Path], out: Path, *, rows: int | None, attack_share: float, seed: int
) -> int:
    """Write up to `rows` rows of the test split, or all of it, as they stand in `files` and in their order; how many.

    Raises:
        FlowsentryError: the files have other columns, none of their rows is a test row, or a number makes no sense.
    """
    if (rows is not None and rows < 1) or not 0 <= attack_share <= 1:
        raise FlowsentryError(f"rows ({rows}) must be 1 or more, attack_share ({attack_share}) from 0 to 1")
    is_attack = [family.is_attack for family in prepared.schema.families]
    header: tuple[str, ...] | None = None
    found: list[tuple[list[str], bool]] = []
    test = {row.tobytes() for row in prepared.x[prepared.rows("test")] + np.float32(0.0)}
    for path in files:
        with open_csv(path, prepared.schema) as source:
            header = header or source.binding.header
            if source.binding.header != header:
                raise FlowsentryError(f"{path}: another header than the files before it")
            while chunk := list(islice(source.rows, 4096)):
                batch = parse_rows(chunk, 0, source.binding, prepared.schema, 0.0)
                vectors = _vectors(batch.columns, prepared)
                families = families_of(batch, prepared.schema, path).tolist()
                for vector, row, family in zip(vectors, batch.rows.tolist(), families, strict=True):
                    if vector.tobytes() in test:
                        found.append((chunk[row], is_attack[family]))
    if not found or header is None:
        raise FlowsentryError(
            "none of the rows is a test row of the prepared data: were they prepared from these files?"
        )
    attacks = np.array([attack for _, attack in found])
    chosen = range(len(found)) if rows is None else _choose(attacks, rows, attack_share, seed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(found[index][0] for index in chosen)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(gzip.compress(text.getvalue().encode(), 9, mtime=0))
    return len(chosen)


def _vectors(columns: dict[str, np.ndarray], prepared: Prepared) -> np.ndarray:
    schema: FlowSchema = prepared.schema
    return np.ascontiguousarray(
        np.column_stack(
            [
                columns[feature.name].astype(np.float32)
                if feature.kind is Kind.NUMERIC
                else encode(columns[feature.name], prepared.preprocessor.vocabularies[feature.name])
                for feature in schema.features
            ]
        )
        + np.float32(0.0)
    )


def _choose(is_attack: np.ndarray, rows: int, attack_share: float, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    attacks, benign = np.flatnonzero(is_attack), np.flatnonzero(~is_attack)
    n_benign = min(len(benign), round(rows * (1 - attack_share)))
    n_attacks = min(len(attacks), rows - n_benign)
    chosen = np.concatenate(
        [rng.choice(attacks, n_attacks, replace=False), rng.choice(benign, n_benign, replace=False)]
    )
    return [int(index) for index in np.sort(chosen)]
