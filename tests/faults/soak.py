"""`python -m tests.faults.soak --minutes 30 --seed 1`: half the top rate for a long time, with a fault every few seconds.

Besides what every run of the harness checks, memory must not grow, and alerts must flow again soon. Memory is that of an
instance `steady` of one worker, which meets every fault but those that end a process, so that its medians around minute 3
and at the end can be compared; an outage may have it begin anew, then it is the process that lived longest. Workers of `main`
are killed all the time; those older than half a minute in the first half of the run are compared with those in the second.
"""

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from tests.faults.harness import Harness
from tests.faults.kafka import FaultyKafka
from tests.faults.report import BROKER, KILLS, Report, percentile
from tests.faults.samples import Sample, most, typical
from tests.faults.schedule import Fault, schedule

__all__ = ["main"]

_CALIBRATION_S = 20.0
_CALIBRATION_WAITING = 4000
# Else it commits 20 times a second, and of a long log of commits Kafka 4.3 forgets the end (docs/reliability.md).
_STEADY_WAIT_MS = 500
_MARK_S = 180.0
_WINDOW_S = 60.0
_GROWN_UP_S = 30.0
_CALM_SHARE = 0.1
_LINE_EVERY_S = 15.0
_WATCHDOG_S = 900.0
_DRAIN_S = 600.0
_GROWTH = 1.1
_KILL_P95_S = 10.0
_BROKER_S = 15.0
# What half an hour must have had at least.
_WHOLE_S = 1800.0
_LEAST = {"kills": 50, "broker restarts": 10, "rebalances": 20}


def soak(kafka: FaultyKafka, folder: Path, *, seconds: float, seed: int, rate: float | None, replay: str) -> Report:
    """One soak; its `problems` include those of memory and of recovery."""
    with Harness(kafka, folder, seed=seed, rate=20.0, most_waiting=_CALIBRATION_WAITING, replay=replay) as harness:
        steady = harness.add("steady", 1, "--max-wait-ms", str(_STEADY_WAIT_MS))
        steady.start()
        harness.feed.start()
        harness.flowing()
        harness.until(lambda: "partitions assigned" in steady.log_file.read_text(), "partitions of the steady instance")
        top = _top_rate(harness)
        harness.feed.rate = top / 2 if rate is None else rate
        print(f"top rate {top:.0f} flows/s; fed at {harness.feed.rate:.0f} flows/s", flush=True)
        harness.until(
            lambda: harness.feed.alerts_due - harness.watch.alerts < harness.feed.rate,
            "the end of the backlog",
            _DRAIN_S,
        )
        harness.feed.most_waiting = None
        began_s = time.monotonic() - harness.began_s
        harness.on_look = _Progress(harness, began_s, seconds)
        _cause_all(harness, schedule(seed), until_s=began_s + seconds * (1 - _CALM_SHARE))
        harness.pause(began_s + seconds - (time.monotonic() - harness.began_s))
        ended_s = time.monotonic() - harness.began_s
        report = harness.finish(_DRAIN_S)
    memory = _memory(harness.samples, began_s, ended_s)
    report.more |= {"top_rate": round(top), "rate": round(harness.feed.rate), "memory": memory}
    is_whole = seconds >= _WHOLE_S
    report.found += [*_memory_problems(memory, is_whole), *_recovery_problems(report)]
    if is_whole:
        counts = (report.count(*KILLS), report.count(*BROKER), report.rebalances)
        had = dict(zip(_LEAST, counts, strict=True))
        report.found += [f"only {had[what]} {what}, not {least}" for what, least in _LEAST.items() if had[what] < least]
    return report


def _top_rate(harness: Harness) -> float:
    """Flows/s with a backlog that never ends."""
    rate, harness.feed.rate = harness.feed.rate, 20_000.0
    harness.pause(_CALIBRATION_S / 4)
    alerts, at_s = harness.watch.alerts, time.monotonic()
    harness.pause(_CALIBRATION_S)
    alerts_s = (harness.watch.alerts - alerts) / (time.monotonic() - at_s)
    harness.feed.rate = rate
    return alerts_s * harness.feed.sent / harness.feed.alerts_due


def _cause_all(harness: Harness, faults: Iterable[Fault], until_s: float) -> None:
    for fault in faults:
        if time.monotonic() - harness.began_s + fault.after_s + fault.lasts_s > until_s:
            return
        harness.cause(fault)


class _Progress:
    """A line now and then."""

    def __init__(self, harness: Harness, began_s: float, seconds: float) -> None:
        self._harness, self._began_s, self._seconds = harness, began_s, seconds
        self._next_s = 0.0

    def __call__(self) -> None:
        harness = self._harness
        now_s = time.monotonic() - harness.began_s - self._began_s
        if now_s < self._next_s:
            return
        self._next_s = now_s + _LINE_EVERY_S
        kinds = [each.fault.kind for each in harness.caused]
        kills, brokers = (sum(kind.startswith(which) for kind in kinds) for which in (KILLS, BROKER))
        waiting = harness.feed.alerts_due - harness.watch.alerts
        print(
            f"{now_s:5.0f} of {self._seconds:.0f} s: {len(kinds)} faults ({kills} kills, {brokers} broker restarts), "
            f"{harness.feed.sent} flows, {harness.watch.alerts} alerts, {waiting} to come; longest gap "
            f"{harness.watch.gap_s:.1f} s; last fault: {kinds[-1] if kinds else 'none'}",
            flush=True,
        )


def _memory(samples: list[Sample], began_s: float, ended_s: float) -> dict[str, Any]:
    """Medians of resident memory (MB), descriptors and threads, early and late, in both ways of looking at it; and how many of
    the latter two there were at most by then."""
    steady = _of_longest([each for each in samples if each.instance == "steady" and began_s < each.at_s <= ended_s])
    first_s, last_s = (steady[0].at_s, steady[-1].at_s) if steady else (began_s, ended_s)
    mark_s = min(first_s + _MARK_S, (first_s + last_s) / 2)
    grown_up = [each for each in samples if each.instance == "main" and each.age_s > _GROWN_UP_S]
    middle_s = (began_s + ended_s) / 2
    early = [each for each in steady if abs(each.at_s - mark_s) < _WINDOW_S / 2]
    first_half = [each for each in grown_up if began_s < each.at_s < middle_s]
    return {
        "steady": {
            "watched_s": round(last_s - first_s),
            "at_3_minutes": typical(early),
            "most_by_then": most(each for each in steady if each.at_s < mark_s + _WINDOW_S / 2),
            "at_the_end": typical(each for each in steady if last_s - _WINDOW_S < each.at_s),
        },
        "main, workers older than 30 s": {
            "at_3_minutes": typical(first_half),
            "most_by_then": most(first_half),
            "at_the_end": typical(each for each in grown_up if middle_s <= each.at_s <= ended_s),
        },
    }


def _of_longest(samples: list[Sample]) -> list[Sample]:
    """Those of the process that was seen most often."""
    counts = Counter(each.pid for each in samples)
    return [each for each in samples if each.pid == max(counts, key=lambda pid: counts[pid])]


def _memory_problems(memory: dict[str, Any], is_whole: bool) -> list[str]:
    found = []
    for who, seen in memory.items():
        if seen["at_3_minutes"] is None or seen["at_the_end"] is None:
            unknown = f"{who}: no samples early or late, so nothing can be said of its memory"
            if is_whole:
                found.append(unknown)
            else:
                print(unknown)
            continue
        rss, (rss_end, descriptors_end, threads_end) = seen["at_3_minutes"][0], seen["at_the_end"]
        # The client opens a connection to a broker for each of the broker's roles when it needs it, and closes idle ones.
        descriptors, threads = seen["most_by_then"]
        if rss_end > _GROWTH * rss:
            found.append(f"{who}: resident memory grew from {rss:.0f} to {rss_end:.0f} MB")
        if descriptors_end > descriptors:
            found.append(f"{who}: descriptors grew from {descriptors:g} to {descriptors_end:g}")
        if threads_end > threads:
            found.append(f"{who}: threads grew from {threads:g} to {threads_end:g}")
    return found


def _recovery_problems(report: Report) -> list[str]:
    found = []
    kills, brokers = report.again_s(*KILLS), report.again_s(*BROKER)
    if kills and (p95 := percentile(kills, 95)) > _KILL_P95_S:
        found.append(f"alerts flow again {p95:.1f} s after a kill (p95), not within {_KILL_P95_S:.0f} s")
    if brokers and max(brokers) > _BROKER_S:
        found.append(f"alerts flow again {max(brokers):.1f} s after a broker's return, not within {_BROKER_S:.0f} s")
    return found


def _give_up(number: int, frame: FrameType | None) -> None:
    raise TimeoutError("the soak takes too long and is ended")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M")
    parser.add_argument("--seed", type=int, help="default: a random one, which is printed")
    parser.add_argument("--rate", type=float, metavar="FLOWS_PER_S", help="default: half the top rate, measured first")
    parser.add_argument("--report", type=Path, metavar="FILE", help="JSON to write")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the service's and the broker's logs there")
    arguments = parser.parse_args()
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    replay = f"make soak MINUTES={arguments.minutes:g} SEED={seed}"
    print(f"soak of {arguments.minutes:g} minutes, seed {seed}: {replay}", flush=True)
    signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, arguments.minutes * 60 + _WATCHDOG_S)
    with TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with FaultyKafka(folder / "kafka") as kafka:
            seconds = arguments.minutes * 60
            report = soak(kafka, folder, seconds=seconds, seed=seed, rate=arguments.rate, replay=replay)
    print(report)
    print(json.dumps(report.more["memory"], indent=1))
    if arguments.report is not None:
        arguments.report.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
