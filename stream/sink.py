"""Where alerts and dead letters go, together with the offsets they stand for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.errors import FlowsentryError

__all__ = ["AtLeastOnceSink", "Outgoing", "RetryBatch", "Sink", "TransactionalSink"]

log = structlog.get_logger()

_TIMEOUT_S = 30.0
_FENCED = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)


class RetryBatch(Exception):
    """Nothing of the batch was published and its offsets are not committed: rewind and do it again."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to publish."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]


class Sink(Protocol):
    """Publishes a batch's messages and commits its offsets."""

    def publish(self, messages: Sequence[Outgoing], next_offsets: list[TopicPartition]) -> None: ...

    def close(self) -> None: ...


class TransactionalSink:
    """Exactly once: messages and offsets in one transaction, all of it or nothing."""

    def __init__(self, producer: Producer, consumer: Consumer) -> None:
        self._producer = producer
        self._consumer = consumer
        # Fences and aborts what an earlier holder of this transactional.id left open.
        producer.init_transactions(_TIMEOUT_S)

    def publish(self, messages: Sequence[Outgoing], next_offsets: list[TopicPartition]) -> None:
        """Publish and commit.

        Raises:
            RetryBatch: the transaction was aborted; rewind and try again.
            FlowsentryError: another worker has this transactional.id, or trying again cannot help.
        """
        refusals = _Refusals()
        try:
            self._producer.begin_transaction()
            for message in messages:
                _produce(self._producer, message, refusals)
            self._producer.send_offsets_to_transaction(
                next_offsets, self._consumer.consumer_group_metadata(), _TIMEOUT_S
            )
            _insist("commit", self._producer.commit_transaction)
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if error.fatal() or error.code() in _FENCED:
                raise _lost(error) from exception
            reason = refusals.first or error
            log.warning("transaction aborted", error=reason.str())
            try:
                _insist("abort", self._producer.abort_transaction)
            except KafkaException as worse:
                raise _lost(worse.args[0]) from exception
            raise _retry(reason) from exception

    def close(self) -> None:
        """Nothing is in flight between batches."""


class AtLeastOnceSink:
    """At least once: messages are confirmed, then offsets committed; a crash in between repeats the batch's alerts."""

    def __init__(self, producer: Producer, consumer: Consumer) -> None:
        self._producer = producer
        self._consumer = consumer

    def publish(self, messages: Sequence[Outgoing], next_offsets: list[TopicPartition]) -> None:
        """Publish, wait for every confirmation, commit.

        Raises:
            RetryBatch: a message was not confirmed or the offsets not committed; rewind and try again.
            FlowsentryError: trying again cannot help.
        """
        refusals = _Refusals()
        try:
            for message in messages:
                _produce(self._producer, message, refusals)
            unconfirmed = self._producer.flush(_TIMEOUT_S)
            if unconfirmed or refusals.first:
                self._producer.purge()
                if refusals.first:
                    raise _retry(refusals.first)
                raise RetryBatch(f"{unconfirmed} messages not confirmed in {_TIMEOUT_S:.0f} s")
            self._consumer.commit(offsets=next_offsets, asynchronous=False)
        except KafkaException as exception:
            # Not taken into the queue, or the partitions are another's by now: what was confirmed comes once more.
            error: KafkaError = exception.args[0]
            raise (_lost(error) if error.fatal() else _retry(error)) from exception

    def close(self) -> None:
        """Everything is confirmed between batches."""


class _Refusals:
    """A delivery callback that keeps the first refusal of a batch's messages."""

    def __init__(self) -> None:
        self.first: KafkaError | None = None

    def __call__(self, error: KafkaError | None, _: Message) -> None:
        self.first = self.first or error


def _insist(what: str, finish: Callable[[float], None]) -> None:
    """End a transaction, however long Kafka is away."""
    while True:
        try:
            return finish(_TIMEOUT_S)
        except KafkaException as exception:
            if not exception.args[0].retriable():
                raise
            log.warning(f"{what} is retried", error=exception.args[0].str())


def _lost(error: KafkaError) -> FlowsentryError:
    if error.code() in _FENCED:
        return FlowsentryError(
            f"fenced: another worker has the same transactional.id ({error.str()}). "
            "Give each instance its own stream.instance"
        )
    return FlowsentryError(f"the producer cannot go on: {error.str()}")


def _retry(error: KafkaError) -> RetryBatch | FlowsentryError:
    if error.code() in _TOO_LARGE:
        return FlowsentryError(
            f"an alert or a dead letter is refused as too large ({error.str()}): give their topics the input topic's "
            "max.message.bytes"
        )
    return RetryBatch(error.str())


def _produce(producer: Producer, message: Outgoing, on_delivery: _Refusals) -> None:
    while True:
        try:
            producer.produce(
                message.topic,
                value=message.value,
                key=message.key,
                headers=message.headers,
                on_delivery=on_delivery,
            )
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.1)
