"""Timestamps in every dialect's form."""

from datetime import UTC, datetime

import pytest

from schemas.times import parse_time, to_us


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2017-07-07 12:02:55.371187", datetime(2017, 7, 7, 12, 2, 55, 371187, UTC)),
        ("2017-07-07 02:02", datetime(2017, 7, 7, 2, 2, tzinfo=UTC)),
        (" 2017-07-07T12:02:55Z ", datetime(2017, 7, 7, 12, 2, 55, tzinfo=UTC)),
        ("2017-07-07T09:02:55-03:00", datetime(2017, 7, 7, 12, 2, 55, tzinfo=UTC)),
        ("1421927414", datetime(2015, 1, 22, 11, 50, 14, tzinfo=UTC)),
        ("1421927414.25", datetime(2015, 1, 22, 11, 50, 14, 250_000, UTC)),
        ("03/07/2017 08:55:58", datetime(2017, 7, 3, 8, 55, 58, tzinfo=UTC)),
        ("3/7/2017 12:05", datetime(2017, 7, 3, 12, 5, tzinfo=UTC)),
    ],
)
def test_every_form_is_read_as_utc(text: str, expected: datetime) -> None:
    assert parse_time(text) == expected
    assert parse_time(text).tzinfo is UTC  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("7/7/2017 3:30", 15),
        ("7/7/2017 1:00:01", 13),
        ("7/7/2017 7:59", 19),
        ("7/7/2017 8:00", 8),
        ("7/7/2017 0:10", 0),
        ("7/7/2017 15:30", 15),
        ("07/07/2017 03:30:00 AM", 3),
        ("07/07/2017 03:30:00 PM", 15),
        ("07/07/2017 12:30 am", 0),
        ("07/07/2017 12:30 pm", 12),
    ],
)
def test_a_clock_without_am_and_pm_shows_working_hours(text: str, hour: int) -> None:
    time = parse_time(text)
    assert time is not None and time.hour == hour


@pytest.mark.parametrize(
    "text",
    ["", " ", "NaN", "-", "12", "20170707", "1421927414000", "-1421927414", "1e9", "2017-07-07", "2017-13-07 10:00:00",
     "31/06/2017 10:00", "7/13/2017 10:00", "7/7/2017 25:00", "7/7/2017 13:00 PM", "7/7/2017", "8:00", "tomorrow 12:00",
     "1421927414 ms", "١٤٢١٩٢٧٤١٤"],
)  # fmt: skip
def test_what_is_no_time_is_none(text: str) -> None:
    assert parse_time(text) is None


def test_microseconds_are_exact() -> None:
    time = parse_time("2017-07-07 12:02:55.371187")
    assert time is not None and to_us(time) == 1_499_428_975_371_187
    assert to_us(datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)) == -1
