"""Which rows are kept, and that every row is accounted for."""

from collections import Counter, defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.cleaning import clean, vector_groups

NAMES = ("dur", "sbytes")
NAN = float("nan")

# Few values, so that vectors meet often; -0.0 and NaN among them.
Row = tuple[float, float, int]
ROWS = st.lists(
    st.tuples(st.sampled_from([-1.0, -0.0, 0.0, NAN, 2.5]), st.sampled_from([0.0, -0.0, NAN, 7.0]), st.integers(0, 3)),
    max_size=40,
)


def cleaned(rows: list[Row]) -> tuple[np.ndarray, dict[str, int]]:
    """Family 0 is benign."""
    matrix = np.array([row[:2] for row in rows], dtype=np.float32).reshape(-1, 2)
    family = np.array([row[2] for row in rows], dtype=np.int64)
    result = clean(matrix, family, family > 0, NAMES)
    return np.flatnonzero(result.keep), result.counts


def vector(row: Row) -> tuple[float | None, ...]:
    """A row's features such that equal ones compare equal in plain Python."""
    return tuple(None if value != value else value + 0.0 for value in row[:2])


def test_negative_durations_go_and_missing_or_zero_ones_stay() -> None:
    kept, counts = cleaned([(-1.0, 1.0, 0), (0.0, 1.0, 0), (NAN, 1.0, 0), (3.0, -5.0, 0)])
    assert kept.tolist() == [1, 2, 3], "only the duration must not be negative"
    assert counts["negative_duration"] == 1
    assert counts["rows_with_missing_values_kept"] == 1


def test_every_row_of_a_vector_that_is_benign_here_and_an_attack_there_goes() -> None:
    kept, counts = cleaned([(1.0, 1.0, 0), (2.0, 1.0, 1), (1.0, 1.0, 3), (1.0, 1.0, 0)])
    assert kept.tolist() == [1]
    assert counts["conflicting_labels"] == 3


def test_a_row_that_goes_anyway_makes_no_conflict() -> None:
    kept, counts = cleaned([(-1.0, 1.0, 0), (-1.0, 1.0, 1)])
    assert kept.tolist() == []
    assert (counts["negative_duration"], counts["conflicting_labels"]) == (2, 0)


def test_repeated_vectors_stay_each_with_its_own_family() -> None:
    kept, counts = cleaned([(1.0, 1.0, 1), (1.0, 1.0, 2), (5.0, 5.0, 0), (1.0, 1.0, 2), (5.0, 5.0, 0)])
    assert kept.tolist() == [0, 1, 2, 3, 4]
    assert counts["distinct_vectors"] == 2
    assert counts["vectors_of_several_families"] == 1


def test_nan_equals_nan_of_any_bits_and_minus_zero_equals_zero() -> None:
    other_nan = np.array([0xFFC00001], dtype=np.uint32).view(np.float32)[0]
    matrix = np.array([[NAN, 0.0], [other_nan, -0.0], [0.0, NAN]], dtype=np.float32)
    assert np.signbit(matrix[1, 1]) and np.signbit(matrix[1, 0]), "the rows' bits do differ"
    first, second, third = vector_groups(matrix).tolist()
    assert first == second != third


def test_grouping_leaves_the_matrix_as_it_was() -> None:
    matrix = np.array([[-0.0, NAN]], dtype=np.float32)
    before = matrix.tobytes()
    vector_groups(matrix)
    assert matrix.tobytes() == before


@settings(deadline=None)
@given(ROWS)
def test_rules_hold_for_any_rows_and_counts_add_up(rows: list[Row]) -> None:
    kept, counts = cleaned(rows)

    families: dict[tuple[float | None, ...], Counter[int]] = defaultdict(Counter)
    for row in rows:
        if not row[0] < 0:
            families[vector(row)][row[2]] += 1
    clear = {key: seen for key, seen in families.items() if len({family > 0 for family in seen}) == 1}

    assert counts["negative_duration"] == sum(row[0] < 0 for row in rows)
    taken = counts["negative_duration"] + counts["conflicting_labels"]
    assert len(kept) == len(rows) - taken
    wanted = {key: seen.total() for key, seen in clear.items()}
    assert Counter(vector(rows[index]) for index in kept) == wanted, "each row of a clear vector, no other"
    assert counts["distinct_vectors"] == len(clear)
    assert counts["vectors_of_several_families"] == sum(len(seen) > 1 for seen in clear.values())
    assert counts["rows_with_missing_values_kept"] == sum(None in vector(rows[index]) for index in kept)
