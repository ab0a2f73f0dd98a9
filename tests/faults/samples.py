"""Memory, descriptors and threads of the service's processes, sampled while it runs."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import psutil

from tests.faults.running import Running

__all__ = ["Sample", "most", "sample", "typical"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one time. `at_s` counts from the run's begin, `age_s` from the process's."""

    at_s: float
    instance: str
    pid: int
    age_s: float
    rss_mb: float
    descriptors: int
    threads: int


def sample(instances: Iterable[Running], began_s: float) -> list[Sample]:
    """The workers of every instance now."""
    found = []
    for instance in instances:
        for pid in instance.workers():
            try:
                process = psutil.Process(pid)
                with process.oneshot():
                    found.append(
                        Sample(
                            at_s=time.monotonic() - began_s,
                            instance=instance.name,
                            pid=pid,
                            age_s=time.time() - process.create_time(),
                            rss_mb=process.memory_info().rss / 1e6,
                            descriptors=process.num_fds(),
                            threads=process.num_threads(),
                        )
                    )
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
                continue
    return found


def typical(samples: Iterable[Sample]) -> tuple[float, float, float] | None:
    """Medians of resident memory (MB), descriptors and threads; None without samples."""
    chosen = list(samples)
    if not chosen:
        return None
    return (
        median(each.rss_mb for each in chosen),
        median(each.descriptors for each in chosen),
        median(each.threads for each in chosen),
    )


def most(samples: Iterable[Sample]) -> tuple[int, int] | None:
    """The most descriptors and threads that a process had; None without samples."""
    chosen = list(samples)
    if not chosen:
        return None
    return max(each.descriptors for each in chosen), max(each.threads for each in chosen)
