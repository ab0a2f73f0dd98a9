"""`python -m tests.faults.service run …`: the service as it is, but on a sign a worker dies or freezes at a given place.

A sign is a file named `kill-PLACE` or `stop-PLACE` in the folder FLOWSENTRY_TEST_SIGNS; the worker that comes to the place
first takes it, by renaming it to `….PID`. Places: `before-offsets`, `before-commit` and `after-commit` of a transaction
that has messages, and `before-consumer-commit`, of offsets without a transaction.

FLOWSENTRY_TEST_POISON names a flow duration that stands for a bug: scoring a batch that has it raises.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import confluent_kafka
import numpy as np

from export.detector import Detector, Scores

__all__ = ["PLACES", "POISON_FEATURE"]

PLACES = ("before-offsets", "before-commit", "after-commit", "before-consumer-commit")
POISON_FEATURE = "flow_duration"
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}
_signs = Path(os.environ["FLOWSENTRY_TEST_SIGNS"])
_poison = os.environ.get("FLOWSENTRY_TEST_POISON")


def _obey(place: str) -> None:
    for name, number in _SIGNALS.items():
        try:
            (_signs / f"{name}-{place}").rename(_signs / f"{name}-{place}.{os.getpid()}")
        except FileNotFoundError:
            continue
        os.kill(os.getpid(), number)
        time.sleep(0.2)  # a moment passes before the signal is seen, in which no step further is to be made


class _Producer(confluent_kafka.Producer):
    _messages = 0

    def produce(self, *arguments: Any, **named: Any) -> None:
        super().produce(*arguments, **named)
        self._messages += 1

    def send_offsets_to_transaction(self, *arguments: Any, **named: Any) -> None:
        self._come_to("before-offsets")
        super().send_offsets_to_transaction(*arguments, **named)

    def commit_transaction(self, *arguments: Any, **named: Any) -> None:
        self._come_to("before-commit")
        super().commit_transaction(*arguments, **named)
        self._come_to("after-commit")
        self._messages = 0

    def abort_transaction(self, *arguments: Any, **named: Any) -> None:
        super().abort_transaction(*arguments, **named)
        self._messages = 0

    def _come_to(self, place: str) -> None:
        if self._messages and any(_signs.glob(f"*-{place}")):
            self.flush(5)  # what was produced is truly on the topic
            _obey(place)


class _Consumer(confluent_kafka.Consumer):
    def commit(self, *arguments: Any, **named: Any) -> Any:
        _obey("before-consumer-commit")
        return super().commit(*arguments, **named)


def _fail_at_poison() -> None:
    score = Detector.score

    def poisoned(self: Detector, columns: Mapping[str, np.ndarray]) -> Scores:
        if (columns.get(POISON_FEATURE, np.zeros(0)) == float(_poison or "nan")).any():
            raise RuntimeError("a bug met this flow")
        return score(self, columns)

    Detector.score = poisoned  # type: ignore[method-assign]


# At the module's level, and before the service is imported: workers are processes that import this anew.
confluent_kafka.Producer = _Producer  # type: ignore[misc]
confluent_kafka.Consumer = _Consumer  # type: ignore[misc]
if _poison:
    _fail_at_poison()

if __name__ == "__main__":
    from stream.__main__ import main

    sys.exit(main())
