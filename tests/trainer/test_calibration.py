"""Probabilities that can be taken at their word."""

import numpy as np
import pytest
from scipy.special import expit, logit

from trainer.calibration import fit_calibration


def rows(scale: float, offset: float, count: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are wrong by a scale and an offset, and labels drawn by the right ones."""
    rng = np.random.default_rng(0)
    right = rng.normal(0, 3, count)
    return ((right - offset) / scale).astype(np.float32), (rng.random(count) < expit(right)).astype(np.int8)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (0.25, 0.0), (4.0, -2.0), (0.5, 1.5)])
def test_a_wrong_scale_and_offset_are_found(scale: float, offset: float) -> None:
    found = fit_calibration(*rows(scale, offset))
    assert found[0] == pytest.approx(scale, rel=0.05) and found[1] == pytest.approx(offset, abs=0.1)


def test_rows_told_apart_without_an_error_keep_the_scale_finite() -> None:
    y = np.repeat([0, 1], 50)
    scale, offset = fit_calibration(np.where(y == 1, 5.0, -5.0).astype(np.float32), y)
    assert expit(scale * 5 + offset) == pytest.approx(51 / 52, abs=1e-3), "Platt's target"


def test_the_order_of_scores_is_never_turned_around() -> None:
    y = np.array([0] * 30 + [1] * 10)
    scale, offset = fit_calibration(np.where(y == 1, -1.0, 1.0).astype(np.float32), y)
    assert scale == 1.0
    assert np.isfinite(offset) and offset < logit(0.6)
