"""Topics that must be there before the service starts: waited for, or made."""

import time
from collections.abc import Callable, Sequence

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from schemas.errors import FlowsentryError
from schemas.params import Params
from stream.clients import admin_properties

__all__ = ["create_topics", "ensure_topics"]

log = structlog.get_logger()

_REMIND_EVERY_S = 10.0


def ensure_topics(
    params: Params, topics: Sequence[str], *, create: bool, stopping: Callable[[], bool], poll_s: float = 0.5
) -> bool:
    """Return True once all topics exist, False if stopped before; makes them if `create`.

    A broker that does not answer and a topic that does not exist are waited for, with a message every 10 s.
    """
    admin = AdminClient(admin_properties(params))
    reminded_at = float("-inf")
    while not stopping():
        try:
            known = admin.list_topics(timeout=5).topics
        except KafkaException as error:
            problem = f"no answer from {params.stream.bootstrap_servers}: {error.args[0].str()}"
        else:
            missing = [topic for topic in topics if topic not in known]
            if not missing:
                return True
            if create:
                create_topics(admin, missing)
                continue
            problem = (
                f"topic {', '.join(missing)} does not exist yet: make it, or start with --create-topics"
            )
        if time.monotonic() - reminded_at > _REMIND_EVERY_S:
            log.warning("waiting", why=problem)
            reminded_at = time.monotonic()
        time.sleep(poll_s)
    return False


def create_topics(admin: AdminClient, topics: Sequence[str], partitions: int = 1) -> None:
    """Make topics with the broker's default replication; one that exists by now is fine.

    Raises:
        FlowsentryError: the broker refuses.
    """
    for topic, future in admin.create_topics([NewTopic(topic, num_partitions=partitions) for topic in topics]).items():
        try:
            future.result(timeout=30)
            log.info("topic made", topic=topic, partitions=partitions)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise FlowsentryError(f"topic {topic} cannot be made: {error.args[0].str()}") from error
