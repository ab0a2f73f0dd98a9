"""CSV files → as many of their rows as a page can show, drawn at random."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.reading import open_csv, read_flows
from schemas.datasets import SCHEMAS
from schemas.errors import HeaderError
from schemas.flow import FlowSchema, Kind
from trainer.reading import Categories, families_of, vectors_of

__all__ = ["Rows", "read_rows", "schema_of"]

_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a file, in its order: `x` f32[N, F] in schema order (NaN = missing, categories as codes, 0 = missing),
    `family` int64[N] (index into the schema's families), or None where the file has no labels; `vocabularies` names
    category i + 1 of each categorical feature. `total` rows could be used, of which these were drawn; `refused` is by reason."""

    schema: FlowSchema
    x: np.ndarray
    family: np.ndarray | None
    vocabularies: Mapping[str, tuple[str, ...]]
    total: int
    refused: Mapping[str, int]

    @property
    def is_attack(self) -> np.ndarray | None:
        """bool[N], or None where the file has no labels."""
        if self.family is None:
            return None
        of_family = np.array([family.is_attack for family in self.schema.families], dtype=bool)
        attacks: np.ndarray = of_family[self.family]
        return attacks

    def column(self, name: str) -> np.ndarray:
        """A feature's values: f64[N] (NaN = missing), or object[N] categories (None = missing)."""
        place = self.schema.names.index(name)
        if self.schema.features[place].kind is Kind.NUMERIC:
            return self.x[:, place].astype(np.float64)
        names = np.array([None, *self.vocabularies[name]], dtype=object)
        categories: np.ndarray = names[self.x[:, place].astype(np.int64)]
        return categories

    def columns(self) -> dict[str, np.ndarray]:
        """All features, as `Detector.score` takes them."""
        return {name: self.column(name) for name in self.schema.names}

    def flow(self, row: int) -> dict[str, float | str | None]:
        """One of the flows, by feature; None for what is missing."""
        flow: dict[str, float | str | None] = {}
        for name in self.schema.names:
            value = self.column(name)[row]
            flow[name] = value if value is None or isinstance(value, str) else _present(float(value))
        return flow


def schema_of(path: Path) -> FlowSchema:
    """The data set of which a CSV has the most features, and among those with as many, the fewest columns unknown to it.

    Raises:
        HeaderError: the file cannot be read, or has columns of none of them.
    """
    fits: list[tuple[float, int, FlowSchema]] = []
    problems: list[HeaderError] = []
    for schema in SCHEMAS.values():
        try:
            with open_csv(path, schema) as file:
                share = 1 - len(file.binding.missing) / len(schema.features)
                fits.append((share, -len(file.binding.ignored), schema))
        except HeaderError as error:
            problems.append(error)
    if not fits:
        raise problems[0]
    return max(fits, key=lambda fit: fit[:2])[2]


def read_rows(path: Path, schema: FlowSchema, *, most: int, min_feature_coverage: float, seed: int = 0) -> Rows:
    """Read a file through and keep `most` of its usable rows, each as likely as any other.

    Raises:
        FlowsentryError: the file does not fit the data set, or a label is unknown; the message names it.
    """
    rng = np.random.default_rng(seed)
    categories = Categories(schema)
    refused: Counter[str] = Counter()
    kept: list[_Piece] = []
    total, labelled = 0, True
    for batch in read_flows(path, schema, min_feature_coverage=min_feature_coverage, batch_rows=_BATCH_ROWS):
        refused.update(reject.reason.value for reject in batch.rejects)
        labelled = any(name in batch.labels for name in schema.label_columns)
        family = families_of(batch, schema, path) if labelled else np.zeros(len(batch.rows), dtype=np.int64)
        places = np.arange(total, total + len(family))
        kept.append(_Piece(vectors_of(batch, schema, categories), family, places, rng.random(len(family))))
        total += len(family)
        if sum(len(piece.family) for piece in kept) > 2 * most:
            kept = [_luckiest(kept, most)]
    rows = (
        _luckiest(kept, most)
        if kept
        else _Piece(np.empty((0, len(schema.features)), np.float32), *[np.empty(0, int)] * 3)
    )
    vocabularies: dict[str, tuple[str, ...]] = {}
    for feature in schema.categorical:
        place = schema.names.index(feature.name)
        vocabularies[feature.name], recoded = categories.of_codes(feature.name, rows.x[:, place])
        rows.x[:, place] = recoded[rows.x[:, place].astype(np.int64)]
    return Rows(schema, rows.x, rows.family if labelled else None, vocabularies, total, dict(refused))


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows: vectors, families, places in the file, and the lots that they drew."""

    x: np.ndarray
    family: np.ndarray
    place: np.ndarray
    lot: np.ndarray


def _luckiest(pieces: Sequence[_Piece], most: int) -> _Piece:
    x, family, place, lot = (
        np.concatenate([getattr(it, name) for it in pieces]) for name in ("x", "family", "place", "lot")
    )
    chosen = np.sort(np.argpartition(lot, most - 1)[:most]) if len(lot) > most else np.arange(len(lot))
    return _Piece(x[chosen], family[chosen], place[chosen], lot[chosen])


def _present(value: float) -> float | None:
    return None if np.isnan(value) else value
