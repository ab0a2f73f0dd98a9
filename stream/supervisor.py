"""Worker processes and who watches them: a dead one is started again, unless that cannot help."""

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Literal

import structlog

from export.bundle import read_bundle
from export.signing import Trust
from schemas.errors import FencedError, FlowsentryError
from schemas.params import Params
from stream.kept import KeptBundle
from stream.logs import configure_logging

__all__ = ["run_workers", "stop_on_signals"]

log = structlog.get_logger()

STOPPING = (signal.SIGTERM, signal.SIGINT)
LONG_LIVED_S = 30.0  # a worker that dies after so long has not failed at its start
_BACKOFF_S = 0.5
_BACKOFF_MOST_S = 10.0
_LOOK_EVERY_S = 0.2
_PR_SET_PDEATHSIG = 1

# What a worker tells: it has published a batch; which bundle it uses, by its hash; or, last of all, why it ends.
_Kind = Literal["progressed", "bundle", "refused", "fenced", "outage", "poison"]


def run_workers(params: Params, *, quiet: bool = False) -> int:
    """Run `stream.workers` workers until SIGTERM or SIGINT; the exit status, 0 when it was asked to stop.

    Raises:
        FlowsentryError: the bundle, the topics or the broker are not as they must be, or another instance has this
            one's name. All workers have been stopped.
    """
    return _Supervisor(params, quiet, stop_on_signals()).run()


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def handle(number: int, _: FrameType | None) -> None:
        stop.set()

    for number in STOPPING:
        signal.signal(number, handle)
    return stop


class _Worker:
    """A place among the workers, and the process that holds it now."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.bundle = ""  # the hash of the one that it uses, or used last
        self.process: SpawnProcess | None = None
        self.starts = 0
        self.fruitless = 0  # deaths in a row without a batch published
        self.due_at = 0.0
        self.verdict: tuple[_Kind, str] | None = None
        self._progressed = False
        self._started_at = 0.0
        self._told: Connection | None = None

    def start(self, params: Params, quiet: bool, kept: KeptBundle | None) -> None:
        context = multiprocessing.get_context("spawn")
        self._told, tell = context.Pipe(duplex=False)
        arguments = (params, self.index, self.starts, quiet, tell, os.getpid(), kept)
        self.process = context.Process(target=_worker_main, args=arguments, name=f"worker-{self.index}")
        with _signals_blocked():
            self.process.start()
        tell.close()
        self.starts += 1
        self._started_at, self._progressed, self.verdict = time.monotonic(), False, None

    def listen(self) -> None:
        """Take in what it has told."""
        try:
            while self._told is not None and self._told.poll():
                kind, text = self._told.recv()
                if kind == "progressed":
                    self._progressed, self.fruitless = True, 0
                elif kind == "bundle":
                    self.bundle = text
                else:
                    self.verdict = (kind, text)
        except (EOFError, OSError):  # it has ended, perhaps in the middle of a word
            self._told = None

    def bury(self) -> int | None:
        """Take note of its death: its exit status."""
        assert self.process is not None
        self.process.join()
        self.listen()
        status = self.process.exitcode
        fruitful = self._progressed or time.monotonic() - self._started_at > LONG_LIVED_S
        self.fruitless = 0 if fruitful else self.fruitless + 1
        wait_s = 0.0 if fruitful else min(_BACKOFF_MOST_S, _BACKOFF_S * 2 ** (self.fruitless - 1))
        self.due_at = time.monotonic() + wait_s
        self.process = None
        return status


class _Supervisor:
    def __init__(self, params: Params, quiet: bool, stop: threading.Event) -> None:
        self._params = params
        self._quiet = quiet
        self._stop = stop
        self._workers = [_Worker(index) for index in range(params.stream.workers)]
        self._kept: KeptBundle | None = None
        self._not_kept = ""  # the hash of one that is in use and was gone from its place already

    def run(self) -> int:
        try:
            while not self._stop.is_set():
                for worker in self._workers:
                    if worker.process is None and time.monotonic() >= worker.due_at:
                        worker.start(self._params, self._quiet, self._kept)
                sentinels = [worker.process.sentinel for worker in self._workers if worker.process is not None]
                multiprocessing.connection.wait(sentinels, timeout=_LOOK_EVERY_S)
                for worker in self._workers:
                    worker.listen()
                    self._keep(worker.bundle)
                    if worker.process is not None and not worker.process.is_alive() and not self._stop.is_set():
                        status = self._may_start_again(worker)
                        if status is not None:
                            return status
            return 0
        finally:
            self._stop_all()

    def _keep(self, hash: str) -> None:
        """Remember the bundle that workers use now, as it is at its place."""
        if not hash or hash == self._not_kept or (self._kept is not None and self._kept.hash == hash):
            return
        stream = self._params.stream
        try:
            bundle = read_bundle(stream.bundle, Trust(stream.trusted_keys, required=stream.require_signature))
        except FlowsentryError as error:
            self._not_kept = hash
            log.warning("the bundle in use is not at its place any more", bundle=hash[:12], why=str(error))
            return
        if bundle.manifest.hash == hash:
            self._kept = KeptBundle(bundle)
            log.info("bundle kept for workers that are started again", bundle=hash[:12])
        else:
            self._not_kept = hash

    def _may_start_again(self, worker: _Worker) -> int | None:
        """Of a worker that has died; the status to end with when it may not."""
        status = worker.bury()
        kind, text = worker.verdict or ("", "")
        if kind == "fenced":
            raise FencedError(text)
        if kind == "refused" and worker.starts == worker.fruitless == 1:
            raise FlowsentryError(text)
        if kind == "poison":
            log.error("a worker met a record that cannot be processed, all are stopped", worker=worker.index, why=text)
            return 1
        if worker.fruitless > self._params.stream.max_restarts:
            log.error(
                "a worker keeps dying, all are stopped",
                worker=worker.index,
                deaths=worker.fruitless,
                status=status,
                why=text,
            )
            return 1
        log.warning(
            "worker died and is started again",
            worker=worker.index,
            status=status,
            why=text,
            in_s=round(max(0.0, worker.due_at - time.monotonic()), 1),
        )
        return None

    def _stop_all(self) -> None:
        """In order, or by force when that takes too long: what is not committed is done again by whoever comes next."""
        running = [worker for worker in self._workers if worker.process is not None]
        for worker in running:
            if worker.process is not None and worker.process.pid is not None and worker.process.is_alive():
                os.kill(worker.process.pid, signal.SIGTERM)
        until = time.monotonic() + self._params.stream.stop_timeout_s
        for worker in running:
            assert worker.process is not None
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                log.warning("worker did not stop in time and is killed", worker=worker.index)
                worker.process.kill()
                worker.process.join()


def _worker_main(
    params: Params,
    index: int,
    restarts: int,
    quiet: bool,
    tell: Connection,
    supervisor: int,
    kept: KeptBundle | None,
) -> None:
    _die_with(supervisor)
    configure_logging(quiet=quiet)
    structlog.contextvars.bind_contextvars(worker=index)
    stop = stop_on_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    from stream.connection import Outage
    from stream.judge import BatchFailed
    from stream.sink import Hung
    from stream.worker import serve

    told = False

    def progressed() -> None:
        nonlocal told
        if not told:
            tell.send(("progressed", ""))
            told = True

    try:
        serve(
            params,
            index,
            stop.is_set,
            restarts=restarts,
            kept=None if kept is None else kept.bundle(),
            progressed=progressed,
            in_use=lambda hash: tell.send(("bundle", hash)),
        )
    except FencedError as error:
        _end(tell, "fenced", str(error))
    except Outage as error:
        _end(tell, "outage", str(error))
    except FlowsentryError as error:
        _end(tell, "refused", str(error))
    except BatchFailed as error:
        _end(tell, "poison", str(error))
    except Hung as error:
        log.error("worker hangs and is ended", why=str(error))
        os._exit(1)  # in order it would wait for what hangs
    except Exception as error:
        # A bug. Not in the error's own words, which may quote a flow.
        at = [f"{it.filename}:{it.lineno} {it.name}" for it in traceback.extract_tb(error.__traceback__)]
        log.error("worker failed", error=type(error).__name__, at=at)
        raise SystemExit(1) from None


def _end(tell: Connection, kind: _Kind, text: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        tell.send((kind, text[:2000]))  # below what a pipe takes at once, so never half of it
    raise SystemExit(1)


def _die_with(supervisor: int) -> None:
    """Be killed when the supervisor is, so that the next one finds names and ports free. Nothing is lost by it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it was gone before the line above
        raise SystemExit(1)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    # A worker inherits the mask: a signal that comes while it starts waits until it has its own handlers.
    multiprocessing.resource_tracker.ensure_running()  # which would unblock them
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
