"""What arrives together is scored together, and a request that meets a bug fails alone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from stream.api.predictor import Predictor
from tests.stream.api.conftest import Serve
from tests.stream.api.test_app import ATTACK, BENIGN


class Watched:
    """A predictor that waits before its first batch, and meets a bug in flows whose `dur` is 13."""

    def __init__(self, predictor: Predictor) -> None:
        self.detector, self.policy = predictor.detector, predictor.policy
        self.sizes: list[int] = []
        self.entered, self.go = threading.Event(), threading.Event()
        self._predictor = predictor

    def predict(self, records: list[bytes]) -> Any:
        self.sizes.append(len(records))
        if not self.entered.is_set():
            self.entered.set()
            assert self.go.wait(30)
        if any(b'"dur": 13' in record for record in records):
            raise ZeroDivisionError("a bug")
        return self._predictor.predict(records)


@pytest.fixture
def watched(predictor: Predictor) -> Watched:
    return Watched(predictor)


def test_flows_that_arrive_while_a_batch_is_scored_are_the_next_one(serve: Serve, watched: Watched) -> None:
    api = serve(judge=watched, batch_size=4, max_wait_ms=200)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(api.ask, "/predict", {"flows": [BENIGN] * 9})
        assert watched.entered.wait(30)
        others = [pool.submit(api.ask, "/predict", {"features": flow}) for flow in (ATTACK, BENIGN) * 3]
        while api.metric("flowsentry_api_waiting_flows") < 6:
            pass
        watched.go.set()
        assert len(first.result().body["predictions"]) == 9
        found = [other.result().body["prediction"] for other in others]
    assert found == ["attack", "normal"] * 3
    assert watched.sizes == [9, 4, 2], "a request is never torn apart"


def test_a_request_that_meets_a_bug_fails_alone(
    serve: Serve, watched: Watched, capfd: pytest.CaptureFixture[str]
) -> None:
    api = serve(judge=watched, max_wait_ms=200)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(api.ask, "/predict", {"features": BENIGN})
        assert watched.entered.wait(30)
        asked = [pool.submit(api.ask, "/predict", {"features": BENIGN | {"dur": dur}}) for dur in (1, 13, 2)]
        while api.metric("flowsentry_api_waiting_flows") < 3:
            pass
        watched.go.set()
        assert first.result().status == 200
        assert [each.result().status for each in asked] == [200, 500, 200]
    assert api.ask("/health").status == 200
    assert api.metric("flowsentry_api_requests_total", path="/predict", status="500") == 1
    assert "flows cannot be scored, by a bug" in "".join(capfd.readouterr())
