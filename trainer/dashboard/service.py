"""How fast a running service goes: its `/metrics`, looked at every second by a thread."""

import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from itertools import chain, pairwise
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import ParamsError
from trainer.dashboard.subscriber import WINDOW_S

__all__ = ["Pace", "Service", "Totals", "Unreachable", "metrics_url", "paces", "read_totals"]

_TIMEOUT_S = 2.0
_MOST_BYTES = 16 << 20
_RATE_OVER_S = 5.0


class Unreachable(Exception):
    """Nothing answers there, or something else than the service does; the message says which."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a worker has counted since it was started, and the flows that wait for it (`lag`)."""

    flows: float
    dead_letters: float
    lag: float


@dataclass(frozen=True, slots=True)
class Pace:
    """Of all workers, at one moment; `time` in unix seconds."""

    time: float
    flows_per_s: float
    dead_letters: float
    lag: float


def metrics_url(given: str) -> str:
    """`http://host:9108` → `http://host:9108/metrics`.

    Raises:
        ParamsError: it is no HTTP address.
    """
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ParamsError(f"--metrics-url {given}: expected an address like http://127.0.0.1:9108")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/metrics')}/metrics"


def read_totals(url: str) -> Totals:
    """A worker's figures.

    Raises:
        Unreachable: it does not answer, or is no worker.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            text = answer.read(_MOST_BYTES).decode()
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    except urllib.error.URLError as error:
        raise Unreachable(
            f"{url} does not answer ({getattr(error.reason, 'strerror', None) or error.reason})"
        ) from None
    except (OSError, HTTPException) as error:
        raise Unreachable(f"{url} does not answer ({error})") from None
    except ValueError:
        raise Unreachable(f"{url} answers, but not with metrics") from None
    if "flowsentry_flows_total" not in sums:
        raise Unreachable(f"{url} answers, but is no `python -m stream run`")
    return Totals(
        sums["flowsentry_flows_total"], sums.get("flowsentry_dead_letters_total", 0.0), sums.get("flowsentry_lag", 0.0)
    )


def paces(looks: Sequence[tuple[float, Totals]], over_s: float = _RATE_OVER_S) -> list[Pace]:
    """One worker's totals at several times (unix seconds, ascending) → its pace at each but the first.

    The rate is that since the look `over_s` before, or since the first; a worker that was started anew counts from 0.
    """
    grown = [0.0]
    for (_, before), (_, now) in pairwise(looks):
        grown.append(grown[-1] + (now.flows - before.flows if now.flows >= before.flows else now.flows))
    found, start = [], 0
    for place in range(1, len(looks)):
        at, totals = looks[place]
        while start + 1 < place and looks[start + 1][0] <= at - over_s:
            start += 1
        span = at - looks[start][0]
        rate = (grown[place] - grown[start]) / span if span > 0 else 0.0
        found.append(Pace(at, rate, totals.dead_letters, totals.lag))
    return found


class Service:
    """Looks at every worker's `/metrics` each second."""

    def __init__(self, urls: Sequence[str], every_s: float = 1.0) -> None:
        self._urls, self._every_s = tuple(urls), every_s
        self._looks: dict[str, deque[tuple[float, Totals]]] = {url: deque(maxlen=WINDOW_S) for url in urls}
        self._silent: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)
        self._thread.start()

    def pace(self) -> tuple[list[Pace], list[str]]:
        """The pace of all workers together, look by look, and what is wrong with those that do not answer."""
        with self._lock:
            of_workers = [paces(list(looks)) for looks in self._looks.values()]
            silent = list(self._silent.values())
        moments: dict[float, list[Pace]] = {}
        for pace in chain.from_iterable(of_workers):
            moments.setdefault(pace.time, []).append(pace)
        together = [
            Pace(
                time=moment,
                flows_per_s=sum(it.flows_per_s for it in found),
                dead_letters=sum(it.dead_letters for it in found),
                lag=sum(it.lag for it in found),
            )
            for moment, found in sorted(moments.items())
        ]
        return together, silent

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            now = time.time()  # one for all, so that they can be added up
            answers = {url: _answer(url) for url in self._urls}
            with self._lock:
                self._silent = {url: answer for url, answer in answers.items() if isinstance(answer, str)}
                for url, answer in answers.items():
                    if isinstance(answer, Totals):
                        self._looks[url].append((now, answer))


def _answer(url: str) -> Totals | str:
    try:
        return read_totals(url)
    except Unreachable as error:
        return str(error)
