"""Histograms and the two distances: known values, no drift where there is none, more where there is more."""

import numpy as np
import pytest

from export.histograms import BINS, Categories, Numbers, Shares, categories_of, numbers_of, psi, scores_of

ROWS = 20_000


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def of(shares: list[float], missing: float = 0.0) -> Numbers:
    """Bins up to 1, 2, 3, … and one above."""
    uppers = np.arange(1, len(shares), dtype=np.float32)
    return Numbers("x", uppers, Shares(np.array([*shares, missing])), 0.0, float(len(shares)))


@pytest.mark.parametrize(
    ("reference", "window", "expected"),
    [
        ([0.5, 0.5], [0.5, 0.5], 0.0),
        ([0.5, 0.5], [0.25, 0.75], 0.25 * np.log(3)),
        ([0.5, 0.5], [1.0, 0.0], 0.5 * np.log(2) + 0.4999 * np.log(5000)),  # no share is below 0.0001
    ],
)
def test_the_stability_index_is_the_one_of_the_formula(
    reference: list[float], window: list[float], expected: float
) -> None:
    assert psi(np.array(reference), np.array(window)) == pytest.approx(expected)
    assert psi(np.array(window), np.array(reference)) == pytest.approx(expected)


def test_distances_of_a_case_made_by_hand() -> None:
    found = of([0.25, 0.25, 0.25, 0.25]).distances(np.array([0, 0, 0, 8, 2, 3]), 0.0)
    assert found.missing == 0.2 and found.out_of_range == 0.3 and found.unknown is None
    # All at rank 7/8, where the reference is at 1/8, 3/8, 5/8 and 7/8.
    assert found.wasserstein == pytest.approx((6 + 4 + 2) / 8 / 4)
    shares, floor = np.array([0.25, 0.25, 0.25, 0.25, 1e-4]), np.array([1e-4, 1e-4, 1e-4, 0.8, 0.2])
    assert found.psi == pytest.approx(((floor - shares) * np.log(floor / shares)).sum())


def test_a_count_says_bin_missing_and_out_of_range() -> None:
    values = np.array([-1.0, 0.0, 1.0, 1.5, 2.0, 3.0, 3.5, np.nan, np.inf, 1e39])
    assert of([0.5, 0.25, 0.25]).count(values).tolist() == [3, 2, 2, 3, 2]


def test_bins_hold_like_shares_and_all_rows() -> None:
    found = numbers_of("x", [rng().lognormal(0, 3, ROWS).astype(np.float32)])
    *shares, missing = found.shares.benign
    assert len(shares) == BINS and np.abs(np.array(shares) - 1 / BINS).max() < 1e-3 and missing == 0
    assert found.shares.attack is None


def test_a_value_that_repeats_has_a_bin_of_its_own() -> None:
    values = np.where(rng().random(ROWS) < 0.6, 0, rng(1).exponential(5, ROWS) + 1).astype(np.float32)
    values[:1000] = np.nan
    found = numbers_of("x", [values])
    shares = found.shares.benign
    [place] = np.flatnonzero(shares > 0.5)
    assert shares[place] == pytest.approx((values == 0).mean())
    beside = found.count(np.array([-1e-6, 0, 1e-6]))
    assert beside[place] == 1
    assert shares[-1] == pytest.approx(0.05) and found.low == 0.0 and found.high == float(np.nanmax(values))


@pytest.mark.parametrize("only", [0.0, 1.0, -7.0])
def test_of_a_value_that_was_always_the_same_every_other_is_drift(only: float) -> None:
    reference = numbers_of("x", [np.full(100, only, dtype=np.float32)])
    assert reference.distances(reference.count(np.full(100, only)), 0.0).psi < 0.01
    for other in (only - 1e-3, only + 1e-3):
        found = reference.distances(reference.count(np.full(100, other)), 0.0)
        assert found.psi > 5 and found.wasserstein == 0.5 and found.out_of_range == 1


@pytest.mark.parametrize(
    "values", [[], [np.nan] * 9, [7.0], [7.0] * 9, [0.0, 1.0] * 9, list(range(7)) * 9, [*range(13), *[3] * 50]]
)
def test_any_rows_make_a_histogram_of_them(values: list[float]) -> None:
    given = np.array(values, dtype=np.float32)
    found = numbers_of("x", [given])
    assert len(found.uppers) <= 2 * BINS and (np.diff(found.uppers) > 0).all()
    counts = found.count(given)
    np.testing.assert_allclose(counts[:-1] / max(1, len(given)), found.shares.benign)
    if values:
        assert found.distances(counts, 0.0) == pytest.approx(found.distances(counts, 0.0))
        assert (found.distances(counts, 0.0).psi, found.distances(counts, 0.0).wasserstein) == pytest.approx((0, 0))


def test_other_rows_of_the_same_kind_are_no_drift() -> None:
    def rows(seed: int, count: int) -> np.ndarray:
        values = rng(seed).lognormal(3, 2, count).astype(np.float32)
        values[rng(seed + 100).random(count) < 0.3] = 0
        values[rng(seed + 200).random(count) < 0.1] = np.nan
        return values

    reference = numbers_of("x", [rows(0, ROWS)])
    for seed in range(1, 21):
        found = reference.distances(reference.count(rows(seed, 1000)), 0.0)
        assert found.psi < 0.08 and found.wasserstein < 0.04


def test_both_distances_grow_with_a_shift_and_know_no_unit() -> None:
    values = rng().lognormal(0, 1, ROWS)
    for unit in (1.0, 1e-3, 1e6):
        reference = numbers_of("x", [(values * unit).astype(np.float32)])
        moved = [
            reference.distances(reference.count(np.exp(shift) * values * unit), 0.0) for shift in np.arange(0, 4, 0.25)
        ]
        psis, distances = [each.psi for each in moved], [each.wasserstein for each in moved]
        assert psis == sorted(psis) and distances == sorted(distances)
        assert distances[0] < 1e-3 and 0.15 < distances[4] < 0.35 and 0.4 < distances[-1] <= 0.5


def test_a_value_that_goes_missing_is_drift_of_its_index() -> None:
    values = rng().normal(size=ROWS).astype(np.float32)
    reference = numbers_of("x", [values])
    half = np.where(rng(1).random(ROWS) < 0.5, np.nan, values)
    found = reference.distances(reference.count(half), 0.0)
    assert found.missing == pytest.approx(0.5, abs=0.02) and found.psi > 0.5 and found.wasserstein < 0.02


def test_probabilities_are_told_apart_near_0_and_1() -> None:
    found = scores_of("score", [np.array([1e-6, 1e-3, 0.5, 0.999, 1], dtype=np.float32)])
    assert len(found.uppers) + 1 == BINS and (found.shares.benign > 0).sum() == 5


PROTOCOLS = ("6", "17", "1", "47")
CODES = np.repeat([0, 1, 2, 3, 4], [100, 500, 390, 6, 4])


def test_categories_have_their_shares() -> None:
    found = categories_of("protocol", PROTOCOLS, [CODES.astype(np.float32)])
    assert found.shares.benign.tolist() == [0.5, 0.39, 0.006, 0.004, 0.1]


def test_categories_of_a_case_made_by_hand() -> None:
    reference = categories_of("protocol", PROTOCOLS, [CODES])
    window = ["6"] * 5 + ["47"] + ["99"] * 2 + [None] * 2
    counts = reference.count(np.array(window, dtype=object))
    assert counts.tolist() == [5, 0, 0, 1, 2, 2]
    found = reference.distances(counts, 0.0)
    assert (found.unknown, found.missing, found.out_of_range) == (0.2, 0.2, None)
    # Cells: 6, 17, unknown, missing, and the rare ones as one.
    ours, theirs = np.array([0.5, 0.39, 0, 0.1, 0.01]), np.array([0.5, 0, 0.2, 0.2, 0.1])
    assert found.psi == pytest.approx(psi(ours, theirs))
    assert found.wasserstein == pytest.approx(np.abs(ours - theirs).sum() / 2)


def test_many_rare_categories_are_no_drift() -> None:
    """As `proto` of UNSW-NB15 has: a hundred protocols, each in one flow of a thousand."""
    shares = np.array([0.5, 0.3, *[0.002] * 100])
    reference = Categories("proto", tuple(map(str, range(102))), Shares(np.append(shares, 0.0)))
    for seed in range(20):
        drawn = rng(seed).choice(102, 500, p=shares).astype(str).astype(object)
        assert reference.distances(reference.count(drawn), 0.0).psi < 0.05


def test_a_few_unknown_categories_are_drift() -> None:
    reference = categories_of("protocol", PROTOCOLS, [CODES])
    values = np.array(["6"] * 50 + ["17"] * 34 + ["99"] * 6 + [None] * 10, dtype=object)
    assert reference.distances(reference.count(values), 0.0).psi > 0.2


def two_kinds(benign: int, attacks: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of benign rows about 10, of which a fifth are 0, and of attacks about 1000, of which half are 7."""
    ours, theirs = rng(seed).lognormal(np.log(10), 1, benign), rng(seed + 1).lognormal(np.log(1000), 1, attacks)
    ours[rng(seed + 2).random(benign) < 0.2] = 0
    theirs[rng(seed + 3).random(attacks) < 0.5] = 7
    return ours.astype(np.float32), theirs.astype(np.float32)


@pytest.mark.parametrize(("benign", "attacks"), [(ROWS, 500), (500, ROWS)])
def test_bins_resolve_both_classes_however_many_rows_each_has(benign: int, attacks: int) -> None:
    classes = two_kinds(benign, attacks)
    found = numbers_of("x", classes)
    assert BINS / 2 < len(found.uppers) + 1 <= 2 * BINS + 1 <= 64
    assert found.low == 0 and found.high == float(max(map(np.max, classes)))
    assert found.shares.attack is not None
    for shares, own in ((found.shares.benign, 0.2), (found.shares.attack, 0.5)):
        assert shares.sum() == pytest.approx(1) and (shares > 0).sum() >= BINS / 3
        assert sorted(shares)[-1] == pytest.approx(own, abs=0.06) and sorted(shares)[-2] < 0.12


@pytest.mark.parametrize("attack_share", [0.0, 0.01, 0.5, 1.0])
def test_more_attacks_or_fewer_are_no_drift_and_others_than_those_are(attack_share: float) -> None:
    reference = numbers_of("x", two_kinds(ROWS, ROWS // 10))
    ours, theirs = two_kinds(2000, 2000, seed=50)
    attacks = int(2000 * attack_share)
    window = np.concatenate([ours[attacks:], theirs[:attacks]])
    found = reference.distances(reference.count(window), attack_share)
    assert found.psi < 0.08 and found.wasserstein < 0.04
    for other in (attack_share + 0.5, attack_share - 0.5):
        if 0 <= other <= 1:
            assert reference.distances(reference.count(window), other).psi > 1
    assert reference.distances(reference.count(window * 100), attack_share).psi > 1


@pytest.mark.parametrize("attack_share", [0.0, 0.3, 1.0])
def test_categories_are_expected_as_often_as_attacks_make_them(attack_share: float) -> None:
    reference = categories_of("protocol", PROTOCOLS, [CODES, np.repeat([1, 3], [20, 80])])
    benign = np.array([None, *PROTOCOLS], dtype=object)[CODES]
    theirs = np.array(["6"] * 200 + ["1"] * 800, dtype=object)
    attacks = int(1000 * attack_share)
    window = np.concatenate([rng().permutation(benign)[attacks:], rng().permutation(theirs)[:attacks]])
    found = reference.distances(reference.count(window), attack_share)
    assert found.psi < 0.02 and found.unknown == 0
    assert reference.distances(reference.count(np.full(1000, "47", dtype=object)), attack_share).psi > 2


def test_where_no_attacks_are_known_only_benign_rows_are_expected() -> None:
    shares = Shares(np.array([0.7, 0.2, 0.1]))
    assert shares.expected(0.0) is shares.expected(1.0) is shares.benign
    assert shares.to_json() == {"benign": {"shares": [0.7, 0.2], "missing": 0.1}}
    both = Shares(np.array([0.7, 0.2, 0.1]), np.array([0.0, 1.0, 0.0]))
    assert both.expected(0.25) == pytest.approx([0.525, 0.4, 0.075])
    assert both.to_json()["attack"] == {"shares": [0.0, 1.0], "missing": 0.0}
