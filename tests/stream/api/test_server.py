"""`python -m stream api`, as a process."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.stream.api.test_app import ATTACK, KEY

STARTS_S = 60.0


@contextmanager
def api(*options: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command, stopped at the end if it has not ended by then."""
    command = [sys.executable, "-m", "stream", "api", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(url: str, **headers: str) -> int:
    """The status of a prediction, once the server is there."""
    request = urllib.request.Request(
        f"{url}/predict", json.dumps({"features": ATTACK}).encode(), {"Content-Type": "application/json", **headers}
    )
    deadline = time.monotonic() + STARTS_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except OSError:
            assert time.monotonic() < deadline, "it does not come up"
            time.sleep(0.1)


def test_it_serves_until_it_is_told_to_stop(novelty_bundle: Path, free_port: int, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY + "\n")
    with api("--bundle", f"{novelty_bundle}", "--port", f"{free_port}", "--key-file", f"{tmp_path / 'key'}") as process:
        url = f"http://127.0.0.1:{free_port}"
        assert ask(url) == 401
        assert ask(url, **{"X-API-Key": KEY}) == 200
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    assert f"{url}/docs" in told and "tiny-unsw-nb15" in told
    assert KEY not in told


def test_the_key_may_come_from_the_environment(novelty_bundle: Path, free_port: int) -> None:
    options = ("--bundle", f"{novelty_bundle}", "--port", f"{free_port}", "--host", "0.0.0.0")
    with api(*options, FLOWSENTRY_API__KEY="0123456789") as process:
        assert ask(f"http://127.0.0.1:{free_port}", **{"X-API-Key": "0123456789"}) == 200
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert "anyone who reaches this address" not in told and "0123456789" not in told


def test_an_address_that_others_reach_without_a_key_is_warned_of(novelty_bundle: Path, free_port: int) -> None:
    with api("--bundle", f"{novelty_bundle}", "--port", f"{free_port}", "--host", "0.0.0.0") as process:
        assert ask(f"http://127.0.0.1:{free_port}") == 200
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
    assert "anyone who reaches this address may ask: api.key_file asks for a key" in told


@pytest.mark.parametrize(
    ("options", "environment", "says"),
    [
        (["--bundle", "nowhere"], {}, "nowhere"),
        (["--set", "api.key_file=nowhere"], {}, "api.key_file = nowhere: No such file or directory"),
        ([], {"FLOWSENTRY_API__KEY": "secret!"}, "environment: api.key: "),
        (["--set", "api.max_waiting=1"], {}, "max_waiting (1) must be at least max_flows (1000)"),
        (["--set", "api.key=secret-of-ours", "--key-file", "x"], {}, "key and key_file: give one of them"),
    ],
)
def test_what_it_cannot_start_with_is_said_without_secrets(
    options: list[str], environment: dict[str, str], says: str
) -> None:
    with api(*options, **environment) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 2 and says in told
    assert "secret" not in told and "Traceback" not in told


def test_a_port_that_is_taken_is_said(novelty_bundle: Path, free_port: int) -> None:
    options = ("--bundle", f"{novelty_bundle}", "--port", f"{free_port}")
    with api(*options):
        assert ask(f"http://127.0.0.1:{free_port}") == 200
        with api(*options) as second:
            _, told = second.communicate(timeout=60)
    assert second.returncode == 2 and f"error: api.port {free_port} on 127.0.0.1: Address already in use" in told
