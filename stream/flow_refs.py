"""Which flows they were, and when: metadata and features in the terms of an alert (see `schemas.alert.FlowRef`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from schemas.times import parse_time, to_us
from stream.findings import LONGEST_TEXT

__all__ = ["FlowRefs", "flow_refs"]


@dataclass(frozen=True, slots=True)
class FlowRefs:
    """The columns of n `FlowRef`, None for what is not known, and `event_time_us`, µs since 1970."""

    event_time_us: list[int]
    src_ip: list[str | None]
    src_port: list[int | None]
    dst_ip: list[str | None]
    dst_port: list[int | None]
    protocol: list[str | None]
    flow_id: list[str | None]


_PLAIN_PORT = r"^(?:0|[1-9][0-9]{0,4})(?:\.0)?$"
_PLAIN_TIME = (
    r"^[12][0-9]{3}-[0-9]{2}-[0-9]{2}[ T](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{3}|\.[0-9]{6})?Z?$"
)
_PLAIN = ("timestamp", "src_port", "dst_port")
_HIGHEST_PORT = 65535
_FIRST, _LAST = (to_us(time.replace(tzinfo=UTC)) for time in (datetime.min, datetime.max))


def flow_refs(
    metadata: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray], rows: np.ndarray, sent_ms: np.ndarray
) -> FlowRefs:
    """Of n flows: their metadata (see `stream.metadata`), the features' columns, of which these are the `rows` i64[n], and
    the Kafka timestamps of their records, i64[n], for those that do not say when they were."""
    texts = {name: column.tolist() for name, column in metadata.items()}
    plain = pl.DataFrame({name: texts[name] for name in _PLAIN}, schema=dict.fromkeys(_PLAIN, pl.String)).select(
        _plain_time("timestamp"), _plain_port("src_port"), _plain_port("dst_port")
    )
    times = _by_hand(plain["timestamp"], texts["timestamp"], _time_of)
    sent_us = np.clip(np.clip(sent_ms, _FIRST // 1000, _LAST // 1000 + 1) * 1000, _FIRST, _LAST)  # as a calendar has it
    return FlowRefs(
        event_time_us=[sent if time is None else time for time, sent in zip(times, sent_us.tolist(), strict=True)],
        src_ip=texts["src_ip"],
        src_port=_by_hand(plain["src_port"], texts["src_port"], _port_of),
        dst_ip=texts["dst_ip"],
        dst_port=_by_hand(plain["dst_port"], texts["dst_port"], _port_of),
        protocol=_protocols(texts["protocol"], columns, rows),
        flow_id=[own or row for own, row in zip(texts["flow_id"], texts["id"], strict=True)],
    )


def _protocols(protocols: list[str | None], columns: Mapping[str, np.ndarray], rows: np.ndarray) -> list[str | None]:
    """The feature's value where it is one and is there, else the metadata's."""
    for feature in ("protocol", "proto"):
        if feature in columns:
            protocols = [
                told if value is None else str(value)[:LONGEST_TEXT]
                for told, value in zip(protocols, columns[feature][rows].tolist(), strict=True)
            ]
    return protocols


def _plain_time(name: str) -> pl.Expr:
    """µs since 1970 of an ISO 8601 time in UTC; null for anything else."""
    text = pl.col(name)
    spelled = pl.when(text.str.contains(_PLAIN_TIME)).then(
        text.str.replace("T", " ", literal=True).str.strip_suffix("Z")
    )
    return spelled.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="us", strict=False).cast(pl.Int64)


def _plain_port(name: str) -> pl.Expr:
    """The port that `443` and `443.0` spell; null for anything else."""
    text = pl.col(name)
    port = pl.when(text.str.contains(_PLAIN_PORT)).then(text.str.strip_suffix(".0")).cast(pl.Int64)
    return pl.when(port <= _HIGHEST_PORT).then(port)


def _by_hand(plain: pl.Series, texts: Sequence[str | None], parse: Callable[[str], int | None]) -> list[int | None]:
    """Fill in what `parse` makes of the texts that were not plain, each of those that differ parsed once."""
    filled: list[int | None] = plain.to_list()
    others = {text for text, value in zip(texts, filled, strict=True) if value is None and text is not None}
    if not others:
        return filled
    found = {text: parse(text) for text in others}
    return [
        value if text is None or value is not None else found[text] for text, value in zip(texts, filled, strict=True)
    ]


def _time_of(text: str) -> int | None:
    time = parse_time(text)
    return None if time is None else to_us(time)


def _port_of(text: str) -> int | None:
    """A port in any spelling that the releases have: `443`, `443.0`, `0x01bb`; None for anything else."""
    try:
        port = int(text.removesuffix(".0"), 0)
    except ValueError:
        return None
    return port if 0 <= port <= _HIGHEST_PORT else None
