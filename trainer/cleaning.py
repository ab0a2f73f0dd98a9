"""Rows that must not be trained on, by rule; every rule counts what it took."""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Cleaned", "clean", "vector_groups", "vector_hashes"]

# The duration of a flow, by data set; a negative one is a clock that jumped during the capture.
_DURATIONS = ("flow_duration", "dur")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`keep` bool[N], and per rule the rows (or cells) it concerned."""

    keep: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)


def vector_groups(matrix: np.ndarray) -> np.ndarray:
    """Rows of equal feature vectors get equal group numbers: f32[N, F] → int64[N]. NaN equals NaN, -0 equals 0."""
    return np.unique(vector_hashes(matrix), return_inverse=True)[1].reshape(-1)


def vector_hashes(matrix: np.ndarray) -> np.ndarray:
    """A hash of each row's vector: f32[N, F] → uint64[N]. NaN equals NaN, -0 equals 0.

    Column by column, so that it takes little memory. Of three million vectors two that differ share one with a probability of
    one to four million; then they only count as one.
    """
    hashes = np.zeros(len(matrix), dtype=np.uint64)
    for column in matrix.T:
        canonical = column + np.float32(0.0)
        canonical[np.isnan(canonical)] = np.nan
        hashes = _mixed(hashes ^ canonical.view(np.uint32))
    return hashes


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Each bit in flips half of the bits out: uint64[N] → uint64[N] (SplitMix64; Steele, Lea and Flood, OOPSLA 2014)."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = numbers ^ (numbers >> np.uint64(31))
    return mixed


def clean(matrix: np.ndarray, family: np.ndarray, is_attack: np.ndarray, names: tuple[str, ...]) -> Cleaned:
    """Drop negative durations and vectors that are benign here and an attack there.

    Repeated vectors stay: on a link some flows come often, and figures must weigh them as often.

    Args:
        matrix: f32[N, F], NaN = missing (Infinity and NaN cells are missing already).
        family: int[N], the family of each row.
        is_attack: bool[N].
        names: the F feature names.
    """
    counts: dict[str, int] = {}
    keep = np.ones(len(matrix), dtype=bool)
    for name in _DURATIONS:
        if name in names:
            keep &= ~(matrix[:, names.index(name)] < 0)
    counts["negative_duration"] = int((~keep).sum())

    groups = vector_groups(matrix)
    n_groups = int(groups.max(initial=-1)) + 1
    attacks = np.bincount(groups[keep], weights=is_attack[keep], minlength=n_groups)
    sizes = np.bincount(groups[keep], minlength=n_groups)
    conflicting = keep & ((attacks > 0) & (attacks < sizes))[groups]
    keep &= ~conflicting
    counts["conflicting_labels"] = int(conflicting.sum())

    pairs = np.unique(np.column_stack([groups[keep], family[keep]]), axis=0)
    families_of_vector = np.unique(pairs[:, 0], return_counts=True)[1]
    counts["distinct_vectors"] = len(families_of_vector)
    counts["vectors_of_several_families"] = int((families_of_vector > 1).sum())
    counts["rows_with_missing_values_kept"] = int(
        np.logical_or.reduce([np.isnan(column) for column in matrix.T])[keep].sum()
    )
    return Cleaned(keep, counts)
