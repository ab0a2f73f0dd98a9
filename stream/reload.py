"""A new bundle takes over while the service runs: noticed, verified and warmed up beside the loop, tried, then switched to.

A thread looks at the bundle's place, a directory or a link to one. What has changed and then stayed the same for one look
is loaded; the loop is never waited for, and never waits. It tries the new judge on a batch that the old one has judged
and published, and goes on with the new one from the next batch. Whatever is wrong with a bundle, the old one goes on.
"""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import structlog

from export.bundle import Manifest, manifest_hash, stamp
from export.detector import Detector, Scores
from export.signing import ANYONE, Trust
from export.thresholds import Policy
from schemas.errors import BundleError, FlowsentryError
from stream.batch import Batch
from stream.decode import Decoder
from stream.detect import detect

__all__ = ["JudgeLike", "Reloader", "Shadow", "check_same_schema", "shadow"]

log = structlog.get_logger()

_CLOSE_TIMEOUT_S = 1.0


class JudgeLike(Protocol):
    """What judges a batch: a bundle's detector and what goes with it."""

    @property
    def detector(self) -> Detector: ...

    @property
    def decoder(self) -> Decoder: ...

    @property
    def policy(self) -> Policy: ...


J = TypeVar("J", bound=JudgeLike)


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a new judge made of a batch: the rows that it scored, and those on which its verdict is not the old one's."""

    rows: int
    differing: int


class Reloader(Generic[J]):
    """Watches a bundle's place and has the next judge ready."""

    def __init__(
        self,
        place: Path,
        *,
        current: Manifest,
        load_judge: Callable[[Path], J],
        on_refusal: Callable[[], None],
        on_takeover: Callable[[Manifest], None],
        trust: Trust = ANYONE,
        every_s: float = 1.0,
    ) -> None:
        """
        Args:
            current: of the bundle in use.
            load_judge: opens, verifies and warms up the bundle in a (real) directory; raises BundleError to refuse it.
            on_refusal: called once for each bundle that is refused.
            on_takeover: called with the bundle that is in use from now on.
            trust: a bundle that was refused is looked at again when the file of keys changes.
            every_s: seconds between looks, and how long a place must have stayed the same.
        """
        self._place = place
        self._current = current
        self._load_judge = load_judge
        self._on_refusal = on_refusal
        self._on_takeover = on_takeover
        self._trust = trust
        self._every_s = every_s
        self._seen: object = None  # at the last look
        self._handled: object = None  # loaded, refused or found to be the current one
        self._waiting: J | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reloader", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching; a load in progress is left to itself."""
        self._closing.set()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def successor(self, judge: J, batch: Batch) -> J:
        """The judge of the next batch: that of this one, unless another is ready and stands the test of this batch.

        Call it when the batch has been judged and published, so that its alerts do not wait and what the old judge could
        not process is not blamed on the new one.
        """
        new = self.candidate()
        if new is None:
            return judge
        try:
            tried = shadow(judge, new, batch)
        except BundleError as error:
            self.refuse(new, str(error))
            return judge
        if tried.rows == 0 or not self.accept(new):
            return judge
        log.info(
            "bundle takes over",
            old=judge.detector.manifest.hash[:12],
            new=new.detector.manifest.hash[:12],
            bundle=f"{new.detector.manifest.name} {new.detector.manifest.version}",
            signature=str(new.detector.manifest.signature),
            threshold=new.policy.threshold,
            rows=tried.rows,
            verdicts_differing=tried.differing,
        )
        return new

    def candidate(self) -> J | None:
        """The judge that is ready to be tried, if there is one."""
        with self._lock:
            return self._waiting

    def accept(self, judge: J) -> bool:
        """Take `judge` for the current one; False if the place has changed meanwhile and it is out of date."""
        with self._lock:
            if self._waiting is not judge:
                return False
            self._waiting = None
            self._current = judge.detector.manifest
        self._on_takeover(judge.detector.manifest)
        return True

    def refuse(self, judge: J, why: str) -> None:
        """Never try `judge` again."""
        with self._lock:
            if self._waiting is not judge:
                return
            self._waiting = None
        self._refused(why)

    def look(self) -> None:
        """One look at the place; what has stayed as it was at the last one, and is not handled yet, is loaded."""
        seen = (stamp(self._place), self._trust.stamp())
        stable, self._seen = seen == self._seen, seen
        if seen == self._handled:
            return
        with self._lock:
            self._waiting = None  # it is no longer what is there
        if not stable:
            return
        self._handled = seen
        try:
            judge = self._load(Path(os.path.realpath(self._place)))
        except FlowsentryError as error:
            self._refused(str(error))
        except Exception as error:  # whatever a bundle does to its loader, the old one goes on
            self._refused(f"{type(error).__name__}: {error}")
        else:
            with self._lock:
                self._waiting = judge

    def _watch(self) -> None:
        while not self._closing.wait(self._every_s):
            self.look()

    def _load(self, directory: Path) -> J | None:
        if manifest_hash(directory) == self._current.hash:
            return None
        judge = self._load_judge(directory)
        check_same_schema(self._current, judge.detector.manifest, directory)
        return judge

    def _refused(self, why: str) -> None:
        self._on_refusal()  # before it is told: who reads of it sees it counted
        log.error("bundle refused", why=why, goes_on_with=self._current.hash[:12])


def check_same_schema(current: Manifest, other: Manifest, directory: Path) -> None:
    """Whether the bundle in `directory` judges the flows that the current one judges.

    Raises:
        BundleError: it is of another data set, or of another version of its schema.
    """
    ours, theirs = current.schema, other.schema
    if (theirs.name, theirs.fingerprint()) != (ours.name, ours.fingerprint()):
        raise BundleError(f"{directory}: is of data set {theirs.name}, the service was started for {ours.name}")


def shadow(old: JudgeLike, new: JudgeLike, batch: Batch) -> Shadow:
    """Have `new` judge a batch that `old` has judged, publishing nothing.

    A batch of which `old` can judge nothing (poison, of which the service has told) tries nothing: 0 rows.

    Raises:
        BundleError: `new` fails, or gives scores that are no probabilities, or that no alert can be made of.
    """
    try:
        decoded = old.decoder.decode(batch.values)
        scored = old.detector.score(decoded.columns)
        before = old.policy.alerts(scored.score, scored.novelty)
    except Exception:
        return Shadow(0, 0)
    rows = len(decoded.rows)
    if rows == 0:
        return Shadow(0, 0)
    try:
        scores = new.detector.score(decoded.columns)
        _check(scores, rows)
        after = new.policy.alerts(scores.score, scores.novelty)
        detect(batch, decoded, scores, after, new.detector, new.policy)
    except BundleError:
        raise
    except Exception as error:  # onnxruntime raises its own classes, which share no public base
        raise BundleError(f"cannot judge {rows} rows of a batch: {type(error).__name__}") from error
    return Shadow(rows, int(np.count_nonzero(before != after)))


def _check(scores: Scores, rows: int) -> None:
    # A softmax of float32 may be a little more than 1.
    for name, most in (("score", 1.0), ("family_probability", 1 + 1e-5), ("attention", 1 + 1e-5)):
        values = getattr(scores, name)
        if len(values) != rows or not ((values >= 0) & (values <= most)).all():
            raise BundleError(f"{name} of {rows} rows of a batch: not {rows} probabilities")
    for name in ("novelty", "surprise"):
        values = getattr(scores, name)
        if values is not None and (len(values) != rows or not ((values >= -1e-5) & np.isfinite(values)).all()):
            raise BundleError(f"{name} of {rows} rows of a batch: not {rows} surprises")
