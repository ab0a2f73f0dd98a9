"""librdkafka properties for every client: ours where a default hurts, the user's on top."""

from schemas.params import Params
from stream.topics import ROOMY

__all__ = ["admin_properties", "consumer_properties", "producer_properties"]


def _common(params: Params) -> dict[str, str | int | float | bool]:
    return {"bootstrap.servers": params.stream.bootstrap_servers, "client.id": "flowsentry", "log_level": 4}


def admin_properties(params: Params) -> dict[str, str | int | float | bool]:
    """For looking at topics and making them."""
    return {**_common(params), **params.kafka}


def consumer_properties(params: Params, name: str) -> dict[str, str | int | float | bool]:
    """For a member of the consumer group."""
    return {
        **_common(params),
        "client.id": name,
        "group.id": params.stream.group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "session.timeout.ms": 10_000,
        # A full prefetch queue pauses fetching for this long; the default is a second.
        "fetch.queue.backoff.ms": 2,
        # Bounds memory: the default lets a backlog take a gigabyte.
        "queued.max.messages.kbytes": 16_384,
        **params.kafka,
    }


def producer_properties(params: Params, transactional_id: str | None = None) -> dict[str, str | int | float | bool]:
    """For alerts and dead letters; with a transactional id for exactly-once."""
    transactional: dict[str, str | int | float | bool] = (
        {"transactional.id": transactional_id, "transaction.timeout.ms": 10_000} if transactional_id else {}
    )
    return {
        **_common(params),
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 1,
        "compression.type": "lz4",
        # A dead letter is its record with more headers: it may be larger than what the input topic lets through.
        "message.max.bytes": ROOMY,
        # A transaction with offsets waits this long for the previous one to complete; the default is 100 ms.
        "retry.backoff.ms": 1,
        "retry.backoff.max.ms": 5,
        **transactional,
        **params.kafka,
    }
