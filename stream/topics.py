"""Topics: are they there, how many partitions, made or waited for."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.cimpl import NewTopic

from schemas.errors import FlowsentryError

__all__ = ["ROOMY", "TIMEOUT_S", "create_topics", "ensure_topic", "error_text", "partitions_of", "wait_for_topics"]

log = structlog.get_logger()

TIMEOUT_S = 10.0
ROOMY = 8 << 20
_REMIND_EVERY_S = 10.0
_LOOK_EVERY_S = 0.5
_LOOK_S = 2.0

Properties = Mapping[str, str | int | float | bool]


class _Client(Protocol):
    """Consumer, producer or admin client: each can look at the cluster."""

    def list_topics(self, *, timeout: float) -> ClusterMetadata: ...


def error_text(error: KafkaError | KafkaException) -> str:
    """What went wrong, in Kafka's words."""
    inner = error.args[0] if isinstance(error, KafkaException) else error
    return inner.str() if isinstance(inner, KafkaError) else str(inner)


def partitions_of(client: _Client, topic: str, servers: str, timeout_s: float = TIMEOUT_S) -> list[int]:
    """The partition numbers of a topic, ascending; none if there is no such topic.

    Raises:
        FlowsentryError: the broker does not answer, or refuses.
    """
    try:
        # Asked for by name, a topic that does not exist would be made where the broker makes topics by itself.
        found = client.list_topics(timeout=timeout_s).topics.get(topic)
    except KafkaException as error:
        raise FlowsentryError(f"no answer from Kafka at {servers}: {error_text(error)}") from None
    if found is None or (found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART):
        return []
    if found.error is not None:
        raise FlowsentryError(f"topic {topic!r}: {error_text(found.error)}")
    return sorted(found.partitions)


def ensure_topic(bootstrap_servers: str, topic: str, *, kafka: Properties, create: bool) -> None:
    """Check that a topic exists, or make it with one partition if `create`.

    Raises:
        FlowsentryError: it does not exist, or the broker does not answer.
    """
    admin = _admin({"bootstrap.servers": bootstrap_servers, **kafka})
    if partitions_of(admin, topic, bootstrap_servers):
        return
    if not create:
        raise FlowsentryError(
            f"topic {topic!r} does not exist at {bootstrap_servers}: make it first, or give --create-topics"
        )
    create_topics(admin, [topic])


def _admin(properties: Properties, **more: logging.Logger) -> AdminClient:
    try:
        return AdminClient(dict(properties), **more)
    except KafkaException as error:
        raise FlowsentryError(f"kafka: {error_text(error)}") from None


def create_topics(
    admin: AdminClient,
    topics: Sequence[str],
    *,
    partitions: int = 1,
    roomy: Collection[str] = (),
    compacted: Collection[str] = (),
) -> None:
    """Make topics with the broker's default replication; one that exists by now is fine.

    `roomy` are those that take larger messages than the broker's default: dead letters are their records and more.
    `compacted` are those that keep the last message of each key for ever.

    Raises:
        FlowsentryError: the broker refuses.
    """
    wanted = []
    for topic in topics:
        config = {"max.message.bytes": str(ROOMY)} if topic in roomy else {}
        config |= {"cleanup.policy": "compact"} if topic in compacted else {}
        wanted.append(NewTopic(topic, num_partitions=partitions, config=config))
    for topic, future in admin.create_topics(wanted).items():
        try:
            future.result(timeout=30)
            log.info("topic made", topic=topic, partitions=partitions)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise FlowsentryError(f"topic {topic!r} cannot be made: {error_text(error)}") from error


def wait_for_topics(
    properties: Properties,
    topics: Sequence[str],
    *,
    create: bool,
    roomy: Collection[str] = (),
    stopping: Callable[[], bool],
) -> bool:
    """Return True once all topics exist, False if stopped before; makes them if `create`.

    A broker that does not answer and a topic that does not exist are waited for, with a message at once and every 10 s.
    """
    admin = _admin(properties, logger=logging.getLogger("librdkafka"))
    servers = str(properties["bootstrap.servers"])
    told, told_at = "", float("-inf")
    while not stopping():
        problem = ""
        try:
            missing = [topic for topic in topics if not partitions_of(admin, topic, servers, _LOOK_S)]
        except FlowsentryError as error:
            problem = str(error)
        else:
            if not missing:
                return True
            if create:
                create_topics(admin, missing, roomy=roomy)
            else:
                problem = f"no topic {', '.join(missing)} yet: make it, or start with --create-topics"
        if problem and (problem != told or time.monotonic() - told_at > _REMIND_EVERY_S):
            log.warning("waiting", why=problem)
            told, told_at = problem, time.monotonic()
        admin.poll(0)  # what librdkafka has to say of it
        time.sleep(_LOOK_EVERY_S if problem else 0.05)
    return False
