"""Where alerts and dead letters go, together with the offsets they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.errors import FlowsentryError

__all__ = ["AtLeastOnceSink", "Outgoing", "RetryBatch", "Sink", "TransactionalSink"]

log = structlog.get_logger()

_TIMEOUT_S = 30.0
_FENCED = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)


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
            FlowsentryError: another worker has this transactional.id.
        """
        try:
            self._producer.begin_transaction()
            for message in messages:
                _produce(self._producer, message, None)
            self._producer.send_offsets_to_transaction(
                next_offsets, self._consumer.consumer_group_metadata(), _TIMEOUT_S
            )
            self._commit()
        except KafkaException as exception:
            self._recover(exception)

    def _commit(self) -> None:
        while True:
            try:
                self._producer.commit_transaction(_TIMEOUT_S)
                return
            except KafkaException as exception:
                if not exception.args[0].retriable():
                    raise
                log.warning("commit is retried", error=exception.args[0].str())

    def _recover(self, exception: KafkaException) -> None:
        error: KafkaError = exception.args[0]
        if error.code() in _FENCED:
            raise FlowsentryError(
                f"fenced: another worker has the same transactional.id ({error.str()}). "
                "Give each instance its own stream.instance"
            ) from exception
        if error.fatal():
            raise exception
        log.warning("transaction aborted", error=error.str())
        self._producer.abort_transaction(_TIMEOUT_S)
        raise RetryBatch(error.str()) from exception

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
            RetryBatch: a message was not confirmed; rewind and try again.
        """
        failures: list[str] = []

        def confirmed(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error.str())

        for message in messages:
            _produce(self._producer, message, confirmed)
        unconfirmed = self._producer.flush(_TIMEOUT_S)
        if unconfirmed or failures:
            self._producer.purge()
            raise RetryBatch(failures[0] if failures else f"{unconfirmed} messages not confirmed in {_TIMEOUT_S:.0f} s")
        self._consumer.commit(offsets=next_offsets, asynchronous=False)

    def close(self) -> None:
        """Everything is confirmed between batches."""


def _produce(producer: Producer, message: Outgoing, on_delivery: object) -> None:
    while True:
        try:
            producer.produce(
                message.topic,
                value=message.value,
                key=message.key,
                headers=message.headers,
                on_delivery=on_delivery,  # type: ignore[arg-type]
            )
            producer.poll(0)
            return
        except BufferError:
            producer.poll(0.1)
