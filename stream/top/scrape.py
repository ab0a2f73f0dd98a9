"""A running worker as its HTTP tells it: the samples of `/metrics`, and whether it is ready."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import ParamsError

__all__ = ["Scrape", "Unreachable", "metrics_url", "neighbours", "read_metrics", "scrape"]

_TIMEOUT_S = 2.0
_MOST_BYTES = 16 * 1024 * 1024
_OF_A_WORKER = "flowsentry_flows_total"

Labels = tuple[tuple[str, str], ...]


class Unreachable(Exception):
    """Nothing answers there, or something else does; the message says which."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What a worker said at one moment."""

    samples: Mapping[tuple[str, Labels], float]
    problems: tuple[str, ...] = ()
    """Why it is not ready."""
    _by_name: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for (name, labels), value in self.samples.items():
            self._by_name.setdefault(name, []).append((dict(labels), value))

    def of(self, name: str) -> Iterable[tuple[dict[str, str], float]]:
        """Labels and value of each sample of a name."""
        return self._by_name.get(name, [])

    def total(self, name: str) -> float:
        """The sum over labels."""
        return sum(value for _, value in self.of(name))


def metrics_url(given: str) -> str:
    """`http://host:9108` → `http://host:9108/metrics`.

    Raises:
        ParamsError: it is no HTTP address.
    """
    try:
        parts = urlsplit(given)
        if parts.scheme not in ("http", "https") or not parts.hostname or (parts.port is not None and not parts.port):
            raise ValueError
    except ValueError:
        raise ParamsError(f"--url {given}: expected an address like http://127.0.0.1:9108") from None
    path = parts.path.rstrip("/").removesuffix("/metrics")
    return f"{parts.scheme}://{parts.netloc}{path}/metrics"


def neighbours(url: str, workers: int) -> list[str]:
    """The addresses of a service's workers, whose ports follow each other."""
    parts = urlsplit(url)
    first = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.netloc.removesuffix(f":{parts.port}")
    return [url] + [f"{parts.scheme}://{host}:{first + number}{parts.path}" for number in range(1, workers)]


def read_metrics(url: str) -> dict[tuple[str, Labels], float]:
    """Name and labels → value.

    Raises:
        Unreachable: nothing answers, or not with metrics.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            text = answer.read(_MOST_BYTES).decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    except urllib.error.HTTPError as error:
        error.close()
        raise Unreachable(f"answers {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise Unreachable(f"does not answer ({_why(error.reason)})") from None
    except (OSError, HTTPException) as error:
        raise Unreachable(f"does not answer ({_why(error)})") from None
    except ValueError:
        raise Unreachable("answers, but not with metrics") from None


def scrape(url: str) -> Scrape:
    """A worker's metrics and readiness.

    Raises:
        Unreachable: nothing answers, or it is no worker.
    """
    samples = read_metrics(url)
    if (_OF_A_WORKER, ()) not in samples:
        raise Unreachable(f"answers, but without {_OF_A_WORKER}: it is no `python -m stream run`")
    return Scrape(samples, _problems(url.removesuffix("/metrics") + "/ready"))


def _problems(url: str) -> tuple[str, ...]:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S):
            return ()
    except urllib.error.HTTPError as error:
        with error:
            try:
                return tuple(map(str, json.loads(error.read(_MOST_BYTES))["problems"]))
            except (ValueError, KeyError, TypeError):
                return (f"/ready answers {error.code}",)
    except (OSError, HTTPException) as error:
        return (f"/ready does not answer ({_why(error)})",)


def _why(error: object) -> str:
    """`Connection refused`, not `[Errno 111] Connection refused`."""
    return str((isinstance(error, OSError) and error.strerror) or error)
