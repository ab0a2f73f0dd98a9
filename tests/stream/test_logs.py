"""The log: JSON lines where machines read it, plain words on a terminal, and never a flow."""

import io
import json
import logging

import pytest
import structlog
from confluent_kafka import Producer

from tests.stream.rig import Logs

SECRET = "198.51.100.77"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(logs: Logs) -> Logs:
    """The log of a process whose stderr is a terminal."""
    return Logs(Terminal())


def fail(address: str) -> None:
    raise RuntimeError(f"broken {len(address)}")


def log_a_failure() -> None:
    try:
        fail(SECRET)
    except RuntimeError:
        structlog.get_logger().exception("it failed", number=7)


def test_each_line_is_one_write_so_that_workers_with_one_stderr_do_not_mix_theirs(logs: Logs) -> None:
    written: list[str] = []

    class Unbuffered(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    unbuffered = Logs(Unbuffered())
    structlog.get_logger().warning("first", number=1)
    structlog.get_logger().warning("second")
    assert unbuffered.text == ""
    assert [json.loads(line)["event"] for line in written] == ["first", "second"]
    assert all(line.endswith("}\n") for line in written)


def test_without_a_terminal_every_line_is_json(logs: Logs) -> None:
    structlog.get_logger().info("first", count=3, topic="flöws")
    structlog.get_logger().warning("second")
    log_a_failure()
    first, second, failure = (json.loads(line) for line in logs.text.splitlines())
    assert (first["event"], first["level"], first["count"], first["topic"]) == ("first", "info", 3, "flöws")
    assert first["timestamp"].endswith("Z")
    assert second["level"] == "warning"
    assert "RuntimeError: broken 13" in failure["exception"] and "in log_a_failure" in failure["exception"]


def test_on_a_terminal_it_is_written_for_people(terminal: Logs) -> None:
    structlog.get_logger().info("first", count=3)
    assert "first" in terminal.text and "{" not in terminal.text


def test_a_traceback_on_a_terminal_shows_no_variables(terminal: Logs) -> None:
    log_a_failure()
    assert "RuntimeError: broken 13" in terminal.text
    assert SECRET not in terminal.text


def test_quiet_leaves_warnings_and_errors(logs: Logs) -> None:
    logs.configure(quiet=True)
    for level in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), level)(f"a {level}")
    assert [json.loads(line)["event"] for line in logs.text.splitlines()] == ["a warning", "a error"]


def test_what_librdkafka_says_goes_through_the_log(logs: Logs) -> None:
    nowhere = {"bootstrap.servers": "127.0.0.1:1", "log_level": 4}
    producer = Producer(nowhere, logger=logging.getLogger("librdkafka"))
    while not logs.text:
        producer.poll(0.1)
    [line, *_] = logs.of("librdkafka")
    assert "127.0.0.1:1" in line["says"] and line["level"] == "error"


def test_configured_twice_it_says_things_once(logs: Logs) -> None:
    logs.configure()
    logging.getLogger("librdkafka").warning("only once")
    assert [line["says"] for line in logs.of("librdkafka")] == ["only once"]
