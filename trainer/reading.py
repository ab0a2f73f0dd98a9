"""A data set's CSV files → one matrix of all their flows, read piece by piece: what is kept of a flow is 4 bytes a feature."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from export.bundle import sha256_of
from export.progress import track
from export.reading import FlowBatch, read_flows
from schemas.errors import FlowsentryError, HeaderError, LabelError
from schemas.flow import FlowSchema, Kind
from schemas.times import parse_time

__all__ = ["Categories", "Flows", "families_of", "read_all", "vectors_of"]

log = structlog.get_logger()

_BATCH_ROWS = 8192


class Categories:
    """A code for each category of each categorical feature, in the order in which they come; 0 is a missing one."""

    def __init__(self, schema: FlowSchema) -> None:
        self._codes: dict[str, dict[str | None, int]] = {feature.name: {None: 0} for feature in schema.categorical}

    def encode(self, name: str, values: np.ndarray) -> np.ndarray:
        """Categories object[B] → f32[B]; new ones are given the next codes."""
        codes = self._codes[name]
        for value in dict.fromkeys(values.tolist()):
            codes.setdefault(value, len(codes))
        return np.array([codes[value] for value in values.tolist()], dtype=np.float32)

    def of_codes(self, name: str, present: np.ndarray) -> tuple[tuple[str, ...], np.ndarray]:
        """The categories of those codes (f32[K]), sorted, and what becomes of each code that there is: f32[all codes].

        A code that is not among them becomes that of an unknown category, the one after the last.
        """
        names = list(self._codes[name])
        kept = sorted(
            name for code in np.unique(present).astype(np.int64).tolist() if (name := names[code]) is not None
        )
        numbers = {None: 0} | {category: number for number, category in enumerate(kept, start=1)}
        recoded = np.array([numbers.get(category, len(kept) + 1) for category in names], dtype=np.float32)
        return tuple(kept), recoded


@dataclass(frozen=True, slots=True)
class Flows:
    """The flows of some files: `x` f32[N, F] in schema order (NaN = missing, categories as codes of `categories`), `family`
    int64[N] (index into the schema's families), `time` f64[N] (unix seconds, NaN where a file does not tell); `reports` says
    of each file what became of its rows."""

    x: np.ndarray
    family: np.ndarray
    time: np.ndarray
    categories: Categories
    reports: list[dict[str, object]]


def read_all(files: Iterable[Path], schema: FlowSchema, *, benign_only: bool) -> Flows:
    """Read files of any dialect; one of another data set is skipped, and its report says why.

    With `benign_only` all flows are taken for benign, but those that a label calls attacks: they are left out.

    Raises:
        LabelError: a label is unknown, or contradicts another.
        FlowsentryError: there are no labels, and they are needed.
    """
    categories = Categories(schema)
    reports: list[dict[str, object]] = []
    pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for path in track(list(files), "reading"):
        report, found = _read(path, schema, categories, benign_only=benign_only)
        reports.append(report)
        pieces += found
    x = np.empty((sum(len(piece[0]) for piece in pieces), len(schema.features)), dtype=np.float32)
    family = np.concatenate([np.empty(0, dtype=np.int64), *(piece[1] for piece in pieces)])
    time = np.concatenate([np.empty(0), *(piece[2] for piece in pieces)])
    end = len(x)
    while pieces:  # each is let go as soon as it is copied
        rows = pieces.pop()[0]
        x[end - len(rows) : end] = rows
        end -= len(rows)
    return Flows(x, family, time, categories, reports)


def vectors_of(batch: FlowBatch, schema: FlowSchema, categories: Categories) -> np.ndarray:
    """The features of a batch: f32[B, F], categories as codes."""
    x = np.empty((len(batch.rows), len(schema.features)), dtype=np.float32)
    for index, feature in enumerate(schema.features):
        values = batch.columns.get(feature.name)
        if feature.kind is Kind.NUMERIC:
            x[:, index] = np.nan if values is None else values
        else:
            x[:, index] = 0 if values is None else categories.encode(feature.name, values)
    return x


def _read(
    path: Path, schema: FlowSchema, categories: Categories, *, benign_only: bool
) -> tuple[dict[str, object], list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """One file → what is reported of it, and piece by piece its vectors, families and times."""
    report: dict[str, object] = {"file": path.name, "sha256": sha256_of(path)}
    pieces = []
    rejects: Counter[str] = Counter()
    rows, attacks = 0, 0
    try:
        for batch in read_flows(path, schema, min_feature_coverage=0.5, batch_rows=_BATCH_ROWS):
            rejects.update(reject.reason.value for reject in batch.rejects)
            rows += len(batch.rows)
            family, kept = _families(batch, schema, path, benign_only=benign_only)
            attacks += int((~kept).sum())
            pieces.append((vectors_of(batch, schema, categories)[kept], family[kept], _times(batch)[kept]))
    except HeaderError as error:
        log.warning("file skipped", file=path.name, why=str(error))
        why = str(error).replace(
            str(path), path.name
        )  # the report goes into the bundle, and paths are nobody's business
        return {**report, "skipped": why}, []
    report |= {"rows": rows, "rejected": dict(rejects)}
    if benign_only:
        report["attacks_left_out"] = attacks
    if rejects:
        log.warning("rows refused", file=path.name, **rejects)
    return report, pieces


def _families(batch: FlowBatch, schema: FlowSchema, path: Path, *, benign_only: bool) -> tuple[np.ndarray, np.ndarray]:
    """The family numbers int64[B], and which rows are to be kept bool[B]."""
    if not benign_only:
        return families_of(batch, schema, path), np.ones(len(batch.rows), dtype=bool)
    is_attack = np.array([family.is_attack for family in schema.families])
    if any(name in batch.labels for name in schema.label_columns):
        families = families_of(batch, schema, path)
    else:
        families = np.full(len(batch.rows), int(np.argmin(is_attack)))
    return families, ~is_attack[families]


def families_of(batch: FlowBatch, schema: FlowSchema, path: Path) -> np.ndarray:
    """The family number of each row, from the first of the schema's label columns that is there: int64[B].

    Raises:
        FlowsentryError: no label column, an unknown label, or one that another label column contradicts.
    """
    present = [name for name in schema.label_columns if name in batch.labels]
    if not present:
        raise FlowsentryError(f"{path}: no label column: expected {' or '.join(schema.label_columns)}")
    name, *others = present
    numbers = {family.name: number for number, family in enumerate(schema.families)}
    try:
        known = {label: numbers[schema.family_of(label).name] for label in dict.fromkeys(batch.labels[name])}
    except LabelError as error:
        first = schema.label_columns[0]
        hint = "" if name == first else f". The family is read from {first}, a column that this file lacks"
        raise LabelError(f"{path}: {error}{hint}") from None
    families = np.array([known[label] for label in batch.labels[name]], dtype=np.int64)
    for other in (name for name in others if name == "label"):  # 0 or 1; further columns say other things
        said = np.array([cell.strip() for cell in batch.labels[other]], dtype=np.str_)
        is_attack = np.array([family.is_attack for family in schema.families])[families]
        for place in np.flatnonzero(np.where(is_attack, said == "0", said == "1"))[:1].tolist():
            raise LabelError(
                f"{path}: data row {batch.rows[place]}: {name} {batch.labels[name][place]!r} means "
                f"{schema.families[families[place]].name}, but {other} is {said[place]}"
            )
    return families


def _times(batch: FlowBatch) -> np.ndarray:
    """Unix seconds f64[B]; NaN where a row does not tell."""
    told = [parse_time(cell) for cell in batch.times] or [None] * len(batch.rows)
    return np.array([np.nan if time is None else time.timestamp() for time in told])
