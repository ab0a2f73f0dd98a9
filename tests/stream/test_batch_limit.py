"""How many records a batch may have when they take long."""

import pytest

from stream.batch_limit import BatchLimit


def test_fast_records_leave_the_batch_as_large_as_was_wanted() -> None:
    limit = BatchLimit(512, 300.0)
    limit.observe(512, 0.5)
    assert limit.rows == 512


def test_before_anything_is_known_a_batch_is_small() -> None:
    limit = BatchLimit(512, 300.0)
    assert limit.rows == 64
    limit.observe(64, 0.01)
    assert limit.rows == 512
    assert BatchLimit(10, 300.0).rows == 10


@pytest.mark.parametrize(("max_poll_interval_s", "budget_s"), [(300.0, 1.0), (2.0, 0.4)])
def test_a_batch_that_took_long_makes_the_next_one_small_enough(max_poll_interval_s: float, budget_s: float) -> None:
    limit = BatchLimit(512, max_poll_interval_s)
    limit.observe(512, 5.0)
    assert budget_s * 0.95 < limit.rows * 5.0 / 512 <= budget_s


def test_it_never_falls_below_one_record_and_recovers() -> None:
    limit = BatchLimit(512, 10.0)
    limit.observe(1, 60.0)
    assert limit.rows == 1
    for _ in range(200):
        limit.observe(limit.rows, limit.rows * 0.001)
    assert limit.rows == 512
