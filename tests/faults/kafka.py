"""A real Kafka that the service reaches through a proxy, and everybody else directly."""

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic

from stream.broker import LocalBroker, _free_port
from stream.topics import partitions_of
from tests.faults.kafka_proxy import KafkaProxy

__all__ = ["PROMPT", "FaultyKafka"]

# A client of the harness is back at once when the broker is: what is measured is the service.
PROMPT: dict[str, str | int | float | bool] = {
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 100,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    "log_level": 0,
    # Else a lost connection, or being told that a partition has no leader yet, can end all of it.
    "metadata.recovery.strategy": "none",
    "topic.metadata.refresh.interval.ms": 1_000,
}
_TIMEOUT_S = 30.0
_FULL_BYTES = 4096


class FaultyKafka:
    """One broker on a data directory of its own, with two addresses: `direct`, and `proxied` through `proxy`.

    `overrides` are Kafka's server properties.
    """

    def __init__(self, folder: Path, overrides: Mapping[str, str] | None = None) -> None:
        direct, behind, port, controller = (_free_port() for _ in range(4))
        self.direct = f"127.0.0.1:{direct}"
        self.proxied = f"127.0.0.1:{port}"
        self.proxy = KafkaProxy(port, behind)
        self._broker = LocalBroker(
            port=direct,
            data_dir=folder,
            overrides={
                "listener.security.protocol.map": "CLIENT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
                "listeners": f"CLIENT://{self.direct},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}",
                "advertised.listeners": f"CLIENT://{self.direct},PROXIED://{self.proxied}",
                "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                **(overrides or {}),
            },
        )

    def __enter__(self) -> Self:
        self._broker.start()
        self.proxy.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.proxy.__exit__(kind, error, at)
        self._broker.kill()
        self._broker.stop()

    def kill(self) -> None:
        """As a crash would."""
        self._broker.kill()

    def terminate(self) -> None:
        """In order, by SIGTERM; the data stays."""
        self._broker.stop(_TIMEOUT_S)

    def start(self) -> None:
        """Again, on the same addresses and data; returns when it answers."""
        self._broker.kill()  # one that has ended by itself
        self._broker.start()

    def fill_disk(self) -> None:
        """Let no file grow by more than a little from now on: its writes fail as those to a full disk do."""
        largest = max(path.stat().st_size for path in self._broker.data_dir.rglob("*.log"))
        limit = largest + _FULL_BYTES
        psutil.Process(self._broker.pid).rlimit(psutil.RLIMIT_FSIZE, (limit, psutil.RLIM_INFINITY))

    @property
    def is_alive(self) -> bool:
        """Whether the broker's process is there."""
        return self._broker._java is not None and not self._broker._java.exited.is_set()

    def heal(self) -> None:
        """Take back every fault that may be left."""
        self.proxy.resume()
        self.proxy.accept()
        self.proxy.name_brokers()
        self.proxy.forward_messages()
        if not self.is_alive:
            self.start()

    def create(self, topic: str, partitions: int, **config: str) -> None:
        """A topic, there when this returns."""
        admin = self.admin()
        admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(_TIMEOUT_S)
        self._await_partitions(admin, topic, partitions)

    def raise_partitions(self, topic: str, partitions: int) -> None:
        """More partitions, there when this returns."""
        admin = self.admin()
        admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(_TIMEOUT_S)
        self._await_partitions(admin, topic, partitions)

    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.direct, **PROMPT})

    def _await_partitions(self, admin: AdminClient, topic: str, partitions: int) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while len(partitions_of(admin, topic, self.direct)) < partitions:
            assert time.monotonic() < deadline, f"{topic} has not got {partitions} partitions in {_TIMEOUT_S:.0f} s"
            time.sleep(0.05)
