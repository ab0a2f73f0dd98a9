"""The alerts of a batch say what those say that are made one by one, and cost no Python for each."""

import json
import random
import re
import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest

from export.detector import Detector, Scores, load
from export.thresholds import NO_SCORE, Policy
from schemas.datasets import SCHEMAS
from schemas.flow import FlowSchema, Kind
from stream.alert_json import json_of
from stream.batch import Batch, FlowRecord
from stream.decode import Decoder
from stream.detect import detect
from stream.encode import messages_of
from stream.judge import Judged
from stream.metadata import METADATA, metadata_of
from stream.record import read_metadata
from stream.sink import Outgoing
from tests.bundles import make_bundle
from tests.stream.alerts import as_read
from tests.stream.records import DIALECTS, SEPARATORS, warm
from tests.stream.rig import THRESHOLD, attack, benign
from tests.stream.slow_alerts import slow_alerts

TEXTS = (
    *('"10.0.0.1"', '"::1"', '"fe80::1%eth0"', '""', '" "', '"null"', '"true"', '"a,b"', '"a}b"', '"{"', '"["', '":"', '"é"'),
    *('"\\u0041\\n"', '"\\ud83d\\ude00"', '"\\\\"', '"\\"x\\": 1"', '"😀"', '"\u2028"', '"\x7f"', "null", "true", "false", "[]"),
    *("[1, 2]", '{"src_ip": "x"}', "0", "-0", "443", "443.0", "4.43e2", "1e3", "1E+3", "0.1", "65535", "65536", "99999", "-1"),
    *('"443"', '"443.0"', '"0x01bb"', '"0x000b"', '"0o17"', '"1_0"', '" 7 "', '"007"', '"٤٤٣"', '"443.5"', '"-"', '"65536.0"'),
    *("12345678901234567890123", f'"{"x" * 200}"', f'"{"é" * 201}"', f'"{"y" * 5000}"', f"0.{'1' * 300}"),
)  # fmt: skip
TIMES = (
    *('"2017-07-07 12:02:55"', '"2017-07-07T12:02:55.371"', '"2017-07-07 12:02:55.371187Z"', '"2017-07-07T12:02:55+02:00"'),
    *('"2016-02-29 00:00:00"', '"2017-02-29 00:00:00"', '"2017-06-31T10:00:00"', '"2017-07-07 24:00:00"', '"2017-07-07 12:02"'),
    *('"2017-07-07 23:59:60"', '"0000-01-01 00:00:00"', '"0001-01-01 00:00:00"', '"7/7/2017 3:30"'),
    *('"9999-12-31 23:59:59.999999"', '" 2017-07-07 12:02:55 "', '"2017-07-07 12:02:55.3"', '"2017-07-07 12:02:55.3711871"',),
    *('"03/07/2017 08:55:58 PM"', "1421927414", "1421927414.25", '"1421927414"', "142192741", "14219274140"),
    *('"2017-07-07"', '"yesterday"', "1.4e9"),
)  # fmt: skip
_NOT_PLAIN = re.compile(r"[\[{\\]")
SENT_MS = (0, 1_700_000_000_123, -1, -(2**63), 2**63 - 1, 253_402_300_799_999, 253_402_300_800_000, -62_135_596_800_001)


@pytest.fixture(scope="module")
def detectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Detector]:
    """Tiny detectors that tell novelty, and two that do not tell all, by name."""
    folder = tmp_path_factory.mktemp("bundles")
    made: dict[str, Any] = {name: {"dataset": name, "novelty": True} for name in SCHEMAS}
    made["plain"] = {"dataset": "cicids2017-improved"}
    made["benign only"] = {"dataset": "unsw-nb15", "novelty": True, "classifies": False}
    return {name: load(make_bundle(folder / name, **options), threads=1) for name, options in made.items()}


def record(schema: FlowSchema, rng: random.Random) -> bytes:
    """A record that can be scored, in some dialect, with metadata in odd spellings; half of them are plain JSON."""
    spelling, is_plain = DIALECTS[rng.choice([*DIALECTS])], rng.random() < 0.5
    names = ("tcp", "http", "6", "never seen", "é", "z" * 300) if is_plain else ('a"b', "c\\d", "\n", "[", "tcp")
    members = []
    for feature in schema.features:
        if rng.random() < 0.1:
            continue
        numbers = (0, 1, 1.5, 1e-7, 0.1, 123456789.125, 1e21, 3e37, rng.random(), rng.expovariate(1e-4), "null")
        is_number = feature.kind is Kind.NUMERIC
        members.append(
            (
                spelling(feature),
                str(rng.choice(numbers)) if is_number else json.dumps(rng.choice(names), ensure_ascii=False),
            )
        )
    for column in schema.metadata:
        keys = rng.choices([column.name, *column.aliases, column.name.upper()], k=rng.choice([0, 1, 1, 1, 1, 2]))
        texts = (
            [*TIMES]
            if column.name == "timestamp"
            else [text for text in TEXTS if not (is_plain and _NOT_PLAIN.search(text))]
        )
        members += [(key, rng.choice(texts)) for key in keys if not is_plain or key not in dict(members)]
    if rng.random() < 0.5:
        rng.shuffle(members)
    comma, colon = rng.choice(SEPARATORS[:2] if is_plain else SEPARATORS)
    return ("{" + comma.join(f'"{key}"{colon}{raw}' for key, raw in members) + "}").encode()


def scores_of(detector: Detector, columns: dict[str, np.ndarray], rng: np.random.Generator) -> Scores:
    """Its own scores, but with attention and surprise anywhere, many of them equal."""
    scores = detector.score(columns)
    shape = scores.attention.shape
    scores.attention[:] = rng.choice([0.0, 0.25, 1.0, *rng.random(5)], shape).astype(np.float32) + np.float32(1e-6)
    if scores.surprise is not None:
        scores.surprise[:] = rng.choice([0.0, 2.0, *rng.random(5)], shape)
    return scores


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", [*SCHEMAS, "plain", "benign only"])
def test_alerts_say_what_those_made_one_by_one_say(detectors: dict[str, Detector], name: str, seed: int) -> None:
    detector, rng = detectors[name], random.Random(f"{name} {seed}")
    decoder = Decoder(detector.schema, min_feature_coverage=0.5)
    policy = Policy(rng.choice([0.3, 0.75]) if detector.manifest.classifies else NO_SCORE, rng.choice([3.0, 9.0, None]))
    for size in (1, 7, 200):
        batch = Batch(
            [
                FlowRecord("flows", 3, offset, None, record(detector.schema, rng), (), rng.choice(SENT_MS))
                for offset in range(size)
            ]
        )
        decoded = decoder.decode(batch.values)
        scores = scores_of(detector, decoded.columns, np.random.default_rng(seed))
        found = detect(batch, decoded, scores, policy.alerts(scores.score, scores.novelty), detector, policy)
        assert as_read(found) == slow_alerts(batch, decoded, scores, detector, policy, found.detection_time)
        assert all(json.loads(value)["id"] == id_ for value, id_ in zip(json_of(found), found.ids, strict=True))


@pytest.mark.parametrize("name", [*SCHEMAS])
def test_metadata_of_many_records_is_that_of_each(detectors: dict[str, Detector], name: str) -> None:
    schema, rng = detectors[name].schema, random.Random(name)
    decoder = warm(schema)
    proven = 0
    for _ in range(5):
        values = [record(schema, rng) for _ in range(300)]
        decoded = decoder.decode(values)
        usable = decoded.rows.tolist()
        columns = metadata_of([values[row] for row in usable], decoded.rows, decoded.proven, schema)
        for place, row in enumerate(usable):
            told = read_metadata(values[row], schema)
            assert {key: columns[key][place] for key in METADATA} == {key: told.get(key) for key in METADATA}
        proven += sum(len(plain.rows) for plain in decoded.proven)
    assert proven > 100, "nearly all were read one by one"


def test_a_key_that_stands_in_a_text_is_none(detectors: dict[str, Detector]) -> None:
    detector = detectors["unsw-nb15"]
    values = [attack(id=f"n{n}", state="srcip", srcip=f"10.0.0.{n}", label="'srcip': 1, sport") for n in range(40)]
    decoded = Decoder(detector.schema, min_feature_coverage=0.5).decode(values)
    assert sum(len(plain.rows) for plain in decoded.proven) > 30
    columns = metadata_of(values, decoded.rows, decoded.proven, detector.schema)
    assert columns["src_ip"].tolist() == [f"10.0.0.{n}" for n in range(40)]
    assert columns["src_port"].tolist() == [None] * 40


@pytest.mark.parametrize(
    "changes", [{"score": 1.5}, {"score": np.nan}, {"family_probability": -0.1}, {"attention": np.nan}]
)
def test_scores_that_no_alert_can_tell_are_an_error(detectors: dict[str, Detector], changes: dict[str, float]) -> None:
    detector = detectors["plain"]
    batch = Batch([FlowRecord("flows", 0, 0, None, record(detector.schema, random.Random(1)), (), 0)])
    decoded = Decoder(detector.schema, min_feature_coverage=0.1).decode(batch.values)
    scores = detector.score(decoded.columns)
    for name, value in changes.items():
        getattr(scores, name)[:] = value
    with pytest.raises(ValueError, match="that no alert can tell"):
        detect(batch, decoded, scores, np.ones(1, dtype=bool), detector, Policy(0.5))


def test_floats_are_read_as_the_same(detectors: dict[str, Detector]) -> None:
    rng = np.random.default_rng(5)
    numbers = np.frombuffer(rng.bytes(8 * 4000), dtype=np.float64)
    values = [
        attack(sttl=number) for number in (*numbers[np.abs(numbers) < 3e38].tolist(), 0.1, 1e16, 5e-324, 123456.75)
    ]
    detector = detectors["unsw-nb15"]
    batch = Batch([FlowRecord("flows", 0, offset, None, value, (), 0) for offset, value in enumerate(values)])
    decoded = Decoder(detector.schema, min_feature_coverage=0.5).decode(values)
    scores = detector.score(decoded.columns)
    scores.attention[:] = [
        info.name == "sttl"
        for info in detector.reasons_of(decoded.columns, scores, decoded.rows[:1], np.zeros(1, bool)).order
    ]
    alerts = as_read(detect(batch, decoded, scores, np.ones(len(values), dtype=bool), detector, Policy(0.0)))
    assert [alert.reasons[0].value for alert in alerts] == decoded.columns["sttl"].tolist()
    assert [alert.score for alert in alerts] == scores.score.astype(np.float64).tolist()


def calls_of(detector: Detector, alerts: int) -> int:
    """How many Python functions are called for the messages of a batch of 1000 flows with so many alerts."""
    values = [
        attack(srcip=f"10.0.0.{row}", sport=row, timestamp=f"2017-07-07 12:02:55.{row:06}") for row in range(alerts)
    ]
    values += [benign()] * (1000 - alerts)
    batch = Batch([FlowRecord("flows", 0, offset, None, value, (), 0) for offset, value in enumerate(values)])
    decoder = Decoder(detector.schema, min_feature_coverage=0.5)
    decoder.decode(batch.values)  # which learns the dialect
    decoded = decoder.decode(batch.values)
    scores = detector.score(decoded.columns)

    policy = Policy(THRESHOLD)

    def work() -> list[Outgoing]:
        alerting = policy.alerts(scores.score, scores.novelty)
        found = detect(batch, decoded, scores, alerting, detector, policy)
        return messages_of(Judged([found], []), alerts_topic="alerts", dead_letters_topic="dead")

    count = 0

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    assert len(work()) == alerts
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def test_an_alert_costs_few_calls_of_python(tiny_detector: Detector) -> None:
    assert calls_of(tiny_detector, 500) - calls_of(tiny_detector, 50) <= 4 * 450
