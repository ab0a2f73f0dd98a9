"""Scores → alerts, and rejects → dead letters: what will be published for a batch."""

import re
from datetime import UTC, datetime

import numpy as np

from export.detector import Detector, Scores
from export.thresholds import Policy
from schemas.alert import BundleRef
from schemas.dead_letter import HOPS_HEADER, DeadLetter, Reject
from stream.alerts import Alerts
from stream.batch import Batch, FlowRecord
from stream.decode import Decoded
from stream.findings import LONGEST_TEXT, findings_of
from stream.flow_refs import flow_refs
from stream.metadata import metadata_of

__all__ = ["dead_letter", "detect"]

_HOPS = re.compile(rb"[0-9]{1,6}")


def detect(
    batch: Batch, decoded: Decoded, scores: Scores, alerting: np.ndarray, detector: Detector, policy: Policy
) -> Alerts:
    """The alerts of a batch, in its order; `alerting` bool[B] says which flows they are for, as `policy.alerts` finds.

    Raises:
        ValueError: the scores are none that an alert can tell.
    """
    manifest = detector.manifest
    rows = np.flatnonzero(alerting)
    places = decoded.rows[rows]
    records = [batch.records[place] for place in places.tolist()]
    sent_ms = np.array([record.timestamp_ms for record in records], dtype=np.int64)
    metadata = metadata_of([record.value for record in records], places, decoded.proven, detector.schema)
    return Alerts(
        ids=[record.id for record in records],
        sent_ms=sent_ms,
        flows=flow_refs(metadata, decoded.columns, rows, sent_ms),
        findings=findings_of(rows, decoded.columns, scores, detector, policy, novel=~policy.known(scores.score[rows])),
        detection_time=datetime.now(UTC),
        bundle=BundleRef(name=manifest.name, version=manifest.version, hash=manifest.hash),
    )


def dead_letter(record: FlowRecord, reject: Reject) -> DeadLetter:
    """The headers under which a record is set aside."""
    return DeadLetter(
        reason=reject.reason,
        detail=reject.detail,
        field=reject.field,
        value=reject.value.encode(errors="backslashreplace").decode()[:LONGEST_TEXT],
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        hops=_hops(record),
    )


def _hops(record: FlowRecord) -> int:
    """How often a record was put back, by its last header of that name; one that is no such count was not ours."""
    told = next((value for name, value in reversed(record.headers) if name == HOPS_HEADER), None)
    return int(told) if told is not None and _HOPS.fullmatch(told) else 0
