"""What scores are worth on labelled rows, each figure with how far to trust it; numpy alone.

Rows are y int[N] (1 = attack) and scores f32[N] (attack probability). A figure that rows of one class alone cannot give is
None.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.thresholds import Policy, threshold_at_fpr

__all__ = [
    "FPRS",
    "Curve",
    "area_under_roc",
    "calibration_bins",
    "confusion",
    "evaluate_novelty",
    "evaluate_scores",
    "operating_points",
    "rate_name",
    "recall_at",
    "wilson_interval",
]

FPRS = (0.001, 0.01, 0.05)
_NOVELTY_FPR = 0.01
CALIBRATION_BINS = 15
CONFIDENCE = 0.95
_Z = 1.959964  # of a normal distribution, two-sided, for that confidence


@dataclass(frozen=True, slots=True)
class Curve:
    """Every operating point that rows have, from the strictest: int64[K] counts of what scores at or above a level.

    `order` int64[N] sorts rows by descending score, `last` int64[K] are the places in it at which a level ends: rows of
    equal score are on the same side of every threshold.
    """

    order: np.ndarray
    last: np.ndarray
    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray, scores: np.ndarray) -> "Curve":
        """The curve of rows with these labels and scores."""
        order = np.argsort(-scores, kind="stable")
        ordered = scores[order]
        last = np.flatnonzero(np.append(np.diff(ordered) != 0, True)) if len(ordered) else np.empty(0, dtype=np.int64)
        return cls(order, last, ordered[last], *_counts(y[order], np.ones(len(y), dtype=np.int64), last))

    def resampled(self, y: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives if row i stood there `times[i]` times: int64[N] → int64[K] each."""
        return _counts(y[self.order], times[self.order], self.last)


def _counts(ordered_y: np.ndarray, times: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    attacks = ordered_y == 1
    return np.cumsum(np.where(attacks, times, 0))[last], np.cumsum(np.where(attacks, 0, times))[last]


def evaluate_scores(
    y: np.ndarray,
    scores: np.ndarray,
    families: np.ndarray,
    names: tuple[str, ...],
    *,
    threshold: float,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """All figures of some rows.

    Args:
        families: int[N], each row's true family, an index into `names`.
        threshold: from which score a row counts as an attack in accuracy, precision, recall, F1 and confusion matrix.
        resamples: of the bootstrap behind the intervals of AUC and recalls.

    Returns:
        accuracy, precision, recall, f1_score, auc, confusion_matrix [[TN, FP], [FN, TP]], average_precision,
        recall_at_X%_fpr, brier_score, expected_calibration_error; `intervals` of 95%; `families` by name.
    """
    curve = Curve.of(y, scores)
    hits = scores >= np.float32(threshold)
    figures = {
        "attacks": int((y == 1).sum()),
        "threshold": threshold,
        **confusion(y, hits),
        "auc": area_under_roc(curve.true_positives, curve.false_positives),
        "average_precision": _average_precision(curve.true_positives, curve.false_positives),
        **{rate_name(rate): recall_at(curve.true_positives, curve.false_positives, rate) for rate in FPRS},
        "brier_score": float(np.mean((scores.astype(np.float64) - y) ** 2)) if len(y) else None,
        "expected_calibration_error": _expected_calibration_error(y, scores),
    }
    return {
        **figures,
        "intervals": _intervals(curve, y, hits, resamples=resamples, seed=seed),
        "families": {
            name: _family(hits[families == number])
            for number, name in enumerate(names)
            if bool((families == number).any())
        },
    }


def evaluate_novelty(
    y: np.ndarray, novelty: np.ndarray, families: np.ndarray, names: tuple[str, ...]
) -> dict[str, Any]:
    """What the novelty f32[N], which was shown no attack, is worth alone: auc, recall_at_X%_fpr and, by name, the share of each
    family's rows above the limit that 1% of the benign rows exceed; `mean_recall` is the attack families' mean of it."""
    curve = Curve.of(y, novelty)
    limit = np.float32(threshold_at_fpr(novelty[y == 0], _NOVELTY_FPR))
    of_family = {
        name: float((novelty[rows] >= limit).mean())
        for number, name in enumerate(names)
        if (rows := families == number).any()
    }
    attacks = [of_family[names[number]] for number in np.unique(families[y == 1]).tolist()]
    return {
        "auc": area_under_roc(curve.true_positives, curve.false_positives),
        **{rate_name(rate): recall_at(curve.true_positives, curve.false_positives, rate) for rate in FPRS},
        "mean_recall": float(np.mean(attacks)) if attacks and bool((y == 0).any()) else None,
        "families": of_family,
    }


def operating_points(
    y: np.ndarray, scores: np.ndarray, novelty: np.ndarray | None, policies: Sequence[tuple[float, Policy]]
) -> list[dict[str, Any]]:
    """What comes of each of a bundle's policies (wanted false-positive rate, policy) on these rows: verdicts as the service
    gives them, known or novel; `novel` [benign rows, attacks] are those of the latter alone."""
    points = []
    for rate, policy in policies:
        hits = policy.alerts(scores, novelty)
        novel = hits & ~policy.known(scores)
        points.append(
            {
                "target_fpr": rate,
                "threshold": policy.threshold,
                "novelty": policy.novelty,
                **confusion(y, hits),
                "novel": [int((novel & (y == kind)).sum()) for kind in (0, 1)],
            }
        )
    return points


def rate_name(rate: float) -> str:
    """The name of the recall at a false-positive rate: .001 → `recall_at_0.1%_fpr`."""
    return f"recall_at_{rate * 100:g}%_fpr"


def confusion(y: np.ndarray, hits: np.ndarray) -> dict[str, Any]:
    """Accuracy, precision, recall, F1 and the confusion matrix of verdicts bool[N]."""
    attacks = y == 1
    tp, fp = int((hits & attacks).sum()), int((hits & ~attacks).sum())
    fn, tn = int((~hits & attacks).sum()), int((~hits & ~attacks).sum())
    return {
        "accuracy": _share(tp + tn, len(y)),
        "precision": _share(tp, tp + fp),
        "recall": _share(tp, tp + fn),
        "f1_score": _share(2 * tp, 2 * tp + fp + fn),
        "false_positive_rate": _share(fp, fp + tn),
        "confusion_matrix": [[tn, fp], [fn, tp]],
    }


def area_under_roc(tp: np.ndarray, fp: np.ndarray) -> float | None:
    """Area under the ROC curve of a `Curve`'s counts, by trapezoids: ties count half."""
    if not len(tp) or tp[-1] == 0 or fp[-1] == 0:
        return None
    x, height = np.append(0, fp), np.append(0, tp)
    return float(np.sum(np.diff(x) * (height[1:] + height[:-1]) / 2.0) / (tp[-1] * fp[-1]))


def recall_at(tp: np.ndarray, fp: np.ndarray, rate: float) -> float | None:
    """Recall of a `Curve`'s counts, at the lowest threshold at which at most that share of benign rows is an alert."""
    if not len(tp) or tp[-1] == 0 or fp[-1] == 0:
        return None
    place = int(np.searchsorted(fp, np.floor(rate * fp[-1]), side="right"))
    return float(tp[place - 1] / tp[-1]) if place else 0.0


def wilson_interval(hits: int, rows: int) -> tuple[float, float]:
    """Wilson's interval of 95% for a share (E. B. Wilson, JASA 22 (1927), 209-212); of no rows it is [0, 1]."""
    if rows == 0:
        return 0.0, 1.0
    share, z2 = hits / rows, _Z**2
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = _Z / (1 + z2 / rows) * np.sqrt(share * (1 - share) / rows + z2 / (4 * rows**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def calibration_bins(y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in 15 bins of equal width: rows int64[K], mean score f64[K], share of attacks f64[K] (NaN where a bin is empty)."""
    place = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    rows = np.bincount(place, minlength=CALIBRATION_BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, weights=scores, minlength=CALIBRATION_BINS) / rows
        share = np.bincount(place, weights=y, minlength=CALIBRATION_BINS) / rows
    return rows, mean, share


def _expected_calibration_error(y: np.ndarray, scores: np.ndarray) -> float | None:
    """Σ share of rows · |mean score - share of attacks| over the bins (Naeini et al., AAAI 2015), for the class attack."""
    rows, mean, share = calibration_bins(y, scores)
    return float(np.nansum(rows * np.abs(mean - share)) / len(y)) if len(y) else None


def _family(hits: np.ndarray) -> dict[str, Any]:
    """Of benign rows `detected` are the false alarms."""
    count, detected = len(hits), int(hits.sum())
    return {
        "count": count,
        "detected": detected,
        "recall": detected / count,
        "interval": list(wilson_interval(detected, count)),
    }


def _intervals(
    curve: Curve, y: np.ndarray, hits: np.ndarray, *, resamples: int, seed: int
) -> dict[str, list[float] | None]:
    """Percentile intervals of 95% over rows drawn with replacement (Efron 1979)."""
    rng = np.random.default_rng(seed)
    names = ["auc", "recall", *map(rate_name, FPRS)]
    drawn: dict[str, list[float | None]] = {name: [] for name in names}
    attacks = y == 1
    for _ in range(resamples if len(y) else 0):
        times = np.bincount(rng.integers(0, len(y), len(y)), minlength=len(y))
        tp, fp = curve.resampled(y, times)
        drawn["auc"].append(area_under_roc(tp, fp))
        drawn["recall"].append(_share(int(times[attacks & hits].sum()), int(times[attacks].sum())))
        for rate in FPRS:
            drawn[rate_name(rate)].append(recall_at(tp, fp, rate))
    return {name: _percentiles(values) for name, values in drawn.items()}


def _percentiles(values: list[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return [float(value) for value in np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])]


def _average_precision(tp: np.ndarray, fp: np.ndarray) -> float | None:
    """Σ (R_k - R_{k-1}) · P_k, without interpolation."""
    if not len(tp) or tp[-1] == 0:
        return None
    gained = np.diff(np.append(0, tp))
    return float(np.sum(gained * tp / np.maximum(tp + fp, 1)) / tp[-1])


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
