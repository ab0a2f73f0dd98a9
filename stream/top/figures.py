"""What a service of one or more workers did lately, from what its workers said one moment after the other."""

import math
from collections import deque
from collections.abc import Mapping

from stream.top.scrape import Labels, Scrape

__all__ = ["WINDOW_S", "Figures", "quantile"]

WINDOW_S = 10.0
_COUNTING = ("_total", "_bucket", "_sum", "_count")
Sample = tuple[str, Labels]
Growth = dict[Sample, float]


class Figures:
    """Levels are of the last moment. Rates, means and quantiles are over the last `WINDOW_S` seconds, of all workers."""

    def __init__(self) -> None:
        self.scrapes: dict[str, Scrape] = {}
        """By URL, of the workers that answer."""
        self.silent: dict[str, str] = {}
        """URL → why it does not."""
        self._last: dict[str, Scrape] = {}
        self._grown: dict[str, Growth] = {}
        self._seen: deque[tuple[float, dict[str, Growth]]] = deque()

    def observe(self, seconds: float, answers: Mapping[str, Scrape | str]) -> None:
        """Take in what each URL said, or why it said nothing."""
        self.scrapes = {url: answer for url, answer in answers.items() if isinstance(answer, Scrape)}
        self.silent = {url: answer for url, answer in answers.items() if isinstance(answer, str)}
        for url, scrape in self.scrapes.items():
            if url in self._last:
                self._grown[url] = _grown(self._grown[url], self._last[url], scrape)
            else:
                self._grown[url] = {}
            self._last[url] = scrape
        self._seen.append((seconds, dict(self._grown)))
        while len(self._seen) > 2 and self._seen[1][0] <= seconds - WINDOW_S:
            self._seen.popleft()

    def total(self, name: str) -> float:
        """The sum over labels and workers."""
        return sum(scrape.total(name) for scrape in self.scrapes.values())

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """The same by the values of some labels, those that are not 0, the largest first."""
        totals: dict[tuple[str, ...], float] = {}
        for scrape in self.scrapes.values():
            for given, value in scrape.of(name):
                key = tuple(given.get(label, "") for label in labels)
                totals[key] = totals.get(key, 0.0) + value
        return dict(sorted(((key, value) for key, value in totals.items() if value), key=lambda item: -item[1]))

    def per_second(self, name: str, url: str | None = None) -> float:
        """How fast a counter grows, of all workers or of one."""
        span = self._seen[-1][0] - self._seen[0][0]
        return self.growth(name, url=url) / span if span > 0 else 0.0

    def growth(self, name: str, url: str | None = None, **labels: str) -> float:
        """By how much a counter has grown, of all workers or of one; of some labels' values alone, if any are given."""
        (_, before), (_, after) = self._seen[0], self._seen[-1]
        wanted = labels.items()
        return sum(
            value - before.get(worker, {}).get((found, given), 0.0)
            for worker, growth in after.items()
            if url in (None, worker)
            for (found, given), value in growth.items()
            if found == name and wanted <= dict(given).items()
        )

    def mean(self, histogram: str, **labels: str) -> float:
        """Of what a histogram observed; NaN if it was nothing."""
        count = self.growth(f"{histogram}_count", **labels)
        return self.growth(f"{histogram}_sum", **labels) / count if count else math.nan

    def busy_share(self, histogram: str, **labels: str) -> float:
        """Of the workers' time, in what a histogram of seconds observed."""
        span = self._seen[-1][0] - self._seen[0][0]
        seconds = self.growth(f"{histogram}_sum", **labels)
        return seconds / (span * len(self.scrapes)) if span > 0 and self.scrapes else 0.0

    def quantile(self, share: float, histogram: str) -> float:
        """As Prometheus's histogram_quantile; infinite beyond the last bound, NaN if nothing was observed."""
        bounds = {
            dict(labels)["le"]
            for growth in self._seen[-1][1].values()
            for name, labels in growth
            if name == f"{histogram}_bucket"
        }
        return quantile(share, {float(bound): self.growth(f"{histogram}_bucket", le=bound) for bound in bounds})


def quantile(share: float, counts: Mapping[float, float]) -> float:
    """Of observations told by their counts up to each bound, evenly spread between two bounds."""
    bounds = sorted(counts)
    if not bounds or not counts[bounds[-1]]:
        return math.nan
    wanted = share * counts[bounds[-1]]
    low, below = 0.0, 0.0
    for bound in bounds:
        if counts[bound] >= wanted:
            return bound if math.isinf(bound) else low + (bound - low) * (wanted - below) / (counts[bound] - below)
        low, below = bound, counts[bound]
    return math.nan


def _grown(grown: Growth, before: Scrape, now: Scrape) -> Growth:
    """With what was counted since; a worker that is started anew counts from 0."""
    whole = dict(grown)
    for key, value in now.samples.items():
        if key[0].endswith(_COUNTING):
            last = before.samples.get(key, 0.0)
            whole[key] = whole.get(key, 0.0) + (value - last if value >= last else value)
    return whole
