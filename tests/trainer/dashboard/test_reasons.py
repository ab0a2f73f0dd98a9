"""Reasons against the benign range."""

import pytest

from schemas.alert import Reason
from trainer.dashboard.reasons import positions, table


def reason(feature: str, value: float | str | None, low: float | None = None, high: float | None = None) -> Reason:
    return Reason(feature=feature, value=value, unit="s", benign_low=low, benign_high=high, weight=0.5)


def test_numbers_are_placed_by_the_benign_range_and_the_rest_is_not() -> None:
    frame = positions(
        [reason("in", 5.0, 0.0, 10.0), reason("over", 30.0, 10.0, 20.0), reason("under", 0.0, 10.0, 20.0),
         reason("one value", 3.0, 1.0, 1.0), reason("that value", 1.0, 1.0, 1.0), reason("below it", -2.0, 1.0, 1.0),
         reason("category", "irc"), reason("missing", None, 0.0, 1.0), reason("half a range", 1.0, 0.0, None)]
    )  # fmt: skip
    assert dict(zip(frame["feature"], frame["position"], strict=True)) == pytest.approx(
        {"in": 0.5, "over": 2.0, "under": -1.0, "one value": 3.0, "that value": 0.5, "below it": -3.0}
    )


def test_every_reason_has_its_line() -> None:
    frame = table([reason("a", 1234567.0, 0.0, 1.0), reason("b", None), reason("c", "irc")])
    assert frame["value"].to_list() == ["1.23457e+06", "missing", "irc"]
    assert len(table([])) == 0
