"""Dead letters deleted for good: what Kafka can delete is the beginning of a partition."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.dead_letter import Reason
from schemas.errors import FlowsentryError
from schemas.params import Params
from stream.clients import admin_properties
from stream.dead_letters.letters import DeadLetters, Selection
from stream.dead_letters.reading import Advance, Reader, Span
from stream.dead_letters.receipts import Receipts
from stream.topics import TIMEOUT_S, error_text

__all__ = ["Doomed", "count_doomed", "delete"]


@dataclass(slots=True)
class Doomed:
    """How many letters of each reason some spans hold, and how many of those were never put back."""

    letters: Counter[Reason] = field(default_factory=Counter)
    never_replayed: Counter[Reason] = field(default_factory=Counter)


def count_doomed(
    params: Params, reader: Reader, letters: DeadLetters, spans: Sequence[Span], advance: Advance
) -> Doomed:
    """What goes if the spans are deleted.

    Raises:
        FlowsentryError: no answer from Kafka, or it refuses.
    """
    receipts = Receipts(params, letters.topic, spans)
    receipts.load(reader)
    doomed = Doomed()
    for letter in letters.read(spans, Selection(), advance):
        doomed.letters[letter.told.reason] += 1
        doomed.never_replayed[letter.told.reason] += letter not in receipts
    return doomed


def delete(params: Params, spans: Sequence[Span]) -> None:
    """Delete everything before the spans' ends.

    Raises:
        FlowsentryError: Kafka refuses; what it says of each partition that still has its letters.
    """
    admin = AdminClient(dict(admin_properties(params)))
    ends = [TopicPartition(span.topic, span.partition, span.end) for span in spans if len(span)]
    refusals = []
    for place, future in (admin.delete_records(ends) if ends else {}).items():
        try:
            future.result(TIMEOUT_S)
        except KafkaException as error:
            refusals.append(f"partition {place.partition} of {place.topic!r} keeps its letters: {error_text(error)}")
    if refusals:
        raise FlowsentryError("\n".join(refusals))
