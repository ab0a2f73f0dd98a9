"""How many records a batch may have when they take long."""

import pytest

from stream.batch_limit import BatchLimit


def full(limit: BatchLimit, seconds_per_row: float, batches: int) -> None:
    """Batches as large as they may be."""
    for _ in range(batches):
        limit.observe(limit.rows, limit.rows * seconds_per_row)


def test_it_begins_small_and_fast_records_make_it_as_large_as_was_wanted() -> None:
    limit = BatchLimit(4096, 300.0)
    assert limit.rows == 64
    full(limit, 20e-6, 6)
    assert limit.rows == 4096
    full(limit, 20e-6, 6)
    assert limit.rows == 4096
    assert BatchLimit(10, 300.0).rows == 10


@pytest.mark.parametrize(("max_poll_interval_s", "longest_s"), [(300.0, 1.0), (2.0, 0.4)])
def test_a_batch_that_took_too_long_makes_the_next_one_small_enough(
    max_poll_interval_s: float, longest_s: float
) -> None:
    limit = BatchLimit(512, max_poll_interval_s)
    limit.observe(512, 5.0)
    assert longest_s * 0.95 < limit.rows * 5.0 / 512 <= longest_s


@pytest.mark.parametrize("seconds_per_row", [3e-3, 9e-3, 40e-3])
def test_batches_of_slow_records_settle_below_a_second(seconds_per_row: float) -> None:
    limit = BatchLimit(512, 300.0)
    full(limit, seconds_per_row, 20)
    assert 0.25 < limit.rows * seconds_per_row <= 1.0


def test_small_batches_say_nothing_of_large_ones() -> None:
    limit = BatchLimit(4096, 300.0)
    for _ in range(100):
        limit.observe(1, 0.015)  # a flow now and then: a transaction takes so long by itself
    assert limit.rows == 64


def test_it_never_falls_below_one_record_and_recovers_soon() -> None:
    limit = BatchLimit(512, 10.0)
    limit.observe(1, 60.0)
    assert limit.rows == 1
    full(limit, 0.001, 9)
    assert limit.rows == 512
