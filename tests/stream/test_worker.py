"""`python -m stream run` as its users run it: how it starts, waits, is looked at, and ends."""

import os
import signal
import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from export.bundle import MODEL, read_bundle, write_manifest
from export.signing import PUBLIC_KEY, make_keys
from schemas.datasets import SCHEMAS
from schemas.errors import BundleError, FlowsentryError
from stream.__main__ import main
from stream.broker import LocalBroker
from stream.metrics import STAGES, Metrics
from stream.status import Status
from stream.topics import PLAIN, create_topics, warn_if_packed
from stream.worker import _detector_of, _serve_http
from tests.bundles import make_bundle, make_model
from tests.kafka import produce, wait_until_consumed
from tests.stream.rig import PATIENCE_S, Command, Logs, alerts_on, attack, benign, command, options, workers_of


def scrape(running: Command) -> dict[str, Metric]:
    """What Prometheus would see now."""
    url = running.logged("running")["metrics"]
    with urllib.request.urlopen(url, timeout=10) as answer:
        return {family.name: family for family in text_string_to_metric_families(answer.read().decode())}


def samples(family: Metric, *labels: str) -> dict[tuple[str, ...], float]:
    """Label values → value, of the samples that count."""
    counting = [sample for sample in family.samples if not sample.name.endswith(("_bucket", "_sum", "_created"))]
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in counting}


def counted(family: Metric, *labels: str) -> dict[tuple[str, ...], float]:
    """Those of them that are not 0."""
    return {values: value for values, value in samples(family, *labels).items() if value}


def test_missing_topics_are_waited_for_and_used_once_they_are_made(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path
) -> None:
    flows = topic("flows")
    with command(*options(bootstrap_servers, flows, tiny_bundle)) as running:
        why = running.logged("waiting")["why"]
        assert why == f"no topic {flows}.alerts, {flows}.dead yet: make it, or start with --create-topics"
        assert "running" not in [line["event"] for line in running.logs]
        create_topics(
            AdminClient({"bootstrap.servers": bootstrap_servers}),
            dict.fromkeys((f"{flows}.alerts", f"{flows}.dead"), PLAIN),
        )
        produce(bootstrap_servers, flows, [attack()])
        wait_until_consumed(bootstrap_servers, flows, flows)
        assert running.stop(signal.SIGTERM) == 0
        assert [line["event"] for line in running.logs][-1] == "stopped"
    assert [alert.id for alert in alerts_on(bootstrap_servers, f"{flows}.alerts")] == [f"{flows}-0-0"]


def test_a_broker_that_is_not_up_yet_is_waited_for(tiny_bundle: Path) -> None:
    local = LocalBroker()
    local.start()
    servers = local.bootstrap_servers  # its port stays the same
    local.stop()
    with (
        command(*options(servers, "flows", tiny_bundle, "--create-topics")) as running,
        command(*options(servers, "flows", tiny_bundle)) as stopped,
    ):
        for each in (running, stopped):
            each.logged("waiting", why=f"no answer from Kafka at {servers}")
        assert stopped.stop(signal.SIGTERM) == 0
        local.start()
        try:
            running.logged("running", input="flows")
            produce(servers, "flows", [attack(), b"garbage"])
            wait_until_consumed(servers, "flows", "flows")
            assert len(alerts_on(servers, "flows.alerts")) == 1
            assert running.stop(signal.SIGTERM) == 0
        finally:
            local.stop()
        assert all(line["event"] != "running" for line in stopped.logs)


def test_prometheus_sees_everything_that_happened(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path
) -> None:
    flows = topic("flows", 2)
    given = [attack(), b"garbage", benign(), attack(), None, benign(), attack(sttl=100), b"garbage", b"[1]"]
    produce(bootstrap_servers, flows, given)
    began = time.monotonic()
    with command(*options(bootstrap_servers, flows, tiny_bundle, "--create-topics", "--batch-size", "4")) as running:
        wait_until_consumed(bootstrap_servers, flows, flows)
        took = time.monotonic() - began
        running.until(lambda: scrape(running)["flowsentry_flows"].samples[0].value == len(given), "all flows")
        running.until(
            lambda: samples(scrape(running)["flowsentry_lag"], "partition") == {("0",): 0, ("1",): 0}, "no lag"
        )
        found = scrape(running)
        assert running.stop(signal.SIGINT) == 0
    print(f"from start to the first batches committed: {took:.2f} s")
    assert took < 15

    assert set(found) >= {family.name for family in Metrics().registry.collect()}
    alerts = alerts_on(bootstrap_servers, f"{flows}.alerts")
    assert len(alerts) == 3
    by_family = counted(found["flowsentry_alerts"], "family", "severity")
    assert sum(by_family.values()) == 3
    assert set(by_family) == {(alert.family, alert.severity.value) for alert in alerts}
    assert counted(found["flowsentry_dead_letters"], "reason") == {
        ("not_json",): 2, ("empty",): 1, ("not_an_object",): 1
    }  # fmt: skip
    [batches] = samples(found["flowsentry_batches"]).values()
    assert batches >= 3
    assert samples(found["flowsentry_batch_size"]) == {(): batches}
    assert [each.value for each in found["flowsentry_batch_size"].samples if each.name.endswith("_sum")] == [len(given)]
    stages = samples(found["flowsentry_stage_seconds"], "stage")
    assert set(stages) == {(stage,) for stage in STAGES}
    assert {stages[(stage,)] for stage in STAGES if stage != "consume"} == {batches}
    assert samples(found["flowsentry_assigned_partitions"]) == {(): 2}
    assert samples(found["flowsentry_alert_latency_seconds"]) == {(): 3}
    assert samples(found["flowsentry_batch_retries"]) == {(): 0}
    [info] = found["flowsentry_bundle_info"].samples
    assert (info.labels["name"], info.labels["dataset"]) == ("tiny-unsw-nb15", "unsw-nb15")
    assert info.labels["hash"] == alerts[0].bundle.hash


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_that_are_still_starting_can_be_stopped_without_a_word(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path, number: int
) -> None:
    flows = topic("flows")
    words = options(bootstrap_servers, flows, tiny_bundle, "--workers", "2", "--quiet", "--create-topics")
    with command(*words) as running:
        running.until(lambda: len(workers_of(running.process.pid)) == 2, "two workers")
        os.killpg(running.process.pid, number)  # as Ctrl-C does
        assert running.ended() == 0
        assert running.lines == []


def test_quiet_workers_log_no_more_than_one_that_is_quiet(
    bootstrap_servers: str, topic: Callable[..., str], tiny_bundle: Path
) -> None:
    flows = topic("flows")
    words = options(bootstrap_servers, flows, tiny_bundle, "--workers", "2", "--quiet", "--create-topics")
    produce(bootstrap_servers, flows, [attack()])
    with command(*words) as running:
        wait_until_consumed(bootstrap_servers, flows, flows)
        assert running.stop(signal.SIGTERM) == 0
        assert [line["event"] for line in running.logs] == ["the input topic keeps records packed"]


def test_a_worker_among_several_that_cannot_start_says_why(tmp_path: Path) -> None:
    with command(*options("127.0.0.1:1", "flows", tmp_path / "nothing", "--workers", "2")) as running:
        assert running.ended() == 2
        assert running.lines == [f"error: {tmp_path / 'nothing'}: no such bundle directory"]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said by a command that ends with status 2."""
    assert main(words) == 2
    return capsys.readouterr().err


@pytest.mark.usefixtures("own_signals")
class TestRefused:
    """What the user can mend ends with status 2 and says how, before anything is consumed."""

    def test_a_bundle_that_is_not_there(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        said = refused(capsys, *options("127.0.0.1:1", "flows", tmp_path / "none"))
        assert said == f"error: {tmp_path / 'none'}: no such bundle directory\n"

    def test_a_directory_that_is_no_bundle(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert f"error: {tmp_path}/bundle.json" in refused(capsys, *options("127.0.0.1:1", "flows", tmp_path))

    def test_a_rate_that_the_bundle_has_no_threshold_for(
        self, capsys: pytest.CaptureFixture[str], tiny_bundle: Path
    ) -> None:
        said = refused(capsys, *options("127.0.0.1:1", "flows", tiny_bundle, "--target-fpr", "0.2"))
        assert "no threshold for a false-positive rate of 0.2: it has 0.0001, 0.001, 0.005, 0.01, 0.05" in said

    def test_a_metrics_port_that_is_in_use(self, capsys: pytest.CaptureFixture[str], tiny_bundle: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            said = refused(capsys, *options("127.0.0.1:1", "flows", tiny_bundle, "--metrics-port", port))
        assert f"metrics_port {port} on 127.0.0.1: Address already in use. Choose another with --metrics-port" in said

    def test_a_metrics_port_beyond_the_last(self) -> None:
        with pytest.raises(FlowsentryError, match=r"metrics_port 65536 .*must be 0-65535"):
            _serve_http(Metrics(), Status(), "127.0.0.1", 65536)

    @pytest.mark.parametrize(
        ("setting", "problem"),
        [
            ("kafka.acks=1", "kafka.acks: what is promised of alerts hangs on Flowsentry's own value; leave it out"),
            ("kafka.max.poll.interval.ms=100", "`max.poll.interval.ms`must be >= `session.timeout.ms`"),
            ("kafka.colour=red", 'kafka: No such configuration property: "colour"'),
        ],
    )
    def test_kafka_properties_that_cannot_be(
        self,
        bootstrap_servers: str,
        topic: Callable[..., str],
        capsys: pytest.CaptureFixture[str],
        tiny_bundle: Path,
        setting: str,
        problem: str,
    ) -> None:
        flows = topic("flows")
        said = refused(capsys, *options(bootstrap_servers, flows, tiny_bundle, "--create-topics", "--set", setting))
        assert problem in said.splitlines()[-1]


def test_patience_is_longer_than_the_goal() -> None:
    assert PATIENCE_S > 15


@pytest.mark.parametrize("packed", [True, False])
def test_an_input_topic_that_keeps_records_packed_is_warned_of(
    bootstrap_servers: str, topic: Callable[..., str], logs: Logs, packed: bool
) -> None:
    flows = topic("flows")
    properties: dict[str, Any] = {"bootstrap.servers": bootstrap_servers}
    if not packed:
        unpacked = ConfigEntry("compression.type", "uncompressed", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource("topic", flows, incremental_configs=[unpacked])
        admin = AdminClient(properties)
        admin.incremental_alter_configs([resource])[resource].result(30)
    warn_if_packed(properties, flows)
    told = [line["compression_type"] for line in logs.of("the input topic keeps records packed")]
    assert told == (["producer"] if packed else [])


def asked(port: int, path: str) -> tuple[int, str]:
    """Status and body that a worker answers with; 0 while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_a_worker_that_waits_is_alive_and_not_ready_and_one_that_reads_is_both(
    bootstrap_servers: str, tiny_bundle: Path
) -> None:
    flows = f"flows-{uuid.uuid4().hex}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = options(bootstrap_servers, flows, tiny_bundle)
    words[words.index("--metrics-port") + 1] = str(port)
    with command(*words) as running:
        running.logged("waiting", why=f"no topic {flows}")
        assert asked(port, "/health")[0] == 200
        status, told = asked(port, "/ready")
        assert status == 503 and "no partition is assigned" in told
        admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        create_topics(admin, dict.fromkeys((flows, f"{flows}.alerts", f"{flows}.dead"), PLAIN))
        running.until(lambda: asked(port, "/ready")[0] == 200, "readiness")
        assert asked(port, "/health")[0] == 200
        assert running.stop() == 0
        admin.delete_topics([flows, f"{flows}.alerts", f"{flows}.dead"])


def test_a_bundle_that_nobody_signed_is_refused_where_a_signature_is_required(
    bootstrap_servers: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    make_keys(tmp_path)
    trusted = ("--require-signature", "--trusted-keys", str(tmp_path / PUBLIC_KEY))
    with command(*options(bootstrap_servers, "flows", tiny_bundle, *trusted)) as running:
        assert running.ended() == 2
    assert "bundle.json.sig" in running.lines[-1] and running.lines[-1].startswith("error: ")


def test_a_bundle_that_was_in_use_is_not_tried_again_and_every_other_is(tmp_path: Path) -> None:
    def bundle(directory: Path) -> Any:
        return read_bundle(make_bundle(directory, "unsw-nb15"))

    wrong = bundle(tmp_path / "wrong")
    make_model(tmp_path / "wrong" / MODEL, SCHEMAS["unsw-nb15"], gain=-1.0)  # answers otherwise than its reference rows
    content = {key: value for key, value in wrong.manifest.content.items() if key not in ("format", "files")}
    write_manifest(tmp_path / "wrong", content)
    wrong, other = read_bundle(tmp_path / "wrong"), bundle(tmp_path / "other")
    assert _detector_of(wrong, kept=wrong, threads=1).manifest.hash == wrong.manifest.hash
    for kept in (None, other):
        with pytest.raises(BundleError, match="torch and ONNX Runtime differ"):
            _detector_of(wrong, kept=kept, threads=1)
