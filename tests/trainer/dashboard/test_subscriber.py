"""Alerts read along from a real Kafka: committed ones, a few of before, and nothing is committed or taken."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from tests.kafka import produce
from tests.stream.alerts import alert
from trainer.dashboard.subscriber import Seen, Subscriber

PATIENCE_S = 60.0


@contextmanager
def reading(servers: str, topic: str) -> Iterator[Subscriber]:
    subscriber = Subscriber(servers, topic)
    try:
        yield subscriber
    finally:
        subscriber.close()


def until(subscriber: Subscriber, true: Callable[[Seen], bool]) -> Seen:
    deadline = time.monotonic() + PATIENCE_S
    while not true(seen := subscriber.seen()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)
    return seen


def sent(*numbers: int) -> list[bytes | None]:
    now = datetime.now(UTC)
    return [alert(number, detection_time=now).model_dump_json().encode() for number in numbers]


def test_alerts_of_before_and_as_they_come_the_newest_first(bootstrap_servers: str, topic: Callable[..., str]) -> None:
    name = topic("alerts")
    produce(bootstrap_servers, name, sent(0, 1))
    with reading(bootstrap_servers, name) as subscriber:
        until(subscriber, lambda seen: seen.received == 2)
        produce(bootstrap_servers, name, [*sent(2), b"no alert"])
        seen = until(subscriber, lambda seen: seen.received == 3 and seen.invalid == 1)
    assert [it.id for it in seen.alerts] == ["flows-0-2", "flows-0-1", "flows-0-0"]
    assert seen.problem == "" and sum(seen.by_second.values()) == 3
    assert {severity for _, severity in seen.by_second} == {"high"}


def test_alerts_of_an_open_or_aborted_transaction_are_not_seen(
    bootstrap_servers: str, topic: Callable[..., str]
) -> None:
    name = topic("alerts")
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": name})
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    producer.produce(name, sent(0)[0])
    producer.flush(PATIENCE_S)
    with reading(bootstrap_servers, name) as subscriber:
        until(subscriber, lambda seen: seen.problem == "")
        producer.abort_transaction(PATIENCE_S)
        producer.begin_transaction()
        producer.produce(name, sent(1)[0])
        producer.commit_transaction(PATIENCE_S)
        seen = until(subscriber, lambda seen: seen.received > 0)
    assert [it.id for it in seen.alerts] == ["flows-0-1"]


def test_a_subscriber_joins_no_group(bootstrap_servers: str, topic: Callable[..., str]) -> None:
    name = topic("alerts", partitions=2)
    produce(bootstrap_servers, name, sent(0))
    with reading(bootstrap_servers, name) as subscriber:
        until(subscriber, lambda seen: seen.received == 1)
        groups = AdminClient({"bootstrap.servers": bootstrap_servers}).list_consumer_groups().result(PATIENCE_S).valid
    assert [group.group_id for group in groups if "dashboard" in group.group_id] == []


def test_a_topic_that_is_not_there_is_told_and_waited_for(bootstrap_servers: str) -> None:
    with reading(bootstrap_servers, "no-such-topic") as subscriber:
        seen = until(subscriber, lambda seen: "topic 'no-such-topic' is not at" in seen.problem)
    assert "start the service, or choose another with --alerts" in seen.problem
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    assert "no-such-topic" not in admin.list_topics(timeout=PATIENCE_S).topics


def test_a_kafka_that_does_not_answer_is_told_with_what_to_do(free_port: int) -> None:
    with reading(f"127.0.0.1:{free_port}", "alerts") as subscriber:
        seen = until(subscriber, lambda seen: "say with --bootstrap-servers" in seen.problem)
    assert f"no answer from Kafka at 127.0.0.1:{free_port}" in seen.problem
