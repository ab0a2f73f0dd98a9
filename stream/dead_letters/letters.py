"""Dead letters as they are read back, and which of them a command is about."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from schemas.dead_letter import DeadLetter, Reason
from schemas.errors import ParamsError
from schemas.times import to_us
from stream.batch import FlowRecord
from stream.dead_letters.reading import Advance, Reader, Span

__all__ = ["DeadLetters", "Letter", "Selection", "original", "parse_moment", "parse_place"]

_PLACE = re.compile(r"(.+)-([0-9]{1,9})-([0-9]{1,18})")
_AGO = re.compile(r"([0-9]{1,9}) *([smhdw])(?: +ago)?")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: the message, and what its headers tell."""

    message: FlowRecord
    told: DeadLetter

    @property
    def id(self) -> str:
        """Its own place, `topic-partition-offset` of the dead letters' topic."""
        return self.message.id

    @property
    def source(self) -> str:
        """The id of the record that was set aside."""
        return f"{self.told.topic}-{self.told.partition}-{self.told.offset}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters: those that every condition given holds for. Times are when they were set aside, `until` exclusive.

    `partitions` are of the dead letters' topic; `ids` are letters' own or those of the records that were set aside.
    """

    reasons: Collection[Reason] = ()
    since: datetime | None = None
    until: datetime | None = None
    partitions: Collection[int] = ()
    source_topic: str | None = None
    ids: Collection[str] = ()

    def __contains__(self, letter: Letter) -> bool:
        return (
            (not self.reasons or letter.told.reason in self.reasons)
            and (self.since is None or letter.message.time >= self.since)
            and (self.until is None or letter.message.time < self.until)
            and (not self.partitions or letter.message.partition in self.partitions)
            and (self.source_topic is None or letter.told.topic == self.source_topic)
            and (not self.ids or letter.id in self.ids or letter.source in self.ids)
        )


class DeadLetters:
    """The topic of dead letters. `strangers` counts the messages met there that are none."""

    def __init__(self, reader: Reader, topic: str) -> None:
        self.topic = topic
        self.strangers = 0
        self._reader = reader

    def spans(self, selection: Selection) -> list[Span]:
        """Where the selected letters are, as narrow as Kafka can tell; none if there is no such topic.

        Raises:
            FlowsentryError: an id is none, or there is no such partition.
        """
        places = [parse_place(text) for text in selection.ids]
        spans = self._reader.spans(self.topic, selection.partitions)
        if selection.since is not None:
            spans = self._reader.since(spans, to_us(selection.since) // 1000)
        if places and all(topic == self.topic for topic, _, _ in places):
            spans = [narrow for span in spans if (narrow := _around(span, places))]
        return spans

    def read(self, spans: Sequence[Span], selection: Selection, advance: Advance = lambda _: None) -> Iterator[Letter]:
        """The selected letters in the spans, of each partition in order."""
        for message in self._reader.read(spans, advance):
            try:
                letter = Letter(message, DeadLetter.from_headers(message.headers))
            except ValidationError:
                self.strangers += 1
                continue
            if letter in selection:
                yield letter


def original(letter: Letter, sources: Reader) -> FlowRecord | None:
    """The record that was set aside, as it was: out of the letter, or from its place if it is not in there.

    None where it is in neither. Its time is when it was set aside if it is from the letter.

    Raises:
        FlowsentryError: no answer from Kafka, or it refuses.
    """
    told = letter.told
    if not told.cut:
        return replace(
            letter.message,
            topic=told.topic,
            partition=told.partition,
            offset=told.offset,
            headers=told.own_headers(letter.message.headers),
        )
    found = sources.record_at(told.topic, told.partition, told.offset)
    # Another size: the topic was deleted and made again.
    return found if found is not None and found.size == told.cut else None


def parse_place(text: str) -> tuple[str, int, int]:
    """Topic, partition and offset of an id.

    Raises:
        ParamsError: it is no id.
    """
    if match := _PLACE.fullmatch(text):
        return match[1], int(match[2]), int(match[3])
    raise ParamsError(
        f"{text!r} is no id: expected topic-partition-offset, of a dead letter or of the record set aside"
    )


def _around(span: Span, places: Sequence[tuple[str, int, int]]) -> Span | None:
    """From the first to the last of the places that are in the span."""
    offsets = [offset for _, partition, offset in places if partition == span.partition and offset < span.end]
    return replace(span, start=max(span.start, min(offsets)), end=max(offsets) + 1) if offsets else None


def parse_moment(option: str, text: str, now: datetime) -> datetime:
    """A time as the options take it: ISO 8601 (`2026-03-04`, `2026-03-04T05:06`, UTC unless it says otherwise), or so
    much before `now`: `90s`, `15m ago`, `2h`, `7d`, `1w`.

    Raises:
        ParamsError: it is neither.
    """
    try:
        if ago := _AGO.fullmatch(text.strip()):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        time = datetime.fromisoformat(text.strip())
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ParamsError(
            f"{option} {text!r}: expected a time in ISO 8601 (2026-03-04T05:06, UTC unless it says otherwise) or how long "
            "ago (90s, 15m, 2h, 7d, 1w)"
        ) from None
