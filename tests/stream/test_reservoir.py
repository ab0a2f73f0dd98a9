"""The sample of a stream: uniform over all that came or over a window, bounded, and of whole flows."""

from collections import Counter

import numpy as np
import pytest

from schemas.datasets import SCHEMAS
from stream.reservoir import RecentReservoir, Reservoir

UNSW = SCHEMAS["unsw-nb15"]


def flows(first: int, count: int) -> dict[str, np.ndarray]:
    """Flows that are their number in every feature."""
    numbers = np.arange(first, first + count)
    texts = numbers.astype(str).astype(object)
    categorical = {feature.name for feature in UNSW.categorical}
    return {name: texts if name in categorical else numbers.astype(np.float64) for name in UNSW.names}


class Clock:
    at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


def test_all_flows_are_kept_while_there_is_room() -> None:
    sample = Reservoir(UNSW, 10, np.random.default_rng(0))
    sample.add(flows(0, 4))
    sample.add(flows(4, 6))
    assert sorted(sample.draw(10)["dur"].tolist()) == list(range(10))


def test_each_flow_is_as_likely_as_any_other_in_whatever_batches_they_come() -> None:
    found: Counter[float] = Counter()
    for seed in range(2000):
        sample = Reservoir(UNSW, 5, np.random.default_rng(seed))
        for first, count in ((0, 3), (3, 7), (10, 1), (11, 29)):
            sample.add(flows(first, count))
        kept = sample.draw(5)["dur"].tolist()
        assert len(set(kept)) == 5
        found.update(kept)
    # Of 40 flows each is expected 250 times, with a standard deviation of 15.
    assert len(found) == 40 and 180 < min(found.values()) <= max(found.values()) < 320


def test_a_flow_is_kept_whole() -> None:
    sample = RecentReservoir(UNSW, 50, None, seed=1)
    for first in range(0, 1000, 100):
        sample.add(flows(first, 100))
    kept = sample.sample()
    assert tuple(kept) == UNSW.names and len(sample) == 50 and sample.seen == 1000
    for column in kept.values():
        assert column.astype(np.float32).tolist() == kept["dur"].tolist()


def test_a_window_holds_the_flows_of_its_time_each_as_likely_as_any_other() -> None:
    found: Counter[int] = Counter()
    for seed in range(300):
        clock = Clock()
        sample = RecentReservoir(UNSW, 20, 100, seed=seed, clock=clock)
        for number in range(40):  # 10 s each: first few flows, then many
            sample.add(flows(1000 * number, 10 if number < 35 else 200))
            clock.at_s += 10
        kept = sample.sample()["dur"]
        assert len(kept) == len(set(kept.tolist())) == 20
        found.update((kept // 1000).astype(int).tolist())
        assert len(sample._panes) <= 11
    assert min(found) >= 30
    of_few, of_many = sum(found[number] for number in range(30, 35)), sum(found[number] for number in range(35, 40))
    assert of_few / (of_few + of_many) == pytest.approx(50 / 1050, abs=0.02)


def test_a_window_without_flows_is_empty() -> None:
    clock = Clock()
    sample = RecentReservoir(UNSW, 20, 100, clock=clock)
    assert sample.sample() == {} and len(sample) == 0
    sample.add(flows(0, 10))
    clock.at_s += 1000
    assert sample.sample() == {} and len(sample) == 0
