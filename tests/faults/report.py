"""What a run found: for people, and as JSON."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import ceil, inf
from typing import Any

from tests.faults.check import Outcome
from tests.faults.schedule import Fault

__all__ = ["BROKER", "KILLS", "Caused", "Report", "percentile"]

KILLS = ("kill worker", "kill supervisor")
BROKER = ("kill broker", "restart broker")

_SHOWN = 5
_NEAR_S = 15.0


@dataclass(slots=True)
class Caused:
    """A fault that happened. Times are seconds since the run's begin.

    `first_again_s` and `all_again_s`: from the fault (of a broker: from its answering again) to alerts of the first and
    of the last partition. `overlaid`: the schedule let another fault come on top of it.
    """

    fault: Fault
    began_s: float
    ended_s: float = 0.0
    measured_from_s: float | None = None
    first_again_s: float | None = None
    all_again_s: float | None = None
    overlaid: bool = False


@dataclass(slots=True)
class Report:
    """One run of the harness; it is good if `problems` is empty."""

    seed: int
    replay: str
    began_wall_s: float
    seconds: float
    outcome: Outcome
    caused: list[Caused]
    gap_s: float
    gap_until_s: float
    rebalances: int
    by_itself: list[str]
    told: Counter[str]
    unexpected: list[str]
    left_behind: list[str]
    exits: list[int]
    found: list[str] = field(default_factory=list)
    """Problems that others found."""
    more: dict[str, Any] = field(default_factory=dict)
    """Figures that others measured."""

    @property
    def problems(self) -> list[str]:
        """Everything that must not be, in words."""
        found = list(self.outcome.feed[:_SHOWN])
        found += [self._history(title, places) for title, places in self.outcome.wrong.items()]
        found += [f"ended by itself: {what}" for what in self.by_itself]
        found += [f"logged: {line}" for line in self.unexpected[:_SHOWN]]
        found += [f"left behind: {what}" for what in self.left_behind]
        found += [f"stopped with exit status {status}" for status in self.exits if status]
        return found + self.found

    def count(self, *kinds: str) -> int:
        """How many faults whose kind begins so."""
        return sum(each.fault.kind.startswith(kinds) for each in self.caused)

    def again_s(self, *kinds: str) -> list[float]:
        """Seconds until alerts of every partition flowed again; infinite where they did not before the next fault.

        Of the faults that the schedule put no other one on top of.
        """
        return [
            inf if each.all_again_s is None else each.all_again_s
            for each in self.caused
            if each.fault.kind.startswith(kinds) and not each.overlaid
        ]

    def _history(self, title: str, places: Sequence[tuple[int, int]]) -> str:
        shown = [f"{len(places)} {title}:"]
        for place in list(places)[:_SHOWN]:
            name = f"{place[0]}-{place[1]}"
            if (given_s := self.outcome.given_s.get(place)) is None:
                shown.append(f"  {name}")
                continue
            at_s = given_s - self.began_wall_s
            near = [
                f"{each.fault.kind} at {each.began_s:.1f}–{each.ended_s:.1f} s"
                for each in self.caused
                if each.began_s - _NEAR_S < at_s < each.ended_s + _NEAR_S
            ]
            shown.append(f"  {name}, on the topic at {at_s:.1f} s; near it: {', '.join(near) or 'no fault'}")
        return "\n".join(shown)

    def __str__(self) -> str:
        outcome = self.outcome
        lines = [
            f"seed {self.seed}: {self.seconds:.0f} s, {len(self.caused)} faults",
            *(f"  {_line(each)}" for each in self.caused),
            f"produced {outcome.produced}, consumed {outcome.consumed}: {outcome.alerts} alerts, "
            f"{outcome.dead_letters} dead letters, {outcome.consumed - outcome.alerts - outcome.dead_letters} neither",
            f"kills {self.count(*KILLS)}, broker restarts {self.count(*BROKER)}, rebalances {self.rebalances}",
            f"longest gap in alerts {self.gap_s:.1f} s, until {self.gap_until_s:.1f} s",
            "alerts of all partitions again, after a kill of the service: " + _spread(self.again_s(*KILLS)),
            "  after the broker's return: " + _spread(self.again_s(*BROKER)),
            "warnings and errors: " + (", ".join(f"{what} × {n}" for what, n in self.told.most_common()) or "none"),
        ]
        if self.problems:
            lines += ["PROBLEMS", *(f"- {problem}" for problem in self.problems), f"replay with: {self.replay}"]
        else:
            lines.append("nothing lost, nothing twice")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(self.seconds, 1),
            "produced": self.outcome.produced,
            "consumed": self.outcome.consumed,
            "alerts": self.outcome.alerts,
            "dead_letters": self.outcome.dead_letters,
            "wrong": {title: len(places) for title, places in self.outcome.wrong.items()},
            "problems": self.problems,
            "kills": self.count(*KILLS),
            "broker_restarts": self.count(*BROKER),
            "rebalances": self.rebalances,
            "longest_gap_s": round(self.gap_s, 2),
            "kill_to_alerts_s": _as_json(self.again_s(*KILLS)),
            "broker_to_alerts_s": _as_json(self.again_s(*BROKER)),
            "told": dict(self.told),
            "faults": [asdict(each) for each in self.caused],
            **self.more,
        }


def _line(caused: Caused) -> str:
    again = (
        ""
        if caused.all_again_s is None
        else f", alerts again after {caused.first_again_s:.1f}–{caused.all_again_s:.1f} s"
    )
    return f"{caused.began_s:7.1f} s {caused.fault.kind}, {caused.ended_s - caused.began_s:.1f} s{again}" + (
        ", another fault on top of it" if caused.overlaid else ""
    )


def _as_json(values: Sequence[float]) -> list[float | None]:
    """Ascending; null for what is infinite."""
    return [None if value == inf else round(value, 2) for value in sorted(values)]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "none measured"
    p50, p95 = percentile(values, 50), percentile(values, 95)
    return f"p50 {p50:.1f} s, p95 {p95:.1f} s, max {max(values):.1f} s of {len(values)}"


def percentile(values: Sequence[float], percent: int) -> float:
    """Of at least one value."""
    return sorted(values)[ceil(len(values) * percent / 100) - 1]
