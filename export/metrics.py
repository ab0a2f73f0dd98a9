"""What scores are worth on labelled rows: the figures that training prints and a bundle carries."""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from export.thresholds import recall_at_fpr

__all__ = ["summarize"]


def summarize(y: np.ndarray, scores: np.ndarray, predicted: np.ndarray, family: np.ndarray) -> dict[str, float]:
    """Counts and figures: y int[N], scores f32[N], attack-family number predicted and true int[N]."""
    attacks = y == 1
    return {
        "rows": len(y),
        "attacks": int(attacks.sum()),
        "auc": float(roc_auc_score(y, scores)),
        "average_precision": float(average_precision_score(y, scores)),
        "recall_at_0.1%_fpr": recall_at_fpr(y, scores, 0.001),
        "recall_at_1%_fpr": recall_at_fpr(y, scores, 0.01),
        "family_accuracy": float((predicted[attacks] == family[attacks]).mean()),
    }
