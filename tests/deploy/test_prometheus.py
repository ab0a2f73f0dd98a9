"""A real Prometheus scrapes the running detector and its API: every panel and every recording rule has something to show."""

import gzip
import json
import math
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml

from export.bundle import write_manifest
from export.detector import load
from schemas.datasets import schema_named
from stream.demo import SAMPLE
from stream.replay import replay
from tests.deploy.dockerfile import ROOT
from tests.deploy.test_compose import _free_ports
from tests.deploy.test_monitoring import DASHBOARD, INSTALL, RULES
from tests.deploy.tools import tool
from tests.kafka import produce, running_service
from trainer.drift import read_window, reference_of_rows

BUNDLE = ROOT / "bundles/cicids2017-improved"
PATIENCE_S = 120.0
SCRAPED_EVERY_S = 1
DRIFT_SOON = ("drift.window_s=600", "drift.panes=100", "drift.min_flows=50")
ROWS = 50
# What Grafana puts in their place.
VARIABLES = {
    "$__rate_interval": "1m",
    "$__range": "5m",
    "$job": "(flowsentry|flowsentry-api)",
    "$instance": "(127.0.0.1:.*)",
}


class Prometheus:
    """Its HTTP API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self._url}{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[float]:
        """Of the series that an expression has now."""
        return [float(each["value"][1]) for each in self.ask("/api/v1/query", query=expression)["result"]]

    def is_ready(self) -> bool:
        try:
            self.ask("/api/v1/status/buildinfo")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True


def until(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, problem
        time.sleep(0.2)


@contextmanager
def process(*command: str | Path) -> Iterator[None]:
    running = subprocess.Popen([str(word) for word in command])
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def configuration(detector: int, api: int) -> str:
    """That of the compose file, but for ports and how often it looks; and with the API beside the detector."""
    content = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    content["global"] = {"scrape_interval": f"{SCRAPED_EVERY_S}s", "evaluation_interval": "1s"}
    content["rule_files"] = [str(RULES)]
    content["scrape_configs"] = [
        {**content["scrape_configs"][0], "job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for job, port in (("flowsentry", detector), ("flowsentry-api", api))
    ]
    return str(yaml.safe_dump(content))


def with_reference(folder: Path) -> Path:
    """The committed bundle, with the sample for drift to be measured against."""
    directory = Path(shutil.copytree(BUNDLE, folder / "bundle"))
    detector = load(directory)
    flows = read_window([SAMPLE], detector, 0.5)
    reference = reference_of_rows(detector, flows.columns, flows.scores)
    write_manifest(directory, {**detector.manifest.content, "drift": reference.to_json()})
    return directory


def part_of_sample(file: Path, start: int) -> Path:
    """`ROWS` of its rows, spread over all of it, and so of every family."""
    with gzip.open(SAMPLE, "rt") as lines:
        header, *rows = lines
    file.write_text(header + "".join(rows[start :: len(rows) // ROWS][:ROWS]))
    return file


def example(api: int) -> Any:
    """The flows of the API's own page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{api}/openapi.json", timeout=30) as answer:
        body = json.load(answer)["paths"]["/predict"]["post"]["requestBody"]
    return body["content"]["application/json"]["examples"]["several"]["value"]


def predict(api: int, content: Any) -> int:
    """The status of the answer."""
    url, headers = f"http://127.0.0.1:{api}/predict", {"Content-Type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(content).encode(), headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.fixture(scope="module")
def prometheus(bootstrap_servers: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Has watched the sample being replayed, records that cannot be used, and requests to the API."""
    program = tool("prometheus", INSTALL)
    home = tmp_path_factory.mktemp("prometheus")
    detector, api, port = _free_ports(3)
    (home / "prometheus.yml").write_text(configuration(detector, api))
    flows = f"seen-{detector}"
    with ExitStack() as running:
        running.enter_context(
            process(program, f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data",
                    f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn")
        )  # fmt: skip
        running.enter_context(process(sys.executable, "-m", "stream", "api", "--bundle", BUNDLE, "--port", str(api)))
        words = ["--metrics-port", str(detector), *(word for each in DRIFT_SOON for word in ("--set", each))]
        running.enter_context(running_service(bootstrap_servers, with_reference(home), flows, *words))
        prometheus = Prometheus(port)
        until(prometheus.is_ready, "Prometheus does not answer")
        until(lambda: prometheus.values("flowsentry_assigned_partitions > 0") != [], "the detector is not ready")
        until(lambda: prometheus.values("flowsentry_api_waiting_flows") == [0], "the API is not ready")
        for start, garbage in enumerate((b"garbage", b"[1]", b"garbage")):  # over a few scrapes, as rates need
            produce(bootstrap_servers, flows, [garbage] * 3)
            some = part_of_sample(home / f"{start}.csv", start)
            replay([some], schema_named("cicids2017-improved"), bootstrap_servers=bootstrap_servers, topic=flows,
                   kafka={}, stop=Event())  # fmt: skip
            time.sleep(SCRAPED_EVERY_S)
            assert predict(api, example(api)) == 200
            assert predict(api, {"features": {"no such": 1}}) == 422
        until(lambda: prometheus.values("flowsentry_flows_total") == [3 * (ROWS + 3)], "not every flow is judged")
        until(lambda: prometheus.values("flowsentry_drift_psi") != [], "drift is not measured")
        yield prometheus


def test_every_query_of_every_panel_has_data(prometheus: Prometheus) -> None:
    queries = []
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            assert "$" not in expression, expression
            queries.append((panel["title"], expression))
    assert len(queries) > 35
    assert [each for each in queries if not any(map(math.isfinite, prometheus.values(each[1])))] == []


def test_every_recording_rule_has_data_and_no_rule_fails(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.ask("/api/v1/rules")["groups"] for rule in group["rules"]]
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"] == []
    recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
    assert len(recorded) > 5
    assert [name for name in recorded if not any(map(math.isfinite, prometheus.values(name)))] == []


def test_the_figures_are_those_of_what_was_sent(prometheus: Prometheus) -> None:
    values = prometheus.values
    assert values("sum(flowsentry_dead_letters_total)") == [9]
    assert values('flowsentry_dead_letters_total{reason="not_json"}') == [6]
    assert values('sum by (status) (flowsentry_api_requests_total{path="/predict"})') == [3, 3]
    [alerts] = values("sum(flowsentry_alerts_total)")
    assert values("flowsentry_alert_latency_seconds_count") == [alerts]
    # Of a counter that begins at 0 Prometheus sees all that comes.
    [seen] = values("sum(increase(flowsentry_alerts_total[5m]))")
    assert seen == pytest.approx(alerts, rel=0.5) and alerts > ROWS
