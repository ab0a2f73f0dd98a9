"""A real MLflow server on loopback, with a model registry and artifacts of its own, and what a test puts into it."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import requests

__all__ = ["MODEL_NAME", "Registry"]

MODEL_NAME = "flowsentry-unsw-nb15"
PATIENCE_S = 120.0


class Registry:
    """Starts, stops and starts again, at the same address and with the same content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait for its answer."""
        words = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self._port),
            "--workers",
            "1",
        ]
        words += ["--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}", "--serve-artifacts"]
        words += ["--artifacts-destination", str(self._folder / "artifacts")]
        environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                words, stdout=log, stderr=log, env=environment, cwd=self._folder, start_new_session=True
            )
        until = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            assert time.monotonic() < until, (self._folder / "server.log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """Kill it with all that it has started."""
        if self._process is not None:
            os.killpg(self._process.pid, 9)
            self._process.wait()
            self._process = None

    def add_version(self, bundle: Path, *, folder: str | None = "bundle", alias: str | None = None) -> str:
        """Register a model version with a bundle among its artifacts; its number."""
        client = mlflow.MlflowClient(self.uri, self.uri)
        if not client.search_registered_models(f"name = '{MODEL_NAME}'"):
            client.create_registered_model(MODEL_NAME)
        run = client.create_run("0")
        client.log_artifacts(run.info.run_id, str(bundle), artifact_path=f"model/{folder}" if folder else "model")
        source = f"{run.info.artifact_uri}/model"
        version = client.create_model_version(MODEL_NAME, source, run.info.run_id)
        if alias:
            self.point(alias, version.version)
        return str(version.version)

    def point(self, alias: str, version: str) -> None:
        """Move an alias to a version."""
        mlflow.MlflowClient(self.uri, self.uri).set_registered_model_alias(MODEL_NAME, alias, version)

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=5).ok
        except requests.RequestException:
            return False


@contextmanager
def running_registry() -> Iterator[Registry]:
    """A registry that is up, and gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        try:
            registry.start()
            yield registry
        finally:
            registry.stop()
