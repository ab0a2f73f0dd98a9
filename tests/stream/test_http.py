"""What a worker says of itself over HTTP."""

import json
import socket
import urllib.request
from urllib.error import HTTPError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream import http
from stream.metrics import Metrics
from stream.status import BROKER_SEEN_WITHIN_S, STUCK_AFTER_S, Status


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def ask(port: int, path: str) -> tuple[int, dict[str, object]]:
    """The status and the JSON of an answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def test_metrics_are_served_on_a_port_of_choice_or_any_free_one() -> None:
    metrics = Metrics()
    metrics.flows.inc(12)
    port = http.serve(metrics.registry, Status(), "127.0.0.1", 0)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = {family.name: family for family in text_string_to_metric_families(answer.read().decode())}
    assert families.keys() >= {family.name for family in metrics.registry.collect()}
    assert families["flowsentry_flows"].samples[0].value == 12
    with pytest.raises(OSError, match="in use"):
        http.serve(metrics.registry, Status(), "127.0.0.1", port)


def test_it_listens_on_ipv6_too() -> None:
    port = http.serve(Metrics().registry, Status(), "::1", 0)
    with urllib.request.urlopen(f"http://[::1]:{port}/health", timeout=10) as answer:
        assert answer.status == 200


def test_ready_is_only_what_has_a_bundle_a_partition_and_a_broker_seen_lately() -> None:
    clock = Clock()
    status = Status(clock)
    port = http.serve(Metrics().registry, status, "127.0.0.1", 0)
    missing = ["no bundle is loaded", "no partition is assigned", "no broker has answered yet"]
    assert ask(port, "/ready") == (503, {"ok": False, "problems": missing, "partitions": 0, "bundle": ""})
    assert ask(port, "/health")[0] == 200
    status.bundle = "9f"
    assert ask(port, "/ready")[1]["problems"] == missing[1:]
    status.partitions = 2
    assert ask(port, "/ready")[1]["problems"] == missing[2:]
    status.broker_seen()
    assert ask(port, "/ready") == (200, {"ok": True, "problems": [], "partitions": 2, "bundle": "9f"})
    clock.now += BROKER_SEEN_WITHIN_S + 1
    assert ask(port, "/ready")[1]["problems"] == ["no broker has answered for 11 s"]
    assert ask(port, "/health")[0] == 200, "a broker that is away is no reason for a restart"


def test_a_loop_that_is_stuck_is_neither_healthy_nor_ready() -> None:
    clock = Clock()
    status = Status(clock)
    port = http.serve(Metrics().registry, status, "127.0.0.1", 0)
    clock.now += STUCK_AFTER_S + 1
    for path in ("/health", "/ready"):
        code, content = ask(port, path)
        assert code == 503 and content["problems"][0] == "the loop has not turned for 61 s"  # type: ignore[index]
    status.beat()
    assert ask(port, "/health")[0] == 200


def test_another_path_names_those_there_are() -> None:
    port = http.serve(Metrics().registry, Status(), "127.0.0.1", 0)
    assert ask(port, "/") == (404, {"paths": ["/metrics", "/health", "/ready"]})


def test_a_client_that_says_nothing_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http._Handler, "timeout", 0.2)
    port = http.serve(Metrics().registry, Status(), "127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
        assert ask(port, "/health")[0] == 200
        assert silent.recv(1) == b"", "it is hung up on"
