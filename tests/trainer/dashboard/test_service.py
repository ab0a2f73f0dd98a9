"""How fast a service goes, from what its workers say."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from schemas.errors import ParamsError
from trainer.dashboard.service import Service, Totals, Unreachable, metrics_url, paces, read_totals

TEXT = """# TYPE flowsentry_flows counter
flowsentry_flows_total {flows}
# TYPE flowsentry_dead_letters counter
flowsentry_dead_letters_total{{reason="not_json"}} 2.0
flowsentry_dead_letters_total{{reason="too_deep"}} 1.0
# TYPE flowsentry_lag gauge
flowsentry_lag{{partition="0"}} 5.0
flowsentry_lag{{partition="1"}} 7.0
"""


@contextmanager
def worker(text: str = TEXT, per_look: int = 10) -> Iterator[str]:
    """An HTTP server that says it has judged so many flows more each time; its address."""
    looks = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal looks
            looks += 1
            content = text.format(flows=looks * per_look).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("given", ["http://host:9108", "http://host:9108/", "http://host:9108/metrics"])
def test_an_address_may_be_given_with_or_without_its_path(given: str) -> None:
    assert metrics_url(given) == "http://host:9108/metrics"


@pytest.mark.parametrize("given", ["host:9108", "ftp://host", "http://"])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ParamsError, match=r"--metrics-url .*: expected an address like"):
        metrics_url(given)


def test_totals_are_sums_over_labels() -> None:
    with worker() as url:
        assert read_totals(f"{url}/metrics") == Totals(flows=10.0, dead_letters=3.0, lag=12.0)


def test_what_does_not_answer_or_is_something_else_is_told(free_port: int) -> None:
    with pytest.raises(Unreachable, match=r"does not answer \(Connection refused\)"):
        read_totals(f"http://127.0.0.1:{free_port}/metrics")
    with worker("up 1\n") as url, pytest.raises(Unreachable, match="answers, but is no `python -m stream run`"):
        read_totals(f"{url}/metrics")
    with worker("<html>") as url, pytest.raises(Unreachable, match="answers, but not with metrics"):
        read_totals(f"{url}/metrics")


def test_a_rate_is_over_the_last_seconds_and_survives_a_restart() -> None:
    looks = [(float(second), Totals(flows, 0.0, 0.0)) for second, flows in enumerate((0, 100, 200, 300, 10, 110, 210))]
    rates = [pace.flows_per_s for pace in paces(looks, over_s=2.0)]
    assert rates == [100, 100, 100, 55, 55, 100]
    assert paces(looks[:1]) == []


def test_workers_are_added_up_and_one_that_is_silent_is_told(free_port: int) -> None:
    silent = f"http://127.0.0.1:{free_port}/metrics"
    with worker() as first, worker() as second:
        service = Service([f"{first}/metrics", f"{second}/metrics", silent], every_s=0.05)
        try:
            deadline = time.monotonic() + 20
            while not (service.pace()[0] and service.pace()[0][-1].flows_per_s > 0):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            pace, problems = service.pace()
        finally:
            service.close()
    assert (pace[-1].lag, pace[-1].dead_letters) == (24, 6)
    assert problems == [f"{silent} does not answer (Connection refused)"]
