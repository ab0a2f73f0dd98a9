"""The loop from bytes to the committed transaction, on a real Kafka: what it publishes, and what it does when a part fails."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource

from export.detector import Detector, Scores
from schemas.dead_letter import DeadLetter, Reason
from schemas.errors import FlowsentryError
from stream import service as module
from stream.encode import SOURCE_TIME_HEADER, messages_of
from stream.judge import Judged
from stream.metrics import Metrics
from stream.service import BatchFailed
from stream.sink import Outgoing, RetryBatch, TransactionalSink
from tests.kafka import committed, produce, read_all
from tests.stream.rig import Logs, Rig, alerts_on, attack, benign, denied

MARKER = "203.0.113.77"
POISON = 987_654.0


def ids(rig: Rig) -> list[str]:
    """The flows' offsets of which there are alerts."""
    return [alert.id.removeprefix(f"{rig.flows}-0-") for alert in alerts_on(rig.servers, rig.alerts)]


def done(rig: Rig) -> int:
    return committed(rig.servers, rig.flows, rig.flows)[0]


def take_at_most(servers: str, topic: str, message_bytes: int) -> None:
    """What the broker lets into a topic from now on."""
    limit = ConfigEntry("max.message.bytes", str(message_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource("topic", topic, incremental_configs=[limit])
    admin = AdminClient({"bootstrap.servers": servers})
    admin.incremental_alter_configs([resource])[resource].result(30)


class Ordered(Metrics):
    """Metrics that remember in which order stages were timed."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.order.append(name)
        with super().stage(name):
            yield


class Broken:
    """A detector with a bug: it cannot score a flow whose `sttl` is POISON, nor just so many `flows`."""

    def __init__(self, detector: Detector, flows: int = -1) -> None:
        self._detector, self._flows = detector, flows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detector, name)

    def score(self, columns: Mapping[str, np.ndarray]) -> Scores:
        if POISON in columns["sttl"] or len(columns["sttl"]) == self._flows:
            raise ValueError(f"could not convert string to float: {MARKER!r}")
        return self._detector.score(columns)


def test_the_stages_come_in_order_once_a_batch(rig: Callable[..., Rig]) -> None:
    place = rig()
    place.metrics = metrics = Ordered()
    produce(place.servers, place.flows, [attack()] * 5)
    place.run(place.service(source=place.source(batch_size=2)), 5)
    batches = place.value("flowsentry_batches_total")
    assert batches == 3
    polled = "".join({"consume": "."}.get(stage, f" {stage}") for stage in metrics.order)
    assert [words.split() for words in polled.split(".") if words] == [
        ["decode", "score", "detect", "encode", "publish"]
    ] * 3


def test_a_batch_of_attacks_benign_flows_and_garbage(rig: Callable[..., Rig], logs: Logs) -> None:
    place = rig()
    given = [attack(), b"garbage", benign(), attack(srcip=MARKER), None, b'{"sttl": "high"}']
    produce(place.servers, place.flows, given, key=b"\xfekey", headers={"origin": b"\xff"})
    place.run(place.service(source=place.source(batch_size=6, max_wait_s=5)), 6)

    flows = read_all(place.servers, place.flows)
    alerts = alerts_on(place.servers, place.alerts)
    assert ids(place) == ["0", "3"] and alerts[1].flow.src_ip == MARKER
    for message, alert in zip(read_all(place.servers, place.alerts), alerts, strict=True):
        sent_ms = flows[int(alert.id.rpartition("-")[2])].timestamp()[1]
        assert message.key() == alert.id.encode()
        assert list(message.headers() or ()) == [(SOURCE_TIME_HEADER, b"%d" % sent_ms)]

    letters = read_all(place.servers, place.dead)
    assert [letter.value() for letter in letters] == [b"garbage", None, b'{"sttl": "high"}']
    assert {letter.key() for letter in letters} == {b"\xfekey"}
    told = [DeadLetter.from_headers(cast(Any, letter.headers())) for letter in letters]
    assert [letter.offset for letter in told] == [1, 4, 5]
    assert [letter.reason for letter in told] == [Reason.NOT_JSON, Reason.EMPTY, Reason.WRONG_TYPE]
    assert all(dict(cast(Any, letter.headers()))["origin"] == b"\xff" for letter in letters)

    assert done(place) == 6
    family, severity = alerts[0].family, alerts[0].severity.value
    assert place.value("flowsentry_flows_total") == 6
    assert place.value("flowsentry_batches_total") == place.value("flowsentry_batch_size_count") == 1
    assert place.value("flowsentry_alerts_total", family=family, severity=severity) == 2
    assert [place.value("flowsentry_dead_letters_total", reason=reason) for reason in ("not_json", "empty")] == [1, 1]
    assert place.value("flowsentry_alert_latency_seconds_count") == 2
    assert place.value("flowsentry_batch_retries_total") == 0
    assert {(line["reason"], line["count"]) for line in logs.of("records set aside")} == {
        ("not_json", 1), ("empty", 1), ("wrong_type", 1)
    }  # fmt: skip


def test_the_lag_is_reported(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LAG_EVERY_S", 0.0)
    place = rig()
    produce(place.servers, place.flows, [benign()] * 3)
    place.run(place.service(source=place.source(batch_size=1)), 1)
    assert place.value("flowsentry_lag", partition="0") == 2
    assert place.value("flowsentry_assigned_partitions") == 1


class AbortsFirst(TransactionalSink):
    """Breaks its first transactions off when all messages are in them, as a rebalance would."""

    times = 1

    def publish(
        self, messages: Sequence[Outgoing], next_offsets: list[TopicPartition], *, within_s: float | None = None
    ) -> None:
        if self.times > 0:
            self.times -= 1
            assert self._producer is not None
            self._producer.begin_transaction()
            for message in messages:
                self._producer.produce(message.topic, message.value, message.key)
            self._producer.flush(30)
            self._producer.abort_transaction(30)
            raise RetryBatch("the group moved on")
        super().publish(messages, next_offsets, within_s=within_s)


def test_an_aborted_batch_is_done_again_and_nothing_is_published_twice(rig: Callable[..., Rig], logs: Logs) -> None:
    place = rig()
    produce(place.servers, place.flows, [attack(), b"garbage", attack(), attack()])
    source = place.source(batch_size=2, max_wait_s=5)
    sink = AbortsFirst(place.producer(), source.consumer, denied=denied)
    sink.times = 2
    place.run(place.service(source=source, sink=sink), 4)
    assert ids(place) == ["0", "2", "3"]
    assert len(read_all(place.servers, place.dead)) == 1
    assert done(place) == 4
    assert place.value("flowsentry_batch_retries_total") == 2
    assert place.value("flowsentry_flows_total") == 4
    assert place.value("flowsentry_batches_total") == 2
    assert [(line["records"], line["why"]) for line in logs.of("batch is done again")] == [
        (2, "the group moved on")
    ] * 2


def test_a_batch_that_cannot_be_published_for_long_stops_the_worker_and_is_named(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GIVE_UP_AFTER_S", 0.3)
    place = rig()
    produce(place.servers, place.flows, [benign()])
    source = place.source()
    sink = AbortsFirst(place.producer(), source.consumer, denied=denied)
    sink.times = 1000
    with pytest.raises(FlowsentryError, match=rf"nothing could be published .*the group moved on.* {place.flows}-0-0"):
        place.run(place.service(source=source, sink=sink), 1)
    assert done(place) < 0


def test_trouble_that_passed_is_forgotten(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_GIVE_UP_AFTER_S", 1.0)
    place = rig()
    source = place.source(batch_size=1)
    sink = AbortsFirst(place.producer(), source.consumer, denied=denied)
    monkeypatch.setattr("stream.sink._RETRY_AFTER_S", 0.6)
    service = place.service(source=source, sink=sink)
    for flows in (1, 2, 3):  # together they fail for longer than is allowed
        sink.times = 1
        produce(place.servers, place.flows, [attack()])
        place.run(service, flows)
    assert ids(place) == ["0", "1", "2"]


def test_a_bug_stops_the_worker_at_its_record_before_anything_of_the_batch_is_published(
    rig: Callable[..., Rig], logs: Logs
) -> None:
    place = rig()
    broken = cast(Detector, Broken(place.detector))
    service = place.service(source=place.source(batch_size=3, max_wait_s=5), detector=broken)
    produce(place.servers, place.flows, [attack(srcip=MARKER)] * 3)
    place.run(service, 3)
    produce(place.servers, place.flows, [attack(srcip=MARKER), MARKER.encode(), attack(sttl=POISON, srcip=MARKER)])
    with pytest.raises(BatchFailed) as raised:
        place.run(service, 6)
    assert ids(place) == ["0", "1", "2"]
    assert read_all(place.servers, place.dead) == []
    assert done(place) == 3
    halved = logs.of("batch failed and is judged in halves")
    assert [(line["begins"], line["records"]) for line in halved] == [
        ([f"{place.flows}-0-3"], 3), ([f"{place.flows}-0-4"], 2)
    ]  # fmt: skip
    [line] = logs.of("poison")
    assert (line["record"], line["error"]) == (f"{place.flows}-0-5", "ValueError")
    assert line["at"][-1].startswith(f"{__file__}:") and line["at"][-1].endswith(" score")
    assert MARKER not in logs.text, "the log quotes a flow"
    assert raised.value.__suppress_context__ and MARKER not in str(raised.value)
    assert f"{place.flows}-0-5: a ValueError at test_service.py:" in str(raised.value)


def test_poison_can_be_set_aside_instead_and_costs_only_itself(rig: Callable[..., Rig], logs: Logs) -> None:
    place = rig()
    poison = attack(sttl=POISON)
    given = [attack(), poison, b"garbage", attack(), benign(), poison, attack()]
    produce(place.servers, place.flows, given)
    broken = cast(Detector, Broken(place.detector))
    source = place.source(batch_size=7, max_wait_s=5)
    place.run(place.service(source=source, detector=broken, on_poison="dead-letter"), 7)
    assert ids(place) == ["0", "3", "6"] and done(place) == 7
    letters = read_all(place.servers, place.dead)
    assert [letter.value() for letter in letters] == [poison, b"garbage", poison]
    told = [DeadLetter.from_headers(cast(Any, letter.headers())) for letter in letters]
    assert [(each.offset, each.reason) for each in told] == [
        (1, Reason.POISON), (2, Reason.NOT_JSON), (5, Reason.POISON)
    ]  # fmt: skip
    assert told[0].detail.startswith("a ValueError at test_service.py:") and MARKER not in told[0].detail
    assert place.value("flowsentry_dead_letters_total", reason="poison") == 2


def test_a_bug_that_encoding_meets_costs_its_record_too(
    rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(judged: Judged, **more: Any) -> list[Outgoing]:
        if any(POISON in part.findings.reasons.number for part in judged.alerts):
            raise ValueError(MARKER)
        return messages_of(judged, **more)

    monkeypatch.setattr(module, "messages_of", encode)
    place = rig()
    produce(place.servers, place.flows, [attack(), attack(sttl=POISON), attack(), b"garbage"])
    source = place.source(batch_size=4, max_wait_s=5)
    place.run(place.service(source=source, on_poison="dead-letter"), 4)
    assert ids(place) == ["0", "2"] and done(place) == 4
    told = [DeadLetter.from_headers(cast(Any, it.headers())) for it in read_all(place.servers, place.dead)]
    assert [(each.offset, each.reason) for each in told] == [(1, Reason.POISON), (3, Reason.NOT_JSON)]


def test_a_slow_batch_makes_the_next_ones_smaller(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    place = rig()
    produce(place.servers, place.flows, [benign()] * 100)
    source = place.source(batch_size=50, max_wait_s=1)
    service = place.service(source=source)
    service._limit = source._limit
    monkeypatch.setattr(source._limit, "_longest_s", 1e-6)  # as if each record took long
    place.run(service, 60)
    assert (place.value("flowsentry_batches_total") or 0) > 10


def test_a_batch_that_fails_only_as_a_whole_is_judged_in_parts(rig: Callable[..., Rig], logs: Logs) -> None:
    place = rig()
    produce(place.servers, place.flows, [attack(), b"garbage", attack(), attack()])
    broken = cast(Detector, Broken(place.detector, flows=3))
    place.run(place.service(source=place.source(batch_size=4, max_wait_s=5), detector=broken), 4)
    assert ids(place) == ["0", "2", "3"] and done(place) == 4
    assert len(logs.of("batch failed and is judged in halves")) == 1


def test_a_dead_letter_too_large_for_its_topic_is_cut_and_says_where_the_record_stands(
    rig: Callable[..., Rig], logs: Logs
) -> None:
    place = rig()
    large, fits = b"\xff" + random.Random(1).randbytes(5_000), b"\xff" * 100_000  # the second one packs well
    take_at_most(place.servers, place.dead, 4_000)
    produce(place.servers, place.flows, [attack(), large, fits, attack()], key=b"key", headers={"origin": b"probe"})
    place.run(place.service(source=place.source(batch_size=4, max_wait_s=5)), 4)
    assert ids(place) == ["0", "3"] and done(place) == 4
    cut, whole = read_all(place.servers, place.dead)
    assert (whole.value(), whole.key()) == (fits, b"key")
    assert (cut.value(), cut.key()) == (None, None)
    told = DeadLetter.from_headers(cast(Any, cut.headers()))
    assert (told.offset, told.reason, told.cut > len(large)) == (1, Reason.NOT_JSON, True)


def test_an_alert_too_large_for_its_topic_is_an_error_that_says_what_to_raise(rig: Callable[..., Rig]) -> None:
    place = rig()
    take_at_most(place.servers, place.alerts, 100)
    produce(place.servers, place.flows, [attack()])
    with pytest.raises(FlowsentryError, match=rf"topic '{place.alerts}' takes no message of .*max\.message\.bytes"):
        place.run(place.service(), 1)
    assert done(place) < 0


def test_no_content_of_a_flow_is_ever_logged(rig: Callable[..., Rig], logs: Logs) -> None:
    place = rig()
    named = dict.fromkeys(("srcip", "dstip", "sport", "id", "stime", "proto", "service", MARKER), MARKER)
    given = [
        attack(**named),
        benign(**named),
        MARKER.encode(),
        json.dumps([MARKER]).encode(),
        json.dumps({"dur": MARKER}).encode(),
        json.dumps({MARKER: 1}).encode(),
        json.dumps({"dur": 1, "service": MARKER}).encode(),
        f'{{"dur": 1, "dur": "{MARKER}"}}'.encode(),
    ]
    produce(place.servers, place.flows, given, key=MARKER.encode(), headers={MARKER: MARKER.encode()})
    source = place.source(batch_size=8, max_wait_s=5)
    place.run(place.service(source=source, sink=AbortsFirst(place.producer(), source.consumer, denied=denied)), 8)
    alert = json.loads(read_all(place.servers, place.alerts)[0].value() or b"")
    assert alert["flow"]["src_ip"] == MARKER and len(read_all(place.servers, place.dead)) == 6
    assert len(logs.of("records set aside")) == 6 and len(logs.of("batch is done again")) == 1
    assert MARKER not in logs.text


@pytest.mark.parametrize("timestamp", [-62_135_596_800_001_000, 10**17])
def test_a_record_whose_time_is_nonsense_is_judged_all_the_same(rig: Callable[..., Rig], timestamp: int) -> None:
    place = rig()
    lax = ConfigEntry("message.timestamp.after.max.ms", str(2**63 - 1), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource("topic", place.flows, incremental_configs=[lax])
    admin = AdminClient({"bootstrap.servers": place.servers})
    admin.incremental_alter_configs([resource])[resource].result(30)
    producer = Producer({"bootstrap.servers": place.servers})
    producer.produce(place.flows, attack(), timestamp=timestamp)
    assert producer.flush(30) == 0
    assert read_all(place.servers, place.flows)[0].timestamp()[1] == timestamp
    place.run(place.service(), 1)
    assert ids(place) == ["0"]
