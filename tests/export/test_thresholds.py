"""Thresholds keep the false-positive rate they are chosen for, whatever the scores."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from export.thresholds import Threshold, choose, recall_at_fpr, severity_bounds, threshold_at_fpr

ONE = np.float32(1.0)
JUST_BELOW_ONE = float(np.nextafter(ONE, np.float32(0)))
# Few distinct values, neighbours in float32 among them: ties and gaps of no width are what goes wrong.
TIGHT = st.sampled_from([0.0, 0.25, 0.5, float(np.nextafter(np.float32(0.5), ONE)), JUST_BELOW_ONE, 1.0])
SCORES = st.lists(TIGHT | st.floats(0, 1, width=32), min_size=1, max_size=30)
RATES = st.floats(1e-4, 0.999)
ROUNDING = 1e-9


@settings(deadline=None, max_examples=100)
@given(SCORES, RATES)
def test_the_rate_is_kept_and_no_lower_score_would_keep_it(scores: list[float], rate: float) -> None:
    benign = np.array(scores, dtype=np.float32)
    threshold = threshold_at_fpr(benign, rate)
    assert (benign >= np.float32(threshold)).mean() <= rate + ROUNDING
    below = benign[benign < np.float32(threshold)]
    if len(below):
        assert (benign >= below.max()).mean() > rate - ROUNDING


@settings(deadline=None, max_examples=150)
@given(SCORES, SCORES, st.lists(RATES, min_size=1, max_size=5, unique=True))
@example([0.5, 0.5], [float(np.nextafter(np.float32(0.5), ONE))], [0.1])
@example([1.0, 1.0, 0.0], [1.0], [0.01])
def test_the_rate_is_never_exceeded_on_the_rows_it_was_chosen_on(
    benign: list[float], attacks: list[float], rates: list[float]
) -> None:
    y = np.array([0] * len(benign) + [1] * len(attacks))
    scores = np.array(benign + attacks, dtype=np.float32)
    chosen = choose(y, scores, tuple(rates))
    assert [threshold.target_fpr for threshold in chosen] == sorted(rates)
    for threshold in chosen:
        # As float32 compares, in the service, and as Python's floats do.
        alarms = (scores >= threshold.threshold, scores.astype(np.float64) >= threshold.threshold)
        np.testing.assert_array_equal(*alarms)
        assert alarms[0][y == 0].sum() == threshold.false_positives
        assert alarms[0][y == 1].sum() == threshold.detected
        assert threshold.false_positives <= threshold.target_fpr * len(benign) + ROUNDING
        assert (threshold.benign_rows, threshold.attack_rows) == (len(benign), len(attacks))
    for stricter, looser in pairwise(chosen):
        assert stricter.threshold >= looser.threshold
        assert stricter.detected <= looser.detected
        assert stricter.false_positives <= looser.false_positives


def test_a_threshold_stands_in_the_middle_of_its_gap() -> None:
    y = np.array([0, 0, 1, 1])
    (threshold,) = choose(y, np.array([0.1, 0.2, 0.6, 0.9], dtype=np.float32), (0.1,))
    assert threshold.threshold == pytest.approx(0.4)
    assert threshold == Threshold(0.1, threshold.threshold, benign_rows=2, false_positives=0, attack_rows=2, detected=2)


def test_where_benign_flows_have_a_score_of_1_no_score_is_an_alert() -> None:
    (threshold,) = choose(np.array([0, 0, 1]), np.array([1.0, 1.0, 1.0], dtype=np.float32), (0.1,))
    assert threshold.threshold > 1
    assert (threshold.false_positives, threshold.detected) == (0, 0)


def test_scores_need_not_be_probabilities() -> None:
    benign = np.array([3.0, 11.5, 7.25], dtype=np.float32)
    assert 11.5 < threshold_at_fpr(benign, 0.0) < 11.5001
    assert 7.25 < threshold_at_fpr(benign, 0.34) < 7.2501


def test_where_every_benign_row_may_alert_the_threshold_is_zero() -> None:
    assert threshold_at_fpr(np.array([0.2, 0.4], dtype=np.float32), 1.0) == 0.0


def test_recall_is_the_share_of_attacks_above_the_threshold() -> None:
    y = np.array([0] * 10 + [1] * 4)
    scores = np.array([0.0] * 9 + [0.8] + [0.1, 0.5, 0.8, 0.9], dtype=np.float32)
    assert recall_at_fpr(y, scores, 0.05) == 0.25
    assert recall_at_fpr(y, scores, 0.1) == 1.0


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        ((0.9, 0.8, 0.7, 0.6), (0.7, 0.8, 0.9)),
        ((0.9, 0.8), (0.8, 0.8, 0.9)),
        ((0.9,), (0.9, 0.9, 0.9)),
    ],
)
def test_severity_rises_with_the_strictest_thresholds(values: tuple[float, ...], bounds: tuple[float, ...]) -> None:
    assert severity_bounds(list(values)) == dict(zip(("medium", "high", "critical"), bounds, strict=True))
