"""Has every partition an owner? What the group's coordinator says, asked without waiting for the answer."""

import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stream.connection import error_text

__all__ = ["Ownership", "assigned"]

log = structlog.get_logger()

_TIMEOUT_S = 5.0


class Ownership:
    """Asks about a group and a topic until there is an answer.

    Each question has a client and a thread of its own, which nobody waits for: where the clock is set back meanwhile, the
    client's end can take minutes. `describe_consumer_groups` would be the call for it, but librdkafka 2.16 aborts the process
    if the coordinator's connection breaks meanwhile (its issue 4605); the older `list_groups`, which waits, does not.
    """

    def __init__(self, admin: Callable[[], AdminClient], group: str, topic: str) -> None:
        self._make_admin = admin
        self._group = group
        self._topic = topic
        self._answer: Future[bool | None] | None = None

    def is_whole(self) -> bool | None:
        """Whether every partition of the topic has an owner; None while that is not known, or being settled."""
        if self._answer is None:
            self._answer = Future()
            threading.Thread(target=self._ask, args=(self._answer,), name="ownership", daemon=True).start()
        if not self._answer.done():
            return None
        answer, self._answer = self._answer, None
        return answer.result()

    def _ask(self, answer: Future[bool | None]) -> None:
        try:
            answer.set_result(self._look())
        except KafkaException as error:
            log.debug("owners not known yet", error=error_text(error))
            answer.set_result(None)
        except ValueError as error:
            log.debug("a member's assignment cannot be read", error=str(error))
            answer.set_result(None)
        except Exception as error:  # a bug: raised where the answer is asked for
            answer.set_exception(error)

    def _look(self) -> bool | None:
        admin = self._make_admin()
        groups = admin.list_groups(self._group, timeout=_TIMEOUT_S)
        topic = admin.list_topics(self._topic, timeout=_TIMEOUT_S).topics[self._topic]
        if not topic.partitions or not groups or groups[0].state != "Stable":
            return None
        owned = {
            partition
            for member in groups[0].members
            for name, partition in assigned(member.assignment or b"")
            if name == self._topic
        }
        return owned >= topic.partitions.keys()


def assigned(assignment: bytes) -> Iterator[tuple[str, int]]:
    """Topic and partition of each place in a member's assignment.

    The layout is `ConsumerProtocolAssignment` of Kafka's protocol: a version, then topics with their partitions, all
    big-endian; what follows them is not read. A member that has nothing may have no bytes either.

    Raises:
        ValueError: it is laid out otherwise.
    """
    if not assignment:
        return
    try:
        (topics,) = struct.unpack_from(">i", assignment, 2)
        at = 6
        for _ in range(topics):
            (length,) = struct.unpack_from(">H", assignment, at)
            name = assignment[at + 2 : at + 2 + length].decode()
            (count,) = struct.unpack_from(">i", assignment, at + 2 + length)
            at += 6 + length
            for partition in struct.unpack_from(f">{count}i", assignment, at):
                yield name, partition
            at += 4 * count
    except struct.error as error:
        raise ValueError(f"{len(assignment)} bytes are no assignment: {error}") from error
