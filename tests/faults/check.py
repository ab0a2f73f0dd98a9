"""After a run: what stands on the topics against what must, id by id."""

import io
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel

from schemas.dead_letter import DeadLetter
from stream.batch import headers_of
from tests.faults.feed import Feed
from tests.faults.given import Given
from tests.faults.watch import Place, Watch, place_of
from tests.kafka import committed, each_message, end_offsets

__all__ = ["Outcome", "Topics", "check", "rebalances", "unconsumed"]

_EPSILON = 1e-5
# Kinds of keys in Kafka's own topic of offsets.
_CLASSIC_GROUP, _CONSUMER_GROUP = 2, 3


@dataclass(frozen=True, slots=True)
class Topics:
    """Names of the topics and of the service's group."""

    flows: str

    @property
    def alerts(self) -> str:
        return f"{self.flows}.alerts"

    @property
    def dead(self) -> str:
        return f"{self.flows}.dead"

    @property
    def events(self) -> str:
        return f"{self.flows}.events"

    @property
    def group(self) -> str:
        return self.flows


@dataclass(slots=True)
class Outcome:
    """What became of every record; `wrong` lists the places of those with which something is not as it must be."""

    produced: int = 0
    consumed: int = 0
    alerts: int = 0
    dead_letters: int = 0
    wrong: dict[str, list[Place]] = field(default_factory=lambda: defaultdict(list))
    feed: list[str] = field(default_factory=list)
    """What is wrong with the topic that was fed, so that nothing else can be said."""
    given_s: dict[Place, float] = field(default_factory=dict)
    """When a record that ended wrong was put on the topic, by the wall clock."""


class _Score(BaseModel):
    score: float


@dataclass(slots=True)
class _Fed:
    """What stands on a partition of the input topic, by offset: number of the `Given`, and time (ms)."""

    given: "array[int]" = field(default_factory=lambda: array("l"))
    made_ms: "array[int]" = field(default_factory=lambda: array("q"))


def unconsumed(servers: str, topics: Topics) -> dict[int, int]:
    """How many records of each partition the group has not committed yet; partitions without any are left out."""
    ends = end_offsets(servers, topics.flows)
    done = committed(servers, topics.group, topics.flows)
    return {number: end - max(0, done[number]) for number, end in ends.items() if end > max(0, done[number])}


def rebalances(servers: str, group: str) -> int:
    """The group's last generation (or epoch, of the protocol of KIP-848): the broker counts each rebalance in it."""
    last = 0
    for message in each_message(servers, "__consumer_offsets"):
        key, value = io.BytesIO(message.key() or b""), io.BytesIO(message.value() or b"")
        kind = _int(key, 2)
        if (
            kind not in (_CLASSIC_GROUP, _CONSUMER_GROUP)
            or key.read(_int(key, 2)) != group.encode()
            or not message.value()
        ):
            continue
        value.read(2)  # its version
        if kind == _CLASSIC_GROUP:
            value.read(_int(value, 2))  # its protocol's type
        last = max(last, _int(value, 4))
    return last


def _int(data: io.BytesIO, size: int) -> int:
    return int.from_bytes(data.read(size), signed=True)


def check(servers: str, topics: Topics, feed: Feed, given: Sequence[Given], watch: Watch) -> Outcome:
    """Compare the topics, read anew with read_committed, with what was fed; and what the live subscriber saw."""
    outcome = Outcome()
    fed = _read_fed(servers, topics, feed, given, outcome)
    _check_alerts(servers, topics, given, fed, outcome)
    _check_dead_letters(servers, topics, given, fed, outcome)
    _check_watch(given, fed, watch, outcome)
    left = unconsumed(servers, topics)
    outcome.consumed = outcome.produced - sum(left.values())
    if left:
        outcome.wrong["committed offsets not at the end, from"] = [
            (number, len(fed[number].given) - count) for number, count in left.items()
        ]
    outcome.given_s = {
        (partition, offset): fed[partition].made_ms[offset] / 1000
        for places in outcome.wrong.values()
        for partition, offset in places
        if partition in fed and offset < len(fed[partition].given)
    }
    return outcome


def _read_fed(servers: str, topics: Topics, feed: Feed, given: Sequence[Given], outcome: Outcome) -> dict[int, _Fed]:
    """The input topic as it stands, which is the truth; the feed must have put each of its records there once."""
    fed: dict[int, _Fed] = defaultdict(_Fed)
    seen = bytearray(feed.sent)
    for message in each_message(servers, topics.flows):
        headers = dict(headers_of(message))
        serial, chosen = int(headers["serial"] or -1), int(headers["given"] or -1)
        partition, offset = message.partition() or 0, message.offset() or 0
        seen[serial] = min(2, seen[serial] + 1)
        if offset != len(fed[partition].given) or message.value() != given[chosen].value:
            outcome.feed.append(f"the record at {partition}-{offset} is not the one that was fed")
        fed[partition].given.append(chosen)
        fed[partition].made_ms.append(message.timestamp()[1])
        outcome.produced += 1
    outcome.feed += [f"the feed was refused: {why}" for why in feed.refused]
    for count, what in ((0, "is not on the topic"), (2, "is on the topic twice")):
        if count in seen:
            outcome.feed.append(f"record {seen.index(count)} of the feed {what}")
    return fed


def _check_alerts(servers: str, topics: Topics, given: Sequence[Given], fed: dict[int, _Fed], outcome: Outcome) -> None:
    found: Counter[Place] = Counter()
    for message in each_message(servers, topics.alerts):
        place = place_of(message.key() or b"")
        found[place] += 1
        origin = _given_at(place, given, fed)
        score = _Score.model_validate_json(message.value() or b"").score
        if origin is not None and abs(score - origin.score) > _EPSILON:
            outcome.wrong["alerts with another score"].append(place)
    outcome.alerts = found.total()
    wanted = {place for place, each in _places(given, fed) if each.alert}
    _compare("alerts", found, wanted, outcome)


def _check_dead_letters(
    servers: str, topics: Topics, given: Sequence[Given], fed: dict[int, _Fed], outcome: Outcome
) -> None:
    found: Counter[Place] = Counter()
    for message in each_message(servers, topics.dead):
        headers = headers_of(message)
        told = DeadLetter.from_headers(headers)
        place = (told.partition, told.offset)
        found[place] += 1
        origin = _given_at(place, given, fed)
        if origin is None:
            continue
        own = dict(headers[:2])
        as_it_came = (message.value(), message.key(), own.get("given")) == (
            origin.value,
            b"key-" + (own.get("serial") or b""),
            b"%d" % fed[place[0]].given[place[1]],
        )
        if told.topic != topics.flows or not as_it_came:
            outcome.wrong["dead letters not as they came"].append(place)
        if told.reason is not origin.reason:
            outcome.wrong["dead letters with another reason"].append(place)
    outcome.dead_letters = found.total()
    wanted = {place for place, each in _places(given, fed) if each.reason is not None}
    _compare("dead letters", found, wanted, outcome)


def _check_watch(given: Sequence[Given], fed: dict[int, _Fed], watch: Watch, outcome: Outcome) -> None:
    """The subscriber that looked on must have seen each alert once, in spite of all."""
    wanted = {place for place, each in _places(given, fed) if each.alert}
    _compare("alerts at the live subscriber", Counter(watch.counts), wanted, outcome)
    outcome.feed += [f"the live subscriber failed: {why}" for why in watch.failures]


def _given_at(place: Place, given: Sequence[Given], fed: dict[int, _Fed]) -> Given | None:
    """What a record was made from; None if there is no such record."""
    partition, offset = place
    known = partition in fed and offset < len(fed[partition].given)
    return given[fed[partition].given[offset]] if known else None


def _places(given: Sequence[Given], fed: dict[int, _Fed]) -> list[tuple[Place, Given]]:
    return [
        ((partition, offset), given[chosen])
        for partition, each in fed.items()
        for offset, chosen in enumerate(each.given)
    ]


def _compare(what: str, found: Counter[Place], wanted: set[Place], outcome: Outcome) -> None:
    for title, places in (
        (f"{what} lost", wanted - found.keys()),
        (f"{what} that should not be", found.keys() - wanted),
        (f"{what} doubled", {place for place, count in found.items() if count > 1}),
    ):
        if places:
            outcome.wrong[title] = sorted(places)
