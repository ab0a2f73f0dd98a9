"""Alerts read back from a real Kafka: committed ones only, all of them, and in words."""

import io
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from schemas.alert import Alert, FlowRef, Reason, Severity
from schemas.errors import FlowsentryError
from stream import viewing as module
from stream.subscribe import as_table_row, print_table, run_subscriber, subscribe
from tests.stream.alerts import alert

ANSWER_S = 30.0


class Alerts:
    """A topic, a producer into it, and what a subscriber reports."""

    def __init__(self, servers: str, topic: str) -> None:
        self.servers, self.topic, self.reports = servers, topic, list[str]()
        self.stop = threading.Event()
        self.ready = threading.Event()

    def report(self, what: str) -> None:
        self.reports.append(what)
        if what.startswith("reading"):
            self.ready.set()

    def producer(self, **properties: Any) -> Producer:
        return Producer({"bootstrap.servers": self.servers, **properties})

    def send(self, *values: Alert | bytes, partition: int = 0) -> None:
        producer = self.producer()
        for value in values:
            raw = value.model_dump_json().encode() if isinstance(value, Alert) else value
            producer.produce(self.topic, raw, partition=partition)
        assert producer.flush(ANSWER_S) == 0

    def read(self, count: int, *, from_beginning: bool = True, min_severity: Severity | None = None) -> list[Alert]:
        """The first `count` alerts, or those that came until `stop`."""
        found = subscribe(
            self.servers, self.topic, kafka={}, from_beginning=from_beginning, min_severity=min_severity,
            stop=self.stop, report=self.report,
        )  # fmt: skip
        try:
            return list(islice(found, count))
        finally:
            found.close()


@pytest.fixture
def alerts(bootstrap_servers: str, topic: Callable[..., str]) -> Iterator[Alerts]:
    place = Alerts(bootstrap_servers, topic("alerts", partitions=2))
    guard = threading.Timer(ANSWER_S, place.stop.set)  # a subscriber that finds too little ends all the same
    guard.start()
    yield place
    guard.cancel()


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def ids(found: list[Alert]) -> list[str]:
    return sorted(it.id.removeprefix("flows-0-") for it in found)


def test_only_committed_alerts_are_seen(alerts: Alerts) -> None:
    producer = alerts.producer(**{"transactional.id": alerts.topic})
    producer.init_transactions(ANSWER_S)
    for number, end in enumerate(
        (producer.commit_transaction, producer.abort_transaction, producer.commit_transaction)
    ):
        producer.begin_transaction()
        producer.produce(alerts.topic, alert(number).model_dump_json(), partition=number % 2)
        producer.flush(ANSWER_S)
        end(ANSWER_S)
    alerts.send(alert(3))
    assert ids(alerts.read(3)) == ["0", "2", "3"]


def test_new_ones_are_those_committed_from_now_on(alerts: Alerts, aside: ThreadPoolExecutor) -> None:
    alerts.send(alert(0))
    producer = alerts.producer(**{"transactional.id": alerts.topic})
    producer.init_transactions(ANSWER_S)
    producer.begin_transaction()
    producer.produce(alerts.topic, alert(1).model_dump_json(), partition=0)
    producer.flush(ANSWER_S)  # written, but not committed before the subscriber is there
    reading = aside.submit(alerts.read, 2, from_beginning=False)
    assert alerts.ready.wait(ANSWER_S)
    producer.commit_transaction(ANSWER_S)
    alerts.send(alert(2), partition=1)
    assert ids(reading.result(ANSWER_S)) == ["1", "2"]
    assert alerts.reports == [f"reading '{alerts.topic}', partitions 0, 1: new alerts"]


def test_what_is_no_alert_is_counted_and_skipped(alerts: Alerts) -> None:
    wrong = alert(0).model_dump(mode="json") | {"score": 2}
    alerts.send(b"garbage", b"", json.dumps(wrong).encode(), b"\xff", *[b"{}"] * 7, alert(1))
    assert ids(alerts.read(1)) == ["1"]
    told = [it for it in alerts.reports if "no alert" in it]
    assert [it.rpartition("; ")[2] for it in told[:2]] == ["1 so far", "10 so far"]
    assert told[0].startswith(f"{alerts.topic}-0-0 is no alert, skipped (")
    assert told[-1] == "messages that were no alerts: 11"


def test_least_severity(alerts: Alerts) -> None:
    alerts.send(*(alert(it.rank, severity=it) for it in Severity))
    assert ids(alerts.read(2, min_severity=Severity.HIGH)) == ["2", "3"]


def test_a_topic_that_comes_later_and_its_later_partitions(
    bootstrap_servers: str, aside: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.2)
    later = Alerts(bootstrap_servers, f"later-{uuid.uuid4().hex[:12]}")
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    reading = aside.submit(later.read, 2, from_beginning=False)
    deadline = time.monotonic() + ANSWER_S
    while not later.reports:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        admin.create_topics([NewTopic(later.topic, 1)])[later.topic].result(ANSWER_S)
        later.send(alert(0))
        assert later.ready.wait(ANSWER_S)
        admin.create_partitions([NewPartitions(later.topic, 2)])[later.topic].result(ANSWER_S)
        time.sleep(0.2)
        later.send(alert(1), partition=1)
        assert ids(reading.result(ANSWER_S)) == ["0", "1"]
    finally:
        later.stop.set()
        admin.delete_topics([later.topic])[later.topic].result(ANSWER_S)
    assert later.reports[0].startswith(f"topic '{later.topic}' does not exist")
    assert later.reports[1:] == [
        f"reading '{later.topic}', partitions 0: alerts from the beginning",
        f"reading '{later.topic}', partitions 1: alerts from the beginning",
    ]


def test_stop_ends_it(alerts: Alerts, aside: ThreadPoolExecutor) -> None:
    reading = aside.submit(alerts.read, 1)
    assert alerts.ready.wait(ANSWER_S)
    alerts.stop.set()
    assert reading.result(5) == []


def test_a_wrong_kafka_setting_is_named(alerts: Alerts) -> None:
    with pytest.raises(FlowsentryError, match=r"kafka: .*no\.such\.thing"):
        next(subscribe(alerts.servers, alerts.topic, kafka={"no.such.thing": 1}, from_beginning=True,
                       min_severity=None, stop=alerts.stop))  # fmt: skip


def run(alerts: Alerts, out: Any, format: Any) -> int:
    return run_subscriber(alerts.servers, alerts.topic, kafka={}, from_beginning=True, min_severity=None, format=format,
                          limit=2, stop=alerts.stop, out=out)  # fmt: skip


def test_json_lines_and_the_limit(alerts: Alerts, capsys: pytest.CaptureFixture[str]) -> None:
    alerts.send(b"garbage", alert(0), alert(1), alert(2))
    assert run(alerts, None, "json") == 0
    printed = capsys.readouterr()
    assert [Alert.model_validate_json(line) for line in printed.out.splitlines()] == [alert(0), alert(1)]
    assert "messages that were no alerts: 1" in printed.err


def test_the_table_off_a_terminal_is_whole_lines(alerts: Alerts) -> None:
    alerts.send(alert(0), alert(1))
    out = io.StringIO()
    assert run(alerts, out, "table") == 0
    heading, first, second = out.getvalue().splitlines()
    assert first == second and heading.index("family") == first.index("DDoS")
    words = "2017-07-07 12:02:55 high 10.0.0.1:80 → 10.0.0.2:443 DDoS 0.988 flow_packets_s 2.0e6 packets/s, benign 0.1–5.0e4"
    assert " ".join(first.split()) == words


def test_a_reader_that_is_gone_ends_it(alerts: Alerts) -> None:
    alerts.send(alert(0), alert(1))
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as out:
        assert run(alerts, out, "json") == 0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_table_on_a_terminal_is_coloured_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "130")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    print_table([alert(severity=Severity.CRITICAL)], out)
    line = out.getvalue().splitlines()[1]
    assert "\x1b[1;37;41mcritical" in line and line.rstrip().endswith("…")


def test_nothing_from_a_record_reaches_the_terminal_raw() -> None:
    evil = "\x1b[2J\nx"
    reason = Reason(feature=evil, value=evil, unit=evil, benign_share=0.0004, weight=1)
    row = as_table_row(alert(family=evil, flow=FlowRef(src_ip=evil), reasons=(reason,)))
    assert all(cell.isprintable() for cell in row)
    assert row[2:4] == ("?[2J?x → –", "?[2J?x")
    assert as_table_row(alert(reasons=()))[5] == "–"
