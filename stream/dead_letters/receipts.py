"""Which dead letters were put back: a receipt for each, on a compacted topic beside theirs.

A receipt is written in the transaction that puts the record back, so one is there exactly when the other is. Its key is
the letter's id.
"""

from collections.abc import Sequence

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import FlowsentryError
from schemas.params import Params
from stream.access import receipts_of
from stream.clients import admin_properties
from stream.dead_letters.letters import Letter, parse_place
from stream.dead_letters.reading import Reader, Span
from stream.topics import COMPACTED, TIMEOUT_S, create_topics, error_text

__all__ = ["Receipt", "Receipts"]


class Receipt(BaseModel):
    """The value of a receipt, as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dead_letters: str = Field(
        description="The id that Kafka gave the dead letters' topic: one that was deleted and made again has letters "
        "under the same ids."
    )
    source: str = Field(description="The record that had been set aside.")
    topic: str = Field(description="Where it was put back.")
    hops: int = Field(ge=1, description="How often that has been done, by now.")


class Receipts:
    """The receipts for the letters in some spans, a bit in memory for each offset."""

    def __init__(self, params: Params, dead_letters: str, spans: Sequence[Span]) -> None:
        """Nothing is read yet.

        Raises:
            FlowsentryError: no answer from Kafka, or it refuses.
        """
        self.topic, _ = receipts_of(dead_letters)
        self._dead_letters = dead_letters
        self._spans = {span.partition: span for span in spans}
        self._bits = {span.partition: bytearray(len(span) // 8 + 1) for span in spans}
        try:
            self._admin = AdminClient(dict(admin_properties(params)))
            found = self._admin.describe_topics(TopicCollection([dead_letters]))[dead_letters].result(TIMEOUT_S)
        except KafkaException as error:
            raise FlowsentryError(f"topic {dead_letters!r} cannot be looked at: {error_text(error)}") from None
        self._topic_id = str(found.topic_id)

    def make_topic(self, reader: Reader) -> None:
        """Make the topic of receipts unless it is there."""
        if not reader.partitions(self.topic):
            create_topics(self._admin, {self.topic: COMPACTED})

    def load(self, reader: Reader) -> None:
        """Read all receipts that there are by now.

        Raises:
            FlowsentryError: Kafka refuses, or something else stands on their topic.
        """
        for message in reader.read(reader.spans(self.topic)):
            try:
                topic, partition, offset = parse_place((message.key or b"").decode())
                receipt = None if message.value is None else Receipt.model_validate_json(message.value)
            except (UnicodeDecodeError, FlowsentryError, ValidationError):
                raise FlowsentryError(
                    f"{message.id} is no receipt for a dead letter: what was put back is not known for certain. Nothing "
                    f"but dead-letters replay may write to {self.topic!r}"
                ) from None
            span = self._spans.get(partition)
            if span is None or not span.start <= offset < span.end or topic != self._dead_letters:
                continue
            byte, bit = divmod(offset - span.start, 8)
            self._bits[partition][byte] &= ~(1 << bit)
            if receipt is not None and receipt.dead_letters == self._topic_id:
                self._bits[partition][byte] |= 1 << bit

    def receipt(self, letter: Letter, topic: str) -> bytes:
        """The value of the receipt for a letter that is put back to a topic."""
        return (
            Receipt(dead_letters=self._topic_id, source=letter.source, topic=topic, hops=letter.told.hops + 1)
            .model_dump_json()
            .encode()
        )

    def __contains__(self, letter: Letter) -> bool:
        byte, bit = divmod(letter.message.offset - self._spans[letter.message.partition].start, 8)
        return bool(self._bits[letter.message.partition][byte] >> bit & 1)
