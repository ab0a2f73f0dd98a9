"""How many records a batch may have when they take long."""

from stream.batch_limit import BatchLimit


def test_fast_records_leave_the_batch_as_large_as_was_wanted() -> None:
    limit = BatchLimit(512, 300.0)
    limit.observe(512, 0.5)
    assert limit.rows == 512


def test_a_batch_that_took_long_makes_the_next_one_small_enough() -> None:
    limit = BatchLimit(512, 10.0)
    limit.observe(512, 5.0)  # half of the interval
    assert limit.rows * 5.0 / 512 <= 2.0
    assert limit.rows > 100


def test_it_never_falls_below_one_record_and_recovers() -> None:
    limit = BatchLimit(512, 10.0)
    limit.observe(1, 60.0)
    assert limit.rows == 1
    for _ in range(200):
        limit.observe(limit.rows, limit.rows * 0.001)
    assert limit.rows == 512
