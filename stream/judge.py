"""What decides over flows, exchanged as one: a bundle's detector, the decoder of its schema, the threshold."""

import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import structlog
from polars.exceptions import PanicException

from export.detector import Detector, Scores
from export.thresholds import Policy
from schemas.dead_letter import Reason, Reject
from stream.alerts import Alerts
from stream.batch import Batch, FlowRecord
from stream.decode import Decoder
from stream.detect import detect
from stream.drift import DriftWatch
from stream.sink import Outgoing

__all__ = ["BatchFailed", "Judge", "Judged", "OnPoison", "Scored", "judge_or_bisect"]

log = structlog.get_logger()

OnPoison = Literal["stop", "dead-letter"]
Stage = Callable[[str], AbstractContextManager[None]]


class Scored(NamedTuple):
    """Feature columns of flows, what the detector says of them, and which are alerts: bool[B]."""

    columns: Mapping[str, np.ndarray]
    scores: Scores
    alerting: np.ndarray


class BatchFailed(Exception):
    """A bug met a record; it is logged, nothing of its batch was published, and its offsets are not committed."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of a batch or its parts: the alerts of each, and the records that are set aside. All other records were found
    benign. `scored` is what drift is measured on, where it is measured."""

    alerts: list[Alerts]
    rejects: list[tuple[FlowRecord, Reject]]
    scored: list[Scored] = field(default_factory=list)


class Judge:
    """A detector with its decoder and policy, and who watches for drift from its bundle. `stage` times what it does, by name."""

    def __init__(
        self, detector: Detector, decoder: Decoder, policy: Policy, stage: Stage, drift: DriftWatch | None = None
    ) -> None:
        self.detector = detector
        self.decoder = decoder
        self.policy = policy
        self.drift = drift
        self._stage = stage

    def judge(self, batch: Batch) -> Judged:
        """Decode, score, detect. It neither reads nor publishes, so a batch can be judged again, or in parts."""
        with self._stage("decode"):
            decoded = self.decoder.decode(batch.values)
        with self._stage("score"):
            scores = self.detector.score(decoded.columns)
        with self._stage("detect"):
            alerting = self.policy.alerts(scores.score, scores.novelty)
            alerts = [detect(batch, decoded, scores, alerting, self.detector, self.policy)]
        scored = [] if self.drift is None else [Scored(decoded.columns, scores, alerting)]
        return Judged(alerts, [_rejected(batch.records[reject.row], reject) for reject in decoded.rejects], scored)


def _rejected(record: FlowRecord, reject: Reject) -> tuple[FlowRecord, Reject]:
    if record.undecodable:
        reject = Reject(reject.row, Reason.UNDECODABLE, record.undecodable)
    return record, reject


def judge_or_bisect(
    judge: Judge, batch: Batch, on_poison: OnPoison, encode: Callable[[Judged], list[Outgoing]]
) -> tuple[Judged, list[Outgoing]]:
    """Judge a batch and encode what came of it; where a bug makes that fail, do its halves, down to the record that it
    fails on.

    That record is poison: with `dead-letter` it is set aside and all others are judged, with `stop` all of it stops.

    Raises:
        BatchFailed: `on_poison` is `stop` and a single record cannot be judged.
    """
    try:
        judged = judge.judge(batch)
        return judged, encode(judged)
    except (Exception, PanicException) as error:  # the latter, of polars, is no Exception
        if len(batch) > 1:
            _log("batch failed and is judged in halves", batch, error)
            middle = len(batch) // 2
            first, messages = judge_or_bisect(judge, Batch(batch.records[:middle]), on_poison, encode)
            second, more = judge_or_bisect(judge, Batch(batch.records[middle:]), on_poison, encode)
            judged = Judged(first.alerts + second.alerts, first.rejects + second.rejects, first.scored + second.scored)
            return judged, messages + more
        [record] = batch.records
        what = f"a {type(error).__name__} at {_place(error)} in our own code, no fault of the record's"
        _log("poison", batch, error, record=record.id, then=on_poison)
        if on_poison == "stop":
            raise BatchFailed(f"{record.id}: {what}; stopping, with its offset uncommitted") from None
        judged = Judged([], [(record, Reject(0, Reason.POISON, what))])
        return judged, encode(judged)


def _log(event: str, batch: Batch, error: BaseException, **more: object) -> None:
    # Not in the error's own words, which may quote a flow; whoever has its record can repeat it.
    log.error(
        event,
        begins=[f"{place.topic}-{place.partition}-{place.offset}" for place in batch.first_offsets],
        records=len(batch),
        error=type(error).__name__,
        at=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)],
        **more,
    )


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
