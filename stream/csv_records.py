"""Any supported CSV → the JSON flow records that a probe would have sent: one per data row, in order.

The contract: what the service decodes from a record is, bit for bit, what `export score` reads from the row.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from export.cells import is_missing
from export.reading import CsvRows, open_csv
from schemas.datasets import SCHEMAS
from schemas.errors import FlowsentryError, HeaderError, LabelError
from schemas.flow import Binding, Dropped, Feature, FlowSchema, Kind, Metadata, key_of
from schemas.times import parse_time, to_us

__all__ = ["ReplayRecord", "detect_schema", "records"]

_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# A JSON number that no float64 overflows at; possessive, because a row of 80 of them is matched at once.
_PLAIN_NUMBER = r"-?+(?:0|[1-9][0-9]{0,200}+)(?:\.[0-9]++)?+(?:[eE][+-]?+[0-9]{1,2}+)?+"
_json_text = json.JSONEncoder(ensure_ascii=False).encode


class ReplayRecord(NamedTuple):
    """One message: the data row's 0-based number, the JSON object, its headers (`label`, `row`, `file`) and the flow's
    own time in µs since 1970, where the row has one."""

    row: int
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_us: int | None

    @property
    def origin(self) -> str:
        """`flows.csv, data row 3`, for messages."""
        return f"{dict(self.headers)['file'].decode()}, data row {self.row}"


def records(path: Path, schema: FlowSchema) -> Iterator[ReplayRecord]:
    """The data rows of a CSV as JSON flow records, under the file's own column names. Labels travel in the headers.

    A row with more cells than the header is no flow: its bytes are the row as CSV text, for the service to set aside.

    Raises:
        HeaderError: the file cannot be read, or its header does not fit the schema; the message names file and column.
    """
    with _opened(path, schema) as file:
        binding = file.binding
        width = len(binding.header)
        encode = _encoder(binding, schema)
        label_at = next((binding.labels[name] for name in schema.label_columns if name in binding.labels), width)
        time_at = binding.metadata.get("timestamp")
        meaning = lru_cache(maxsize=1024)(partial(_label, schema))
        file_header = ("file", path.name.encode(errors="replace"))
        for number, row in enumerate(file.rows):
            headers = [("row", b"%d" % number), file_header]
            if len(row) > width:
                yield ReplayRecord(number, _csv_line(row), headers, None)
                continue
            if label_at < len(row) and (label := meaning(row[label_at])):
                headers.append(("label", label))
            if len(row) < width:
                row += [""] * (width - len(row))
            time = parse_time(row[time_at]) if time_at is not None else None
            yield ReplayRecord(number, encode(row), headers, None if time is None else to_us(time))


def detect_schema(path: Path) -> FlowSchema:
    """The data set whose features the file's header has most of; where it has all of two, the one with more features.

    Raises:
        FlowsentryError: it has not even half of any one's features, or two fit alike; the message says why for each.
    """
    found: list[tuple[int, int, FlowSchema]] = []
    reasons: dict[str, str] = {}
    for schema in SCHEMAS.values():
        try:
            with _opened(path, schema) as file:
                missing = file.binding.missing
        except HeaderError as error:
            reasons[schema.name] = str(error).removeprefix(f"{path}: ")
            continue
        named = (": " + ", ".join(missing[:5]) if missing else "") + (", …" if len(missing) > 5 else "")
        reasons[schema.name] = f"lacks {len(missing)} of {len(schema.features)} features{named}"
        if 2 * len(missing) <= len(schema.features):
            found.append((len(missing), -len(schema.features), schema))
    found.sort(key=itemgetter(0, 1))
    if found and (len(found) == 1 or found[0][:2] != found[1][:2]):
        return found[0][2]
    if len(set(reasons.values())) == 1:
        raise FlowsentryError(f"{path}: {next(iter(reasons.values()))}")  # of the file, not of a schema
    problem = "more than one data set fits alike" if found else "the columns are those of no known data set"
    listed = "".join(f"\n  {name}: {reason}" for name, reason in reasons.items())
    raise FlowsentryError(f"{path}: {problem}; correct the header or name the data set (--dataset).{listed}")


@contextmanager
def _opened(path: Path, schema: FlowSchema) -> Iterator[CsvRows]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_csv(path, schema))
        except OSError as error:
            raise HeaderError(f"{path}: {error.strerror or error}") from None
        yield file


def _label(schema: FlowSchema, text: str) -> bytes:
    """The family that a label means, else the label itself."""
    try:
        return schema.family_of(text).name.encode()
    except LabelError:
        return text.strip().encode()


def _csv_line(row: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(row)
    return line.getvalue().encode()


def _encoder(binding: Binding, schema: FlowSchema) -> Callable[[list[str]], bytes]:
    """A function from a row, as long as the header, to its JSON object.

    Most cells are numbers that can stay as they are: one look at all of them decides, and only a row where that fails
    is gone through cell by cell.
    """
    numbers: list[int] = []
    repairs: list[tuple[int, Callable[[str], str]]] = []  # for a row whose numbers are not all plain
    others: list[tuple[int, Callable[[str], str]]] = []
    positions: list[int] = []
    parts: list[str] = []
    names: set[str] = set()
    for position, spelling in enumerate(binding.header):
        name = spelling.strip()
        role = schema.roles.get(key_of(name))
        match role:
            case str():  # a label
                continue
            case Feature() if binding.features[role.name] == position:
                blank = "null" if role.blank is None else repr(role.blank)
                cell = partial(_number, blank=blank) if role.kind is Kind.NUMERIC else _category
            case Metadata() if binding.metadata[role.name] == position:
                cell = _anything
            case Dropped() | None if name not in names:
                cell = _anything
            case _:  # doubled: the first one counts
                continue
        names.add(name)
        if (isinstance(role, Feature) and role.kind is Kind.NUMERIC) or isinstance(role, Dropped):
            numbers.append(position)
            repairs.append((len(positions), cell))
        else:
            others.append((len(positions), cell))
        positions.append(position)
        parts += [f"{',' if parts else '{'}{_json_text(name)}:", ""]
    parts.append("}")
    plain = re.compile(",".join([_PLAIN_NUMBER] * len(numbers))).fullmatch
    pick, pick_numbers = _picker(positions), _picker(numbers)

    def encode(row: list[str]) -> bytes:
        cells = list(pick(row))
        joined = ",".join(pick_numbers(row))
        if plain(joined) is None or ",-0," in f",{joined},":
            for index, cell in repairs:
                cells[index] = cell(cells[index])
        for index, cell in others:
            cells[index] = cell(cells[index])
        parts[1::2] = cells
        return "".join(parts).encode()

    return encode


def _picker(positions: list[int]) -> Callable[[Sequence[str]], Sequence[str]]:
    if len(positions) > 1:
        return itemgetter(*positions)
    return lambda row: [row[position] for position in positions]


def _number(cell: str, blank: str) -> str:
    """A numeric feature's cell as JSON, such that the service reads what `export.cells` does, or rejects it too."""
    text = cell.strip()
    if not text:
        return blank
    if _JSON_NUMBER.fullmatch(text):
        # A reader may take "-0" for an integer, which has no negative zero.
        return "-0.0" if text.startswith("-0") and "." not in text and float(text) == 0 else text
    if is_missing(text):
        return "null"
    try:
        number = float(text)
    except ValueError:
        return _json_text(cell)
    if math.isinf(number):
        return "1e999" if number > 0 else "-1e999"
    return _json_text(cell) if math.isnan(number) else repr(number)


@lru_cache(maxsize=4096)
def _category(cell: str) -> str:
    return "null" if is_missing(cell) else _json_text(cell)


@lru_cache(maxsize=4096)
def _anything(cell: str) -> str:
    """A cell that no model sees: it must not be what makes the record unreadable, so 1e999 is a text here."""
    text = cell.strip()
    if is_missing(text):
        return "null"
    return text if _JSON_NUMBER.fullmatch(text) and math.isfinite(float(text)) else _json_text(text)
