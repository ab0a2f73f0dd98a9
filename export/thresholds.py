"""Thresholds for a wanted false-positive rate, and the severity steps above them; numpy alone."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Threshold", "choose", "recall_at_fpr", "severity_bounds", "threshold_at_fpr"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold chosen on validation rows, with the counts that say how far to trust it."""

    target_fpr: float
    threshold: float
    benign_rows: int
    false_positives: int
    attack_rows: int
    detected: int


def threshold_at_fpr(benign_scores: np.ndarray, target_fpr: float) -> float:
    """The lowest threshold at which at most `target_fpr` of the benign rows (f32[N]) score at or above it."""
    ordered = np.sort(benign_scores.astype(np.float32))[::-1]
    allowed = int(np.floor(target_fpr * len(ordered)))
    if allowed >= len(ordered):
        return 0.0
    # Just above the first benign score that must stay silent.
    return float(np.nextafter(ordered[allowed], np.float32(np.inf)))


def recall_at_fpr(y: np.ndarray, scores: np.ndarray, target_fpr: float) -> float:
    """Share of attacks found at the threshold that the benign rows among these allow: int[N], f32[N]."""
    return float((scores[y == 1] >= threshold_at_fpr(scores[y == 0], target_fpr)).mean())


def choose(y: np.ndarray, scores: np.ndarray, target_fprs: tuple[float, ...]) -> list[Threshold]:
    """One threshold per wanted false-positive rate, from validation rows int[N], f32[N]; rates ascending."""
    benign, attacks = scores[y == 0], scores[y == 1]
    chosen = []
    ordered = np.sort(scores.astype(np.float32))
    for rate in sorted(target_fprs):
        threshold = _between(ordered, threshold_at_fpr(benign, rate))
        chosen.append(
            Threshold(
                target_fpr=rate,
                threshold=threshold,
                benign_rows=len(benign),
                false_positives=int((benign >= threshold).sum()),
                attack_rows=len(attacks),
                detected=int((attacks >= threshold).sum()),
            )
        )
    return chosen


def _between(ordered: np.ndarray, threshold: float) -> float:
    """Move a threshold to the middle of the gap it stands in, so that rounding elsewhere flips no validation row."""
    place = int(np.searchsorted(ordered, np.float32(threshold)))
    if place == 0 or place == len(ordered):
        return threshold  # above 1 where benign rows have a score of 1: then no score is an alert
    below, above = float(ordered[place - 1]), float(ordered[place])
    # Scores are float32, so the threshold is one too: a middle that rounds to `below` would let that row through.
    middle = float(np.float32((below + above) / 2))
    return middle if middle > below else above


def severity_bounds(thresholds: list[Threshold]) -> dict[str, float]:
    """From which score an alert is medium, high, critical: where benign flows are ever rarer."""
    strict, *_ = thresholds
    middle = thresholds[min(1, len(thresholds) - 1)]
    lenient = thresholds[min(2, len(thresholds) - 1)]
    return {"medium": lenient.threshold, "high": middle.threshold, "critical": strict.threshold}
