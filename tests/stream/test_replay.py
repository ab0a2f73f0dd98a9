"""Replay onto a real Kafka, and its pace by a clock that does not need waiting for."""

import io
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from rich.console import Console

from schemas.datasets import SCHEMAS
from schemas.errors import FlowsentryError, ParamsError
from stream.pace import Pace
from stream.replay import ReplayRecord, replay, shown_progress
from stream.topics import partitions_of

CIC = SCHEMAS["cicids2017"]
ANSWER_S = 30.0


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    path = tmp_path / "flows.csv"
    rows = (f"2017-07-07 12:00:{row:02d}.500000,{row},BENIGN\n" for row in range(20))
    path.write_text(" Timestamp, Flow Duration, Label\n" + "".join(rows))
    return path


def consumed(servers: str, topic: str, partitions: int = 1) -> list[Message]:
    """All there is, in order of partition and offset."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test", "enable.auto.commit": False})
    try:
        places = [TopicPartition(topic, number, 0) for number in range(partitions)]
        expected = sum(consumer.get_watermark_offsets(place, timeout=ANSWER_S)[1] for place in places)
        consumer.assign(places)
        messages: list[Message] = []
        deadline = time.monotonic() + ANSWER_S
        while len(messages) < expected:
            assert time.monotonic() < deadline
            messages += consumer.consume(expected - len(messages), 0.5)
        return sorted(messages, key=lambda it: (it.partition(), it.offset()))
    finally:
        consumer.close()


@pytest.fixture
def send(bootstrap_servers: str, topic: Callable[..., str]) -> Callable[..., Any]:
    """`send(files, **options)` → (summary, messages) on a topic of its own."""

    def run(*files: Path, **options: Any) -> Any:
        name = topic("flows")
        arguments: dict[str, Any] = {"bootstrap_servers": bootstrap_servers, "topic": name, "kafka": {}}
        summary = replay(files, CIC, **{"stop": threading.Event(), **arguments, **options})
        return summary, consumed(bootstrap_servers, name)

    return run


def test_every_record_arrives_in_order(send: Callable[..., Any], flows: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("Flow Duration,Label\n7,DDoS\n1,2,3\n")
    began = time.time()
    summary, messages = send(flows, other)
    assert (summary.produced, summary.stopped) == (22, False)
    assert summary.bytes == sum(len(it.value()) for it in messages)
    assert summary.flows_s == pytest.approx(22 / summary.seconds)
    assert [json.loads(it.value())["Flow Duration"] for it in messages[:21]] == [*range(20), 7]
    assert messages[21].value() == b"1,2,3"
    assert messages[20].headers() == [("row", b"0"), ("file", b"other.csv"), ("label", b"DDoS")]
    assert {it.key() for it in messages} == {None}
    assert all(began - 1 <= it.timestamp()[1] / 1000 <= time.time() + 1 for it in messages)


def test_loop_and_limit(send: Callable[..., Any], flows: Path) -> None:
    summary, messages = send(flows, loop=True, limit=45)
    assert (summary.produced, summary.stopped, len(messages)) == (45, False, 45)
    assert json.loads(messages[44].value())["Flow Duration"] == 4


def test_stop_ends_a_loop_and_loses_nothing(send: Callable[..., Any], flows: Path) -> None:
    stop = threading.Event()
    summary, messages = send(flows, loop=True, stop=stop, on_progress=lambda sent, seconds: stop.set())
    assert summary.stopped and summary.produced == len(messages) > 0


def test_a_stop_before_the_start_sends_nothing(send: Callable[..., Any], flows: Path) -> None:
    stop = threading.Event()
    stop.set()
    summary, messages = send(flows, stop=stop)
    assert summary.stopped and summary.produced == 0 and not messages


def test_rate_is_kept_evenly(send: Callable[..., Any], flows: Path) -> None:
    summary, messages = send(flows, loop=True, limit=60, rate=100)
    assert 0.59 <= summary.seconds < 5
    times = [it.timestamp()[1] for it in messages]
    assert times[30] - times[0] >= 250 and times[59] - times[30] >= 200


def test_own_time_is_kept(send: Callable[..., Any], flows: Path) -> None:
    summary, _ = send(flows, speed=40)  # 19 s of flows
    assert 0.47 <= summary.seconds < 5


def test_own_time_is_needed_for_speed(send: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "untimed.csv"
    path.write_text("Flow Duration\n7\n")
    with pytest.raises(FlowsentryError, match=r"untimed\.csv, data row 0: has no timestamp.*--rate"):
        send(path, speed=1)


def test_nothing_to_replay_is_an_error_even_in_a_loop(send: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_text("Flow Duration\n")
    with pytest.raises(FlowsentryError, match=r"no data rows in .*bare\.csv"):
        send(path, loop=True)


def test_an_absent_topic_is_refused_or_made(bootstrap_servers: str, flows: Path) -> None:
    name = f"absent-{time.monotonic_ns()}"
    where: dict[str, Any] = {"bootstrap_servers": bootstrap_servers, "topic": name, "kafka": {}}
    with pytest.raises(FlowsentryError, match=f"topic '{name}' does not exist at .*create"):
        replay([flows], CIC, **where, stop=threading.Event())
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    assert not partitions_of(admin, name, bootstrap_servers)
    try:
        assert replay([flows], CIC, **where, stop=threading.Event(), create_topics=True).produced == 20
        assert list(partitions_of(admin, name, bootstrap_servers)) == [0]
    finally:
        admin.delete_topics([name])[name].result(ANSWER_S)


def test_a_record_that_kafka_refuses_is_named(bootstrap_servers: str, tmp_path: Path, flows: Path) -> None:
    name = f"narrow-{time.monotonic_ns()}"
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(name, 1, config={"max.message.bytes": "300"})])[name].result(ANSWER_S)
    wide = tmp_path / "wide.csv"
    wide.write_text(f"Flow Duration,extra\n1,x\n2,{'y' * 400}\n")
    try:
        with pytest.raises(FlowsentryError, match=r"confirmed \d+ records of .*wide\.csv, data row 1"):
            replay(
                [wide], CIC, bootstrap_servers=bootstrap_servers, topic=name, kafka={"batch.num.messages": 1},
                stop=threading.Event(), rate=50,
            )  # fmt: skip
    finally:
        admin.delete_topics([name])[name].result(ANSWER_S)


def test_a_record_beyond_the_clients_own_bound_is_named(send: Callable[..., Any], tmp_path: Path) -> None:
    wide = tmp_path / "wide.csv"
    wide.write_text(f"Flow Duration,extra\n1,x\n2,{'y' * 2000}\n")
    with pytest.raises(FlowsentryError, match=r"confirmed \d records of 1 .*wide\.csv, data row 1: .*too large"):
        send(wide, kafka={"message.max.bytes": 1000})


def test_a_wrong_kafka_setting_is_named(send: Callable[..., Any], flows: Path) -> None:
    with pytest.raises(FlowsentryError, match=r"kafka: .*no\.such\.thing"):
        send(flows, kafka={"no.such.thing": 1})


def test_a_silent_kafka_is_told() -> None:
    admin = AdminClient({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    with pytest.raises(FlowsentryError, match=r"Kafka .*127\.0\.0\.1:1"):
        partitions_of(admin, "flows", "127.0.0.1:1", timeout_s=0.2)


class Clock:
    """Seconds that pass only when they are made to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def record(timestamp_us: int | None = None) -> ReplayRecord:
    return ReplayRecord(0, b"{}", [("row", b"0"), ("file", b"flows.csv")], timestamp_us)


def test_an_even_pace_catches_up_with_a_delay() -> None:
    clock = Clock()
    pace = Pace(rate=10, speed=None, clock=clock)
    assert [pace.ahead_s(record()) for _ in range(3)] == pytest.approx([0.0, 0.1, 0.2])
    clock.now_s += 0.5
    pace.begin_file()  # the pace goes on over the files
    assert [pace.ahead_s(record()) for _ in range(3)] == pytest.approx([-0.2, -0.1, 0.0])


def test_own_time_starts_anew_with_each_file() -> None:
    clock = Clock()
    pace = Pace(rate=None, speed=10, clock=clock)
    pace.begin_file()
    assert [pace.ahead_s(record(us)) for us in (5_000_000, 6_000_000, None, 4_000_000)] == pytest.approx(
        [0, 0.1, 0.1, -0.1]
    )
    clock.now_s += 7
    pace.begin_file()
    assert [pace.ahead_s(record(us)) for us in (1_000_000, 3_000_000)] == pytest.approx([0.0, 0.2])


def test_as_fast_as_possible_needs_no_clock() -> None:
    assert Pace(rate=None, speed=None, clock=Clock()).ahead_s(record()) == 0.0


@pytest.mark.parametrize(("rate", "speed"), [(1, 1), (0, None), (-1, None), (None, 0), (float("inf"), None)])
def test_a_pace_that_makes_no_sense_is_refused(rate: float | None, speed: float | None) -> None:
    with pytest.raises(ParamsError, match=r"--rate|--speed"):
        Pace(rate=rate, speed=speed, clock=Clock())


def test_progress_is_lines_off_a_terminal_and_a_bar_on_one() -> None:
    plain = io.StringIO()
    with shown_progress(100, Console(file=plain)) as on_progress:
        for second in range(25):
            on_progress(second * 4, float(second))
    assert plain.getvalue() == "replay: 40 flows in 10 s (4/s)\nreplay: 80 flows in 20 s (4/s)\n"
    for limit in (100, None):
        fancy = io.StringIO()
        with shown_progress(limit, Console(file=fancy, force_terminal=True, width=100)) as on_progress:
            on_progress(1234, 2.0)
        assert re.search(r"1,234|1234/100", fancy.getvalue()) and "617/s" in fancy.getvalue()
