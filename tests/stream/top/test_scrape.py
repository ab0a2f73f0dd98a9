"""What a running worker says, and what is said when nothing or something else answers."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from schemas.errors import ParamsError
from stream.top.scrape import Unreachable, metrics_url, neighbours, scrape
from tests.stream.top.worker import Worker


class Other(BaseHTTPRequestHandler):
    """A server that is no worker."""

    def do_GET(self) -> None:
        content = {"/metrics": b"up 1\n", "/page/metrics": b"<html>"}.get(self.path)
        self.send_response(200 if content else 404)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Not to the test's output."""


@pytest.fixture
def other() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_samples_are_summed_over_their_labels() -> None:
    worker = Worker()
    worker.judge(100, family="DoS", alerts=2)
    worker.judge(100, family="PortScan", alerts=3)
    said = scrape(worker.url)
    assert said.total("flowsentry_flows_total") == 200
    assert said.total("flowsentry_alerts_total") == 5
    assert [value for labels, value in said.of("flowsentry_alerts_total") if labels["family"] == "DoS"] == [2]
    assert said.total("flowsentry_nothing") == 0


def test_a_worker_that_is_not_ready_says_why() -> None:
    worker = Worker()
    assert scrape(worker.url).problems[:2] == ("no bundle is loaded", "no partition is assigned")
    worker.become_ready()
    assert scrape(worker.url).problems == ()


def test_nothing_there_and_something_else_there_are_told_apart(other: str, free_port: int) -> None:
    for url, why in (
        (f"http://127.0.0.1:{free_port}/metrics", r"^does not answer \(Connection refused\)$"),
        (f"{other}/metrics", "^answers, but without flowsentry_flows_total: it is no `python -m stream run`$"),
        (f"{other}/page/metrics", "^answers, but not with metrics$"),
        (f"{other}/none/metrics", "^answers 404 Not Found$"),
    ):
        with pytest.raises(Unreachable, match=why):
            scrape(url)


@pytest.mark.parametrize(
    "given", ["http://h:9108", "http://h:9108/", "http://h:9108/metrics", "http://h:9108/metrics/"]
)
def test_an_address_may_be_given_with_or_without_its_path(given: str) -> None:
    assert metrics_url(given) == "http://h:9108/metrics"


@pytest.mark.parametrize("given", ["h:9108", "file:///etc/passwd", "http://", "http://h:port", "http://h:0", "9108"])
def test_what_is_no_address_is_named(given: str) -> None:
    with pytest.raises(ParamsError, match=rf"^--url {given}: expected an address like http://127\.0\.0\.1:9108$"):
        metrics_url(given)


def test_workers_have_ports_that_follow_each_other() -> None:
    assert neighbours("http://[::1]:9108/metrics", 3) == [f"http://[::1]:{port}/metrics" for port in (9108, 9109, 9110)]
    assert neighbours("https://h/a/metrics", 2) == ["https://h/a/metrics", "https://h:444/a/metrics"]
    assert neighbours("http://h:1/metrics", 1) == ["http://h:1/metrics"]
