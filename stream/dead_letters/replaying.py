"""Dead letters put back on the topics that they came from: each once, whenever this is killed, and never in a loop."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.dead_letter import HOPS_HEADER, Reason
from schemas.errors import FlowsentryError, ParamsError
from schemas.params import Params
from stream.access import Right, access_denied, dead_letter_rights, is_denial, receipts_of
from stream.clients import admin_properties, producer_properties
from stream.dead_letters.letters import DeadLetters, Letter, Selection, original
from stream.dead_letters.reading import Advance, Reader, Span
from stream.dead_letters.receipts import Receipts
from stream.topics import error_text

__all__ = ["MAX_HOPS", "Outcome", "Replay"]

MAX_HOPS = 3
_CHUNK = 500
_CHUNK_BYTES = 4 << 20
_LARGEST = 256 << 20
_TIMEOUT_S = 30.0
_GIVE_UP_AFTER_S = 120.0
_RETRY_AFTER_S = 0.2
_SILENT = logging.Logger("librdkafka")  # what goes wrong is raised
_SILENT.addHandler(logging.NullHandler())
_TRANSACTION_MS = 15_000  # a chunk's; whoever reads the topic waits so long for one that was killed
_FENCED = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)
_TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)


class Outcome(StrEnum):
    """What becomes of a letter."""

    REPLAYED = "put back"
    DONE = "put back before"
    AT_HOP_LIMIT = "put back as often as --max-hops lets it"
    GONE = "too large to be kept here, and gone from the topic that it came from"
    TOO_LARGE = "too large for the topic"
    UNDECODABLE = "never read, and so not kept here"
    NO_TOPIC = "the topic does not exist"
    LOOP = "of the dead letters' own topic"

    @property
    def is_left(self) -> bool:
        """Whether the letter was wanted and is not back."""
        return self not in (Outcome.REPLAYED, Outcome.DONE)


@dataclass(frozen=True, slots=True)
class _Returned:
    """A letter and the record that goes back for it."""

    letter: Letter
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, str | bytes | None]]

    @property
    def size(self) -> int:
        """Bytes, more or less."""
        return len(self.key or b"") + len(self.value or b"") + sum(len(value or b"") for _, value in self.headers)


class _TooLarge(Exception):
    """A transaction was aborted because a message, or several together, are too large for their topic."""


class Replay:
    """Puts selected letters of the spans back; what comes after them, such as these same records again, is not read.

    `reader` reads the letters and `sources`, meanwhile, what is not in them. `to` takes them to another topic than that
    they came from; `again` also those that were put back before.
    """

    def __init__(
        self,
        params: Params,
        reader: Reader,
        sources: Reader,
        letters: DeadLetters,
        spans: Sequence[Span],
        *,
        to: str | None = None,
        max_hops: int = MAX_HOPS,
        again: bool = False,
    ) -> None:
        self._params, self._reader, self._sources = params, reader, sources
        self._letters, self._spans = letters, spans
        self._to, self._max_hops, self._again = to, max_hops, again
        self._receipts = Receipts(params, letters.topic, spans)
        self._partitions = cache(reader.partitions)
        if to in (letters.topic, self._receipts.topic):
            raise ParamsError(f"--to {to}: that would be a loop; name a topic of flow records")
        if to is not None and not self._partitions(to):
            raise FlowsentryError(f"--to {to}: no such topic at {reader.servers}")

    def plan(self, selection: Selection, advance: Advance) -> Counter[Outcome]:
        """What `run` would do, as far as can be told without doing it."""
        self._receipts.load(self._reader)
        judged = (self._judge(letter) for letter in self._letters.read(self._spans, selection, advance))
        return Counter(it if isinstance(it, Outcome) else Outcome.REPLAYED for it in judged)

    def run(self, selection: Selection, advance: Advance) -> Iterator[tuple[Outcome, Letter]]:
        """Do it; each letter's outcome as it is final.

        Raises:
            FlowsentryError: another replay has taken over, or Kafka does not do it. What was put back until then stays,
                and another run goes on after it.
        """
        self._receipts.make_topic(self._reader)
        # By the name every replay of this topic has: ends any other, and what it left open. Only then the receipts
        # tell of all that it did.
        rights = dead_letter_rights("replay", self._letters.topic, self._to or self._params.stream.input)
        writer = _Writer(self._params, receipts_of(self._letters.topic)[1], self._receipts, rights)
        self._receipts.load(self._reader)
        chunk: list[_Returned] = []
        size = 0
        for letter in self._letters.read(self._spans, selection, advance):
            judged = self._judge(letter)
            if isinstance(judged, Outcome):
                yield judged, letter
                continue
            chunk.append(judged)
            size += judged.size
            if len(chunk) == _CHUNK or size >= _CHUNK_BYTES:
                yield from writer.write(chunk)
                chunk, size = [], 0
        yield from writer.write(chunk)

    def _judge(self, letter: Letter) -> "_Returned | Outcome":
        told = letter.told
        topic = self._to or told.topic
        if not self._again and letter in self._receipts:
            return Outcome.DONE
        if told.hops >= self._max_hops:
            return Outcome.AT_HOP_LIMIT
        if topic in (self._letters.topic, self._receipts.topic):
            return Outcome.LOOP
        partitions = self._partitions(topic)
        if not partitions:
            return Outcome.NO_TOPIC
        if told.reason is Reason.UNDECODABLE:
            return Outcome.UNDECODABLE
        record = original(letter, self._sources)
        if record is None:
            return Outcome.GONE
        headers: list[tuple[str, str | bytes | None]] = [each for each in record.headers if each[0] != HOPS_HEADER]
        return _Returned(
            letter=letter,
            topic=topic,
            partition=told.partition if told.partition in partitions else -1,
            key=record.key,
            value=record.value,
            headers=[*headers, (HOPS_HEADER, str(told.hops + 1).encode())],
        )


class _Writer:
    """Writes records and their receipts, a transaction a chunk."""

    def __init__(self, params: Params, transactional_id: str, receipts: Receipts, rights: Sequence[Right]) -> None:
        self._receipts = receipts
        self._admin_properties, self._rights = admin_properties(params), rights
        self._servers = params.stream.bootstrap_servers
        properties = {
            **producer_properties(params, transactional_id=transactional_id),
            "message.max.bytes": _LARGEST,  # a letter that was cut is larger than others
            "transaction.timeout.ms": _TRANSACTION_MS,
            **params.kafka,
        }
        try:
            self._producer = Producer(properties, logger=_SILENT)
            self._producer.init_transactions(_TIMEOUT_S)
        except KafkaException as error:
            self._raise_if_denied(error.args[0])
            raise FlowsentryError(
                f"no transaction {transactional_id!r} with Kafka at {self._servers}: {error_text(error)}"
            ) from None

    def write(self, chunk: Sequence[_Returned]) -> Iterator[tuple[Outcome, Letter]]:
        """All of a chunk, or of its halves where Kafka refuses it as too large, down to the letter that is."""
        if not chunk:
            return
        try:
            self._insist(chunk)
        except _TooLarge:
            if len(chunk) == 1:
                yield Outcome.TOO_LARGE, chunk[0].letter
            else:
                middle = len(chunk) // 2
                yield from self.write(chunk[:middle])
                yield from self.write(chunk[middle:])
        else:
            for each in chunk:
                yield Outcome.REPLAYED, each.letter

    def _insist(self, chunk: Sequence[_Returned]) -> None:
        """Again and again, as long as trying again can help."""
        deadline_s = time.monotonic() + _GIVE_UP_AFTER_S
        while True:
            try:
                return self._transaction(chunk)
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                self._raise_if_denied(error)
                if error.code() in _FENCED:
                    raise FlowsentryError(
                        "another replay of these dead letters has taken over, or Kafka did not take a part of them within "
                        f"{_TRANSACTION_MS // 1000} s; this one stops. What it had put back stays, and is not put back twice"
                    ) from None
                if error.code() in _TOO_LARGE:
                    raise _TooLarge from None
                given_up = error.fatal() or error.retriable()  # retried long enough
                if given_up or time.monotonic() > deadline_s:
                    raise FlowsentryError(
                        f"Kafka at {self._servers} does not take the records: {error.str()}. Run it again: what was put "
                        "back is not put back twice"
                    ) from None
            time.sleep(_RETRY_AFTER_S)

    def _raise_if_denied(self, error: KafkaError) -> None:
        if is_denial(error):
            raise access_denied(error, self._admin_properties, self._rights) from None

    def _transaction(self, chunk: Sequence[_Returned]) -> None:
        """All or nothing; raises the first refusal, with the transaction aborted if it can be."""
        refusals: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                refusals.append(error)

        self._producer.begin_transaction()
        try:
            for each in chunk:
                receipt = self._receipts.receipt(each.letter, each.topic)
                self._produce(each.topic, each.value, each.key, each.partition, each.headers, delivered)
                self._produce(self._receipts.topic, receipt, each.letter.id.encode(), -1, [], delivered)
            _end(self._producer.commit_transaction)
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if error.fatal() or error.retriable():  # nothing can be aborted, or the commit may yet come true
                raise
            _end(self._producer.abort_transaction)
            raise KafkaException(refusals[0] if refusals else error) from exception
        except KeyboardInterrupt:
            with suppress(KafkaException):  # Kafka does it by itself after transaction.timeout.ms
                self._producer.abort_transaction(_TIMEOUT_S)
            raise

    def _produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        headers: list[tuple[str, str | bytes | None]],
        on_delivery: Callable[[KafkaError | None, Message], None],
    ) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, partition, on_delivery, headers=headers)
                self._producer.poll(0)
                return
            except BufferError:
                self._producer.poll(0.1)


def _end(finish: Callable[[float], None]) -> None:
    """Commit or abort, for as long as Kafka may still answer."""
    deadline_s = time.monotonic() + _GIVE_UP_AFTER_S
    while True:
        try:
            return finish(_TIMEOUT_S)
        except KafkaException as exception:
            if not exception.args[0].retriable() or time.monotonic() > deadline_s:
                raise
        time.sleep(_RETRY_AFTER_S)
