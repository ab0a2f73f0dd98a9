"""Train, validation and test rows: stratified by family, no feature vector on two sides."""

import numpy as np

from trainer.cleaning import vector_groups

__all__ = ["SPLITS", "balance", "split"]

SPLITS = ("train", "validation", "test")


def split(
    matrix: np.ndarray, families: np.ndarray, *, validation_share: float, test_share: float, seed: int
) -> np.ndarray:
    """Assign each row to a split: f32[N, F], int[N] → int8[N], an index into `SPLITS`.

    All rows of one feature vector go to one side, and it counts for its most frequent family. Within each family the
    shares hold to the nearest vector; a family with three vectors or more has at least one on each side that has a share.
    """
    rng = np.random.default_rng(seed)
    groups = vector_groups(matrix)
    family_of_group = _most_frequent(groups, families)
    side_of_group = np.zeros(len(family_of_group), dtype=np.int8)
    for family in np.unique(families):
        members = rng.permutation(np.flatnonzero(family_of_group == family))
        # Rounding up twice must not leave a family without a training row.
        n_test = _size(len(members), test_share, most=len(members) - 2)
        n_validation = _size(len(members), validation_share, most=len(members) - n_test - 1)
        side_of_group[members[:n_test]] = SPLITS.index("test")
        side_of_group[members[n_test : n_test + n_validation]] = SPLITS.index("validation")
    sides: np.ndarray = side_of_group[groups]
    return sides


def _most_frequent(groups: np.ndarray, families: np.ndarray) -> np.ndarray:
    """The family of each group, of equally frequent ones the lowest: int[N], int[N] → int[G]."""
    pairs, frequency = np.unique(np.column_stack([groups, families]), axis=0, return_counts=True)
    ordered = pairs[np.lexsort((-frequency, pairs[:, 0]))]
    first = np.unique(ordered[:, 0], return_index=True)[1]
    return np.asarray(ordered[first, 1])


def _size(members: int, share: float, most: int) -> int:
    if share == 0 or members < len(SPLITS):
        return 0
    return min(max(1, round(members * share)), most)


def balance(is_attack: np.ndarray, *, rows: int, seed: int) -> np.ndarray:
    """Pick `rows` rows, half of them attacks, or as many of each as the rarer class allows: bool[N] → sorted int[K]."""
    rng = np.random.default_rng(seed)
    benign, attack = np.flatnonzero(~is_attack), np.flatnonzero(is_attack)
    each = min(rows // 2, len(benign), len(attack))
    return np.sort(np.concatenate([rng.choice(side, each, replace=False) for side in (benign, attack)]))
