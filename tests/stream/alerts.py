"""Alerts made up for tests."""

from datetime import UTC, datetime
from typing import Any

from schemas.alert import Alert, BundleRef, FlowRef, Reason, Severity
from stream.alert_json import json_of
from stream.alerts import Alerts

__all__ = ["RATE", "alert", "as_read"]

RATE = Reason(feature="flow_packets_s", value=2e6, unit="packets/s", benign_low=0.1, benign_high=5e4, weight=1)


def alert(number: int = 0, **changes: Any) -> Alert:
    """An alert, with what is to be otherwise."""
    fields: dict[str, Any] = {
        "id": f"flows-0-{number}",
        "event_time": datetime(2017, 7, 7, 12, 2, 55, 371187, UTC),
        "detection_time": datetime(2026, 1, 1, tzinfo=UTC),
        "score": 0.98765,
        "threshold": 0.5,
        "severity": Severity.HIGH,
        "family": "DDoS",
        "family_probability": 0.9,
        "flow": FlowRef(src_ip="10.0.0.1", src_port=80, dst_ip="10.0.0.2", dst_port=443),
        "reasons": (RATE,),
        "bundle": BundleRef(name="test", version="1", hash="0" * 64),
    }
    return Alert(**(fields | changes))


def as_read(alerts: Alerts) -> list[Alert]:
    """A batch's alerts as a subscriber reads them."""
    return [Alert.model_validate_json(value) for value in json_of(alerts)]
