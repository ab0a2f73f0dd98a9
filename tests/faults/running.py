"""The service as an operator runs it: a command that is started again whenever it ends, its processes and its log."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Ended", "Running", "without_unborn"]

_STOP_S = 60.0
_TRACEBACK = "Traceback (most recent call last):"
_CUT_SHORT = ("_pickle.UnpicklingError: pickle data was truncated", "EOFError: Ran out of input")


@dataclass(frozen=True, slots=True)
class Ended:
    """A process of the service that ended although nobody had ended it."""

    at_s: float
    what: str


class Running:
    """One instance: `python -m tests.faults.service run …` in a process group of its own.

    Call `look` often: it starts the command again if it has ended, as systemd would, and notes what ended by itself.
    """

    def __init__(self, name: str, options: Sequence[str], *, folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.by_itself: list[Ended] = []
        self.left_behind: list[str] = []
        self._command = [sys.executable, "-m", "tests.faults.service", "run", "--instance", name, *options]
        self.signs = folder / f"{name}.signs"
        self.signs.mkdir()
        self.environment: dict[str, str] = {
            **{key: value for key, value in os.environ.items() if key != "KAFKA_BOOTSTRAP_SERVERS"},
            **environment,
            "FLOWSENTRY_TEST_SIGNS": str(self.signs),
        }
        self.log_file = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: list[int] = []
        self._known: set[int] = set()
        self._doomed: set[int] = set()

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
                start_new_session=True,
            )
        self._groups.append(self._process.pid)
        self._known = set()

    def look(self) -> None:
        """Take notice of what has ended."""
        if self._process is None:
            return
        status = self._process.poll()
        present = set(self.workers()) if status is None else set()
        for pid in self._known - present - self._doomed:
            if any(self.signs.glob(f"*.{pid}")):
                continue  # it has just obeyed a sign
            self.by_itself.append(Ended(time.monotonic(), f"worker {pid} of {self.name}"))
        self._known = present
        if status is not None:
            if self._process.pid not in self._doomed:
                self.by_itself.append(Ended(time.monotonic(), f"{self.name} (status {status})"))
            self.start()

    def workers(self) -> list[int]:
        """Process ids of the workers that run now."""
        try:
            # Of all ways the cheapest, and it is asked for ten times a second: psutil looks at every process there is.
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            return []
        return sorted(pid for pid in map(int, children) if self._is_worker(pid))

    @staticmethod
    def _is_worker(pid: int) -> bool:
        try:
            # What has only been forked still has the words of whoever forked it, the tracker of resources too.
            return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    def send(self, pid: int, number: int) -> None:
        """A signal to a worker or to the command itself; one that ends it is noted as ours."""
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self._doomed.add(pid)
        if pid == self.pid:
            self._doomed |= self._known | set(self.workers())
        os.kill(pid, number)

    def doom(self, pid: int) -> None:
        """Note that a process ends by a sign of ours."""
        self._doomed.add(pid)

    def stop(self) -> int:
        """SIGTERM; the exit status. It must end in bounded time, and leave no process behind."""
        assert self._process is not None
        self.send(self.pid, signal.SIGTERM)
        try:
            return self._process.wait(_STOP_S)
        finally:
            self._process = None

    def end(self) -> None:
        """Kill whatever is left of it; what had outlived its command is noted."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for process in self._members():
            self.left_behind.append(f"process {process.pid} of {self.name}")
            process.kill()

    def _members(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) in self._groups and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        return found

    def log_lines(self) -> list[dict[str, Any] | str]:
        """Everything that it has logged; a line that is no JSON object stays a text."""
        if not self.log_file.exists():
            return []
        lines: list[dict[str, Any] | str] = []
        for line in self.log_file.read_text(errors="replace").splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                lines.append(line)
        return lines

    def told(self) -> Counter[str]:
        """How often it logged each error and warning."""
        lines = [line for line in self.log_lines() if isinstance(line, dict)]
        return Counter(f"{line['level']}: {line['event']}" for line in lines if line["level"] in ("warning", "error"))

    def unexplained(self) -> list[Ended]:
        """What ended by itself, but for workers of which the service says why and that it starts them again.

        In an outage of Kafka a member of the group can be fenced by itself, and the client library can hang, or forget
        where the brokers were.
        """
        lines = [line for line in self.log_lines() if isinstance(line, dict)]
        explained = sum(
            line["event"] == "worker hangs and is ended" or "Kafka was away" in str(line.get("why")) for line in lines
        )
        workers = [end for end in self.by_itself if end.what.startswith("worker")]
        return [end for end in self.by_itself if end not in workers[:explained]]

    def unexpected(self) -> list[str]:
        """Lines that no service should write: tracebacks, and what is no log line.

        But for Python's own words in a worker whose supervisor was killed while it told it what to do.
        """
        return [
            str(line)
            for line in without_unborn(self.log_lines())
            if not isinstance(line, dict) or line["event"] == "worker failed"
        ]


def without_unborn(lines: Sequence[dict[str, Any] | str]) -> list[dict[str, Any] | str]:
    """The lines of a log without tracebacks of processes that never got to our code: what `multiprocessing` had to tell
    them was cut short."""
    kept: list[dict[str, Any] | str] = []
    for line in lines:
        begins = [place for place, before in enumerate(kept) if before == _TRACEBACK]
        if line in _CUT_SHORT and begins and any("in spawn_main" in str(it) for it in kept[begins[-1] :]):
            del kept[begins[-1] :]
        else:
            kept.append(line)
    return kept
