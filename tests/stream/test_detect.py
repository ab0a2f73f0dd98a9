"""Scores → alerts and rejects → dead letters, without Kafka: what an alert says is all decided here."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from export.detector import Detector, load
from export.thresholds import Policy
from schemas.alert import Alert, FlowRef, Severity, Verdict
from schemas.dead_letter import DeadLetter, Reason, Reject
from stream.batch import Batch, FlowRecord
from stream.decode import Decoder
from stream.detect import dead_letter, detect
from stream.record import Limits
from tests.bundles import make_bundle
from tests.stream.alerts import as_read
from tests.stream.rig import THRESHOLD, attack, benign, flow

KAFKA_TIME = datetime(2026, 3, 4, 5, 6, 7, 891_000, UTC)
KAFKA_TIME_MS = round(KAFKA_TIME.timestamp() * 1000)


def judged(
    detector: Detector, *values: bytes, threshold: float = THRESHOLD, timestamp_ms: int = KAFKA_TIME_MS, **changes: Any
) -> list[Alert]:
    """What becomes of records: the way from bytes to bytes that the service goes; `changes` are of the scores."""
    batch = Batch(
        [FlowRecord("flows", 3, offset, b"key", value, (), timestamp_ms) for offset, value in enumerate(values)]
    )
    decoded = Decoder(detector.schema, min_feature_coverage=0.5).decode(batch.values)
    scores = replace(detector.score(decoded.columns), **changes)
    policy = Policy(threshold)
    return as_read(detect(batch, decoded, scores, policy.alerts(scores.score, scores.novelty), detector, policy))


def alert_of(detector: Detector, **fields: Any) -> Alert:
    [alert] = judged(detector, attack(**fields))
    return alert


@pytest.fixture(scope="module")
def cic_detector(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Detector]:
    """Tiny detectors of the other data sets, by name."""
    folder = tmp_path_factory.mktemp("cic")
    return {name: load(make_bundle(folder / name, name), threads=1) for name in ("cicids2017", "cicids2017-improved")}


def cic_attack(detector: Detector, **fields: Any) -> bytes:
    plain = {feature.name: 1 for feature in detector.schema.numeric}
    return json.dumps({**plain, "total_fwd_packets": 9e9, "fwd_packet_length_mean": 0, **fields}).encode()


def test_only_flows_from_the_threshold_on_are_alerts_in_the_batch_s_order(tiny_detector: Detector) -> None:
    found = judged(tiny_detector, attack(), b"garbage", benign(), attack(sttl=999), benign())
    assert [alert.id for alert in found] == ["flows-3-0", "flows-3-3"]
    assert all(alert.score is not None and alert.score >= THRESHOLD == alert.threshold for alert in found)
    assert judged(tiny_detector) == []


def test_a_score_at_the_threshold_is_an_alert_and_one_below_it_is_not(tiny_detector: Detector) -> None:
    score = float(tiny_detector.score({"sttl": np.array([1000.0])}).score[0])
    only_sttl = json.dumps({**flow(), "service": None, "dpkts": None} | {"sttl": 1000}).encode()
    [alert] = judged(tiny_detector, only_sttl, threshold=score)
    assert alert.score == pytest.approx(score)
    assert judged(tiny_detector, only_sttl, threshold=float(np.nextafter(np.float32(score), np.float32(2)))) == []


def test_an_alert_says_what_was_found_by_which_bundle(tiny_detector: Detector) -> None:
    before = datetime.now(UTC)
    alert = alert_of(tiny_detector)
    manifest = tiny_detector.manifest
    assert (alert.bundle.name, alert.bundle.version, alert.bundle.hash) == ("tiny-unsw-nb15", "0.0.1", manifest.hash)
    assert before <= alert.detection_time <= datetime.now(UTC)
    family = tiny_detector.schema.family_by_name[alert.family]
    assert family.is_attack and alert.techniques == family.techniques
    assert alert.family_probability is not None and 1 / len(manifest.families) <= alert.family_probability <= 1
    assert (alert.verdict, alert.novelty, alert.novelty_threshold) == (Verdict.KNOWN, None, None)


@pytest.mark.parametrize(
    ("score", "severity"),
    [(0.75, "low"), (0.89, "low"), (0.9, "medium"), (0.96, "high"), (0.98, "critical"), (1.0, "critical")],
)
def test_severity_is_the_highest_of_the_bundle_s_steps_that_the_score_reaches(
    tiny_detector: Detector, score: float, severity: str
) -> None:
    [alert] = judged(tiny_detector, attack(), score=np.array([score]))
    assert (alert.score, alert.severity) == (score, Severity(severity))


def test_reasons_are_the_strongest_features_with_what_is_usual_for_them(tiny_detector: Detector) -> None:
    alert = alert_of(tiny_detector, sttl=1e6, service="irc")
    weights = [reason.weight for reason in alert.reasons]
    assert len(weights) == 3 and weights == sorted(weights, reverse=True) and sum(weights) <= 1
    first = alert.reasons[0]
    assert (first.feature, first.value, first.unit, first.benign_low, first.benign_high) == (
        "sttl",
        1e6,
        "hops",
        0,
        600,
    )


def test_a_category_among_the_reasons_comes_with_its_share_of_benign_flows(tiny_detector: Detector) -> None:
    for service, share in (("irc", 0.0), ("dns", 0.3)):
        [alert] = judged(tiny_detector, attack(service=service), attention=_attention(tiny_detector, "service"))
        assert (alert.reasons[0].value, alert.reasons[0].benign_share) == (service, share)


def _attention(detector: Detector, name: str) -> np.ndarray:
    """All attention on one feature, in the graph's order."""
    order = [feature.name for feature in (*detector.schema.numeric, *detector.schema.categorical)]
    return np.array([[float(each == name) for each in order]], dtype=np.float32)


PORTS = [
    ("443", 443),
    (443, 443),
    (443.0, 443),
    ("443.0", 443),
    ("0x01bb", 443),
    ("0x000b", 11),
    ("0", 0),
    ("65535", 65535),
    ("65536", None),
    (-1, None),
    ("-", None),
    ("", None),
    ("http", None),
    ("443.5", None),
    (None, None),
    (True, None),
    ("9" * 5000, None),
]


@pytest.mark.parametrize(("spelled", "port"), PORTS, ids=[repr(spelled)[:12] for spelled, _ in PORTS])
def test_a_port_in_any_spelling_of_the_releases(tiny_detector: Detector, spelled: object, port: int | None) -> None:
    flow_ref = alert_of(tiny_detector, sport=spelled, dst_port=spelled).flow
    assert (flow_ref.src_port, flow_ref.dst_port) == (port, port)


def test_what_the_record_does_not_say_is_null(tiny_detector: Detector) -> None:
    assert alert_of(tiny_detector).flow == FlowRef(protocol="tcp")
    assert alert_of(tiny_detector, proto=None).flow == FlowRef()


def test_addresses_and_ids_are_those_of_the_record_in_either_dialect(tiny_detector: Detector) -> None:
    raw = alert_of(tiny_detector, srcip="59.166.0.0", dstip="149.171.126.6", sport=1390, dsport="53", id=17)
    named = alert_of(
        tiny_detector, **{"Src IP": "59.166.0.0", "Dst_IP": "149.171.126.6", "src_port": 1390, "dst_port": 53}
    )
    assert raw.flow == FlowRef(
        src_ip="59.166.0.0", src_port=1390, dst_ip="149.171.126.6", dst_port=53, protocol="tcp", flow_id="17"
    )
    assert named.flow == raw.flow.model_copy(update={"flow_id": None})


def test_the_protocol_is_the_feature_where_it_is_one_and_the_metadata_where_not(
    cic_detector: dict[str, Detector],
) -> None:
    feature, metadata = cic_detector["cicids2017-improved"], cic_detector["cicids2017"]
    [by_feature] = judged(feature, cic_attack(feature, Protocol=6.0))
    [by_metadata] = judged(metadata, cic_attack(metadata, Protocol="UDP", **{"Flow ID": "a-b-1-2-17"}))
    assert by_feature.flow.protocol == "6"
    assert (by_metadata.flow.protocol, by_metadata.flow.flow_id) == ("UDP", "a-b-1-2-17")


def test_the_event_time_is_the_record_s_own_timestamp(tiny_detector: Detector) -> None:
    assert alert_of(tiny_detector, stime=1421927414).event_time == datetime(2015, 1, 22, 11, 50, 14, tzinfo=UTC)
    assert alert_of(tiny_detector, timestamp="2017-07-07T12:02:55+02:00").event_time == datetime(
        2017, 7, 7, 10, 2, 55, tzinfo=UTC
    )


@pytest.mark.parametrize("timestamp", [None, "", "yesterday", 7, [1], "2017-02-31 10:00:00"])
def test_without_a_readable_timestamp_the_event_time_is_kafka_s(tiny_detector: Detector, timestamp: object) -> None:
    assert alert_of(tiny_detector, timestamp=timestamp).event_time == KAFKA_TIME


@pytest.mark.parametrize(("timestamp_ms", "year"), [(-(2**63), 1), (2**63 - 1, 9999), (-1, 1969), (10**14, 5138)])
def test_a_kafka_timestamp_that_no_calendar_holds_stops_nothing(
    tiny_detector: Detector, timestamp_ms: int, year: int
) -> None:
    [alert] = judged(tiny_detector, attack(), timestamp_ms=timestamp_ms)
    assert alert.event_time.year == year


def test_however_long_its_texts_an_alert_stays_small(tiny_detector: Detector) -> None:
    long = dict.fromkeys(
        ("proto", "service", "state", "srcip", "sport", "id", "timestamp"), "x" * Limits().max_string_chars
    )
    alert = alert_of(tiny_detector, **long)
    assert len(alert.model_dump_json()) < 3000
    assert alert.flow.protocol == "x" * 200
    [alert] = judged(tiny_detector, attack(**long), attention=_attention(tiny_detector, "service"))
    assert (alert.reasons[0].feature, alert.reasons[0].value) == ("service", "x" * 200)


def test_a_dead_letter_tells_why_and_where_from() -> None:
    reject = Reject(0, Reason.WRONG_TYPE, "is a string", field="dur", value='"' + "y" * 500)
    letter = dead_letter(FlowRecord("flows", 3, 41, b"key", b"{}", (), KAFKA_TIME_MS), reject)
    assert (letter.topic, letter.partition, letter.offset) == ("flows", 3, 41)
    assert (letter.reason, letter.detail, letter.field) == (Reason.WRONG_TYPE, "is a string", "dur")
    assert letter.value == '"' + "y" * 199
    assert DeadLetter.from_headers(letter.to_headers()) == letter


def headers_told(*headers: tuple[str, bytes | None], value: str = "") -> DeadLetter:
    """The letter of a record with these headers, as it is read back from the topic."""
    record = FlowRecord("flows", 3, 41, b"key", b"{}", headers, KAFKA_TIME_MS)
    letter = dead_letter(record, Reject(0, Reason.WRONG_TYPE, "is a string", value=value))
    return DeadLetter.from_headers([*headers, *letter.to_headers()])


def test_a_dead_letter_has_the_hops_of_its_record() -> None:
    assert headers_told().hops == 0
    assert headers_told(("flowsentry-hops", b"2")).hops == 2
    assert (
        headers_told(("flowsentry-hops", b"2"), ("other", b"9"), ("flowsentry-hops", b"3"), ("other", None)).hops == 3
    )


@pytest.mark.parametrize(
    "hops", [None, b"", b"-1", b"1.0", b" 1", b"1_0", "１".encode(), b"\xff", b"9" * 7, b"9" * 9999]
)
def test_hops_that_are_no_count_are_none(hops: bytes | None) -> None:
    assert headers_told(("flowsentry-hops", hops)).hops == 0


def test_a_hostile_record_can_neither_break_its_dead_letter_nor_speak_for_it() -> None:
    hostile = [(f"flowsentry-{name}", b"\xff") for name in (*DeadLetter.model_fields, "surplus", "")]
    letter = headers_told(*hostile, value="\ud800" * 200)
    assert (letter.reason, letter.topic, letter.partition, letter.offset, letter.hops) == (
        Reason.WRONG_TYPE, "flows", 3, 41, 0,
    )  # fmt: skip
    assert len(letter.value) == 200
