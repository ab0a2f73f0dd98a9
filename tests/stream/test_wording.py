"""Parts of an alert in words."""

from typing import Any

import pytest

from schemas.alert import FlowRef, Reason
from stream.wording import endpoint, reason_in_words


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        (FlowRef(), "– → –"),
        (FlowRef(dst_port=443), "– → –:443"),
        (FlowRef(src_ip="fe80::1", src_port=0, dst_ip="::1"), "[fe80::1]:0 → ::1"),
    ],
)
def test_endpoints(flow: FlowRef, words: str) -> None:
    assert endpoint(flow) == words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "x 1234 bytes, benign 0.001–9999"),
        ({"value": None}, "x missing, benign 0.001–9999"),
        ({"value": -0.0, "benign_low": 0.0, "benign_high": 0.0}, "x 0 bytes, benign 0"),
        ({"value": 10_000.4, "benign_low": None}, "x 1.0e4 bytes, benign up to 9999"),
        ({"value": -1.5e-7, "benign_high": None}, "x -1.5e-7 bytes, benign from 0.001"),
        ({"value": 1.0, "unit": "0 or 1", "benign_low": None, "benign_high": None}, "x 1"),
        ({"value": "irc", "unit": "name", "benign_low": None, "benign_high": None, "benign_share": 0.0004},
         'x "irc", <0.1% of benign flows'),
        ({"value": "irc", "benign_low": None, "benign_high": None, "benign_share": 0.0}, 'x "irc", 0% of benign flows'),
    ],
)  # fmt: skip
def test_reasons_in_words(changes: dict[str, Any], words: str) -> None:
    fields: dict[str, Any] = {
        "feature": "x",
        "value": 1234,
        "unit": "bytes",
        "benign_low": 0.001,
        "benign_high": 9999,
        "weight": 1,
    }
    assert reason_in_words(Reason(**(fields | changes))) == words
