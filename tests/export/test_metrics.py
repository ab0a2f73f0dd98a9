"""The figures that training prints and a bundle carries."""

import numpy as np
import pytest

from export.metrics import summarize


def test_figures_of_a_small_example() -> None:
    y = np.array([0, 0, 0, 1, 1])
    scores = np.array([0.1, 0.2, 0.6, 0.5, 0.9], dtype=np.float32)
    predicted, family = np.array([0, 0, 0, 1, 2]), np.array([-1, -1, -1, 1, 0])
    assert summarize(y, scores, predicted, family) == {
        "rows": 5,
        "attacks": 2,
        "auc": pytest.approx(5 / 6),
        "average_precision": pytest.approx((1 + 2 / 3) / 2),
        "recall_at_0.1%_fpr": 0.5,
        "recall_at_1%_fpr": 0.5,
        "family_accuracy": 0.5,
    }


def test_a_perfect_detector_has_perfect_figures() -> None:
    y = np.array([0] * 50 + [1] * 50)
    figures = summarize(y, y.astype(np.float32), y, y)
    assert {name: value for name, value in figures.items() if name not in ("rows", "attacks")} == {
        "auc": 1.0,
        "average_precision": 1.0,
        "recall_at_0.1%_fpr": 1.0,
        "recall_at_1%_fpr": 1.0,
        "family_accuracy": 1.0,
    }
