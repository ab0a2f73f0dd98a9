"""Kafka message values → feature columns and rejects: many records at once, where that is proven to be right.

`RecordReader` says what a record means. Polars reads a whole batch much faster, but it passes over what it was not
asked for. So a row of its table is taken only when every member of the object is known to be in it, and all other
records go to the reader: what becomes of a record never depends on the batch that it comes in.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import polars as pl
from polars.exceptions import PanicException, PolarsError

from export.cells import FLOAT32_MAX, category_name, is_missing
from export.coverage import check_coverage
from schemas.dead_letter import Reject
from schemas.flow import FlowSchema, Kind
from stream.plain import PlainReader
from stream.record import LONGEST_KEY, Limits, Record, RecordError, RecordReader, read_metadata

__all__ = ["Decoded", "Decoder", "Limits", "Proven", "decode_slow", "read_metadata"]

MAX_DIALECTS = 8
MAX_IGNORED_KEYS = 40  # of one dialect
MAX_CATEGORIES = 1024
LONGEST_CATEGORY = 64
_FIELD_BYTES = 5  # of the shortest member and its comma
FEW = 8  # one by one, so many records take no longer than a table
RETRIES = 4  # of reading the rest of a batch as a table, after something was learnt
SPLITS = 32  # of tables that cannot be read, in one batch; with more bad records it costs more than it saves

_UNCERTAIN = object()


@dataclass(frozen=True, slots=True)
class Decoded:
    """The usable records of a batch as columns, and the others as rejects; every position is in one of the two.

    `rows`: int64[n], positions in the batch, ascending. `columns`: every feature of the schema, in its order,
    float64[n] (NaN = missing) or object[n] of str (None = missing). `rejects`: by position, ascending. `proven`: what is
    known of the members of those records that were read as tables.
    """

    rows: np.ndarray
    columns: dict[str, np.ndarray]
    rejects: list[Reject]
    proven: list["Proven"] = field(default_factory=list)


class Proven(NamedTuple):
    """Records, by their positions int64[k], proven to be plain: flat JSON objects in one line, without escapes, of which none
    has a key twice or one that is not among these."""

    rows: np.ndarray
    keys: frozenset[str]


class Decoder:
    """Decodes batches of one schema. It remembers dialects and categories, both bounded, and for speed alone."""

    def __init__(self, schema: FlowSchema, *, min_feature_coverage: float, limits: Limits | None = None) -> None:
        self._schema = schema
        self._min_feature_coverage = min_feature_coverage
        self._limits = limits or Limits()
        self._reader = RecordReader(schema, self._limits)
        self._plain = PlainReader(schema, self._limits, self._reader)
        self._sieves = (
            self._plain.check_syntax,
            self._plain.judge,
        )  # for tables that cannot be read, the fastest first
        self._dialects: list[_Dialect] = []  # most used first
        self._categories = _Categories()

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """N message values, each to be a JSON object, → the feature columns of those that can be scored."""
        batch = _Batch(self._schema, values)
        plain = _plain_rows(values, self._limits.max_message_bytes)
        slow = set(range(len(values))).difference(plain)
        pending = _within_limits(plain, self._limits)
        for row in plain.keys() - pending:
            batch.settle(row, self._plain.judge(plain[row]) or self._reader.verdict(plain[row]))
        self._dialects.sort(key=lambda dialect: -dialect.hits)
        for dialect in self._dialects:
            dialect.hits //= 2
            pending = self._read_many(batch, dialect, pending, slow)
        retries = RETRIES
        while pending:
            row = pending.pop()
            verdict = None if batch.sifts == len(self._sieves) else self._plain.judge(values[row] or b"")
            verdict = verdict or self._reader.verdict(values[row])
            batch.settle(row, verdict)
            learner = self._learn(verdict) if isinstance(verdict, Record) else None
            if learner and retries:
                pending = self._read_many(batch, learner, pending, slow)
                retries -= 1
        for row in slow:
            batch.settle(row, self._reader.verdict(values[row]))
        return batch.finish(self._min_feature_coverage)

    def _learn(self, record: Record) -> "_Dialect | None":
        """The dialect that knows more now than before, if any does."""
        if not record.spellings:
            return None
        fitting = next((dialect for dialect in self._dialects if dialect.fits(record)), None)
        if fitting is None:
            fitting = _Dialect()
            self._dialects = [*self._dialects[: MAX_DIALECTS - 1], fitting]
        return fitting if fitting.learn(record) else None

    def _read_many(self, batch: "_Batch", dialect: "_Dialect", rows: list[int], slow: set[int]) -> list[int]:
        """Take the rows that this dialect proves. The others come back, but those no table can hold go to `slow`."""
        if len(rows) <= FEW:
            return rows
        texts = [batch.values[row] or b"" for row in rows]
        table = _Table.read(texts, dialect.columns)
        if table is None and batch.sifts < len(self._sieves):
            sieve = self._sieves[batch.sifts]
            batch.sifts += 1
            return self._read_many(batch, dialect, self._sift(batch, rows, sieve), slow)
        if table is None:
            if len(rows) <= 2 * FEW or batch.splits == SPLITS:
                slow.update(rows)
                return []
            batch.splits += 1
            middle = len(rows) // 2
            first = self._read_many(batch, dialect, rows[:middle], slow)
            return first + self._read_many(batch, dialect, rows[middle:], slow)
        proven = table.is_whole()
        if not proven.all():
            proven |= _is_whole_but_for_nulls(texts, dialect, ~proven)
        dialect.hits += batch.take(np.array(rows), self._columns_of(table, dialect, proven), proven, dialect)
        return [row for row, known in zip(rows, proven.tolist(), strict=True) if not known]

    def _sift(
        self, batch: "_Batch", rows: list[int], sieve: Callable[[bytes], Record | RecordError | None]
    ) -> list[int]:
        """Look at plain records one by one; those in which nothing seems to be wrong come back."""
        verdicts = {row: sieve(batch.values[row] or b"") for row in rows}
        for row, verdict in verdicts.items():
            if verdict is not None:
                batch.settle(row, verdict)
        return [row for row, verdict in verdicts.items() if verdict is None]

    def _columns_of(self, table: "_Table", dialect: "_Dialect", proven: np.ndarray) -> dict[str, np.ndarray]:
        """The features in a table; a row of which a value is for the reader to judge is `proven` no longer."""
        columns: dict[str, np.ndarray] = {}
        for feature in self._schema.features:
            key = dialect.spellings.get(feature.name)
            if key is None:
                continue
            if feature.kind is Kind.NUMERIC:
                columns[feature.name] = table.numbers[key]
                proven &= ~(np.abs(table.numbers[key]) > FLOAT32_MAX)
            else:
                names = [self._categories[text] for text in table.texts[key].to_list()]
                columns[feature.name] = np.array(names, dtype=object)
                proven &= columns[feature.name] != _UNCERTAIN
        return columns


def decode_slow(
    values: Sequence[bytes | None], schema: FlowSchema, *, min_feature_coverage: float, limits: Limits | None = None
) -> Decoded:
    """The same as `Decoder.decode`, record by record: what tests hold the fast way against."""
    batch, reader = _Batch(schema, values), RecordReader(schema, limits or Limits())
    for row in range(len(values)):
        batch.settle(row, reader.verdict(values[row]))
    return batch.finish(min_feature_coverage)


class _Batch:
    """What is known so far of N records."""

    def __init__(self, schema: FlowSchema, values: Sequence[bytes | None]) -> None:
        self.values = values
        self.splits = 0
        self.sifts = 0  # how many sieves the plain records have gone through
        self._schema = schema
        self._numbers = {feature.name: np.full(len(values), math.nan) for feature in schema.numeric}
        self._categories = {feature.name: np.full(len(values), None, dtype=object) for feature in schema.categorical}
        self._rejects: dict[int, Reject] = {}
        self._proven: list[Proven] = []

    def settle(self, row: int, verdict: Record | RecordError) -> None:
        """Take over what a reader made of one record."""
        if isinstance(verdict, RecordError):
            self._rejects[row] = verdict.reject(row)
            return
        for name, number in verdict.numbers.items():
            self._numbers[name][row] = number
        for name, category in verdict.categories.items():
            self._categories[name][row] = category

    def take(self, rows: np.ndarray, columns: dict[str, np.ndarray], proven: np.ndarray, dialect: "_Dialect") -> int:
        """Take over what is `proven` (bool[n]) of the columns of `rows` (int64[n]); how many rows that is."""
        taken = rows[proven]
        self._proven.append(Proven(taken, frozenset(dialect.columns)))
        for name, column in columns.items():
            (self._numbers if name in self._numbers else self._categories)[name][taken] = column[proven]
        return len(taken)

    def finish(self, min_feature_coverage: float) -> Decoded:
        """Fill in what follows from other features, and refuse records with too few."""
        rows = np.delete(np.arange(len(self.values), dtype=np.int64), list(self._rejects))
        both = {**self._numbers, **self._categories}
        columns = {name: both[name][rows] for name in self._schema.names}
        self._schema.derive(columns)
        usable = np.ones(len(rows), dtype=bool)
        for index, (reason, detail) in check_coverage(columns, len(rows), self._schema, min_feature_coverage):
            row = int(rows[index])
            self._rejects[row] = Reject(row, reason, detail)
            usable[index] = False
        if not usable.all():
            rows, columns = rows[usable], {name: column[usable] for name, column in columns.items()}
        return Decoded(rows, columns, [self._rejects[row] for row in sorted(self._rejects)], self._proven)


@dataclass(slots=True)
class _Dialect:
    """Keys that records use together, at most one for a feature. `hits`: rows read by it, older batches fading."""

    spellings: dict[str, str] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    columns: dict[str, type[pl.DataType]] = field(default_factory=dict)
    hits: int = 0

    def fits(self, record: Record) -> bool:
        return all(self.spellings.get(name, key) == key for name, key in record.spellings.items())

    def learn(self, record: Record) -> bool:
        """Take in a record's keys, as far as there is room; whether one was new."""
        known = len(self.columns)
        for name, key in record.spellings.items():
            if len(key) <= LONGEST_KEY:
                self.spellings[name] = key
                self.columns[key] = pl.Float64 if name in record.numbers else pl.String
        for key in record.ignored:
            if len(key) <= LONGEST_KEY and len(self.ignored) < MAX_IGNORED_KEYS:
                self.ignored.add(key)
                self.columns[key] = pl.String
        return len(self.columns) > known


class _Table:
    """Plain records read by polars, a row each: numbers float64[n] (NaN = null) and texts by key."""

    def __init__(self, frame: pl.DataFrame, lines: bytes) -> None:
        self._frame = frame
        self._height = frame.height
        self._lines = lines
        columns = frame.get_columns()
        self.numbers = {
            column.name: column.to_numpy() + 0.0 for column in columns if column.dtype == pl.Float64
        }  # -0 is 0
        self.texts = {column.name: column for column in columns if column.dtype == pl.String}
        self._values = sum(frame.height - column.null_count() for column in columns)

    @classmethod
    def read(cls, records: list[bytes], columns: Mapping[str, type[pl.DataType]]) -> "_Table | None":
        """Read them all, or None if one of them cannot be.

        As to what JSON is, polars is as strict as the reader; it also refuses some numbers that the reader can read.
        A key not among the columns is passed over, of a repeated key the first counts, what is no number is null
        in a Float64 column, and anything is text in a String column.
        """
        lines = b"\n".join(records)
        try:
            frame = pl.read_ndjson(lines, schema=columns, ignore_errors=True)
        except (PolarsError, PanicException):
            return None
        return cls(frame, lines) if frame.height == len(records) else None

    def is_whole(self) -> np.ndarray:
        """Which rows are proven to hold all of their record: bool[n].

        A plain object of m members has m - 1 commas, or more if there are some in its strings, and a row has at most m
        values. As many values as commas and one can only mean that no member is unknown, null, wrong or repeated.
        """
        characters = np.frombuffer(self._lines, dtype=np.uint8)
        is_comma = characters == ord(",")
        if np.count_nonzero(is_comma) + self._height == self._values:
            return np.ones(self._height, dtype=bool)
        ends = np.append(np.flatnonzero(characters == ord("\n")), len(characters))
        members = np.diff(np.searchsorted(np.flatnonzero(is_comma), ends), prepend=0) + 1
        commas_in_texts = pl.col(pl.String).str.count_matches(",", literal=True).fill_null(0)
        values = self._frame.select(pl.sum_horizontal(pl.all().is_not_null().cast(pl.Int64), commas_in_texts))
        whole: np.ndarray = np.equal(members, values.to_series().to_numpy())
        return whole


def _plain_rows(values: Sequence[bytes | None], max_bytes: int) -> dict[int, bytes]:
    """The records that may stand in a table: one line, nothing around the braces, no others, no arrays, no escapes."""
    plain = {
        row: value
        for row, value in enumerate(values)
        if value is not None and len(value) <= max_bytes and value.rfind(b"{") == 0 and value.endswith(b"}")
    }
    together = b"".join(plain.values())
    odd = [sign for sign in (b"\n", b"[", b"\\") if sign in together]
    return {row: value for row, value in plain.items() if not any(sign in value for sign in odd)} if odd else plain


def _within_limits(plain: Mapping[int, bytes], limits: Limits) -> list[int]:
    """Those plain records that cannot have too many fields, nor a string that is too long."""
    rows = list(plain)
    longest = max(map(len, plain.values()), default=0)
    if longest > _FIELD_BYTES * limits.max_fields:
        rows = [row for row in rows if plain[row].count(b",") < limits.max_fields]
    if longest <= limits.max_string_chars:
        return rows
    # Between two quotes that stand no further apart than this there is no such string.
    quotes = np.flatnonzero(np.frombuffer(b"".join([plain[row] for row in rows]), dtype=np.uint8) == ord('"'))
    after_long = quotes[1:][np.diff(quotes) > limits.max_string_chars + 1]
    ends = np.cumsum([len(plain[row]) for row in rows], dtype=np.int64)
    doubtful = set(np.searchsorted(ends, after_long, side="right").tolist())
    return [row for index, row in enumerate(rows) if index not in doubtful]


def _is_whole_but_for_nulls(records: list[bytes], dialect: _Dialect, among: np.ndarray) -> np.ndarray:
    """Which records `among` these (bool[n]) are proven to be all in the table but for what is null: bool[n].

    They would be, were each null a number.
    """
    proven = np.zeros(len(records), dtype=bool)
    rows = [row for row in np.flatnonzero(among).tolist() if b"null" in records[row]]
    if len(rows) > FEW:
        space = b" " if b'": ' in records[rows[0]] else b""
        filled = [records[row].replace(b'":' + space + b"null", b'":' + space + b"1") for row in rows]
        table = _Table.read(filled, dialect.columns)
        if table is not None:
            proven[rows] = table.is_whole()
    return proven


class _Categories(dict[str | None, object]):
    """Text in a categorical column → category name, None for missing, or `_UNCERTAIN`: where it matters whether the
    record has a string, a number or a boolean, the text no longer tells."""

    def __missing__(self, text: str | None) -> object:
        name = None if text is None or is_missing(text) else category_name(text)
        try:
            number = float(text or "")
        except ValueError:
            certain = text not in ("true", "false")
        else:
            certain = abs(number) <= FLOAT32_MAX and name == category_name(number + 0.0)
        if len(self) < MAX_CATEGORIES and len(text or "") <= LONGEST_CATEGORY:
            self[text] = name if certain else _UNCERTAIN
        return name if certain else _UNCERTAIN
