"""Small tools around a real broker: produce, read to the end, wait for a group, run the service as its users do."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

__all__ = ["committed", "each_message", "end_offsets", "produce", "read_all", "running_service", "wait_until_consumed"]

PATIENCE_S = 120.0


def produce(
    servers: str,
    topic: str,
    values: Sequence[bytes | None],
    *,
    headers: Mapping[str, bytes] | None = None,
    key: bytes | None = None,
) -> None:
    """Produce and wait for every confirmation."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
    for value in values:
        producer.produce(topic, value=value, key=key, headers=dict(headers or {}))
        producer.poll(0)
    assert producer.flush(30) == 0


def _reader(servers: str, group: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )


def read_all(servers: str, topic: str) -> list[Message]:
    """Every committed message of a topic, up to its present end."""
    return list(each_message(servers, topic))


def each_message(servers: str, topic: str, since: Mapping[int, int] | None = None) -> Iterator[Message]:
    """As `read_all`, for topics that do not fit into memory; `since` gives the first offset by partition, else 0."""
    consumer = _reader(servers, f"{topic}-reader")
    try:
        places = [
            TopicPartition(topic, number, (since or {}).get(number, 0))
            for number in consumer.list_topics(topic, 10).topics[topic].partitions
        ]
        consumer.assign(places)
        ended, deadline = 0, time.monotonic() + PATIENCE_S
        while ended < len(places):
            assert time.monotonic() < deadline, f"{topic} cannot be read to its end"
            for message in consumer.consume(1000, 0.2):
                deadline = time.monotonic() + PATIENCE_S
                error = message.error()
                if error is None:
                    yield message
                else:
                    assert error.name() == "_PARTITION_EOF", error
                    ended += 1
    finally:
        consumer.close()


def end_offsets(servers: str, topic: str) -> dict[int, int]:
    """The next offset of each partition."""
    consumer = _reader(servers, f"{topic}-ends")
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        return {number: consumer.get_watermark_offsets(TopicPartition(topic, number), 10)[1] for number in partitions}
    finally:
        consumer.close()


def committed(servers: str, group: str, topic: str) -> dict[int, int]:
    """A group's committed offset of each partition; negative where there is none."""
    consumer = _reader(servers, group)
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        asked = [TopicPartition(topic, number) for number in partitions]
        return {place.partition: place.offset for place in _committed(consumer, asked)}
    finally:
        consumer.close()


def _committed(consumer: Consumer, places: list[TopicPartition]) -> list[TopicPartition]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return consumer.committed(places, timeout=10)
        except KafkaException as error:  # a group's coordinator takes a moment to load
            if time.monotonic() > deadline:
                raise AssertionError("no committed offsets") from error
            time.sleep(0.1)


def wait_until_consumed(
    servers: str, group: str, topic: str, process: subprocess.Popen[bytes] | subprocess.Popen[str] | None = None
) -> None:
    """Wait until a group has committed everything that is on the topic."""
    wanted = {number: end for number, end in end_offsets(servers, topic).items() if end}
    deadline = time.monotonic() + PATIENCE_S
    while True:
        done = committed(servers, group, topic)
        if all(done[number] >= end for number, end in wanted.items()):
            return
        assert process is None or process.poll() is None, "the service has stopped"
        assert time.monotonic() < deadline, f"committed {done}, wanted {wanted}"
        time.sleep(0.2)


@contextmanager
def running_service(servers: str, bundle: Path, flows: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m stream run` with topics named after `flows`; stopped by SIGTERM at the end, and it must exit 0."""
    command = [sys.executable, "-m", "stream", "run", "--bundle", str(bundle), "--bootstrap-servers", servers]
    command += ["--input", flows, "--alerts", f"{flows}.alerts", "--dead-letters", f"{flows}.dead", "--group", flows]
    command += ["--create-topics", "--metrics-port", "0", *options]
    process = subprocess.Popen(command)
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
