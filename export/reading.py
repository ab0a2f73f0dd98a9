"""CSV files of any supported dialect, or Parquet → batches of feature columns, and the rows that cannot be used."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.cells import category_cells, is_numeric, numeric_cells
from export.coverage import check_coverage
from schemas.dead_letter import Reason, Reject
from schemas.errors import HeaderError
from schemas.flow import Binding, FlowSchema

__all__ = ["CsvRows", "FlowBatch", "open_csv", "parse_rows", "read_flows"]

_LONGEST_CELL = 1 << 20


@dataclass(frozen=True, slots=True)
class FlowBatch:
    """Rows of a file as columns. `rows` are their 0-based data rows; numeric columns are float64[B] (NaN = missing),
    categorical ones object[B] (None = missing); `labels` holds the cells of the label columns by name, `times` those of
    the timestamps (none where the file has no such column); `missing` are the features that the file has no column for."""

    rows: np.ndarray
    columns: dict[str, np.ndarray]
    labels: dict[str, list[str]]
    rejects: list[Reject]
    missing: tuple[str, ...] = ()
    times: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CsvRows:
    """An open CSV: its binding, and its data rows as they stand. Blank lines are no rows."""

    path: Path
    binding: Binding
    rows: Iterator[list[str]]


@contextmanager
def open_csv(path: Path, schema: FlowSchema) -> Iterator[CsvRows]:
    """Open a CSV, gzipped or not, UTF-8 or cp1252, with or without the header that the raw UNSW release lacks. A Parquet file,
    such as `stream sample` writes, is read as the CSV that it could be.

    Raises:
        HeaderError: the file cannot be read, or its header does not fit the schema; the message names file and column.
    """
    csv.field_size_limit(_LONGEST_CELL)
    with _opened(path) as raw:
        if raw.peek(4)[:4] == b"PAR1":
            yield _parquet(path, schema)
            return
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        binary = gzip.GzipFile(fileobj=raw) if packed else raw
        # Bytes that are not UTF-8 occur in labels alone (a cp1252 dash), where only letters and digits count.
        with io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="") as text:
            rows = _checked(csv.reader(text), path)
            first = next(rows, None)
            if first is None:
                raise HeaderError(f"{path}: the file is empty, expected a header and rows")
            if len(first) == len(schema.headerless) and not any(schema.knows(cell) for cell in first):
                yield CsvRows(path, _bound(schema, schema.headerless, path), _chained(first, rows))
            else:
                yield CsvRows(path, _bound(schema, first, path), rows)


def _bound(schema: FlowSchema, header: Sequence[str], path: Path) -> Binding:
    try:
        return schema.bind(header)
    except HeaderError as error:
        raise HeaderError(f"{path}: {error}") from None


def _parquet(path: Path, schema: FlowSchema) -> CsvRows:
    """A null is a value that is missing, never the blank cell that stands for 0 in some release."""
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise HeaderError(f"{path}: not a readable Parquet file: {error}") from error
    binding = _bound(schema, frame.columns, path)
    features = {*binding.features.values()}
    missing = ["nan" if place in features else "" for place in range(frame.width)]
    rows = (
        [blank if cell is None else str(cell) for cell, blank in zip(row, missing, strict=True)]
        for row in frame.iter_rows()
    )
    return CsvRows(path, binding, rows)


def _opened(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except OSError as error:
        raise HeaderError(f"{path}: {error.strerror}") from None


def _checked(reader: Iterator[list[str]], path: Path) -> Iterator[list[str]]:
    try:
        yield from (row for row in reader if row)
    except (csv.Error, EOFError, OSError, zlib.error) as error:
        raise HeaderError(f"{path}: not a readable CSV: {error}") from error


def _chained(first: list[str], rest: Iterator[list[str]]) -> Iterator[list[str]]:
    yield first
    yield from rest


def read_flows(
    path: Path, schema: FlowSchema, *, min_feature_coverage: float, batch_rows: int = 8192
) -> Iterator[FlowBatch]:
    """Read a CSV in batches of up to `batch_rows`; every data row is in `rows` or in `rejects` of exactly one batch.

    Raises:
        HeaderError: the header does not fit, or lacks so many features that no row could be used; it names them.
    """
    with open_csv(path, schema) as file:
        check_header(file.binding, schema, path, min_feature_coverage)
        start, chunk = 0, []
        for row in file.rows:
            chunk.append(row)
            if len(chunk) == batch_rows:
                yield parse_rows(chunk, start, file.binding, schema, min_feature_coverage)
                start, chunk = start + len(chunk), []
        if chunk:
            yield parse_rows(chunk, start, file.binding, schema, min_feature_coverage)


def check_header(binding: Binding, schema: FlowSchema, path: Path, min_feature_coverage: float) -> None:
    """Refuse a file whose every row would be refused for missing features."""
    share = 1 - len(binding.missing) / len(schema.features)
    if share < min_feature_coverage:
        raise HeaderError(
            f"{path}: has {share:.0%} of the features of {schema.name}, at least {min_feature_coverage:.0%} are needed "
            f"(stream.min_feature_coverage). Missing columns: {', '.join(binding.missing)}"
        )


def parse_rows(
    chunk: Sequence[list[str]], start: int, binding: Binding, schema: FlowSchema, min_feature_coverage: float
) -> FlowBatch:
    """Data rows → a batch. A cell that cannot be read, a row too long or with too few features is a reject."""
    width = len(binding.header)
    rejects: dict[int, Reject] = {}
    padded: list[list[str]] = []
    for index, row in enumerate(chunk):
        if len(row) > width:
            detail = f"expected {width} cells as in the header, got {len(row)}"
            rejects[index] = Reject(start + index, Reason.MALFORMED_ROW, detail)
        padded.append(row[:width] + [""] * (width - len(row)))
    cells = list(zip(*padded, strict=True))
    columns: dict[str, np.ndarray] = {}
    for feature in schema.features:
        position = binding.features.get(feature.name)
        if position is None:
            continue
        if not is_numeric(feature):
            columns[feature.name] = category_cells(cells[position])
            continue
        columns[feature.name], errors = numeric_cells(feature, cells[position])
        for index, error in errors.items():
            value = cells[position][index][:200]
            rejects.setdefault(index, Reject(start + index, error.reason, str(error), feature.name, value))
    schema.derive(columns)
    for index, reject in check_coverage(columns, len(chunk), schema, min_feature_coverage):
        rejects.setdefault(index, Reject(start + index, *reject))
    keep = np.array([index not in rejects for index in range(len(chunk))], dtype=bool)
    labels = {
        name: [cell for cell, kept in zip(cells[position], keep, strict=True) if kept]
        for name, position in binding.labels.items()
    }
    timestamp = binding.metadata.get("timestamp")
    return FlowBatch(
        rows=start + np.flatnonzero(keep),
        columns={name: values[keep] for name, values in columns.items()},
        labels=labels,
        rejects=[rejects[index] for index in sorted(rejects)],
        missing=binding.missing,
        times=()
        if timestamp is None
        else tuple(cell for cell, kept in zip(cells[timestamp], keep, strict=True) if kept),
    )
