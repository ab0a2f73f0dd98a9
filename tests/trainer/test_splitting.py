"""Sides of a split: no vector on two of them, shares by family, the same for the same seed."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.splitting import SPLITS, balance, split

TRAIN, VALIDATION, TEST = range(3)
# What params.yaml allows: below .5 and .8, and below 1 together.
SHARES = st.tuples(st.floats(0.01, 0.49), st.floats(0, 0.79)).filter(lambda shares: sum(shares) < 1)


@st.composite
def labelled_vectors(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Rows of up to 40 vectors, some repeated, in any order; all rows of a vector are of one family."""
    family_of = draw(st.lists(st.integers(0, 3), min_size=1, max_size=40))
    vectors = np.array([index for index in range(len(family_of)) for _ in range(draw(st.integers(1, 2)))])
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(vectors))
    vectors = vectors[order]
    matrix = np.column_stack([vectors // 5, vectors % 5]).astype(np.float32)
    matrix[matrix == 4] = np.nan
    return matrix, np.array(family_of)[vectors]


def by_vector(matrix: np.ndarray, sides: np.ndarray) -> dict[tuple[str, ...], set[int]]:
    found = defaultdict(set)
    for row, side in zip(matrix, sides.tolist(), strict=True):
        found[tuple(map(str, row))].add(side)
    return found


@settings(deadline=None)
@given(labelled_vectors(), SHARES, st.integers(0, 5))
def test_a_vector_is_on_one_side_and_shares_hold_within_each_family(
    rows: tuple[np.ndarray, np.ndarray], shares: tuple[float, float], seed: int
) -> None:
    matrix, families = rows
    sides = split(matrix, families, validation_share=shares[0], test_share=shares[1], seed=seed)
    assert sides.dtype == np.int8 and sides.shape == families.shape

    side_of = by_vector(matrix, sides)
    assert all(len(found) == 1 for found in side_of.values())
    vectors = defaultdict(set)
    for row, family in zip(matrix, families.tolist(), strict=True):
        vectors[family].add(tuple(map(str, row)))
    for members in vectors.values():
        counts = np.bincount([next(iter(side_of[member])) for member in members], minlength=len(SPLITS))
        if len(members) < len(SPLITS):
            assert counts.tolist() == [len(members), 0, 0], "too few to hold any out"
            continue
        assert counts[TRAIN] and counts[VALIDATION] and (counts[TEST] or shares[1] == 0)
        for side, share in ((VALIDATION, shares[0]), (TEST, shares[1])):
            near = abs(counts[side] - share * len(members)) <= 0.5
            assert near or counts[side] == 1 or counts[TRAIN] == 1, (
                "to the nearest vector, but for the one kept per side"
            )


def test_a_vector_of_several_families_counts_for_its_most_frequent() -> None:
    matrix = np.array([[vector] for vector in range(5) for _ in range(3)], dtype=np.float32)
    families = np.array([0, 0, 0] * 2 + [1, 2, 2] * 3)
    sides = split(matrix, families, validation_share=0.34, test_share=0.34, seed=0).reshape(5, 3)
    assert (sides == sides[:, :1]).all()
    assert sides[:2].tolist() == [[TRAIN] * 3] * 2, "two vectors are too few to hold any out"
    assert sorted(sides[2:, 0].tolist()) == [TRAIN, VALIDATION, TEST]


@settings(deadline=None)
@given(labelled_vectors(), st.integers(0, 5))
def test_the_seed_alone_decides(rows: tuple[np.ndarray, np.ndarray], seed: int) -> None:
    first, second = (split(*rows, validation_share=0.2, test_share=0.3, seed=seed) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_another_seed_splits_otherwise() -> None:
    matrix = np.arange(60, dtype=np.float32).reshape(-1, 1)
    families = np.zeros(60, dtype=np.int64)
    first, second = (split(matrix, families, validation_share=0.2, test_share=0.3, seed=seed) for seed in (1, 2))
    assert np.bincount(first).tolist() == np.bincount(second).tolist() == [30, 12, 18]
    assert first.tolist() != second.tolist()


def test_without_a_test_share_nothing_is_a_test_row() -> None:
    matrix = np.arange(20, dtype=np.float32).reshape(-1, 1)
    sides = split(matrix, np.zeros(20, dtype=np.int64), validation_share=0.1, test_share=0, seed=0)
    assert np.bincount(sides, minlength=3).tolist() == [18, 2, 0]


@pytest.mark.parametrize(("rows", "validation", "test"), [(3, 0.45, 0.5), (4, 0.49, 0.5), (3, 0.1, 0.79)])
def test_two_large_shares_leave_a_family_a_row_on_every_side(rows: int, validation: float, test: float) -> None:
    matrix = np.arange(rows, dtype=np.float32).reshape(-1, 1)
    sides = split(matrix, np.zeros(rows, dtype=np.int64), validation_share=validation, test_share=test, seed=0)
    assert set(sides.tolist()) == {TRAIN, VALIDATION, TEST}


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=60), st.integers(2, 40), st.integers(0, 3))
def test_balance_takes_half_of_each_or_what_the_rarer_class_allows(flags: list[bool], rows: int, seed: int) -> None:
    is_attack = np.array(flags, dtype=bool)
    chosen = balance(is_attack, rows=rows, seed=seed)
    each = min(rows // 2, flags.count(True), flags.count(False))
    assert int(is_attack[chosen].sum()) == int((~is_attack[chosen]).sum()) == each
    assert chosen.tolist() == sorted(set(chosen.tolist())), "no row twice, in the order of the rows"


@pytest.mark.parametrize("seed", [0, 1])
def test_balance_is_the_same_for_the_same_seed(seed: int) -> None:
    is_attack = np.arange(100) % 3 == 0
    assert balance(is_attack, rows=20, seed=seed).tolist() == balance(is_attack, rows=20, seed=seed).tolist()
    assert balance(is_attack, rows=20, seed=seed).tolist() != balance(is_attack, rows=20, seed=seed + 2).tolist()
