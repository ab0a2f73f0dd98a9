"""Thresholds for a wanted false-positive rate, and the severity steps above them; numpy alone."""

from dataclasses import dataclass

import numpy as np

__all__ = [
    "NO_SCORE",
    "Policy",
    "Threshold",
    "choose",
    "choose_novel",
    "recall_at_fpr",
    "severity_bounds",
    "threshold_at_fpr",
]


NO_SCORE = 2.0
"""A threshold that no score reaches."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A threshold chosen on validation rows, with the counts that say how far to trust it.

    Scores from `threshold` on are known attacks; of the other flows those are novel whose novelty is `novelty` or more. The
    counts are of both.
    """

    target_fpr: float
    threshold: float
    benign_rows: int
    false_positives: int
    attack_rows: int
    detected: int
    novelty: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What makes an alert: a score from `threshold` on, or else a novelty from `novelty` on; None: novel flows are none."""

    threshold: float
    novelty: float | None = None

    def known(self, score: np.ndarray) -> np.ndarray:
        """Which flows are known attacks: f32[B] → bool[B]."""
        return score >= np.float32(self.threshold)

    def alerts(self, score: np.ndarray, novelty: np.ndarray | None) -> np.ndarray:
        """Which flows are alerts, known or novel: f32[B] each → bool[B]."""
        known = self.known(score)
        if self.novelty is None or novelty is None:
            return known
        return known | (novelty >= np.float32(self.novelty))


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


def choose(
    y: np.ndarray,
    scores: np.ndarray,
    target_fprs: tuple[float, ...],
    *,
    novelty: np.ndarray | None = None,
    novelty_share: float = 0.0,
) -> list[Threshold]:
    """One threshold per wanted false-positive rate, from validation rows int[N], f32[N]; rates ascending.

    With `novelty` f32[N] there are two, which share the rate: `novelty_share` of it is for flows that are novel.
    """
    benign, attacks = y == 0, y == 1
    chosen = []
    for rate in sorted(target_fprs):
        for_novelty = None if novelty is None else _at(benign, novelty, rate * novelty_share)
        threshold = _at(benign, scores, rate if novelty is None else rate * (1 - novelty_share))
        hits = Policy(threshold, for_novelty).alerts(scores, novelty)
        chosen.append(
            Threshold(
                target_fpr=rate,
                threshold=threshold,
                benign_rows=int(benign.sum()),
                false_positives=int(hits[benign].sum()),
                attack_rows=int(attacks.sum()),
                detected=int(hits[attacks].sum()),
                novelty=for_novelty,
            )
        )
    return chosen


def choose_novel(novelty: np.ndarray, target_fprs: tuple[float, ...]) -> list[Threshold]:
    """The same for a bundle that knows no attacks: the rate is for flows that are novel, by benign rows f32[N] alone."""
    benign = np.ones(len(novelty), dtype=bool)
    chosen = []
    for rate in sorted(target_fprs):
        limit = _at(benign, novelty, rate)
        hits = int((novelty >= np.float32(limit)).sum())
        chosen.append(Threshold(rate, NO_SCORE, len(novelty), hits, attack_rows=0, detected=0, novelty=limit))
    return chosen


def _at(benign: np.ndarray, scores: np.ndarray, rate: float) -> float:
    return _between(np.sort(scores.astype(np.float32)), threshold_at_fpr(scores[benign], rate))


def _between(ordered: np.ndarray, threshold: float) -> float:
    """Move a threshold to the middle of the gap it stands in, so that rounding elsewhere flips no validation row."""
    place = int(np.searchsorted(ordered, np.float32(threshold)))
    if place == 0 or place == len(ordered):
        return threshold  # above 1 where benign rows have a score of 1: then no score is an alert
    below, above = float(ordered[place - 1]), float(ordered[place])
    # Scores are float32, so the threshold is one too: a middle that rounds to `below` would let that row through.
    middle = float(np.float32((below + above) / 2))
    return middle if middle > below else above


def severity_bounds(thresholds: list[float]) -> dict[str, float]:
    """From which score, or novelty, an alert is medium, high, critical: where benign flows are ever rarer.

    Args:
        thresholds: those of ascending false-positive rates.
    """
    strict, *_ = thresholds
    middle = thresholds[min(1, len(thresholds) - 1)]
    lenient = thresholds[min(2, len(thresholds) - 1)]
    return {"medium": lenient, "high": middle, "critical": strict}
