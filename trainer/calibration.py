"""Logits → probabilities that can be taken at their word, fitted on validation rows.

J. Platt: Probabilistic Outputs for Support Vector Machines. Advances in Large Margin Classifiers, MIT Press 1999.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

__all__ = ["fit_calibration"]


def fit_calibration(logits: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Scale and offset for which sigmoid(scale · logit + offset) is most likely: f32[N], int[N] → two numbers.

    Targets are Platt's, a little inside 0 and 1, so that rows that are told apart without an error do not make the scale
    infinite. A scale that would turn the order of scores around (labels that the logits say nothing of) is refused: the
    logits then stay as they are, with the offset alone.
    """
    attacks = int((y == 1).sum())
    target = np.where(y == 1, (attacks + 1) / (attacks + 2), 1 / (len(y) - attacks + 2))
    x = logits.astype(np.float64)

    def loss(point: np.ndarray) -> tuple[float, np.ndarray]:
        z = point[0] * x + point[1]
        error = expit(z) - target
        return float(np.mean(np.logaddexp(0, z) - target * z)), np.array([np.mean(error * x), np.mean(error)])

    scale, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    if scale > 0:
        return float(scale), float(offset)
    return 1.0, float(minimize(lambda b: loss(np.array([1.0, b[0]]))[0], np.array([0.0])).x[0])
