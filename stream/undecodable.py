"""A batch of some producer's that the client library cannot unpack: where it ends, so that it costs only itself.

A producer packs its records in batches, and only whole batches can be unpacked. One that is damaged, or that would be
larger than `receive.message.max.bytes`, is reported with the offset that it begins with, again and again: a consumer
would stand before it for good.
"""

import time
from collections.abc import Callable
from contextlib import closing

from confluent_kafka import Consumer, KafkaError, TopicPartition

from schemas.errors import FlowsentryError
from stream.offsets import LOST_ITS_PLACE

__all__ = ["UNDECODABLE", "end_of_batch"]

UNDECODABLE = (KafkaError._BAD_COMPRESSION, KafkaError._NOT_IMPLEMENTED, KafkaError._BAD_MSG)

_PATIENCE_S = 30.0


def end_of_batch(consumer: Callable[[], Consumer], topic: str, partition: int, base: int) -> int:
    """The offset after the last record of the batch that begins at `base` and cannot be unpacked.

    Args:
        consumer: makes one that belongs to no group, tells the end of a partition (`enable.partition.eof`) and what
            lies beyond (`auto.offset.reset` error).

    Raises:
        FlowsentryError: the broker does not answer.
    """
    with closing(consumer()) as probe:
        length = 1
        while _is_inside(probe, topic, partition, base, base + length):
            length *= 2
        inside, outside = base + length // 2, base + length
        while outside - inside > 1:
            middle = (inside + outside) // 2
            if _is_inside(probe, topic, partition, base, middle):
                inside = middle
            else:
                outside = middle
        return outside


def _is_inside(consumer: Consumer, topic: str, partition: int, base: int, offset: int) -> bool:
    """Whether reading from there meets the batch of `base` again, and not another one, a record or the end."""
    consumer.assign([TopicPartition(topic, partition, offset)])
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        message = consumer.poll(1.0)
        if message is None:
            continue
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF or error.code() in LOST_ITS_PLACE:
            return False
        if error.code() in UNDECODABLE:
            return (message.offset() or 0) <= base
    raise FlowsentryError(f"{topic}-{partition}-{base} begins a batch whose end is not known: no answer from Kafka")
