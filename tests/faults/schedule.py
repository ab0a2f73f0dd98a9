"""Which faults come, in which order: a list that follows from the seed alone."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["KINDS", "Fault", "every_kind", "schedule"]

# How often each kind comes in a long run, relative to the others.
KINDS: Mapping[str, int] = {
    "kill worker": 8,
    "kill worker before commit": 5,
    "kill worker after commit": 1,
    "kill supervisor": 3,
    "terminate service": 2,
    "stop worker": 3,
    "stop supervisor": 1,
    "kill broker": 3,
    "restart broker": 1,
    "add and remove an instance": 4,
    "raise partitions": 1,
    "stall network": 2,
    "cut network": 3,
    "delay network": 2,
    "refuse connections": 2,
    "name no broker": 1,
}
_MOST_PARTITION_RAISES = 3
_ON_TOP = 0.2
# (shortest, longest) of those that last; "stop worker" is longer than the session timeout, see `Harness`.
_LASTS_S: Mapping[str, tuple[float, float]] = {
    "kill broker": (0.0, 4.0),
    "restart broker": (0.0, 2.0),
    "stop worker": (1.0, 4.0),
    "stop supervisor": (1.0, 5.0),
    "add and remove an instance": (6.0, 12.0),
    "stall network": (1.0, 15.0),
    "delay network": (2.0, 6.0),
    "refuse connections": (1.0, 6.0),
    "name no broker": (1.0, 3.0),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: it comes `after_s` alerts flow again after the one before, and lasts `lasts_s`.

    One that is `on_top` does not wait for alerts to flow. `which` in [0, 1) picks the victim.
    """

    kind: str
    after_s: float = 0.0
    lasts_s: float = 0.0
    which: float = 0.0
    on_top: bool = False

    def __str__(self) -> str:
        lasts = f", for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return f"after {self.after_s:3.1f} s: {self.kind}{lasts}" + (
            ", on top of the one before" if self.on_top else ""
        )


def schedule(seed: int, *, gap_s: tuple[float, float] = (0.5, 4.0)) -> Iterator[Fault]:
    """Faults without end, drawn by their weights."""
    chance = random.Random(seed)
    raises = 0
    while True:
        [kind] = chance.choices(list(KINDS), list(KINDS.values()))
        raises += kind == "raise partitions"
        if kind != "raise partitions" or raises <= _MOST_PARTITION_RAISES:
            yield _fault(kind, chance, gap_s)


def every_kind(seed: int, kinds: Sequence[str], *, gap_s: tuple[float, float] = (0.5, 2.0)) -> list[Fault]:
    """One fault of each of `kinds`, in an order that the seed decides."""
    chance = random.Random(seed)
    return [_fault(kind, chance, gap_s) for kind in chance.sample(kinds, len(kinds))]


def _fault(kind: str, chance: random.Random, gap_s: tuple[float, float]) -> Fault:
    shortest, longest = _LASTS_S.get(kind, (0.0, 0.0))
    return Fault(
        kind,
        after_s=round(chance.uniform(*gap_s), 1),
        lasts_s=round(chance.uniform(shortest, longest), 1),
        which=chance.random(),
        on_top=chance.random() < _ON_TOP,
    )
