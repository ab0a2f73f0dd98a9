"""Rows that must not be trained on, by rule; every rule counts what it took."""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Cleaned", "clean", "vector_groups"]

# The duration of a flow, by data set; a negative one is a clock that jumped during the capture.
_DURATIONS = ("flow_duration", "dur")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """`keep` bool[N], and per rule the rows (or cells) it concerned."""

    keep: np.ndarray
    counts: dict[str, int] = field(default_factory=dict)


def vector_groups(matrix: np.ndarray) -> np.ndarray:
    """Rows of equal feature vectors get equal group numbers: f32[N, F] → int64[N]. NaN equals NaN, -0 equals 0."""
    canonical = np.ascontiguousarray(matrix + np.float32(0.0))
    canonical[np.isnan(canonical)] = np.nan
    rows = canonical.view(np.dtype((np.void, canonical.dtype.itemsize * canonical.shape[1]))).ravel()
    return np.unique(rows, return_inverse=True)[1].reshape(-1)


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
    counts["rows_with_missing_values_kept"] = int(np.isnan(matrix[keep]).any(axis=1).sum())
    return Cleaned(keep, counts)
