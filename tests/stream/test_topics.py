"""Topics: looked at without being made, waited for with words, made only when that is asked for."""

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from schemas.errors import FlowsentryError
from stream.broker import LocalBroker
from stream.topics import (
    LARGE_MESSAGES,
    PLAIN,
    ROOMY,
    create_topics,
    ensure_topic,
    error_text,
    lacking,
    partitions_of,
    wait_for_topics,
)
from tests.stream.rig import Logs

NOWHERE = "127.0.0.1:1"
PATIENCE_S = 60.0


def unique(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:12]}"


def partitions_soon(admin: AdminClient, name: str) -> list[int]:
    """A topic made is not at once a topic seen."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := partitions_of(admin, name, "")):
        assert time.monotonic() < deadline, f"{name} has not appeared"
        time.sleep(0.02)
    return found


def properties(servers: str) -> dict[str, str | int | float | bool]:
    return {"bootstrap.servers": servers, "log_level": 4}


@pytest.fixture
def admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient(properties(bootstrap_servers))


@pytest.fixture
def wanted(admin: AdminClient) -> Iterator[list[str]]:
    """Two names; topics that come to bear them are deleted after the test."""
    names = [unique("first"), unique("second")]
    yield names
    there = [name for name in names if name in admin.list_topics(timeout=10).topics]
    for deleted in admin.delete_topics(there).values() if there else ():
        deleted.result(PATIENCE_S)


@pytest.fixture
def aside() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_partitions_are_known_by_number(admin: AdminClient, topic: Callable[..., str]) -> None:
    assert partitions_of(admin, topic("three", 3), "") == [0, 1, 2]
    assert partitions_of(admin, unique("none"), "") == []


def test_a_broker_that_does_not_answer_is_named() -> None:
    nobody = AdminClient({"bootstrap.servers": NOWHERE, "log_level": 0})
    with pytest.raises(FlowsentryError, match=f"no answer from Kafka at {NOWHERE}"):
        partitions_of(nobody, "flows", NOWHERE, timeout_s=0.2)


def test_a_topic_that_cannot_be_looked_at_is_named_with_the_reason() -> None:
    refused = type("Topic", (), {"error": KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), "partitions": {}})()

    class Client:
        def list_topics(self, *, timeout: float) -> object:
            return type("Cluster", (), {"brokers": {1: "here"}, "topics": {"flows": refused}})()

    with pytest.raises(FlowsentryError, match="topic 'flows': Broker: Topic authorization failed"):
        partitions_of(Client(), "flows", NOWHERE)  # type: ignore[arg-type]


def test_what_a_cluster_without_brokers_says_of_topics_is_not_believed() -> None:
    class Client:
        def list_topics(self, *, timeout: float) -> object:
            return type("Cluster", (), {"brokers": {}, "topics": {}})()

    with pytest.raises(FlowsentryError, match="no answer from Kafka"):
        partitions_of(Client(), "flows", NOWHERE)  # type: ignore[arg-type]


def test_looking_at_a_topic_never_makes_it_not_even_where_kafka_makes_topics_by_itself() -> None:
    with LocalBroker(overrides={"auto.create.topics.enable": "true"}) as local:
        servers = local.bootstrap_servers
        admin = AdminClient(properties(servers))
        assert partitions_of(admin, "flows", servers) == []
        with pytest.raises(FlowsentryError, match=r"topic 'flows' does not exist .*--create-topics"):
            ensure_topic(servers, "flows", kafka={}, create=False)
        looks = iter([False, False, False, True])
        assert not wait_for_topics(properties(servers), {"flows": PLAIN}, create=False, stopping=lambda: next(looks))
        assert admin.list_topics(timeout=10).topics.keys() == set()
        ensure_topic(servers, "flows", kafka={}, create=True)
        assert partitions_soon(admin, "flows") == [0]


def test_topics_are_made_once_and_those_there_are_left_as_they_are(
    admin: AdminClient, topic: Callable[..., str], wanted: list[str], logs: Logs
) -> None:
    there = topic("there", 2)
    create_topics(admin, dict.fromkeys([there, *wanted], PLAIN), partitions=3)
    assert partitions_of(admin, there, "") == [0, 1]
    assert [partitions_soon(admin, name) for name in wanted] == [[0, 1, 2]] * 2
    assert sorted(line["topic"] for line in logs.of("topic made")) == sorted(wanted)


def test_a_topic_can_be_made_with_room_for_large_messages(admin: AdminClient, wanted: list[str]) -> None:
    create_topics(admin, {wanted[0]: PLAIN, wanted[1]: LARGE_MESSAGES})
    sizes = []
    for name in wanted:
        assert partitions_soon(admin, name) == [0]
        resource = ConfigResource("topic", name)
        sizes.append(admin.describe_configs([resource])[resource].result(PATIENCE_S)["max.message.bytes"].value)
    assert sizes == ["1048588", str(ROOMY)]


def test_a_name_that_kafka_refuses_is_told(admin: AdminClient) -> None:
    with pytest.raises(FlowsentryError, match=r"topic 'no spaces' cannot be made: .*no spaces"):
        create_topics(admin, {"no spaces": PLAIN})


def test_a_wrong_client_property_is_told(bootstrap_servers: str) -> None:
    with pytest.raises(FlowsentryError, match=r'kafka: No such configuration property: "colour"'):
        ensure_topic(bootstrap_servers, "flows", kafka={"colour": "red"}, create=False)


def test_waiting_tells_at_once_which_topics_are_missing_and_ends_when_they_are_made(
    bootstrap_servers: str,
    admin: AdminClient,
    topic: Callable[..., str],
    wanted: list[str],
    logs: Logs,
    aside: ThreadPoolExecutor,
) -> None:
    give_up = time.monotonic() + PATIENCE_S
    done = aside.submit(
        wait_for_topics,
        properties(bootstrap_servers),
        dict.fromkeys([topic("there"), *wanted], PLAIN),
        create=False,
        stopping=lambda: time.monotonic() > give_up,
    )
    for name, missing in zip(wanted, (f"{wanted[0]}, {wanted[1]}", wanted[1]), strict=True):
        why = f"no topic {missing} yet: make it, or start with --create-topics"
        while why not in [line["why"] for line in logs.of("waiting")]:
            assert not done.done()
            time.sleep(0.02)
        create_topics(admin, {name: PLAIN})
    assert done.result(PATIENCE_S)
    assert len(logs.of("waiting")) == 2, "it said the same thing twice within 10 s"


def test_waiting_can_make_the_topics(bootstrap_servers: str, admin: AdminClient, wanted: list[str], logs: Logs) -> None:
    give_up = time.monotonic() + PATIENCE_S
    topics = dict.fromkeys(wanted, PLAIN)
    assert wait_for_topics(
        properties(bootstrap_servers), topics, create=True, stopping=lambda: time.monotonic() > give_up
    )
    assert [partitions_of(admin, name, "") for name in wanted] == [[0], [0]]
    assert logs.of("waiting") == []


def test_waiting_for_a_broker_says_so_and_can_be_stopped(logs: Logs) -> None:
    began = time.monotonic()
    stopping = lambda: bool(logs.of("waiting"))  # noqa: E731
    assert not wait_for_topics(properties(NOWHERE), {"flows": PLAIN}, create=True, stopping=stopping)
    assert time.monotonic() - began < 5, "whoever stops it waits too long"
    [line] = logs.of("waiting")
    assert line["why"].startswith(f"no answer from Kafka at {NOWHERE}")
    assert "Connection refused" in line["why"], "librdkafka's own words are lost"


def test_kafka_s_own_words_are_kept() -> None:
    error = KafkaError(KafkaError.TOPIC_ALREADY_EXISTS, "it is there")
    assert error_text(error) == error_text(KafkaException(error)) == "it is there"
    assert error_text(KafkaException("no error object")) == "no error object"


def test_a_broker_that_does_not_answer_says_nothing_of_a_topic(logs: Logs) -> None:
    assert lacking({"bootstrap.servers": NOWHERE}, "flowsentry.events", ()) == ""
    [line] = logs.of("whether the topic is there is not known")
    assert line["topic"] == "flowsentry.events" and "no answer" in line["why"]
