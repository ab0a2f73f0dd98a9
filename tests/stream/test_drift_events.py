"""Events of drift on a real Kafka: each once, in the transaction of a batch, and alerts and dead letters as without them."""

import json
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient

from export.detector import load
from export.drift_reference import DriftReference, reference_of
from schemas.alert import BundleRef
from schemas.datasets import SCHEMAS
from schemas.event import DriftEvent, DriftState
from schemas.params import DriftParams
from stream.drift import DriftWatch
from stream.sink import TransactionalSink
from stream.topics import PLAIN, create_topics
from tests.bundles import VOCABULARIES, make_bundle
from tests.kafka import produce, read_all, wait_until_consumed
from tests.references import columns_of, made_up_columns
from tests.stream.rig import Logs, Rig, alerts_on, attack, benign, command, denied, options
from tests.stream.test_service import AbortsFirst, take_at_most

UNSW = "unsw-nb15"
FEW = DriftParams(window_s=100, panes=1, min_flows=4)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> DriftReference:
    """Of flows that are all like `benign()` or `attack()`, with the scores that the tiny bundle gives them."""
    columns, y = made_up_columns(UNSW, 1000), np.arange(1000) < 100
    for record, rows in ((benign(), ~y), (attack(), y)):
        for name, value in json.loads(record).items():
            columns[name][rows] = value
    score = load(make_bundle(tmp_path_factory.mktemp("tiny") / "bundle", UNSW)).score(columns).score
    rows = columns_of(UNSW, columns)
    return reference_of(SCHEMAS[UNSW], VOCABULARIES, rows, y, score=score, novelty=None, score_y=y)


class Clock:
    def __init__(self) -> None:
        self.at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


def watch(reference: DriftReference, clock: Clock) -> DriftWatch:
    bundle = BundleRef(name="tiny", version="1", hash="abc")
    return DriftWatch(reference, FEW, bundle=bundle, worker="group-host-0", clock=clock)


def events_on(servers: str, topic: str) -> list[DriftEvent]:
    messages = read_all(servers, topic)
    events = [DriftEvent.model_validate_json(message.value() or b"") for message in messages]
    assert [message.key() for message in messages] == [event.feature.encode() for event in events]
    return events


def test_events_come_once_and_with_the_alerts_of_a_batch(
    rig: Callable[..., Rig], topic: Callable[..., str], reference: DriftReference
) -> None:
    place, events, clock = rig(), topic("events"), Clock()
    source = place.source(batch_size=4, max_wait_s=5)
    sink = AbortsFirst(place.producer(), source.consumer, denied=denied)
    sink.times = 0
    service = place.service(source=source, sink=sink, drift=watch(reference, clock), events=events)
    produce(place.servers, place.flows, [attack(dur=1e6), b"garbage", attack(dur=1e6), benign()])
    place.run(service, 4)
    clock.at_s += 200
    produce(place.servers, place.flows, [attack(dur=1e6), benign(), benign(), benign()])
    place.run(service, 8)
    assert events_on(place.servers, events) == [], "the pane of four flows has ended after this batch"

    sink.times = 2
    produce(place.servers, place.flows, [b"garbage", attack(), benign(), benign()])
    place.run(service, 12)
    told = events_on(place.servers, events)
    assert {event.state for event in told} == {DriftState.DRIFTED}
    names = [event.feature for event in told]
    assert len(names) == len(set(names)) and "dur" in names
    assert not {"sttl", "dpkts", "score"} & set(names), (
        "they are like those of attacks, of which there are as many alerts"
    )
    assert {(event.flows, event.attack_share) for event in told} == {(7, 3 / 7)}
    assert place.value("flowsentry_drift_events_total", state="drifted") == len(told)
    assert place.value("flowsentry_batch_retries_total") == 2
    assert (place.value("flowsentry_drift_psi", feature="dur") or 0) > 0.2

    produce(place.servers, place.flows, [benign()] * 4)
    place.run(service, 16)
    assert events_on(place.servers, events) == told
    assert [alert.id for alert in alerts_on(place.servers, place.alerts)] == [
        f"{place.flows}-0-{offset}" for offset in (0, 2, 4, 9)
    ]
    assert [letter.value() for letter in read_all(place.servers, place.dead)] == [b"garbage"] * 2


def test_events_that_hold_up_a_batch_for_too_long_are_dropped(
    rig: Callable[..., Rig],
    topic: Callable[..., str],
    reference: DriftReference,
    logs: Logs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream.service._EVENTS_WAIT_S", 0.0)
    place, events, clock = rig(), topic("events"), Clock()
    source = place.source(batch_size=4, max_wait_s=5)
    sink = AbortsFirst(place.producer(), source.consumer, denied=denied)
    sink.times = 0
    service = place.service(source=source, sink=sink, drift=watch(reference, clock), events=events)
    produce(place.servers, place.flows, [attack(dur=1e6)] * 4)
    place.run(service, 4)
    clock.at_s += 200
    produce(place.servers, place.flows, [attack(dur=1e6)] * 4)
    place.run(service, 8)
    sink.times = 2
    produce(place.servers, place.flows, [attack()] * 4)
    place.run(service, 12)
    assert logs.of("drift") and len(logs.of("events of drift are dropped")) == 1
    assert events_on(place.servers, events) == []
    assert len(alerts_on(place.servers, place.alerts)) == 12


def test_a_batch_that_is_done_again_is_counted_once(rig: Callable[..., Rig], reference: DriftReference) -> None:
    place, clock = rig(), Clock()
    source = place.source(batch_size=4, max_wait_s=5)
    sink = AbortsFirst(place.producer(), source.consumer, denied=denied)
    sink.times = 3
    produce(place.servers, place.flows, [benign()] * 4)
    service = place.service(source=source, sink=sink, drift=watch(reference, clock))
    place.run(service, 4)
    clock.at_s += 200
    produce(place.servers, place.flows, [benign()])
    place.run(service, 5)
    assert place.value("flowsentry_batch_retries_total") == 3
    assert place.value("flowsentry_drift_window_flows") == 5


def test_without_a_topic_events_are_told_by_log_and_metrics_alone(
    rig: Callable[..., Rig], reference: DriftReference, logs: Logs
) -> None:
    place, clock = rig(), Clock()
    service = place.service(source=place.source(batch_size=8, max_wait_s=1), drift=watch(reference, clock))
    for flows in (8, 16, 24):
        produce(place.servers, place.flows, [benign(dur=1e6)] * 8)
        place.run(service, flows)
        clock.at_s += 200
    [line] = [line for line in logs.of("drift") if line["feature"] == "dur"]
    assert line["state"] == "drifted" and line["psi"] > 0.2
    assert place.value("flowsentry_drift_events_total", state="drifted") == len(logs.of("drift"))


def test_an_event_too_large_for_its_topic_is_an_error_that_says_what_to_raise(
    rig: Callable[..., Rig], topic: Callable[..., str], reference: DriftReference
) -> None:
    place, events, clock = rig(), topic("events"), Clock()
    take_at_most(place.servers, events, 100)
    source = place.source(batch_size=8, max_wait_s=1)
    sink = TransactionalSink(place.producer(), source.consumer, denied=denied)
    service = place.service(source=source, sink=sink, drift=watch(reference, clock), events=events)
    produce(place.servers, place.flows, [benign(dur=1e6)] * 8)
    place.run(service, 8)
    clock.at_s += 200
    produce(place.servers, place.flows, [benign()] * 8)
    place.run(service, 16)
    produce(place.servers, place.flows, [benign()] * 8)
    with pytest.raises(Exception, match=rf"topic '{events}' takes no message of .*max\.message\.bytes"):
        place.run(service, 24)


def test_alerts_do_not_wait_for_a_topic_of_events(
    bootstrap_servers: str, topic: Callable[..., str], reference: DriftReference, tmp_path: Path
) -> None:
    flows, bundle = topic("flows"), make_bundle(tmp_path / "bundle", UNSW, drift=reference.to_json())
    events, alerts, dead = (f"{flows}.{name}" for name in ("events", "alerts", "dead"))
    create_topics(AdminClient({"bootstrap.servers": bootstrap_servers}), dict.fromkeys((alerts, dead), PLAIN))
    fast = ["drift.window_s=1", "drift.panes=2", "drift.min_flows=50", "drift.flows_per_s=1000"]
    words = [*(word for each in fast for word in ("--set", each)), "--events", events]
    with command(*options(bootstrap_servers, flows, bundle, *words)) as running:
        told = running.logged("events of drift are not published, and are told by metrics and log alone")
        assert told["why"] == f"there is no topic {events}: make it, or start with --create-topics"
        while not any(line["event"] == "drift" for line in running.logs):
            produce(bootstrap_servers, flows, [benign(dur=1e6)] * 50)
            wait_until_consumed(bootstrap_servers, flows, flows)
        produce(bootstrap_servers, flows, [attack()])
        wait_until_consumed(bootstrap_servers, flows, flows)
        assert running.stop(signal.SIGTERM) == 0
    assert read_all(bootstrap_servers, alerts)


def test_a_running_service_tells_of_drift(
    bootstrap_servers: str, topic: Callable[..., str], reference: DriftReference, tmp_path: Path
) -> None:
    flows, bundle = topic("flows"), make_bundle(tmp_path / "bundle", UNSW, drift=reference.to_json())
    events, alerts, dead = (f"{flows}.{name}" for name in ("events", "alerts", "dead"))
    fast = ["drift.window_s=1", "drift.panes=2", "drift.min_flows=50", "drift.flows_per_s=1000"]
    words = [*(word for each in fast for word in ("--set", each)), "--events", events, "--instance", "box"]
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    create_topics(admin, dict.fromkeys((alerts, dead, events), PLAIN))
    with command(*options(bootstrap_servers, flows, bundle, *words)) as running:
        url = running.logged("running")["metrics"]
        while not (told := read_all(bootstrap_servers, events)):
            produce(bootstrap_servers, flows, [benign(dur=1e6)] * 50)
            wait_until_consumed(bootstrap_servers, flows, flows)
        with urllib.request.urlopen(url, timeout=10) as answer:
            metrics = answer.read().decode()
        assert running.stop(signal.SIGTERM) == 0
    assert "\nflowsentry_drift_measured 1.0\n" in metrics and "\nflowsentry_drift_window_flows" in metrics
    event = next(event for event in events_on(bootstrap_servers, events) if event.feature == "dur")
    assert (event.state, event.worker) == (DriftState.DRIFTED, f"{flows}-box-0")
    assert event.out_of_range_share == 1 and event.bundle.name == "tiny-unsw-nb15"
    assert event.window_begin < event.window_end and event.flows >= 50
    assert told


def test_a_bundle_of_before_is_told_not_to_be_measured(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path
) -> None:
    with command(*options(bootstrap_servers, topic("flows"), tiny_bundle, "--create-topics")) as running:
        with urllib.request.urlopen(running.logged("running")["metrics"], timeout=10) as answer:
            metrics = answer.read().decode()
        assert running.stop(signal.SIGTERM) == 0
        [line] = [line for line in running.logs if line["event"] == "drift is not measured"]
    assert line["why"] == "the bundle has no reference: build it again"
    assert "\nflowsentry_drift_measured 0.0\n" in metrics and "flowsentry_drift_psi{" not in metrics
