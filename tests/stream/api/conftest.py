"""A server of the API on loopback, over a tiny bundle that tells novelty too."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from pydantic import SecretStr

from schemas.params import ApiParams, Params, StreamParams
from stream.api.app import create_app
from stream.api.predictor import Predictor
from stream.api.server import predictor_of
from tests.bundles import make_bundle

STARTS_S = 20.0
Serve = Callable[..., "Api"]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any


class Api:
    """A running server, and how to ask it."""

    def __init__(self, url: str, predictor: Predictor) -> None:
        self.url = url
        self.predictor = predictor

    def ask(self, path: str, body: object = None, *, raw: bytes | None = None, key: str | None = None) -> Answer:
        """GET, or POST of a body as JSON, or of raw bytes."""
        content = raw if raw is not None else None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
        request = urllib.request.Request(self.url + path, content, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Answer(answer.status, dict(answer.headers), _read(answer.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), _read(error.read()))

    def predict(self, *flows: object) -> list[Any]:
        """The predictions on flows, each features by name or in order."""
        answer = self.ask("/predict", {"flows": list(flows)})
        assert answer.status == 200, answer.body
        return list(answer.body["predictions"])

    def metric(self, name: str, **labels: str) -> float:
        """A sample's value by its name as exposed; 0 before it is there."""
        sign = "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else ""
        lines = self.ask("/metrics").body.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{sign} "))


def _read(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode()


@contextmanager
def _serving(predictor: Predictor, params: ApiParams) -> Iterator[Api]:
    config = uvicorn.Config(create_app(predictor, params), port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + STARTS_S
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server does not start"
        time.sleep(0.01)
    [port] = [place.getsockname()[1] for each in server.servers for place in each.sockets]
    try:
        yield Api(f"http://127.0.0.1:{port}", predictor)
    finally:
        server.should_exit = True
        thread.join(STARTS_S)


@pytest.fixture(scope="session")
def novelty_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("api") / "tiny", "unsw-nb15", novelty=True)


@pytest.fixture
def predictor(novelty_bundle: Path) -> Predictor:
    return predictor_of(Params(stream=StreamParams(bundle=novelty_bundle)))


@pytest.fixture
def serve(predictor: Predictor) -> Iterator[Serve]:
    """Factory of servers with settings of their own, `serve(key="…", max_flows=3)`."""
    with ExitStack() as stack:

        def start(*, judge: Predictor = predictor, key: str | None = None, **settings: Any) -> Api:
            params = ApiParams(key=None if key is None else SecretStr(key), **settings)
            return stack.enter_context(_serving(judge, params))

        yield start


@pytest.fixture
def api(serve: Serve) -> Api:
    return serve()
