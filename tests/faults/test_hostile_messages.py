"""Nothing that a producer can put on the topic stops the service or exhausts its memory: every record is judged or set
aside, and those around it are, too."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas.alert import Alert
from schemas.dead_letter import DeadLetter, Reason
from stream.batch import headers_of
from tests.bundles import make_bundle
from tests.faults import raw
from tests.faults.raw import Raw
from tests.kafka import end_offsets, read_all, wait_until_consumed
from tests.stream.rig import Command, attack, benign, command

MB = 1_000_000
# What the service may come to have, whatever is sent: about 200 with nothing to do, and 600 for each of two fetches, one
# being unpacked while the last of the one before is judged.
MEMORY_MB = 1500

Reasons = dict[int, set[Reason]]  # offset → what its dead letter may say


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "tiny", "unsw-nb15")


@contextmanager
def service(servers: str, bundle: Path, flows: str, *options: str) -> Iterator[Command]:
    arguments = ["--bundle", str(bundle), "--bootstrap-servers", servers, "--group", flows, "--input", flows]
    arguments += ["--alerts", f"{flows}.alerts", "--dead-letters", f"{flows}.dead", "--create-topics"]
    with command("run", *arguments, "--metrics-port", "0", *options) as running:
        yield running
        assert running.stop() == 0


def produce(
    servers: str, topic: str, values: Sequence[bytes | None], *, codec: str = "none", together: bool = False
) -> None:
    """With a producer that lets anything through; `together`: all of it packed in one batch."""
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "compression.type": codec,
            "message.max.bytes": 1_000_000_000,
            "queue.buffering.max.kbytes": 2_000_000,
            "batch.size": 1_000_000_000 if together else 1_000_000,
            "linger.ms": 3_000 if together else 0,
            "batch.num.messages": len(values) if together else 1,
        }
    )
    refused: list[str] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: refused.append(error.str()) if error else None)
        producer.poll(0)
    assert producer.flush(120) == 0
    assert not refused, f"the broker has not taken it: {refused}"


def peak_memory_mb(process_id: int) -> float:
    """Of a process and its children: the most that was resident, as far as they still run."""
    status = Path(f"/proc/{process_id}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    return (int(peak[1]) / 1024 if peak else 0.0) + sum(map(peak_memory_mb, map(int, children)))


def check(servers: str, flows: str, alerts: set[int], letters: Reasons) -> None:
    """Exactly these offsets have an alert, exactly those a dead letter with one of these reasons, and each has one."""
    found = [Alert.model_validate_json(message.value() or b"").id for message in read_all(servers, f"{flows}.alerts")]
    assert sorted(found) == sorted(f"{flows}-0-{offset}" for offset in alerts)
    set_aside = [DeadLetter.from_headers(headers_of(message)) for message in read_all(servers, f"{flows}.dead")]
    assert sorted(letter.offset for letter in set_aside) == sorted(letters)
    for letter in set_aside:
        assert letter.reason in letters[letter.offset], letter
        assert letter.detail


class Topic:
    """What was put on a topic, and what must become of it."""

    def __init__(self, servers: str, name: str) -> None:
        self.servers, self.name = servers, name
        self.alerts: set[int] = set()
        self.letters: Reasons = {}
        self.end = 0

    def add(
        self, values: Sequence[bytes | None], *reasons: Reason, codec: str = "none", together: bool = False
    ) -> None:
        """Records that must all be set aside for one of these reasons, or become alerts."""
        produce(self.servers, self.name, values, codec=codec, together=together)
        self._expect(len(values), reasons)

    def add_raw(self, records: Sequence[Raw], *reasons: Reason) -> None:
        raw.produce(self.servers, self.name, records)
        self._expect(len(records), reasons)

    def _expect(self, count: int, reasons: Sequence[Reason]) -> None:
        offsets = range(self.end, self.end + count)
        self.end += count
        if reasons:
            self.letters |= {offset: set(reasons) for offset in offsets}
        else:
            self.alerts |= {*offsets}


def judged(servers: str, bundle: Path, topic: Topic, *options: str) -> None:
    """Run the service over all of it, then once more over a few flows: it still does its work."""
    produced = end_offsets(servers, topic.name)
    assert produced == {0: topic.end}
    with service(servers, bundle, topic.name, *options) as running:
        wait_until_consumed(servers, topic.name, topic.name, running.process)
        topic.add([attack(), attack()])
        wait_until_consumed(servers, topic.name, topic.name, running.process)
        assert peak_memory_mb(running.process.pid) < MEMORY_MB
        assert not [line for line in running.logs if line["event"] == "worker died and is started again"]
    check(servers, topic.name, topic.alerts, topic.letters)


def test_what_expands_when_it_is_unpacked_costs_only_itself(
    bootstrap_servers: str, topic: Callable[..., str], bundle: Path
) -> None:
    flows = Topic(bootstrap_servers, topic("flows"))
    flows.add([attack()] * 3)
    for codec in ("zstd", "lz4", "gzip", "snappy"):
        flows.add([b"a" * 10 * MB], Reason.TOO_LONG, codec=codec)
        flows.add([attack()])
    for codec in ("lz4", "gzip"):
        flows.add([b"a" * 60 * MB], Reason.TOO_LONG, codec=codec)
        flows.add([attack()])
    for size in (20, 200):
        flows.add([b"a" * size * MB], Reason.UNDECODABLE, codec="zstd")
        flows.add([attack()])
    judged(bootstrap_servers, bundle, flows)


def test_a_batch_that_cannot_be_unpacked_is_set_aside_record_by_record(
    bootstrap_servers: str, topic: Callable[..., str], bundle: Path
) -> None:
    flows = Topic(bootstrap_servers, topic("flows"))
    flows.add([attack()])
    flows.add([*[attack()] * 700, b"a" * 20 * MB, *[attack()] * 100], Reason.UNDECODABLE, codec="zstd", together=True)
    flows.add([b"a" * 20 * MB], Reason.UNDECODABLE, codec="zstd")
    flows.add([attack()] * 2, codec="zstd", together=True)
    judged(bootstrap_servers, bundle, flows)


def test_messages_that_fit_but_not_all_at_once(bootstrap_servers: str, topic: Callable[..., str], bundle: Path) -> None:
    flows = Topic(bootstrap_servers, topic("flows"))
    flows.add([attack()])
    flows.add([b"a" * MB] * 1500, Reason.NOT_JSON, codec="zstd")
    flows.add([attack()])
    judged(bootstrap_servers, bundle, flows, "--batch-size", "4096", "--max-wait-ms", "3000")


def test_records_that_are_made_to_be_slow_or_large_cost_only_themselves(
    bootstrap_servers: str, topic: Callable[..., str], bundle: Path
) -> None:
    large = MB - 10_000
    flows = Topic(bootstrap_servers, topic("flows"))
    flows.add([attack()])
    flows.add([b"[" * large, b'{"a":' * (large // 5), b"[" * (large // 2) + b"]" * (large // 2)], Reason.TOO_DEEP)
    flows.add([b"{" + b'"a":1,' * (large // 6) + b'"b":1}'], Reason.TOO_MANY_FIELDS)
    flows.add([b'{"dur":"' + b"x" * large + b'"}', b'{"dur":"' + b"\\" * large + b'"}'], Reason.STRING_TOO_LONG)
    flows.add([attack(dur=1).replace(b'"dur": 1', b'"dur": ' + b"9" * large)], Reason.OUT_OF_RANGE)
    flows.add(
        [b"\\" * large, b'"' * large, b"\x00" * large, b"{" * 60 + b"," * large, bytes(range(256)) * (large // 256)],
        Reason.NOT_JSON,
    )
    flows.add([b"[" + b"[],1e999," * (large // 9) + b"1]"], Reason.NOT_AN_OBJECT)
    flows.add([b" " * large, b"", None], Reason.EMPTY)
    flows.add([attack()])
    judged(bootstrap_servers, bundle, flows)


def test_headers_and_keys_of_any_bytes_harm_nothing(
    bootstrap_servers: str, topic: Callable[..., str], bundle: Path
) -> None:
    flows = Topic(bootstrap_servers, topic("flows"))
    odd: list[tuple[tuple[bytes, bytes | None], ...]] = [
        ((b"\xff\xfe", b"x"),),
        ((b"", None), (b"a\0b", b"\xff")),
        ((b"flowsentry-hops", b"many"), (b"flowsentry-reason", b"\xff"), (b"flowsentry-offset", None)),
        ((b"h", b"x"),) * 20_000,
        ((b"n" * 30_000, b"x" * 400_000),),
    ]
    for headers in odd:
        flows.add_raw([Raw(attack(), key=b"\xff" * 1000, headers=headers)])
        flows.add_raw([Raw(b"x", key=b"", headers=headers), Raw(None, headers=headers)], Reason.NOT_JSON, Reason.EMPTY)
    flows.add_raw([Raw(attack(), key=b"k" * 900_000)])
    judged(bootstrap_servers, bundle, flows)


def test_all_of_it_while_flows_keep_coming(bootstrap_servers: str, topic: Callable[..., str], bundle: Path) -> None:
    flows = Topic(bootstrap_servers, topic("flows"))
    with service(bootstrap_servers, bundle, flows.name) as running:
        for codec in ("zstd", "lz4", "gzip"):
            flows.add([attack(), attack()])
            flows.add([b"a" * 20 * MB], Reason.TOO_LONG, Reason.UNDECODABLE, codec=codec)
            flows.add([attack()] * 20, codec=codec, together=True)
            flows.add([b"[" * 900_000, b'{"a": NaN}', b"\xff"], Reason.TOO_DEEP, Reason.NOT_JSON, codec=codec)
            time.sleep(0.5)
        produce(bootstrap_servers, flows.name, [benign()] * 10)
        wait_until_consumed(bootstrap_servers, flows.name, flows.name, running.process)
    check(bootstrap_servers, flows.name, flows.alerts, flows.letters)
