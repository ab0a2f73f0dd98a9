"""What alerts say of flows besides their features, read from many records at once.

`stream.record.read_metadata` says what a record's metadata is. In a record that is proven to be plain, every other quote
ends a string, so what stands between quotes before a colon is a key; it is there once, and its value is found right after
it, as it is spelled. All other records are read one by one.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from schemas.flow import FlowSchema, Metadata
from stream.decode import FEW, Proven
from stream.record import VALUE_CHARS, read_metadata, remembered_key, shorten

__all__ = ["METADATA", "metadata_of"]

METADATA = ("src_ip", "src_port", "dst_ip", "dst_port", "protocol", "flow_id", "id", "timestamp")
"""The columns that alerts tell of."""


def metadata_of(
    values: Sequence[bytes | None], rows: np.ndarray, proven: Iterable[Proven], schema: FlowSchema
) -> dict[str, np.ndarray]:
    """The metadata of n records: `values`, and `rows` int64[n], their places in the batch of which these are `proven`.

    object[n] of str for each of `METADATA`: numbers as they are spelled, None for what a record does not say.
    """
    columns = {name: np.full(len(rows), None, dtype=object) for name in METADATA}
    alone = np.ones(len(rows), dtype=bool)
    for plain in proven:
        among = np.flatnonzero(np.isin(rows, plain.rows, kind="table"))
        if len(among) > FEW:
            found, is_clear = _find([values[place] or b"" for place in among.tolist()], plain.keys, schema)
            for name, texts in found.items():
                columns[name][among] = texts
            alone[among[is_clear]] = False
    for place in np.flatnonzero(alone).tolist():
        told = read_metadata(values[place] or b"", schema)
        for name, column in columns.items():
            column[place] = told.get(name)
    return columns


def _find(
    records: Sequence[bytes], keys: Iterable[str], schema: FlowSchema
) -> tuple[dict[str, list[str | None]], np.ndarray]:
    """The metadata of n plain records, and bool[n]: not where a column is there by two keys, of which the first counts."""
    columns: dict[str, list[str | None]] = {}
    is_clear = np.ones(len(records), dtype=bool)
    for key in keys:
        role = schema.roles.get(remembered_key(key))
        if not isinstance(role, Metadata) or role.name not in METADATA:
            continue
        texts = [match and match[match.lastindex or 0].decode() for match in map(_member(key).search, records)]
        if role.name in columns:
            both = list(zip(columns[role.name], texts, strict=True))
            is_clear &= [first is None or second is None for first, second in both]
            texts = [second if first is None else first for first, second in both]
        columns[role.name] = texts
    for texts in columns.values():
        if max(map(len, filter(None, texts)), default=0) > VALUE_CHARS:
            texts[:] = [text and shorten(text, VALUE_CHARS) for text in texts]
    return columns, is_clear


@lru_cache(maxsize=1024)
def _member(key: str) -> re.Pattern[bytes]:
    """Finds a key and its value, the inside of a string or whatever else is not null."""
    return re.compile(b'"' + re.escape(key.encode()) + rb'"[ \t\r]*:[ \t\r]*(?:"([^"]*)"|(?!null)([^,} \t\r]+))')
