"""What a detector says of flows, in the terms of an alert (see `schemas.alert.Alert`)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from export.detector import Detector, Scores
from export.reasons import Reasons, Spoken
from export.thresholds import Policy
from schemas.alert import Reason, Severity, Verdict
from schemas.flow import UNKNOWN, Family

__all__ = ["LONGEST_TEXT", "Finding", "Findings", "findings_of"]

LONGEST_TEXT = 200
_UNKNOWN = Family(name=UNKNOWN, labels=())


class Finding(NamedTuple):
    """The finding on one flow."""

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


@dataclass(frozen=True, slots=True)
class Findings:
    """The findings on n flows: `novel` bool[n], `score` and `novelty` f64[n] or None where the bundle does not tell, `severity`
    object[n] of str, `family` i64[n] places in `families`, of which the last is that of novel flows, `family_probability`
    f64[n] with NaN for novel flows, and their reasons. The thresholds are those of all of them."""

    threshold: float | None
    novelty_threshold: float | None
    families: tuple[Family, ...]
    novel: np.ndarray
    score: np.ndarray | None
    novelty: np.ndarray | None
    severity: np.ndarray
    family: np.ndarray
    family_probability: np.ndarray
    reasons: Reasons

    def of(self, flow: int) -> Finding:
        """That on one of the flows."""
        novel, family = bool(self.novel[flow]), self.families[self.family[flow]]
        return Finding(
            verdict=Verdict.NOVEL if novel else Verdict.KNOWN,
            score=None if self.score is None else float(self.score[flow]),
            threshold=self.threshold,
            novelty=None if self.novelty is None else float(self.novelty[flow]),
            novelty_threshold=self.novelty_threshold,
            severity=Severity(self.severity[flow]),
            family=family.name,
            family_probability=None if novel else float(self.family_probability[flow]),
            techniques=family.techniques,
            reasons=tuple(map(_reason, self.reasons.of(flow))),
        )


def findings_of(
    rows: np.ndarray,
    columns: Mapping[str, np.ndarray],
    scores: Scores,
    detector: Detector,
    policy: Policy,
    *,
    novel: np.ndarray,
) -> Findings:
    """The findings on n of the flows that were scored, `rows` i64[n]; of a `novel` one (bool[n]) there is no family, and its
    novelty counts.

    Raises:
        ValueError: the scores are none that an alert can tell.
    """
    manifest = detector.manifest
    score = scores.score[rows].astype(np.float64)
    novelty = None if scores.novelty is None else np.fmax(0.0, scores.novelty[rows].astype(np.float64))
    probability = np.minimum(1.0, scores.family_probability[rows].astype(np.float64))
    reasons = _as_told(detector.reasons_of(columns, scores, rows, novel))
    _check("threshold", np.array([policy.threshold]), 0, np.inf)
    _check("score", score, 0, 1)
    _check("family probability", probability, 0, 1)
    _check("weight", reasons.weight, 0, 1)
    return Findings(
        threshold=policy.threshold if policy.threshold <= 1 else None,
        novelty_threshold=policy.novelty,
        families=(*(detector.schema.family_by_name[name] for name in manifest.families), _UNKNOWN),
        novel=novel,
        score=score if manifest.classifies else None,
        novelty=novelty,
        severity=detector.severities(score if novelty is None else np.where(novel, novelty, score), novel),
        family=np.where(novel, len(manifest.families), scores.family[rows]),
        family_probability=np.where(novel, np.nan, probability),
        reasons=reasons,
    )


def _check(name: str, values: np.ndarray, least: float, most: float) -> None:
    if not ((values >= least) & (values <= most)).all():
        raise ValueError(f"a {name} that no alert can tell")


def _as_told(reasons: Reasons) -> Reasons:
    """Weights rounded, long categories cut."""
    category = reasons.category.copy()
    for place in zip(*np.nonzero(category), strict=True):
        category[place] = category[place][:LONGEST_TEXT]
    return replace(reasons, weight=np.round(reasons.weight, 4) + 0.0, category=category)


def _reason(spoken: Spoken) -> Reason:
    return Reason(
        feature=spoken.feature.name,
        value=spoken.value,
        unit=spoken.feature.unit,
        benign_low=spoken.feature.benign_low,
        benign_high=spoken.feature.benign_high,
        benign_share=spoken.benign_share,
        weight=spoken.weight,
    )
