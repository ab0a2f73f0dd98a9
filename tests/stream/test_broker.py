"""The local broker, for real: nothing here is mocked, and every start is that of an Apache Kafka."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stream.broker import BrokerError, LocalBroker, broker, kafka_command

ROOT = Path(__file__).parents[2]
DEADLINE_S = 30.0


def produce(servers: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": servers, "acks": "all"})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(DEADLINE_S) == 0


def consume(servers: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "reader"})
    partitions = consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    values: list[bytes] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(values) < count and time.monotonic() < deadline:
        for message in consumer.consume(count, timeout=1.0):
            assert message.error() is None, message.error()
            values.append(message.value() or b"")
    consumer.close()
    return values


def create_topic(servers: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": servers})  # has to outlive the answer
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(DEADLINE_S)


def listens(servers: str) -> bool:
    host, port = servers.split(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


def wait_until(happened: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_S
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.02)
    return happened()


@contextmanager
def python(code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process of its own that runs `code`, gone at the end."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_answers_on_localhost_alone_and_leaves_nothing_behind() -> None:
    with LocalBroker() as local:
        metadata = AdminClient({"bootstrap.servers": local.bootstrap_servers}).list_topics(timeout=DEADLINE_S)
        assert [f"{it.host}:{it.port}" for it in metadata.brokers.values()] == [local.bootstrap_servers]
        assert local.bootstrap_servers.startswith("127.0.0.1:")
        assert local.log_file.is_file()
        pid, data_dir = local.pid, local.data_dir
        with pytest.raises(BrokerError, match="started already"):
            local.start()
    assert not data_dir.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    local.stop()  # harmless
    with pytest.raises(BrokerError, match="not running"):
        _ = local.pid


def test_listeners_have_addresses_of_their_own_that_survive_a_crash() -> None:
    with LocalBroker(listeners={"INSIDE": "PLAINTEXT", "OUTSIDE": "PLAINTEXT"}) as local:
        addresses = [local.bootstrap_servers, local.servers_of("INSIDE"), local.servers_of("OUTSIDE")]
        assert len(set(addresses)) == 3
        local.kill()
        local.start()
        for servers in addresses:  # who asks at one is sent to the same one
            brokers = AdminClient({"bootstrap.servers": servers}).list_topics(timeout=DEADLINE_S).brokers.values()
            assert [f"{it.host}:{it.port}" for it in brokers] == [servers]
        with pytest.raises(BrokerError, match="no port for listener 'BESIDE'"):
            local.servers_of("BESIDE")


def test_data_and_address_survive_a_crash(tmp_path: Path) -> None:
    data_dir = tmp_path / "kafka data, ünïcode"
    identity = data_dir / "kafka" / "meta.properties"
    with LocalBroker(data_dir=data_dir) as local:
        servers, formatted = local.bootstrap_servers, identity.read_text()
        create_topic(servers, "kept")
        produce(servers, "kept", [b"one", b"two"])
        local.kill()
        assert not listens(servers)
        local.start()
        assert local.bootstrap_servers == servers
        produce(servers, "kept", [b"three"])
        assert consume(servers, "kept", count=3) == [b"one", b"two", b"three"]
        with pytest.raises(BrokerError, match="in use by another broker"):
            LocalBroker(data_dir=data_dir).start()
    with LocalBroker(data_dir=data_dir) as other:
        assert consume(other.bootstrap_servers, "kept", count=3) == [b"one", b"two", b"three"]
    assert identity.read_text() == formatted


def test_a_taken_port_is_refused_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"port {port} .*in use"):
            LocalBroker(port=port).start()


@pytest.mark.parametrize(
    ("overrides", "heap_mb", "reason"),
    [
        ({"offsets.topic.num.partitions": "-1"}, 512, "offsets.topic.num.partitions"),  # refused by the formatter
        ({"authorizer.class.name": "no.such.Class"}, 512, "no.such.Class"),  # by Kafka
        ({}, 1, "heap"),  # by Java
    ],
)
def test_an_early_death_tells_its_reason(overrides: dict[str, str], heap_mb: int, reason: str) -> None:
    local = LocalBroker(overrides=overrides, heap_mb=heap_mb)
    with pytest.raises(BrokerError, match=rf"(?s)exit status 1; .*broker.log:\n.*{reason}"):
        local.start()
    with pytest.raises(BrokerError, match="no data directory"):  # the temporary one is gone
        _ = local.data_dir


def test_the_environment_names_the_broker(bootstrap_servers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap_servers)
    with broker() as servers:
        assert servers == bootstrap_servers


def test_a_broker_named_by_the_environment_must_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        servers = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
        with (
            pytest.raises(BrokerError, match=rf"KAFKA_BOOTSTRAP_SERVERS={servers} .*unset"),
            broker(answer_timeout_s=1),
        ):
            pass


def test_topics_are_unique_and_ready(topic: Callable[..., str], bootstrap_servers: str) -> None:
    first, second = topic("flows"), topic("flows", partitions=3)
    assert first != second
    produce(bootstrap_servers, second, [b"a", b"b"])
    assert sorted(consume(bootstrap_servers, second, count=2)) == [b"a", b"b"]


def test_foreground_stops_in_order_when_asked() -> None:
    with python("from stream.broker import run_foreground; raise SystemExit(run_foreground(None, None))") as process:
        address = first_line(process).split(" answers at ")[1].split()[0]
        assert listens(address)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
        assert (process.returncode, stderr) == (0, "")
        assert "stopped" in stdout
        assert not listens(address)


def test_foreground_tells_when_the_broker_dies(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from stream.broker import run_foreground
raise SystemExit(run_foreground(0, Path({str(tmp_path)!r})))
"""
    with python(code) as process:
        pid = int(first_line(process).split("pid ")[1].split(",")[0])
        os.kill(pid, signal.SIGKILL)
        _, stderr = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 1
        assert "ended by itself, exit status -9" in stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere an exit hook is all there is")
def test_the_broker_dies_with_a_killed_parent_not_with_the_starting_thread() -> None:
    code = """
import threading
from stream.broker import LocalBroker
local = LocalBroker()
thread = threading.Thread(target=local.start)
thread.start()
thread.join()
print(local.bootstrap_servers, local.data_dir, flush=True)
threading.Event().wait()
"""
    with python(code) as process:
        servers, data_dir = first_line(process).split()
        time.sleep(0.2)  # time for a signal that must not come
        assert listens(servers)
        process.kill()
        assert wait_until(lambda: not listens(servers))
    assert Path(data_dir).name.startswith("flowsentry-kafka-")
    subprocess.run(["rm", "-r", data_dir], check=True)  # nobody was left to do it


def test_an_exit_without_stop_leaves_nothing_behind() -> None:
    code = "from stream.broker import LocalBroker; b = LocalBroker(); b.start(); print(b.bootstrap_servers, b.data_dir)"
    with python(code) as process:
        stdout, _ = process.communicate(timeout=DEADLINE_S)
    servers, data_dir = stdout.split()
    assert not listens(servers)
    assert not Path(data_dir).exists()


def test_who_comes_second_waits_for_the_first_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = Path(kafka_command()[-1].split(os.pathsep)[0])
    home = next(it for it in fetched.parents if it.name.startswith("kafka-4"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "flowsentry"
    cache.mkdir()
    with ThreadPoolExecutor(1) as second, (cache / f"{home.name}.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        waiting = second.submit(kafka_command)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        shutil.copytree(home, cache / home.name)
        fcntl.flock(first, fcntl.LOCK_UN)
        jars = [Path(jar) for jar in waiting.result(timeout=DEADLINE_S)[-1].split(os.pathsep)]
    assert all(jar.is_relative_to(cache) and jar.is_file() for jar in jars)


def test_a_start_needs_neither_network_nor_jgo_when_all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    command = kafka_command()
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    assert kafka_command() == command


@pytest.mark.parametrize("missing", ["a jar", "everything"])
def test_a_fetch_that_fails_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    home = next(it for it in Path(kafka_command()[-1].split(os.pathsep)[0]).parents if it.name.startswith("kafka-4"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # nothing listens on the discard port
    if missing == "a jar":
        shutil.copytree(home, tmp_path / "flowsentry" / home.name)
        next((tmp_path / "flowsentry").rglob("*.jar")).unlink()
    with pytest.raises(BrokerError, match=r"cannot be fetched .*Proxy.*set KAFKA_BOOTSTRAP_SERVERS"):
        kafka_command()
