"""Alerts made one by one, as objects, in plain code: what tests hold `stream.detect` against."""

from collections.abc import Mapping
from datetime import datetime

import numpy as np

from export.bundle import FeatureInfo
from export.detector import Detector, Scores
from export.thresholds import Policy
from schemas.alert import Alert, BundleRef, FlowRef, Reason, Severity, Verdict
from schemas.flow import UNKNOWN, Kind
from schemas.times import parse_time
from stream.batch import Batch, FlowRecord
from stream.decode import Decoded, read_metadata

__all__ = ["slow_alerts"]

_LONGEST_TEXT = 200


def slow_alerts(
    batch: Batch, decoded: Decoded, scores: Scores, detector: Detector, policy: Policy, now: datetime
) -> list[Alert]:
    """The alerts of a batch, in its order, judged at that time."""
    return [
        _alert(batch.records[int(decoded.rows[row])], row, decoded.columns, scores, detector, policy, now)
        for row in np.flatnonzero(policy.alerts(scores.score, scores.novelty)).tolist()
    ]


def _alert(
    record: FlowRecord,
    row: int,
    columns: Mapping[str, np.ndarray],
    scores: Scores,
    detector: Detector,
    policy: Policy,
    now: datetime,
) -> Alert:
    manifest = detector.manifest
    metadata = read_metadata(record.value or b"", detector.schema)
    novel = not policy.known(scores.score[row])
    score = float(scores.score[row])
    novelty = None if scores.novelty is None else max(0.0, float(scores.novelty[row]))
    family = None if novel else detector.schema.family_by_name[manifest.families[int(scores.family[row])]]
    return Alert(
        id=record.id,
        event_time=parse_time(metadata.get("timestamp", "")) or record.time,
        detection_time=now,
        flow=_flow(metadata, columns, row),
        bundle=BundleRef(name=manifest.name, version=manifest.version, hash=manifest.hash),
        verdict=Verdict.NOVEL if novel else Verdict.KNOWN,
        score=score if manifest.classifies else None,
        threshold=policy.threshold if policy.threshold <= 1 else None,
        novelty=novelty,
        novelty_threshold=policy.novelty,
        severity=_severity(novelty if novel and novelty is not None else score, detector, novel),
        family=UNKNOWN if family is None else family.name,
        family_probability=None if family is None else min(1.0, float(scores.family_probability[row])),
        techniques=() if family is None else family.techniques,
        reasons=_reasons(columns, scores, row, detector, novel),
    )


def _severity(score: float, detector: Detector, novel: bool) -> Severity:
    reached = "low"
    for name, bound in (detector.manifest.novelty_severity if novel else detector.manifest.severity).items():
        if score >= bound:
            reached = name
    return Severity(reached)


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


def _reasons(
    columns: Mapping[str, np.ndarray], scores: Scores, row: int, detector: Detector, novel: bool
) -> tuple[Reason, ...]:
    features = detector.manifest.features
    order = [info for kind in Kind for info in features if info.kind == kind]
    values = [_value(columns, info, row) for info in order]
    shares = [_share(info, value) for info, value in zip(order, values, strict=True)]
    weights = scores.attention[row].astype(np.float64)
    for index, (info, value, share) in enumerate(zip(order, values, shares, strict=True)):
        if share is not None:
            weights[index] *= 1 + 3 * (1 - share)
        elif isinstance(value, float):
            low, high = np.float32(info.benign_low or 0.0), np.float32(info.benign_high or 0.0)
            unusual = max(0.0, float(low) - value, value - float(high))
            weights[index] *= 1 + 3 * np.log1p(unusual / max(float(high - low), float(np.float32(1e-9))))
    if novel and scores.surprise is not None:
        weights = scores.surprise[row].astype(np.float64) + 1e-9
    weights /= weights.sum()
    return tuple(
        Reason(
            feature=order[index].name,
            value=value[:_LONGEST_TEXT] if isinstance(value := values[index], str) else value,
            unit=order[index].unit,
            benign_low=order[index].benign_low,
            benign_high=order[index].benign_high,
            benign_share=shares[index],
            weight=round(float(weights[index]), 4),
        )
        for index in np.argsort(-weights, kind="stable")[:3].tolist()
    )


def _share(info: FeatureInfo, value: float | str | None) -> float | None:
    if not isinstance(value, str):
        return None
    return dict(zip(info.vocabulary, info.benign_shares, strict=True)).get(value, 0.0)


def _value(columns: Mapping[str, np.ndarray], info: FeatureInfo, row: int) -> float | str | None:
    value = columns[info.name][row]
    if info.kind == Kind.CATEGORICAL:
        return None if value is None else str(value)
    return None if np.isnan(value) else float(value)
