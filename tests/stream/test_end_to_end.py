"""The promise of the whole path: the alerts on the topic are exactly those that offline scoring names."""

import csv
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from export.__main__ import main as export_main
from schemas.alert import Alert
from schemas.dead_letter import DeadLetter, Reason
from stream.__main__ import main as stream_main
from stream.batch import headers_of
from tests.kafka import committed, end_offsets, produce, read_all, running_service, wait_until_consumed

BUNDLE = Path("bundles/cicids2017-improved")
SAMPLE = Path("stream/sample/cicids2017-improved.csv.gz")
ROWS = 1200
EPSILON = 1e-6


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[float, int]]:
    """Row → score and verdict, by `export score`."""
    out = tmp_path_factory.mktemp("scores") / "scores.csv"
    assert export_main(["score", str(BUNDLE), "--input", str(SAMPLE), "--output", str(out)]) == 0
    with out.open() as file:
        return {int(row["row"]): (float(row["score"]), int(row["verdict"])) for row in csv.DictReader(file)}


def alerts_of(servers: str, flows: str) -> list[Alert]:
    return [Alert.model_validate_json(message.value() or b"") for message in read_all(servers, f"{flows}.alerts")]


def check_alerts(servers: str, flows: str, scored: dict[int, tuple[float, int]], rows: int) -> None:
    """Equal sets, id by id; a score within 1e-6 of the threshold may fall either way."""
    row_of = {
        f"{m.topic()}-{m.partition()}-{m.offset()}": int(dict(headers_of(m))["row"] or -1)
        for m in read_all(servers, flows)
    }
    assert len(row_of) == rows
    alerts = alerts_of(servers, flows)
    ids = [alert.id for alert in alerts]
    assert len(ids) == len(set(ids)), "an alert came twice"
    threshold = alerts[0].threshold
    assert threshold is not None
    expected = {record for record, row in row_of.items() if scored[row][1]}
    unclear = {record for record, row in row_of.items() if abs(scored[row][0] - threshold) < EPSILON}
    assert set(ids) - unclear == expected - unclear
    assert {alert.id: alert.score for alert in alerts} == pytest.approx(
        {alert.id: scored[row_of[alert.id]][0] for alert in alerts}, abs=EPSILON
    )


def replay(servers: str, topic: str, rows: int) -> None:
    assert (
        stream_main(["replay", str(SAMPLE), "--topic", topic, "--limit", str(rows), "--bootstrap-servers", servers])
        == 0
    )


def test_alerts_are_those_of_offline_scoring(
    bootstrap_servers: str, topic: Callable[..., str], scored: dict[int, tuple[float, int]]
) -> None:
    flows = topic("flows", 2)
    with running_service(bootstrap_servers, BUNDLE, flows) as service:
        replay(bootstrap_servers, flows, ROWS)
        wait_until_consumed(bootstrap_servers, flows, flows, service)
    check_alerts(bootstrap_servers, flows, scored, ROWS)
    assert read_all(bootstrap_servers, f"{flows}.dead") == []


def test_sigterm_in_mid_stream_and_a_restart_lose_nothing_and_double_nothing(
    bootstrap_servers: str, topic: Callable[..., str], scored: dict[int, tuple[float, int]]
) -> None:
    flows = topic("flows")
    replay(bootstrap_servers, flows, ROWS)
    with running_service(bootstrap_servers, BUNDLE, flows, "--batch-size", "50") as service:
        deadline = time.monotonic() + 60
        while (done := committed(bootstrap_servers, flows, flows)[0]) <= 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
    stopped_at = committed(bootstrap_servers, flows, flows)[0]
    assert 0 < done <= stopped_at < ROWS, "it was not stopped in mid-stream"
    with running_service(bootstrap_servers, BUNDLE, flows) as service:
        wait_until_consumed(bootstrap_servers, flows, flows, service)
    check_alerts(bootstrap_servers, flows, scored, ROWS)


def test_two_workers_share_the_partitions(
    bootstrap_servers: str, topic: Callable[..., str], scored: dict[int, tuple[float, int]]
) -> None:
    flows = topic("flows", 4)
    replay(bootstrap_servers, flows, 400)
    with running_service(bootstrap_servers, BUNDLE, flows, "--workers", "2") as service:
        wait_until_consumed(bootstrap_servers, flows, flows, service)
    check_alerts(bootstrap_servers, flows, scored, 400)


def test_one_bad_record_costs_only_itself_and_is_set_aside_byte_for_byte(
    bootstrap_servers: str, topic: Callable[..., str], scored: dict[int, tuple[float, int]]
) -> None:
    flows = topic("flows")
    bad: dict[bytes | None, Reason] = {
        b'{"Flow Duration": NaN}': Reason.NOT_JSON,
        b" \x00\xff garbage \n": Reason.NOT_JSON,
        b"[1, 2]": Reason.NOT_AN_OBJECT,
        b"": Reason.EMPTY,
        None: Reason.EMPTY,
        b'{"Flow Duration": "long"}': Reason.WRONG_TYPE,
        b'{"Flow Duration": 1e400}': Reason.OUT_OF_RANGE,
        b'{"colour": "red"}': Reason.NO_KNOWN_FIELD,
        b'{"Flow Duration": 7}': Reason.TOO_FEW_FEATURES,
    }
    replay(bootstrap_servers, flows, 100)
    produce(bootstrap_servers, flows, list(bad), headers={"origin": b"probe-7"}, key=b"\xfekey")
    replay(bootstrap_servers, flows, 100)
    with running_service(bootstrap_servers, BUNDLE, flows) as service:
        wait_until_consumed(bootstrap_servers, flows, flows, service)

    letters = read_all(bootstrap_servers, f"{flows}.dead")
    assert [letter.value() for letter in letters] == list(bad)
    for letter, (value, reason), offset in zip(letters, bad.items(), range(100, 200), strict=False):
        headers = headers_of(letter)
        told = DeadLetter.from_headers(headers)
        assert (letter.key(), dict(headers)["origin"]) == (b"\xfekey", b"probe-7")
        assert (told.reason, told.topic, told.partition, told.offset) == (reason, flows, 0, offset), value
        assert told.detail
    wrong_type = DeadLetter.from_headers(headers_of(letters[5]))
    assert (wrong_type.field, wrong_type.value) == ("Flow Duration", '"long"')

    alerted = {alert.id for alert in alerts_of(bootstrap_servers, flows)}
    attacks = {f"{flows}-0-{row + shift}" for row in range(100) if scored[row][1] for shift in (0, 100 + len(bad))}
    assert alerted == attacks
    assert end_offsets(bootstrap_servers, flows)[0] == 200 + len(bad)


def test_at_least_once_gives_the_same_alerts_when_nothing_breaks(
    bootstrap_servers: str, topic: Callable[..., str], scored: dict[int, tuple[float, int]]
) -> None:
    flows = topic("flows")
    replay(bootstrap_servers, flows, 300)
    with running_service(bootstrap_servers, BUNDLE, flows, "--delivery", "at-least-once") as service:
        wait_until_consumed(bootstrap_servers, flows, flows, service)
    check_alerts(bootstrap_servers, flows, scored, 300)
