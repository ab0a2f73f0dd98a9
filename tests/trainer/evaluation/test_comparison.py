"""Two detectors on the same rows."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from export.thresholds import recall_at_fpr
from trainer.evaluation.comparison import compare_scores


def rows(count: int = 1000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, a detector, and one that is better on the same rows: most of its mistakes are the other's."""
    rng = np.random.default_rng(0)
    y = (rng.random(count) < 0.5).astype(np.int8)
    first = (y + rng.normal(0, 0.8, count)).astype(np.float32)
    return y, first, (first + 0.15 * y).astype(np.float32)


def test_a_small_but_steady_gain_is_sure_since_both_see_the_same_rows() -> None:
    y, first, second = rows()
    auc, recall = compare_scores(y, first, second, 0.05, resamples=300)
    assert (auc.figure, recall.figure) == ("auc", "recall_at_5%_fpr")
    assert (auc.first, auc.second) == pytest.approx((roc_auc_score(y, first), roc_auc_score(y, second)))
    assert (recall.first, recall.second) == (recall_at_fpr(y, first, 0.05), recall_at_fpr(y, second, 0.05))
    assert 0 < auc.low < auc.gain < auc.high and auc.better_share == 1.0
    alone = [roc_auc_score(y[part], first[part]) for part in np.random.default_rng(1).integers(0, 1000, (300, 1000))]
    assert auc.gain < np.quantile(alone, 0.975) - np.quantile(alone, 0.025), "less than what AUC itself varies by"


def test_the_other_way_round_the_gain_is_a_loss() -> None:
    y, first, second = rows()
    auc, _ = compare_scores(y, second, first, 0.05, resamples=300)
    assert auc.high < 0 and auc.better_share == 0.0


def test_rows_of_one_class_are_refused() -> None:
    with pytest.raises(ValueError, match="both needed"):
        compare_scores(np.zeros(5), np.zeros(5), np.zeros(5), 0.01)
