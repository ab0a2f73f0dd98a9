"""Has every partition an owner? What the group's coordinator says, asked without waiting for the answer."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import structlog
from confluent_kafka import ConsumerGroupState, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from stream.connection import error_text

__all__ = ["Ownership"]

log = structlog.get_logger()

_TIMEOUT_S = 5.0


class Ownership:
    """Asks about a group and a topic until there is an answer."""

    def __init__(self, admin: Callable[[], AdminClient], group: str, topic: str) -> None:
        self._make_admin = admin
        self._admin: AdminClient | None = None
        self._group = group
        self._topic = topic
        self._asked: tuple[Future[Any], Future[Any]] | None = None

    def is_whole(self) -> bool | None:
        """Whether every partition of the topic has an owner; None while that is not known, or being settled."""
        if self._asked is None:
            self._asked = self._ask()
        if not all(answer.done() for answer in self._asked):
            return None
        answers, self._asked = self._asked, None
        self._let_go()
        try:
            group, topic = (answer.result() for answer in answers)
        except KafkaException as error:
            log.debug("owners not known yet", error=error_text(error))
            return None
        if group.state is not ConsumerGroupState.STABLE:
            return None
        owned = {
            place.partition
            for member in group.members
            for place in member.assignment.topic_partitions
            if place.topic == self._topic
        }
        return owned >= {partition.id for partition in topic.partitions}

    def _let_go(self) -> None:
        """Of the client, elsewhere: where the clock is set back meanwhile, its end can take minutes."""
        held, self._admin = [self._admin], None
        threading.Thread(target=held.clear, name="ownership", daemon=True).start()

    def _ask(self) -> tuple[Future[Any], Future[Any]]:
        self._admin = self._admin or self._make_admin()
        return (
            self._admin.describe_consumer_groups([self._group], request_timeout=_TIMEOUT_S)[self._group],
            self._admin.describe_topics(TopicCollection([self._topic]), request_timeout=_TIMEOUT_S)[self._topic],
        )
