"""Scores → alerts, and rejects → dead letters: what will be published for a batch."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from export.detector import Detector, Scores, Spoken
from export.thresholds import Policy
from schemas.alert import Alert, BundleRef, FlowRef, Reason, Severity, Verdict
from schemas.dead_letter import HOPS_HEADER, DeadLetter, Reject
from schemas.flow import UNKNOWN
from schemas.times import parse_time
from stream.batch import Batch, FlowRecord
from stream.decode import Decoded, read_metadata

__all__ = ["Finding", "dead_letter", "detect", "finding_of"]

_LONGEST_TEXT = 200
_HOPS = re.compile(rb"[0-9]{1,6}")


def detect(
    batch: Batch, decoded: Decoded, scores: Scores, alerting: np.ndarray, detector: Detector, policy: Policy
) -> list[tuple[FlowRecord, Alert]]:
    """The alerts of a batch, each with the record that it is about, in the batch's order; `alerting` bool[B] says which flows
    they are for, as `policy.alerts` finds."""
    now = datetime.now(UTC)
    bundle = BundleRef(name=detector.manifest.name, version=detector.manifest.version, hash=detector.manifest.hash)
    alerts = []
    for row in np.flatnonzero(alerting).tolist():
        record = batch.records[int(decoded.rows[row])]
        alerts.append((record, _alert(record, row, decoded, scores, detector, policy, bundle, now)))
    return alerts


class Finding(NamedTuple):
    """What a detector says of one flow, in the terms of an alert (see `schemas.alert.Alert`)."""

    verdict: Verdict
    score: float | None
    threshold: float | None
    novelty: float | None
    novelty_threshold: float | None
    severity: Severity
    family: str
    family_probability: float | None
    techniques: tuple[str, ...]
    reasons: tuple[Reason, ...]


def finding_of(
    row: int, columns: Mapping[str, np.ndarray], scores: Scores, detector: Detector, policy: Policy, *, novel: bool
) -> Finding:
    """The finding on one of the flows that were scored; of a `novel` one there is no family, and its novelty counts."""
    score = float(scores.score[row])
    novelty = None if scores.novelty is None else max(0.0, float(scores.novelty[row]))
    family = None if novel else detector.schema.family_by_name[detector.manifest.families[int(scores.family[row])]]
    return Finding(
        verdict=Verdict.NOVEL if novel else Verdict.KNOWN,
        score=score if detector.manifest.classifies else None,
        threshold=policy.threshold if policy.threshold <= 1 else None,
        novelty=novelty,
        novelty_threshold=policy.novelty,
        severity=Severity(detector.severity(novelty if novel and novelty is not None else score, novel=novel)),
        family=UNKNOWN if family is None else family.name,
        family_probability=None if family is None else min(1.0, float(scores.family_probability[row])),
        techniques=() if family is None else family.techniques,
        reasons=tuple(_reason(spoken) for spoken in detector.reasons(columns, scores, row, novel=novel)),
    )


def _alert(
    record: FlowRecord,
    row: int,
    decoded: Decoded,
    scores: Scores,
    detector: Detector,
    policy: Policy,
    bundle: BundleRef,
    now: datetime,
) -> Alert:
    metadata = read_metadata(record.value or b"", detector.schema)
    novel = not policy.known(scores.score[row])
    return Alert(
        id=record.id,
        event_time=parse_time(metadata.get("timestamp", "")) or record.time,
        detection_time=now,
        flow=_flow(metadata, decoded.columns, row),
        bundle=bundle,
        **finding_of(row, decoded.columns, scores, detector, policy, novel=novel)._asdict(),
    )


def dead_letter(record: FlowRecord, reject: Reject) -> DeadLetter:
    """The headers under which a record is set aside."""
    return DeadLetter(
        reason=reject.reason,
        detail=reject.detail,
        field=reject.field,
        value=reject.value.encode(errors="backslashreplace").decode()[:_LONGEST_TEXT],
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        hops=_hops(record),
    )


def _hops(record: FlowRecord) -> int:
    """How often a record was put back, by its last header of that name; one that is no such count was not ours."""
    told = next((value for name, value in reversed(record.headers) if name == HOPS_HEADER), None)
    return int(told) if told is not None and _HOPS.fullmatch(told) else 0


def _flow(metadata: Mapping[str, str], columns: Mapping[str, np.ndarray], row: int) -> FlowRef:
    protocol = metadata.get("protocol")
    for feature in ("protocol", "proto"):
        if feature in columns and columns[feature][row] is not None:
            protocol = str(columns[feature][row])[:_LONGEST_TEXT]
    return FlowRef(
        src_ip=metadata.get("src_ip"),
        src_port=_port(metadata.get("src_port")),
        dst_ip=metadata.get("dst_ip"),
        dst_port=_port(metadata.get("dst_port")),
        protocol=protocol,
        flow_id=metadata.get("flow_id") or metadata.get("id"),
    )


def _port(text: str | None) -> int | None:
    """A port in any spelling that the releases have: `443`, `443.0`, `0x01bb`; None for anything else."""
    if text is None:
        return None
    try:
        port = int(text.removesuffix(".0"), 0)
    except ValueError:
        return None
    return port if 0 <= port <= 65535 else None


def _reason(spoken: Spoken) -> Reason:
    return Reason(
        feature=spoken.feature.name,
        value=spoken.value[:_LONGEST_TEXT] if isinstance(spoken.value, str) else spoken.value,
        unit=spoken.feature.unit,
        benign_low=spoken.feature.benign_low,
        benign_high=spoken.feature.benign_high,
        benign_share=spoken.benign_share,
        weight=round(spoken.weight, 4),
    )
