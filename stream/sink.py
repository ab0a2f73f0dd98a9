"""Where alerts and dead letters go, together with the offsets they stand for."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.errors import FlowsentryError
from stream.access import is_denial

__all__ = [
    "AtLeastOnceSink",
    "Denied",
    "Outgoing",
    "RetryBatch",
    "Sink",
    "Stopped",
    "TransactionalSink",
    "is_fenced",
    "raise_if_denied",
]

log = structlog.get_logger()

_TIMEOUT_S = 5.0  # of one call; the loop says that it is alive in between
_GRACE_S = 1.5  # for a call that keeps to it
_GLANCE_S = 0.5
_CONFIRM_S = 30.0
# With a producer to which no broker answers: it may be the only client that cannot find one, see `brokers_are_forgotten`.
_PATIENCE_S = 10.0
_FENCED = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)
# With these a producer is given up.
_LOST = (*_FENCED, KafkaError._TIMED_OUT)
# Longer than a consumer takes to notice that another has its name: if that is why, it is the one to say so.
_AFTER_FENCED_S = 3.0
_RETRY_AFTER_S = 0.2
_FENCED_MEMBER = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()
_BEGAN_S = time.time() - time.monotonic()
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)

Denied = Callable[[KafkaError], FlowsentryError]
"""Makes an error for the user of one with which Kafka denies a right."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to publish, and the id of the record that it is about.

    A broker takes or refuses messages in sets: one that is `alone` shares its with no other.
    """

    record_id: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]
    alone: bool = False


class RetryBatch(Exception):
    """The batch was not published: rewind and do it again.

    `maybe_committed`: a commit was under way when it went wrong, so only the broker knows; else nothing is committed.
    `too_large`: messages of a set that the broker does not take, and will not take next time either.
    `fenced`: another holds this one's name, or this one has fenced itself: the consumer will know which.
    """

    def __init__(
        self,
        why: str,
        *,
        maybe_committed: bool = False,
        too_large: Sequence[Outgoing] = (),
        fenced: bool = False,
    ) -> None:
        super().__init__(why)
        self.maybe_committed, self.too_large, self.fenced = maybe_committed, too_large, fenced

    @property
    def after_s(self) -> float:
        """When to do it again."""
        return _AFTER_FENCED_S if self.fenced else _RETRY_AFTER_S


class Hung(Exception):
    """A call into the client library does not return. Only the end of the process ends it; nothing is committed."""


class Stopped(Exception):
    """The worker was asked to stop while it waited for a broker; what was begun is not committed."""


class Sink(Protocol):
    """Publishes a batch's messages and commits its offsets."""

    def publish(
        self, messages: Sequence[Outgoing], next_offsets: list[TopicPartition], *, within_s: float | None = None
    ) -> None:
        """Publish and commit; within that time, or (None) however long Kafka is away.

        Raises:
            RetryBatch: it was not done.
            Stopped: the worker is to stop.
            FlowsentryError: trying again cannot help.
        """

    def settle(self) -> None:
        """End whatever an attempt that failed has left open, so that it is certain what is committed."""


class TransactionalSink:
    """Exactly once: messages and offsets in one transaction, all of it or nothing.

    `producer` makes a producer with this worker's transactional id. A second one is made when the first cannot go on,
    for example because a broker took its transaction for abandoned: making it fences the first and ends what that left
    open. `waiting` is called while it waits for a broker and may raise `Stopped`.
    """

    def __init__(
        self,
        producer: Callable[[], Producer],
        consumer: Consumer,
        *,
        denied: Denied,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._make = producer
        self._consumer = consumer
        self._denied = denied
        self._waiting = waiting
        self._producer: Producer | None = self._start()

    def publish(
        self, messages: Sequence[Outgoing], next_offsets: list[TopicPartition], *, within_s: float | None = None
    ) -> None:
        until = None if within_s is None else time.monotonic() + within_s
        producer = self._producer = self._producer or self._start(until)
        refusals = _Refusals()
        committing = False
        try:
            producer.begin_transaction()
            for message in messages:
                _produce(producer, message, refusals)
            metadata = self._consumer.consumer_group_metadata()
            _bounded(partial(producer.send_offsets_to_transaction, next_offsets, metadata, _TIMEOUT_S))
            committing = True
            return self._insist("commit", producer.commit_transaction, until)
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
        except Stopped:
            self._discard(producer)
            raise
        # Not in the `except`: a call of the client that fails there keeps the exception for good, and with its traceback
        # the producer, its threads and connections (confluent-kafka 2.16).
        why = (refusals.first or error).str()
        log.warning("transaction failed", error=why)
        # A member that slept for too long and joins again has itself fenced what it began before: not final either.
        fenced = error.code() in _FENCED or is_fenced(error)
        if error.fatal() or error.code() in _LOST or not self._abort(producer, until):
            self._discard(producer)
        raise_if_denied(refusals.denied or error, self._denied)
        raise RetryBatch(why, maybe_committed=committing, too_large=refusals.too_large, fenced=fenced)

    def settle(self) -> None:
        self._producer = self._producer or self._start()

    def _start(self, until: float | None = None) -> Producer:
        while True:
            producer = self._make()
            try:
                # Fences and aborts what an earlier holder of this transactional.id left open.
                self._insist("start", producer.init_transactions, until)
                return producer
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                self._discard(producer)
                raise_if_denied(error, self._denied)
                if until is not None and time.monotonic() >= until:
                    raise RetryBatch(error.str(), maybe_committed=True) from exception
                log.warning("producer cannot start yet", error=error.str())
                time.sleep(_RETRY_AFTER_S)

    def _abort(self, producer: Producer, until: float | None) -> bool:
        try:
            self._insist("abort", producer.abort_transaction, until)
        except KafkaException as exception:
            log.warning("abort failed", error=exception.args[0].str())
            return False
        return True

    def _insist(self, what: str, finish: Callable[[float], None], until: float | None) -> None:
        """Have a step of the transaction done, within `_PATIENCE_S`, or until then if that is sooner."""
        give_up_at = min(time.monotonic() + _PATIENCE_S, until or float("inf"))
        while True:
            self._waiting()
            try:
                return finish(_TIMEOUT_S)
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                # A step that contradicts one under way is no more possible later.
                if not error.retriable() or error.code() == KafkaError._CONFLICT or time.monotonic() >= give_up_at:
                    raise
                log.warning(f"{what} is retried", error=error.str())

    def _discard(self, producer: Producer) -> None:
        """Without a word to the broker: the next one, or the broker's timeout, ends what it left open."""
        log.warning("producer is given up")
        producer.purge()
        self._producer = None


class AtLeastOnceSink:
    """At least once: messages are confirmed, then offsets committed; a crash in between repeats the batch's alerts.

    `producer` makes a producer; another one is made when the first does not have its messages confirmed.
    """

    def __init__(
        self,
        producer: Callable[[], Producer],
        consumer: Consumer,
        *,
        denied: Denied,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self._make = producer
        self._producer = producer()
        self._consumer = consumer
        self._denied = denied
        self._waiting = waiting

    def publish(
        self, messages: Sequence[Outgoing], next_offsets: list[TopicPartition], *, within_s: float | None = None
    ) -> None:
        until = time.monotonic() + min(_CONFIRM_S, within_s or _CONFIRM_S)
        refusals = _Refusals()
        try:
            for message in messages:
                _produce(self._producer, message, refusals)
            while unconfirmed := self._producer.flush(min(_TIMEOUT_S, max(0.0, until - time.monotonic()))):
                self._waiting()
                if time.monotonic() >= until:
                    break
            if unconfirmed or refusals.first:
                self._producer.purge()
                self._producer = self._make()
                raise_if_denied(refusals.denied, self._denied)
                why = refusals.first.str() if refusals.first else f"{unconfirmed} messages not confirmed in time"
                raise RetryBatch(why, too_large=refusals.too_large)
            self._consumer.commit(offsets=next_offsets, asynchronous=False)
        except KafkaException as exception:
            # Not taken into the queue, or the partitions are another's by now: what was confirmed comes once more.
            error: KafkaError = exception.args[0]
            raise_if_denied(error, self._denied)
            if is_fenced(error):
                raise RetryBatch(error.str(), fenced=True) from exception
            if error.fatal():
                raise FlowsentryError(f"the producer cannot go on: {error.str()}") from exception
            raise RetryBatch(error.str(), too_large=refusals.too_large) from exception

    def settle(self) -> None:
        """Nothing is ever left open: offsets are committed alone, and last."""


class _Refusals:
    """What the broker said of a batch's messages: the first refusal, and those that another attempt cannot mend."""

    def __init__(self) -> None:
        self.first: KafkaError | None = None
        self.denied: KafkaError | None = None
        self.too_large: list[Outgoing] = []

    def delivered(self, message: Outgoing, error: KafkaError | None, _: Message) -> None:
        if error is None:
            return
        self.first = self.first or error
        if is_denial(error):
            self.denied = error
        elif error.code() in _TOO_LARGE:
            self.too_large.append(message)


def _bounded(call: Callable[[], None]) -> None:
    """Make a call of which the client library does not keep the timeout (librdkafka's issue 5456).

    Raises:
        Hung: it has not returned when that time was over.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="bounded", daemon=True)
    thread.start()
    for _ in range(
        round((_TIMEOUT_S + _GRACE_S) / _GLANCE_S)
    ):  # in steps: one that slept meanwhile has not waited so long
        thread.join(_GLANCE_S)
        if not thread.is_alive():
            break
    else:
        raise Hung("Kafka's client library does not come back from sending offsets to a transaction")
    if failures:
        raise failures.pop()  # held by no name: with this frame in its traceback it would keep the producer alive


def is_fenced(error: KafkaError) -> bool:
    """Whether the group has another member under this one's name; also where the consumer wraps it in words of its own."""
    return error.code() == KafkaError.FENCED_INSTANCE_ID or _FENCED_MEMBER in error.str()


def raise_if_denied(error: KafkaError | None, denied: Denied) -> None:
    """Raise what trying again cannot mend.

    Raises:
        FlowsentryError: not authorised.
    """
    if error is not None and is_denial(error):
        raise denied(error)


def _now_ms() -> int:
    """The time by the clock as it was when the process began, and by what has passed since.

    A broker refuses messages that are an hour ahead (`message.timestamp.after.max.ms`): a clock that is set must not matter.
    """
    return round((_BEGAN_S + time.monotonic()) * 1000)


def _produce(producer: Producer, message: Outgoing, refusals: _Refusals) -> None:
    if message.alone:
        producer.flush(_TIMEOUT_S)
    while True:
        try:
            producer.produce(
                message.topic,
                value=message.value,
                key=message.key,
                headers=message.headers,
                timestamp=_now_ms(),
                on_delivery=partial(refusals.delivered, message),
            )
            producer.poll(0)
            break
        except BufferError:
            producer.poll(0.1)
        except KafkaException as exception:
            if exception.args[0].code() in _TOO_LARGE:
                refusals.too_large.append(message)
            raise
    if message.alone:
        producer.flush(_TIMEOUT_S)
