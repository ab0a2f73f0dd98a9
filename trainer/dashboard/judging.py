"""One flow and a detector: its verdict as the service would give it, and what would change it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from export.bundle import FeatureInfo, Manifest
from export.detector import Detector
from export.reasons import Spoken
from export.thresholds import Policy
from schemas.alert import Reason
from schemas.flow import BENIGN, UNKNOWN, Kind
from trainer.dashboard.scale import compressed, expanded

__all__ = ["Flow", "Judgement", "judge", "sweep", "usual_flow"]

Flow = Mapping[str, float | str | None]
"""Feature → value; None is missing."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """`verdict` is known, novel or benign; `score` is None where the bundle knows no attacks, `novelty` where it does not tell;
    `severity` is None and `family` Benign where it is no alert. `reasons` are all features, the strongest first."""

    verdict: str
    score: float | None
    novelty: float | None
    severity: str | None
    family: str
    reasons: tuple[Reason, ...]


def usual_flow(manifest: Manifest) -> dict[str, float | str | None]:
    """The median of benign flows in every feature, and the most frequent category."""
    return {info.name: _usual(info) for info in manifest.features}


def judge(detector: Detector, policy: Policy, flow: Flow) -> Judgement:
    """What the detector says of a flow."""
    columns = _columns(detector, [flow])
    scores = detector.score(columns)
    known = bool(policy.known(scores.score)[0])
    alert = bool(policy.alerts(scores.score, scores.novelty)[0])
    classifies = detector.manifest.classifies
    novel = (alert and not known) or not classifies
    score = float(scores.score[0]) if classifies else None
    novelty = None if scores.novelty is None else max(0.0, float(scores.novelty[0]))
    of_severity = novelty if novel else score
    spoken = detector.reasons(columns, scores, 0, novel=novel, top=len(detector.manifest.features))
    return Judgement(
        verdict="benign" if not alert else "known" if known else "novel",
        score=score,
        novelty=novelty,
        severity=detector.severity(of_severity or 0.0, novel=novel) if alert else None,
        family=BENIGN if not alert else detector.manifest.families[int(scores.family[0])] if known else UNKNOWN,
        reasons=tuple(map(_reason, spoken)),
    )


def sweep(detector: Detector, flow: Flow, name: str, points: int = 60) -> pl.DataFrame:
    """`value`, `score` and, where the bundle tells it, `novelty` of the flow with one numeric feature changed, over the benign
    range, the flow's value and a good way beyond both."""
    info = next(it for it in detector.manifest.features if it.name == name)
    given = flow[name]
    ends = [it for it in (info.benign_low, info.benign_high, given) if isinstance(it, int | float)] or [0.0, 1.0]
    low, high = min(0.0, *ends), max(1.0, *ends) * 2
    first, last = compressed(np.array([low, high]))
    values = expanded(np.linspace(first, last, points))
    scores = detector.score(_columns(detector, [{**flow, name: value} for value in values.tolist()]))
    told = {"score": scores.score} if detector.manifest.classifies else {}
    if scores.novelty is not None:
        told["novelty"] = scores.novelty
    return pl.DataFrame({"value": values, **{key: value.astype(np.float64) for key, value in told.items()}})


def _columns(detector: Detector, flows: list[dict[str, float | str | None]] | list[Flow]) -> dict[str, np.ndarray]:
    columns: dict[str, np.ndarray] = {}
    for info in detector.manifest.features:
        values = [flow.get(info.name) for flow in flows]
        if info.kind == Kind.CATEGORICAL:
            columns[info.name] = np.array(values, dtype=object)
        else:
            columns[info.name] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return columns


def _usual(info: FeatureInfo) -> float | str | None:
    if info.kind == Kind.CATEGORICAL:
        return max(zip(info.benign_shares, info.vocabulary, strict=True), default=(0.0, None))[1]
    return info.benign_median


def _reason(spoken: Spoken) -> Reason:
    info = spoken.feature
    return Reason(
        feature=info.name,
        value=spoken.value,
        unit=info.unit,
        benign_low=info.benign_low,
        benign_high=info.benign_high,
        benign_share=spoken.benign_share,
        weight=round(spoken.weight, 4),
    )
