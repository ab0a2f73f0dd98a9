"""Dead letters for people and programs: counted, or one by one. Text from a record is made harmless to a terminal."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import islice

from stream.dead_letters.letters import DeadLetters, Letter, Selection
from stream.dead_letters.reading import Advance, Span
from stream.dead_letters.receipts import Receipts
from stream.wording import UNKNOWN, printable

__all__ = ["By", "Kind", "Shown", "Tally", "columns", "pick", "tallies_as_json", "tallies_as_table", "tally"]

_FIRST_WINDOW = 1000
_WIDER = 8
_EXCERPT = 400


class By(StrEnum):
    """What letters are counted by, besides their reason."""

    PARTITION = "partition"
    HOUR = "hour"


Kind = tuple[str | int, ...]
"""Reason, and what else is counted by."""


@dataclass(slots=True)
class Tally:
    """How many letters of one kind, how many of them were put back, and when the first and last were set aside."""

    letters: int
    replayed: int
    first: datetime
    last: datetime


def tally(letters: Iterable[Letter], by: Sequence[By], receipts: Receipts) -> dict[Kind, Tally]:
    """Counts by reason and then `by`, in that order: partition of the dead letters' topic, hour in UTC."""
    tallies: dict[Kind, Tally] = {}
    for letter in letters:
        time = letter.message.time
        parts: dict[By, str | int] = {By.PARTITION: letter.message.partition, By.HOUR: f"{time:%Y-%m-%dT%H}"}
        found = tallies.setdefault((letter.told.reason.value, *(parts[each] for each in by)), Tally(0, 0, time, time))
        found.letters += 1
        found.replayed += letter in receipts
        found.first, found.last = min(found.first, time), max(found.last, time)
    return dict(sorted(tallies.items()))


def tallies_as_json(tallies: Mapping[Kind, Tally], by: Sequence[By]) -> Iterator[str]:
    """A JSON object for each kind."""
    for kind, each in tallies.items():
        names = dict(zip(("reason", *map(str, by)), kind, strict=True))
        counts = {"letters": each.letters, "replayed": each.replayed}
        times = {"first": each.first.isoformat(), "last": each.last.isoformat()}
        yield json.dumps({**names, **counts, **times})


def tallies_as_table(tallies: Mapping[Kind, Tally], by: Sequence[By]) -> Iterator[str]:
    """A line for each kind, and their sum."""
    rows = [
        (*map(str, kind), str(it.letters), str(it.replayed), f"{it.first:%Y-%m-%d %H:%M:%S}", f"{it.last:%Y-%m-%d %H:%M:%S}")
        for kind, it in tallies.items()
    ]  # fmt: skip
    both = sum(it.letters for it in tallies.values()), sum(it.replayed for it in tallies.values())
    rows.append(("all", *("" for _ in by), *map(str, both), "", ""))
    return columns(("reason", *by, "letters", "put back", "first (UTC)", "last (UTC)"), rows)


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of cells that stand below each other; figures to the right."""
    table = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    figures = [all(not cell or cell.isdecimal() for cell in column) for column in zip(*rows, strict=True)]
    for row in table:
        cells = zip(row, widths, figures, strict=True)
        yield "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells).rstrip()


@dataclass(frozen=True, slots=True, order=True)
class Shown:
    """A letter in words, in the order of time."""

    time: datetime
    partition: int
    offset: int
    id: str
    source: str
    lines: tuple[str, ...]


def pick(
    letters: DeadLetters,
    spans: Sequence[Span],
    selection: Selection,
    receipts: Receipts,
    *,
    limit: int,
    oldest_first: bool,
    advance: Advance,
) -> list[Shown]:
    """The newest letters, newest first, or the oldest, oldest first; not more than `limit` are held at a time."""
    picked: list[Shown] = []
    for span in spans:
        found = _first if oldest_first else _last
        picked += found(lambda part: letters.read([part], selection, advance), span, limit, receipts)
        picked = sorted(picked, reverse=not oldest_first)[:limit]
    return picked


def _first(read: Callable[[Span], Iterator[Letter]], span: Span, limit: int, receipts: Receipts) -> Iterable[Shown]:
    return [_shown(letter, letter in receipts) for letter in islice(read(span), limit)]


def _last(read: Callable[[Span], Iterator[Letter]], span: Span, limit: int, receipts: Receipts) -> Iterable[Shown]:
    """Looks at the end of the partition, and further back only as long as it must."""
    window = max(limit, _FIRST_WINDOW)
    while True:
        part = replace(span, start=max(span.start, span.end - window))
        found = deque((_shown(letter, letter in receipts) for letter in read(part)), maxlen=limit)
        if len(found) == limit or part.start == span.start:
            return found
        window *= _WIDER


def _shown(letter: Letter, replayed: bool) -> Shown:
    message, told = letter.message, letter.told
    state = ("  put back" if replayed else "") + (f"  hops {told.hops}" if told.hops else "")
    fields = {
        "from": letter.source,
        "why": told.detail,
        "field": f"{told.field} = {told.value}" if told.field else told.value,
        "key": UNKNOWN if message.key is None else _text(message.key),
        **{f"header {name}": UNKNOWN if value is None else _text(value) for name, value in told.own_headers(message.headers)},
        "value": _value(letter),
    }  # fmt: skip
    return Shown(
        time=message.time,
        partition=message.partition,
        offset=message.offset,
        id=letter.id,
        source=letter.source,
        lines=(
            f"{printable(letter.id)}  {message.time:%Y-%m-%d %H:%M:%S}  {told.reason.value}{state}",
            *(f"  {_short(name):7} {_short(text)}" for name, text in fields.items() if text),
        ),
    )


def _value(letter: Letter) -> str:
    value, cut = letter.message.value, letter.told.cut
    if cut:
        return f"{cut} bytes, too large to be kept here: still at {letter.source}, unless its topic has dropped it"
    return UNKNOWN if value is None else f"{len(value)} bytes: {_text(value)}"


def _text(value: bytes) -> str:
    return value[: 4 * _EXCERPT].decode(errors="replace") or '""'


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"
