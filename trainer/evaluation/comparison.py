"""Two detectors on the same rows: by how much one is better, and how sure that is."""

from dataclasses import dataclass

import numpy as np

from trainer.evaluation.metrics import Curve, area_under_roc, rate_name, recall_at

__all__ = ["Difference", "compare_scores"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one figure: that of the first detector, of the second, the second minus the first with its interval of 95%, and
    the share of resamples in which the second is better."""

    figure: str
    first: float
    second: float
    low: float
    high: float
    better_share: float

    @property
    def gain(self) -> float:
        return self.second - self.first


def compare_scores(
    y: np.ndarray, first: np.ndarray, second: np.ndarray, rate: float, *, resamples: int = 1000, seed: int = 0
) -> list[Difference]:
    """AUC and recall at a false-positive rate of two detectors: int[N], f32[N], f32[N], by a paired bootstrap.

    Both are measured on the same drawn rows each time (Efron and Tibshirani 1993, chapter 16), so that what is hard about
    the rows cancels out.

    Raises:
        ValueError: the rows are of one class alone.
    """
    if not 0 < int((y == 1).sum()) < len(y):
        raise ValueError("attacks and benign rows are both needed")
    curves = [Curve.of(y, scores) for scores in (first, second)]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(0, len(y), len(y)), minlength=len(y))
        if 0 < times[y == 1].sum() < len(y):
            drawn.append([_figures(*curve.resampled(y, times), rate) for curve in curves])
    measured = [_figures(curve.true_positives, curve.false_positives, rate) for curve in curves]
    gains = np.array([[b - a for a, b in zip(*pair, strict=True)] for pair in drawn])
    return [
        Difference(
            figure=name,
            first=measured[0][place],
            second=measured[1][place],
            low=float(np.quantile(gains[:, place], 0.025)),
            high=float(np.quantile(gains[:, place], 0.975)),
            better_share=float((gains[:, place] > 0).mean()),
        )
        for place, name in enumerate(("auc", rate_name(rate)))
    ]


def _figures(tp: np.ndarray, fp: np.ndarray, rate: float) -> tuple[float, float]:
    auc, recall = area_under_roc(tp, fp), recall_at(tp, fp, rate)
    assert auc is not None and recall is not None, "both classes are there"
    return auc, recall
