"""What tests of every package share: a real Kafka, and topics of their own on it."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
import structlog
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stream.broker import broker

TOPIC_TIMEOUT_S = 15.0


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """A real Kafka for the whole session; one that cannot be had fails the tests, it never skips them.

    FLOWSENTRY_TEST_BROKER=docker asks for a container. Otherwise KAFKA_BOOTSTRAP_SERVERS, or else a local process.
    """
    wanted = os.environ.get("FLOWSENTRY_TEST_BROKER", "")
    if wanted == "docker":
        from testcontainers.community.kafka import KafkaContainer

        container = KafkaContainer().with_kraft()
        container.with_env("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
        container.with_env("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1")
        container.with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
        with container:
            yield container.get_bootstrap_server()
    elif wanted:
        pytest.fail(f"FLOWSENTRY_TEST_BROKER={wanted} is not known: set it to docker, or unset it")
    else:
        with broker() as servers:
            yield servers


@pytest.fixture(autouse=True)
def _logs_anew() -> Iterator[None]:
    """A command that a test runs in this process lets structlog write to that test's stderr, which is closed after it."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def topic(bootstrap_servers: str) -> Iterator[Callable[..., str]]:
    """Factory of topics with a unique name, `topic(name, partitions=1) -> str`, deleted after the test."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    created: list[str] = []

    def create(name: str, partitions: int = 1) -> str:
        unique = f"{name}-{uuid.uuid4().hex[:12]}"
        admin.create_topics([NewTopic(unique, partitions, 1)])[unique].result(TOPIC_TIMEOUT_S)
        created.append(unique)
        deadline = time.monotonic() + TOPIC_TIMEOUT_S  # a topic made is not at once a topic seen
        while len(admin.list_topics(unique, timeout=TOPIC_TIMEOUT_S).topics[unique].partitions) < partitions:
            assert time.monotonic() < deadline, f"topic {unique} has not appeared in {TOPIC_TIMEOUT_S:.0f} s"
        return unique

    yield create
    if created:
        for deleted in admin.delete_topics(created).values():
            deleted.result(TOPIC_TIMEOUT_S)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
