"""Topics: are they there, how many partitions, made or waited for."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._metadata import ClusterMetadata
from confluent_kafka.cimpl import NewTopic

from schemas.errors import FlowsentryError
from stream.access import AccessDenied, Right, check_access, is_denial
from stream.connection import Connection, Properties, error_text

__all__ = [
    "COMPACTED",
    "LARGE_MESSAGES",
    "PLAIN",
    "ROOMY",
    "TIMEOUT_S",
    "UNPACKED",
    "Cluster",
    "create_topics",
    "ensure_topic",
    "error_text",
    "lacking",
    "partitions_of",
    "wait_for_topics",
    "warn_if_packed",
]

log = structlog.get_logger()

TIMEOUT_S = 10.0
ROOMY = 8 << 20

Config = Mapping[str, str]
"""A topic's own configuration, where it is not the broker's."""
PLAIN: Config = {}
# The broker unpacks what producers packed: a message cannot become larger at the service than the topic lets through.
UNPACKED: Config = {"compression.type": "uncompressed"}
# A dead letter is its record with more headers: it may be larger than what the input topic lets through.
LARGE_MESSAGES: Config = {"max.message.bytes": str(ROOMY)}
# The last message of each key stays for ever.
COMPACTED: Config = {"cleanup.policy": "compact"}

_REMIND_EVERY_S = 10.0
_LOOK_EVERY_S = 0.5
_LOOK_S = 2.0
_TRY_S = 1.0


class _Client(Protocol):
    """Consumer, producer or admin client: each can look at the cluster."""

    def list_topics(self, *, timeout: float) -> ClusterMetadata: ...


def partitions_of(client: _Client, topic: str, servers: str, timeout_s: float = TIMEOUT_S) -> list[int]:
    """The partition numbers of a topic, ascending; none if there is no such topic, or none that the user may see.

    Raises:
        FlowsentryError: the broker does not answer, or refuses.
    """
    try:
        # Asked for by name, a topic that does not exist would be made where the broker makes topics by itself.
        return _partitions(_look(client, timeout_s), topic)
    except KafkaException as error:
        raise FlowsentryError(f"no answer from Kafka at {servers}: {error_text(error)}") from None


def _look(client: _Client, timeout_s: float) -> ClusterMetadata:
    cluster = client.list_topics(timeout=timeout_s)
    if not cluster.brokers:  # the last one is shutting down: what it says of topics is worth nothing
        raise KafkaException(KafkaError(KafkaError.BROKER_NOT_AVAILABLE))
    return cluster


def _partitions(cluster: ClusterMetadata, topic: str) -> list[int]:
    found = cluster.topics.get(topic)
    if found is None or (found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART):
        return []
    if found.error is not None:
        raise FlowsentryError(f"topic {topic!r}: {error_text(found.error)}")
    return sorted(found.partitions)


class Cluster:
    """An admin client that tells why Kafka does not answer, or does not allow."""

    def __init__(self, properties: Properties) -> None:
        self._properties = properties
        self._connection = Connection(properties)
        # What librdkafka would log, again at each of its attempts, is told once by `no_answer`.
        settings: dict[str, Any] = {**properties, "log_level": 0, "error_cb": self._connection.heard}
        try:
            self._admin = AdminClient(settings)
        except KafkaException as error:
            raise FlowsentryError(f"kafka: {error_text(error)}") from None

    def missing(self, topics: Sequence[str], rights: Sequence[Right], timeout_s: float) -> list[str]:
        """Which of the topics do not exist.

        Raises:
            AccessDenied: one of `rights` is not granted. Else a topic that the user may not see would seem not to exist.
            FlowsentryError: no answer.
        """
        give_up_at = time.monotonic() + timeout_s
        while True:
            try:
                cluster = _look(self._admin, _TRY_S)
                check_access(self._admin, self._properties, rights)
            except KafkaException as error:
                self._admin.poll(0)  # what librdkafka has to say of it
                if self._connection.refused or time.monotonic() >= give_up_at:
                    raise self._connection.no_answer(error) from None
            else:
                self._connection.answered()
                return [topic for topic in topics if not _partitions(cluster, topic)]

    def create(self, topics: Mapping[str, Config]) -> None:
        """`create_topics`, which tells the rights that are missing."""
        refused = _make(self._admin, topics, 1)
        if denied := [topic for topic, error in refused.items() if is_denial(error)]:
            raise AccessDenied(self._properties, [Right("topic", topic, AclOperation.CREATE) for topic in denied])
        for topic, error in refused.items():
            raise _not_made(topic, error)


def ensure_topic(
    bootstrap_servers: str,
    topic: str,
    *,
    kafka: Properties,
    create: bool,
    config: Config = PLAIN,
    operation: AclOperation = AclOperation.WRITE,
) -> None:
    """Check that a topic exists and allows `operation`, or make it with one partition if `create`.

    Raises:
        AccessDenied: it does not allow it.
        FlowsentryError: it does not exist, or the broker does not answer.
    """
    cluster = Cluster({**kafka, "bootstrap.servers": bootstrap_servers})
    if not cluster.missing([topic], [Right("topic", topic, operation)], TIMEOUT_S):
        return
    if not create:
        raise FlowsentryError(
            f"topic {topic!r} does not exist at {bootstrap_servers}: make it first, or give --create-topics"
        )
    cluster.create({topic: config})


def lacking(properties: Properties, topic: str, rights: Sequence[Right]) -> str:
    """Why nothing can be published on a topic, with one look; empty if it can, or if Kafka does not answer just then."""
    try:
        missing = Cluster(properties).missing([topic], rights, _LOOK_S)
    except AccessDenied as error:
        return str(error)
    except FlowsentryError as error:
        log.info("whether the topic is there is not known", topic=topic, why=str(error))
        return ""
    return f"there is no topic {topic}: make it, or start with --create-topics" if missing else ""


def warn_if_packed(properties: Properties, topic: str) -> None:
    """Say so if the broker keeps a topic's records as their producers packed them: then memory has no bound."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    try:
        admin = AdminClient({**properties, "log_level": 0})
        told = admin.describe_configs([resource], request_timeout=_LOOK_S)[resource].result(_LOOK_S)
    except (KafkaException, TimeoutError) as error:
        why = error_text(error) if isinstance(error, KafkaException) else "no answer"
        log.info("whether the input topic keeps records packed is not known", topic=topic, why=why)
        return
    if (found := told["compression.type"].value) != UNPACKED["compression.type"]:
        log.warning(
            "the input topic keeps records packed",
            topic=topic,
            compression_type=found,
            why="what a producer packed can take a thousand times its size in memory: set compression.type=uncompressed on it",
        )


def create_topics(admin: AdminClient, topics: Mapping[str, Config], *, partitions: int = 1) -> None:
    """Make topics with the broker's default replication; one that exists by now is fine.

    Raises:
        FlowsentryError: the broker refuses.
    """
    for topic, error in _make(admin, topics, partitions).items():
        raise _not_made(topic, error)


def _make(admin: AdminClient, topics: Mapping[str, Config], partitions: int) -> dict[str, KafkaError]:
    """Make topics; those that could not be made, with why."""
    wanted = [NewTopic(topic, num_partitions=partitions, config=dict(config)) for topic, config in topics.items()]
    refused: dict[str, KafkaError] = {}
    for topic, future in admin.create_topics(wanted).items():
        try:
            future.result(timeout=30)
            log.info("topic made", topic=topic, partitions=partitions)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                refused[topic] = error.args[0]
    return refused


def _not_made(topic: str, error: KafkaError) -> FlowsentryError:
    return FlowsentryError(f"topic {topic!r} cannot be made: {error_text(error)}")


def wait_for_topics(
    properties: Properties,
    topics: Mapping[str, Config],
    *,
    create: bool,
    rights: Sequence[Right] = (),
    stopping: Callable[[], bool],
) -> bool:
    """Return True once all topics exist, False if stopped before; makes them, configured so, if `create`.

    A broker that does not answer or does not let us in, and a topic that does not exist, are waited for, with a message
    at once and every 10 s: brokers come back, and certificates are renewed.

    Raises:
        AccessDenied: one of `rights` is not granted, or topics may not be made.
    """
    cluster = Cluster(properties)
    told, told_at = "", float("-inf")
    while not stopping():
        problem = ""
        try:
            missing = cluster.missing(list(topics), rights, _LOOK_S)
        except AccessDenied:
            raise
        except FlowsentryError as error:
            problem = str(error)
            cluster = Cluster(properties)  # the other one may have forgotten its brokers
        else:
            if not missing:
                return True
            if create:
                cluster.create({topic: topics[topic] for topic in missing})
            else:
                problem = f"no topic {', '.join(missing)} yet: make it, or start with --create-topics"
        if problem and (problem != told or time.monotonic() - told_at > _REMIND_EVERY_S):
            log.warning("waiting", why=problem)
            told, told_at = problem, time.monotonic()
        time.sleep(_LOOK_EVERY_S if problem else 0.05)
    return False
