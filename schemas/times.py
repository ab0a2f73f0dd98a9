"""When a flow was, as the data sets write it: text → UTC."""

import re
from datetime import UTC, datetime, timedelta

__all__ = ["parse_time", "to_us"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]")
_UNIX_SECONDS = re.compile(r"[0-9]{9,10}(?:\.[0-9]*)?")
_DAY_FIRST = re.compile(
    r"([0-9]{1,2})/([0-9]{1,2})/([0-9]{4}) +([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))? *(?:([AaPp])[Mm])?"
)


def parse_time(text: str) -> datetime | None:
    """The time that a timestamp cell names, in UTC; None when it names none. A time without a zone is taken as UTC.

    - ISO 8601: `2017-07-07 12:02:55.371187`, `2017-07-07T12:02:55Z` (a date alone is no time);
    - unix seconds of 9 or 10 digits: `1421927414`, `1421927414.25`;
    - day/month/year, as CICFlowMeter writes it: `7/7/2017 3:30`, `03/07/2017 08:55:58`, also with AM or PM. Without
      them it still is a 12-hour clock of working hours in CICIDS2017 and CSE-CIC-IDS2018: hours 1 to 7 are afternoon,
      so `3:30` is 15:30. This holds for this form alone, and makes a real 3:30 at night impossible in it.
    """
    text = text.strip()
    try:
        if _ISO.match(text):
            time = datetime.fromisoformat(text)
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        if _UNIX_SECONDS.fullmatch(text):
            return datetime.fromtimestamp(float(text), UTC)
        if match := _DAY_FIRST.fullmatch(text):
            return _day_first(*match.groups())
    except (ValueError, OverflowError):
        pass  # the shape of a time, but no time: a 31st of June, an hour 25
    return None


def _day_first(
    day: str, month: str, year: str, hour: str, minute: str, second: str | None, half: str | None
) -> datetime:
    hours = int(hour)
    if half:
        if not 1 <= hours <= 12:
            raise ValueError(f"hour {hours} on a 12-hour clock")
        hours = hours % 12 + (12 if half in "Pp" else 0)
    elif 1 <= hours <= 7:
        hours += 12
    return datetime(int(year), int(month), int(day), hours, int(minute), int(second or 0), tzinfo=UTC)


def to_us(time: datetime) -> int:
    """Microseconds since 1970 of a time with a zone."""
    return (time - _EPOCH) // _MICROSECOND
