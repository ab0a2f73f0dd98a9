"""What the API answers, asked over a real socket."""

import http.client
import json
import threading
from typing import Any

import numpy as np
import pytest

from schemas.datasets import SCHEMAS
from stream.api.predictor import Predictor
from tests.stream.api.conftest import Api, Serve
from tests.stream.rig import attack, benign

SCHEMA = SCHEMAS["unsw-nb15"]
ATTACK: dict[str, Any] = json.loads(attack())
BENIGN: dict[str, Any] = json.loads(benign(dpkts=20))
NOVEL: dict[str, Any] = BENIGN | {"rate": 1e9}
KEY = "correct horse"


def detail(api: Api, body: object) -> tuple[list[object], str, str]:
    """Place, text and type of the one thing that is wrong with a request."""
    answer = api.ask("/predict", body)
    assert answer.status == 422, answer.body
    [problem] = answer.body["detail"]
    return problem["loc"], problem["msg"], problem["type"]


def test_a_flow_is_judged(api: Api) -> None:
    answer = api.ask("/predict", {"features": ATTACK})
    assert answer.status == 200
    found = answer.body
    assert (found["prediction"], found["verdict"], found["bundle"]["hash"]) == (
        "attack",
        "known",
        api.predictor.detector.manifest.hash,
    )
    assert found["confidence"] == found["score"] >= found["threshold"]
    assert found["family"] in api.predictor.detector.manifest.families and found["severity"] and found["reasons"]
    assert api.metric("flowsentry_api_flows_total", prediction="attack") == 1


def test_a_normal_flow_has_neither_family_nor_severity(api: Api) -> None:
    [found] = api.predict(BENIGN)
    assert (found["prediction"], found["verdict"], found["family"], found["severity"]) == ("normal", None, None, None)
    assert found["confidence"] == pytest.approx(1 - found["score"]) and found["reasons"]


def test_a_novel_flow_is_an_attack_of_no_known_family(api: Api) -> None:
    [found] = api.predict(NOVEL)
    assert (found["prediction"], found["verdict"], found["family"]) == ("attack", "novel", "Unknown")
    assert found["confidence"] is None and found["novelty"] >= found["novelty_threshold"]
    assert found["reasons"][0]["feature"] == "rate"


def test_flows_are_answered_in_their_order_by_name_or_by_place(api: Api) -> None:
    in_order = [ATTACK.get(name) for name in api.ask("/schema").body["features"]]
    found = api.predict(BENIGN, ATTACK, in_order, BENIGN)
    assert [each["prediction"] for each in found] == ["normal", "attack", "attack", "normal"]
    assert found[1] == found[2]


def test_the_scores_are_the_stream_s(api: Api, predictor: Predictor) -> None:
    flows = [ATTACK, BENIGN, NOVEL, {**BENIGN, "sttl": 77.5}, {**BENIGN, "service": "unheard-of"}]
    columns = {
        feature.name: np.array([flow.get(feature.name) for flow in flows], dtype=object)
        for feature in SCHEMA.categorical
    } | {feature.name: np.array([flow[feature.name] for flow in flows], dtype=float) for feature in SCHEMA.numeric}
    scores = predictor.detector.score(columns)
    found = api.predict(*flows)
    np.testing.assert_allclose([each["score"] for each in found], scores.score, atol=1e-6)
    assert scores.novelty is not None
    np.testing.assert_allclose([each["novelty"] for each in found], np.maximum(scores.novelty, 0), rtol=1e-6)


@pytest.mark.parametrize(
    ("flow", "place", "says", "kind"),
    [
        ({"dur": True}, ["dur"], "'dur' is true, expected", "wrong_type"),
        ({"dur": [1]}, ["dur"], "'dur' is [1], expected", "wrong_type"),
        ({"Dur ": "fast"}, ["Dur "], "expected", "wrong_type"),
        ({"dur": 1e300}, ["dur"], "1e+300", "out_of_range"),
        ({"duration": 1}, ["duration"], "no column of unsw-nb15 has this name", "unknown"),
        ({"proto": "\ud800"}, [], "surrogate", "not_json"),
    ],
)
def test_what_is_wrong_with_a_flow_is_said_at_its_field(
    flow: dict[str, Any], place: list[str], says: str, kind: str, api: Api
) -> None:
    for body, begins in (
        ({"features": {**without_dur(), **flow}}, ["body", "features"]),
        ({"flows": [BENIGN, {**without_dur(), **flow}]}, ["body", "flows", 1]),
    ):
        where, text, told = detail(api, body)
        assert (where, told) == ([*begins, *place], kind)
        assert says in text


def without_dur() -> dict[str, Any]:
    return {name: value for name, value in BENIGN.items() if name != "dur"}


def test_a_flow_with_too_few_features_is_refused_as_the_stream_does(api: Api) -> None:
    assert detail(api, {"features": {"dur": 1.0}})[2] == "too_few_features"


def test_requests_that_are_none_are_refused(api: Api) -> None:
    both = "give either features, for one flow, or flows, for several"
    assert both in detail(api, {})[1]
    assert both in detail(api, {"features": BENIGN, "flows": [BENIGN]})[1]
    assert detail(api, {"flows": []})[0] == ["body", "flows"]
    assert detail(api, {"features": [1, 2]})[1].startswith("2 values, expected 42")
    assert detail(api, {"features": BENIGN, "more": 1})[0] == ["body", "more"]
    assert api.ask("/predict", raw=b'{"features": {"dur": NaN}}').status == 422
    assert api.ask("/predict", raw=b"[" * 100_000).status == 400
    assert api.ask("/predict", raw=b"{").status == 422
    assert api.ask("/nowhere").status == 404


def test_a_request_has_at_most_so_many_flows(serve: Serve) -> None:
    api = serve(max_flows=2)
    assert len(api.predict(BENIGN, BENIGN)) == 2
    assert detail(api, {"flows": [BENIGN] * 3}) == (["body", "flows"], "3 flows, expected at most 2", "too_many")


def test_a_body_has_at_most_so_many_bytes_whether_it_says_so_or_not(serve: Serve) -> None:
    api = serve(max_body_bytes=2048)
    assert api.ask("/predict", raw=b" " * 2049).status == 413
    connection = http.client.HTTPConnection(api.url.removeprefix("http://"), timeout=10)
    connection.request(
        "POST", "/predict", iter([b" " * 1024] * 3), {"Content-Type": "application/json"}, encode_chunked=True
    )
    assert connection.getresponse().status == 413
    connection.close()
    assert api.ask("/predict", {"features": BENIGN}).status == 200


def test_without_the_key_there_is_no_verdict(serve: Serve) -> None:
    api = serve(key=KEY)
    for path, body in (("/predict", {"features": BENIGN}), ("/schema", None), ("/bundle", None)):
        for key in (None, "wrong", KEY[:-1], KEY + "x", "kéy"):
            assert api.ask(path, body, key=key).status == 401
        assert api.ask(path, body, key=KEY).status == 200
    for path in ("/health", "/ready", "/metrics"):
        assert api.ask(path).status == 200


def test_what_it_says_of_itself(api: Api) -> None:
    assert api.ask("/health").body == api.ask("/ready").body == {"ok": True, "problems": []}
    told = api.ask("/schema").body
    assert (told["dataset"], told["features"]) == ("unsw-nb15", list(SCHEMA.names))
    assert set(SCHEMA.names) < set(told["flow"]["properties"])
    manifest = api.predictor.detector.manifest
    assert api.ask("/bundle").body == {"hash": manifest.hash, "signature": "none", **manifest.content}
    assert api.metric("flowsentry_api_requests_total", path="/schema", status="200") == 1
    assert api.metric("flowsentry_bundle_info") == 0 and "flowsentry_bundle_info{" in api.ask("/metrics").body


def test_its_page_has_examples_that_work(api: Api) -> None:
    operation = api.ask("/openapi.json").body["paths"]["/predict"]["post"]
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    assert len(examples) >= 2
    for example in examples.values():
        assert api.ask("/predict", example["value"]).status == 200
    assert {"200", "401", "413", "422", "429"} <= set(operation["responses"])


def test_more_flows_than_may_wait_are_told_to_come_again(serve: Serve, predictor: Predictor) -> None:
    entered, go = threading.Event(), threading.Event()
    judge, ask = predictor.predict, Predictor.predict

    def slow(records: list[bytes]) -> Any:
        entered.set()
        assert go.wait(30)
        return ask(predictor, records)

    predictor.predict = slow  # type: ignore[method-assign, assignment]
    api = serve(max_flows=2, max_waiting=2, batch_size=2, max_wait_ms=0)
    answers: list[int] = []
    under_way = [
        threading.Thread(target=lambda: answers.append(api.ask("/predict", {"flows": [BENIGN] * 2}).status))
        for _ in range(2)
    ]
    under_way[0].start()
    assert entered.wait(30)
    under_way[1].start()
    while api.metric("flowsentry_api_waiting_flows") < 2:
        pass
    refused = api.ask("/predict", {"features": BENIGN})
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert api.ask("/ready").status == 503 and api.ask("/health").status == 200
    go.set()
    for thread in under_way:
        thread.join(30)
    assert answers == [200, 200]
    predictor.predict = judge  # type: ignore[method-assign]
    assert api.ask("/predict", {"features": BENIGN}).status == 200 == api.ask("/ready").status
