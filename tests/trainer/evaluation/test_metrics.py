"""Each figure against another way to it: by hand, by scikit-learn, or by counting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from export.thresholds import Policy, recall_at_fpr
from trainer.evaluation.metrics import (
    FPRS,
    Curve,
    calibration_bins,
    evaluate_novelty,
    evaluate_scores,
    operating_points,
    rate_name,
    wilson_interval,
)

NAMES = ("Benign", "Worm", "Flood", "Never seen")


def rows(count: int, *, seed: int = 0, decimals: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores with many ties, families."""
    rng = np.random.default_rng(seed)
    family = rng.integers(0, 3, count)
    y = (family > 0).astype(np.int8)
    scores = np.clip(rng.normal(0.35 + 0.3 * y, 0.2), 0, 1).round(decimals).astype(np.float32)
    return y, scores, family


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 400), st.integers(0, 10**6), st.integers(0, 3), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_figures_are_those_of_scikit_learn(count: int, seed: int, decimals: int, threshold: float) -> None:
    y, scores, family = rows(count, seed=seed, decimals=decimals)
    y[:2], family[:2] = (0, 1), (0, 1)
    got = evaluate_scores(y, scores, family, NAMES, threshold=threshold, resamples=0)
    verdict = scores >= np.float32(threshold)
    assert got["accuracy"] == pytest.approx(accuracy_score(y, verdict))
    assert got["precision"] == (pytest.approx(precision_score(y, verdict)) if verdict.any() else None)
    assert got["recall"] == pytest.approx(recall_score(y, verdict))
    assert got["f1_score"] == pytest.approx(f1_score(y, verdict))
    assert got["confusion_matrix"] == confusion_matrix(y, verdict).tolist()
    assert got["auc"] == pytest.approx(roc_auc_score(y, scores))
    assert got["average_precision"] == pytest.approx(average_precision_score(y, scores))
    assert got["brier_score"] == pytest.approx(brier_score_loss(y, scores))
    for rate in FPRS:
        assert got[rate_name(rate)] == pytest.approx(recall_at_fpr(y, scores, rate))
    assert got["attacks"] == int(y.sum())


def test_names_of_the_recalls() -> None:
    assert [rate_name(rate) for rate in FPRS] == ["recall_at_0.1%_fpr", "recall_at_1%_fpr", "recall_at_5%_fpr"]


def test_the_calibration_error_is_the_mean_distance_of_bins_from_their_share() -> None:
    # 60 rows of a score of .1, none an attack; 40 of .9, 30 of them attacks: .6 · .1 + .4 · .15
    scores = np.array([0.1] * 60 + [0.9] * 40, dtype=np.float32)
    y = np.array([0] * 60 + [1] * 30 + [0] * 10)
    got = evaluate_scores(y, scores, y, NAMES, threshold=0.5, resamples=0)
    assert got["expected_calibration_error"] == pytest.approx(0.12)
    bins, mean, share = calibration_bins(y, scores)
    assert bins.sum() == 100 and bins[1] == 60 and bins[13] == 40
    assert (mean[1], share[1], mean[13], share[13]) == pytest.approx((0.1, 0.0, 0.9, 0.75))
    assert calibration_bins(np.ones(1), np.ones(1, dtype=np.float32))[0][-1] == 1, "a score of 1 is in the last bin"


def test_families_have_counts_recall_and_an_interval_and_those_without_rows_are_left_out() -> None:
    family = np.array([0] * 100 + [1] * 10 + [2] * 4)
    scores = np.array([0.9] * 3 + [0.1] * 97 + [0.9] * 10 + [0.9, 0.1, 0.1, 0.1], dtype=np.float32)
    got = evaluate_scores((family > 0).astype(int), scores, family, NAMES, threshold=0.5, resamples=0)["families"]
    assert list(got) == ["Benign", "Worm", "Flood"]
    assert (got["Benign"]["count"], got["Benign"]["detected"], got["Benign"]["recall"]) == (100, 3, 0.03)
    assert got["Worm"]["interval"] == pytest.approx([0.7225, 1.0], abs=1e-4)
    assert got["Flood"]["recall"] == 0.25 and got["Flood"]["interval"] == list(wilson_interval(1, 4))


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    # By R's binom::binom.wilson.
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (11, 11, 0.7412, 1.0), (990, 1000, 0.9817, 0.9946)],
)
def test_wilsons_interval(hits: int, of: int, low: float, high: float) -> None:
    assert wilson_interval(hits, of) == pytest.approx((low, high), abs=1e-4)


def test_of_no_rows_nothing_is_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("value", [0, 1])
def test_rows_of_one_class_have_the_figures_that_they_can_have(value: int) -> None:
    y = np.full(20, value)
    got = evaluate_scores(y, np.linspace(0, 1, 20, dtype=np.float32), y, NAMES, threshold=0.5, resamples=10)
    assert got["auc"] is None and got["recall_at_1%_fpr"] is None and got["intervals"]["auc"] is None
    assert got["accuracy"] == 0.5
    assert got["recall"] == (0.5 if value else None) and got["false_positive_rate"] == (None if value else 0.5)
    assert (got["average_precision"] is None) == (value == 0)


def test_intervals_are_those_of_rows_drawn_with_replacement() -> None:
    y, scores, family = rows(300)
    got = evaluate_scores(y, scores, family, NAMES, threshold=0.5, resamples=400, seed=1)
    rng = np.random.default_rng(2)
    drawn = []
    for _ in range(400):
        chosen = rng.integers(0, len(y), len(y))
        part_y, part = y[chosen], scores[chosen]
        drawn.append(
            (roc_auc_score(part_y, part), recall_score(part_y, part >= 0.5), recall_at_fpr(part_y, part, 0.05))
        )
    expected = np.quantile(np.array(drawn), [0.025, 0.975], axis=0).T
    for name, interval in zip(("auc", "recall", "recall_at_5%_fpr"), expected, strict=True):
        assert got["intervals"][name] == pytest.approx(interval, abs=0.02), name
        assert got["intervals"][name][0] < got[name] < got["intervals"][name][1]
    again = evaluate_scores(y, scores, family, NAMES, threshold=0.5, resamples=400, seed=1)
    assert again == got, "the same rows have the same intervals"


def test_a_resample_counts_rows_as_often_as_they_were_drawn() -> None:
    y, scores, _ = rows(200)
    times = np.random.default_rng(3).integers(0, 4, 200)
    curve = Curve.of(y, scores)
    tp, fp = curve.resampled(y, times)
    for place in (0, len(tp) // 2, len(tp) - 1):
        above = scores >= curve.thresholds[place]
        assert (tp[place], fp[place]) == (times[above & (y == 1)].sum(), times[above & (y == 0)].sum())


def test_operating_points_say_what_each_threshold_comes_to() -> None:
    y, scores, _ = rows(500)
    strict, lenient = operating_points(y, scores, None, [(0.01, Policy(0.8)), (0.1, Policy(0.4))])
    assert (strict["target_fpr"], strict["threshold"], lenient["threshold"]) == (0.01, 0.8, 0.4)
    assert strict["recall"] == pytest.approx(recall_score(y, scores >= np.float32(0.8)))
    assert lenient["false_positive_rate"] == pytest.approx((scores[y == 0] >= np.float32(0.4)).mean())
    assert strict["novelty"] is None and strict["novel"] == lenient["novel"] == [0, 0]


def test_an_operating_point_counts_flows_that_are_novel_alone() -> None:
    y = np.array([0, 0, 0, 1, 1, 1])
    scores = np.array([0.1, 0.9, 0.1, 0.9, 0.1, 0.1], dtype=np.float32)
    novelty = np.array([0.0, 9.0, 5.0, 9.0, 5.0, 4.9], dtype=np.float32)
    [point] = operating_points(y, scores, novelty, [(0.01, Policy(0.5, novelty=5.0))])
    assert point["confusion_matrix"] == [[1, 2], [1, 2]] and point["novel"] == [1, 1]


def test_novelty_alone_is_measured_at_what_one_benign_flow_of_a_hundred_exceeds() -> None:
    rng = np.random.default_rng(0)
    families = np.repeat([0, 1, 2], [1000, 50, 50])
    y = (families > 0).astype(int)
    novelty = np.concatenate([rng.random(1000), np.full(50, 2.0), np.full(50, 0.5)]).astype(np.float32)
    got = evaluate_novelty(y, novelty, families, ("Benign", "seen", "hidden", "absent"))
    assert got["families"] == {"Benign": 0.01, "seen": 1.0, "hidden": 0.0}
    assert got["mean_recall"] == 0.5 and got["recall_at_1%_fpr"] == 0.5
    assert got["auc"] == pytest.approx(roc_auc_score(y, novelty))
    assert evaluate_novelty(y[:1000], novelty[:1000], families[:1000], ("Benign",))["mean_recall"] is None
