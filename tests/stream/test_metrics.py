"""What a scrape of `/metrics` finds."""

import pytest

from export.detector import Detector
from schemas.alert import Severity
from schemas.dead_letter import Reason
from schemas.flow import UNKNOWN
from stream.metrics import STAGES, Metrics


def test_everything_is_named_and_explained() -> None:
    families = list(Metrics().registry.collect())
    assert len(families) == 24
    assert all(family.name.startswith("flowsentry_") and family.documentation.endswith(".") for family in families)


def test_every_stage_is_there_before_the_first_batch() -> None:
    registry = Metrics().registry
    for stage in STAGES:
        assert registry.get_sample_value("flowsentry_stage_seconds_count", {"stage": stage}) == 0


def test_what_prometheus_takes_rates_of_is_there_at_zero_before_it_happens(tiny_detector: Detector) -> None:
    metrics = Metrics()
    metrics.set_bundle(tiny_detector.manifest)
    value = metrics.registry.get_sample_value
    assert {value("flowsentry_dead_letters_total", {"reason": reason.value}) for reason in Reason} == {0}
    assert {value("flowsentry_rebalances_total", {"event": event}) for event in ("assigned", "revoked", "lost")} == {0}
    alerts = [
        value("flowsentry_alerts_total", {"family": family, "severity": severity.value})
        for family in tiny_detector.manifest.families
        for severity in Severity
    ]
    assert len(alerts) > 8 and set(alerts) == {0}
    assert value("flowsentry_alerts_total", {"family": UNKNOWN, "severity": "high"}) is None, "it tells no novelty"


def test_a_stage_is_timed_once_a_batch() -> None:
    metrics = Metrics()
    for _ in range(3):
        with metrics.stage("score"):
            pass
    assert metrics.registry.get_sample_value("flowsentry_stage_seconds_count", {"stage": "score"}) == 3
    assert (metrics.registry.get_sample_value("flowsentry_stage_seconds_sum", {"stage": "score"}) or 0) > 0


def test_a_stage_that_fails_is_not_counted() -> None:
    metrics = Metrics()
    with pytest.raises(ValueError, match="broken"), metrics.stage("decode"):
        raise ValueError("broken")
    assert metrics.registry.get_sample_value("flowsentry_stage_seconds_count", {"stage": "decode"}) == 0


def test_partitions_that_went_to_another_worker_are_no_longer_reported() -> None:
    metrics = Metrics()
    metrics.set_lags({0: 5, 1: 7})
    metrics.set_lags({1: 2})
    assert metrics.registry.get_sample_value("flowsentry_lag", {"partition": "0"}) is None
    assert metrics.registry.get_sample_value("flowsentry_lag", {"partition": "1"}) == 2
    assert metrics.registry.get_sample_value("flowsentry_assigned_partitions") == 1


def test_one_bundle_is_in_use(tiny_detector: Detector) -> None:
    metrics = Metrics()
    metrics.set_bundle(tiny_detector.manifest)
    metrics.set_bundle(tiny_detector.manifest)
    [family] = [family for family in metrics.registry.collect() if family.name == "flowsentry_bundle_info"]
    [sample] = family.samples
    assert sample.value == 1
    assert sample.labels == {
        "name": "tiny-unsw-nb15",
        "version": "0.0.1",
        "hash": tiny_detector.manifest.hash,
        "dataset": "unsw-nb15",
    }
