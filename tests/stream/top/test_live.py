"""`python -m stream top` against real HTTP servers: on a terminal, without one, and when nothing answers."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time

import pytest
from rich.console import Console

from stream.__main__ import main
from stream.top.live import run_top
from tests.stream.top.worker import Worker

PATIENCE_S = 120.0


@pytest.fixture
def worker() -> Worker:
    running = Worker()
    running.become_ready()
    running.judge(500, alerts=20, dead=5)
    return running


def test_once_prints_one_picture_of_all_workers(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    other = Worker()
    assert main(["top", "--once", "--url", worker.url, "--url", f"http://127.0.0.1:{other.port}"]) == 0
    shown = capsys.readouterr().out
    assert "2 of 2 workers answer" in shown and shown.count("workers answer") == 1
    assert re.search(r"500 in all +2 partitions +20 in all", shown)
    assert re.search(r"DoS +20\b", shown) and re.search(r"not_json +5\b", shown)
    assert "no bundle is" in shown, "the other one is not ready"


def test_without_a_terminal_there_is_a_plain_line_each_second_with_what_came_meanwhile(worker: Worker) -> None:
    out, stop = io.StringIO(), threading.Event()
    watching = threading.Thread(
        target=run_top, args=([worker.url],), kwargs={"once": False, "console": Console(file=out), "stop": stop}
    )
    watching.start()
    deadline = time.monotonic() + PATIENCE_S
    while out.getvalue().count("\n") < 3:
        assert time.monotonic() < deadline
        worker.judge(10, alerts=1)
        time.sleep(0.1)
    stop.set()
    watching.join(PATIENCE_S)
    lines = out.getvalue().splitlines()
    assert all(
        re.match(r"flows \d+ \([1-9]\d*/s\)  lag 7  alerts \d+ .* p50 \d+ ms p99 \d+ ms  ready 1 of 1$", each)
        for each in lines
    )
    flows = [int(line.split()[1]) for line in lines]
    assert flows == sorted(set(flows)) and flows[0] > 500


def test_workers_is_short_for_the_ports_that_follow(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", "--url", worker.url, "--workers", "2"]) == 0
    shown = capsys.readouterr().out
    assert "of 2 workers answer" in shown and f"127.0.0.1:{worker.port + 1}" in shown


def test_the_settings_say_where_the_service_is(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", "--set", f"stream.metrics_port={worker.port}"]) == 0
    assert "1 of 1 workers answer" in capsys.readouterr().out


def test_when_nothing_answers_it_says_where_and_what_to_start(
    free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--url", f"http://127.0.0.1:{free_port}"]) == 2
    assert capsys.readouterr().err == (
        f"error: http://127.0.0.1:{free_port}/metrics does not answer (Connection refused). Start the service with "
        "`python -m stream run --bundle bundles/cicids2017-improved`, or say with --url where one runs\n"
    )


def test_a_wrong_address_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--url", "localhost"]) == 2
    assert "--url localhost: expected an address like" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["q", "Ctrl-C"])
def test_on_a_terminal_it_is_live_until_q_or_ctrl_c_and_leaves_the_terminal_as_it_was(
    worker: Worker, ending: str
) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-m", "stream", "top", "--url", worker.url]
    running = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    try:
        _read_until(ours, "500 in all")
        worker.judge(77)
        _read_until(ours, "577 in all")
        if ending == "q":
            os.write(ours, b"q")
        else:
            running.send_signal(signal.SIGINT)
        _read_until(ours, "flows 577")
        assert running.wait(PATIENCE_S) == 0
        assert termios.tcgetattr(theirs) == before
    finally:
        running.kill()
        running.wait()
        os.close(ours)
        os.close(theirs)


def _read_until(terminal: int, words: str) -> None:
    """Read what is shown, until those words are."""
    shown, deadline = "", time.monotonic() + PATIENCE_S
    while words not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 65536).decode(errors="replace")
