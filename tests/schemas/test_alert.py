"""The alert contract."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.alert import Alert, BundleRef, FlowRef, Reason, Severity

SHARES = st.floats(0, 1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
PORTS = st.none() | st.integers(0, 65535)
TIMES = st.datetimes(timezones=st.just(UTC))

FLOWS = st.builds(
    FlowRef,
    src_ip=st.none() | TEXTS,
    src_port=PORTS,
    dst_ip=st.none() | TEXTS,
    dst_port=PORTS,
    protocol=st.none() | TEXTS,
    flow_id=st.none() | TEXTS,
)
REASONS = st.builds(
    Reason,
    feature=TEXTS,
    value=st.none() | NUMBERS | TEXTS,
    unit=TEXTS,
    benign_low=st.none() | NUMBERS,
    benign_high=st.none() | NUMBERS,
    benign_share=st.none() | SHARES,
    weight=st.floats(0, allow_infinity=False),
)
ALERTS = st.builds(
    Alert,
    id=st.from_regex(r"[a-z.-]{1,9}-[0-9]{1,3}-[0-9]{1,9}", fullmatch=True),
    event_time=TIMES,
    detection_time=TIMES,
    score=SHARES,
    threshold=SHARES,
    severity=st.sampled_from(Severity),
    family=TEXTS,
    family_probability=SHARES,
    techniques=st.lists(TEXTS, max_size=3).map(tuple),
    flow=FLOWS,
    reasons=st.lists(REASONS, max_size=3).map(tuple),
    bundle=st.builds(BundleRef, name=TEXTS, version=TEXTS, hash=TEXTS),
)


def example(**changes: Any) -> dict[str, Any]:
    return {
        "id": "flows-3-42",
        "event_time": "2017-07-05T12:00:00Z",
        "detection_time": "2026-01-01T00:00:00Z",
        "score": 0.97,
        "threshold": 0.9,
        "severity": "high",
        "family": "DoS Hulk",
        "family_probability": 0.8,
        "techniques": ["T1499.002"],
        "flow": {"src_ip": "192.0.2.1", "dst_port": 443},
        "reasons": [{"feature": "flow_duration", "value": 1.5, "unit": "µs", "weight": 0.4}],
        "bundle": {"name": "tiny", "version": "1", "hash": "0" * 64},
        **changes,
    }


@settings(max_examples=50, deadline=None)
@given(ALERTS)
def test_an_alert_survives_the_wire(alert: Alert) -> None:
    assert Alert.model_validate_json(alert.model_dump_json().encode()) == alert


def test_an_alert_on_the_wire_has_every_field() -> None:
    sent = json.loads(Alert.model_validate(example()).model_dump_json())
    assert sent.keys() == Alert.model_fields.keys()
    assert sent["schema_version"] == "1"
    assert sent["severity"] == "high"
    assert sent["event_time"] == "2017-07-05T12:00:00Z"
    assert sent["flow"].keys() == FlowRef.model_fields.keys()
    assert sent["flow"]["src_port"] is None
    assert sent["reasons"][0] == {
        "feature": "flow_duration",
        "value": 1.5,
        "unit": "µs",
        "benign_low": None,
        "benign_high": None,
        "benign_share": None,
        "weight": 0.4,
    }


def test_times_keep_their_instant() -> None:
    east = datetime(2017, 7, 5, 14, tzinfo=timezone(timedelta(hours=2)))
    alert = Alert.model_validate(example(event_time=east))
    assert Alert.model_validate_json(alert.model_dump_json()).event_time == datetime(2017, 7, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"id": "flows"}, "id"),
        ({"id": "-3-42"}, "id"),
        ({"score": 1.01}, "score"),
        ({"score": "high"}, "score"),
        ({"threshold": -0.1}, "threshold"),
        ({"severity": "severe"}, "severity"),
        ({"family_probability": 2}, "family_probability"),
        ({"flow": {"src_port": 65536}}, "flow.src_port"),
        ({"flow": {"port": 1}}, "flow.port"),
        ({"reasons": [{"feature": "a", "value": 1, "weight": -1}]}, "reasons.0.weight"),
        ({"reasons": [{"feature": "a", "value": 1, "weight": 1, "benign_share": 2}]}, "reasons.0.benign_share"),
        ({"bundle": {"name": "x", "version": "1"}}, "bundle.hash"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_what_is_no_alert_is_refused_at_its_place(changes: dict[str, object], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Alert.model_validate(example(**changes))
    assert [".".join(map(str, problem["loc"])) for problem in caught.value.errors()] == [place]


def test_an_alert_cannot_be_changed() -> None:
    alert = Alert.model_validate(example())
    with pytest.raises(ValidationError, match="frozen"):
        alert.score = 0.1  # type: ignore[misc]


def test_severities_are_in_rising_order() -> None:
    assert [severity.rank for severity in (Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL)] == [
        0,
        1,
        2,
        3,
    ]


@pytest.mark.parametrize("model", [Alert, FlowRef, Reason, BundleRef])
def test_every_field_has_a_description(model: type[Alert]) -> None:
    assert model.__doc__
    assert [name for name, field in model.model_fields.items() if not field.description] == []
