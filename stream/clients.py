"""librdkafka properties for every client: ours where a default hurts, the user's on top."""

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END

from schemas.params import Params
from stream.topics import ROOMY

__all__ = [
    "admin_properties",
    "consumer_properties",
    "is_named",
    "probe_properties",
    "producer_properties",
    "shares_step_by_step",
    "start_offset",
]

# With the ten seconds that a broker takes to look for transactions that timed out, a worker that is gone for good keeps
# subscribers who read committed messages waiting for less than 15 s.
TRANSACTION_TIMEOUT_MS = 4_000
_FETCH_BYTES = 64 << 10


def _common(params: Params) -> dict[str, str | int | float | bool]:
    return {
        "bootstrap.servers": params.stream.bootstrap_servers,
        "client.id": "flowsentry",
        "log_level": 4,
        # A broker that is back is found at once; the default waits up to ten seconds.
        "reconnect.backoff.max.ms": 500,
        # With `rebootstrap`, the default, one lost connection makes librdkafka 2.16 forget its brokers, and what it was
        # asking of one of them then is never answered: sending offsets to a transaction hangs (its issue 5511).
        "metadata.recovery.strategy": "none",
        # Partitions that are added are read from after this, and a client that was told of a partition without a leader,
        # by a broker that was just starting, asks again: alerts can wait twice for it. The default is five minutes.
        "topic.metadata.refresh.interval.ms": 2_000,
    }


def admin_properties(params: Params) -> dict[str, str | int | float | bool]:
    """For looking at topics and making them."""
    return {**_common(params), **params.kafka}


def consumer_properties(params: Params, name: str) -> dict[str, str | int | float | bool]:
    """For a member of the consumer group, which keeps its partitions over a restart under the same name.

    Of the ways to share partitions only the eager one goes with names. With the cooperative one, a member that dies
    between giving up partitions and telling so comes back under its name without a rebalance, and nobody owns them.

    The newer protocol (KIP-848) is taken with `group.protocol: consumer`. It refuses a name until the session of its
    dead holder is over, by default 45 s that only the broker can change, so members have none there, and the partitions
    of one that is killed wait for so long.
    """
    return {
        **_common(params),
        "client.id": name,
        "group.id": params.stream.group,
        **(_classic_membership(name) if is_named(params) else {}),
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "max.poll.interval.ms": 300_000,
        # For /ready: is a broker there?
        "statistics.interval.ms": 1_000,
        # A full prefetch queue pauses fetching for this long; the default is a second.
        "fetch.queue.backoff.ms": 2,
        # Bounds memory: the default lets a backlog take a gigabyte. A fetch is unpacked whole before a byte of it is
        # counted there, up to 31,000 times its size, so it must be small (the three of one size: the largest counts);
        # a batch is fetched whole however large, and unpacked up to `receive.message.max.bytes`.
        "queued.max.messages.kbytes": 4_096,
        "fetch.max.bytes": _FETCH_BYTES,
        "fetch.message.max.bytes": _FETCH_BYTES,
        "message.max.bytes": _FETCH_BYTES,
        "receive.message.max.bytes": 16 << 20,
        "fetch.error.backoff.ms": 50,
        **params.kafka,
        # The source says itself where to begin, see `start_offset`.
        "auto.offset.reset": "error",
    }


def start_offset(params: Params) -> int:
    """Where the group begins to read a partition of which it has committed nothing: OFFSET_BEGINNING or OFFSET_END."""
    wanted = str(params.kafka.get("auto.offset.reset", "earliest"))
    return OFFSET_END if wanted in ("latest", "largest", "end") else OFFSET_BEGINNING


def shares_step_by_step(params: Params) -> bool:
    """Whether partitions come and go one by one, as with the newer protocol, or all at once."""
    strategy = str(params.kafka.get("partition.assignment.strategy", ""))
    return not is_named(params) or "cooperative" in strategy


def is_named(params: Params) -> bool:
    """Whether members of the group have names: not by the newer protocol."""
    return str(params.kafka.get("group.protocol", "")).lower() != "consumer"


def _classic_membership(name: str) -> dict[str, str | int | float | bool]:
    return {
        "group.instance.id": name,
        "partition.assignment.strategy": "range",
        # How long the partitions of a worker that is gone for good wait: the least that brokers allow by default.
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_500,
    }


def probe_properties(params: Params) -> dict[str, str | int | float | bool]:
    """For a consumer beside the group's, which looks at a partition and is told of its end."""
    named = consumer_properties(params, "flowsentry-probe")
    return {name: value for name, value in named.items() if name != "group.instance.id"} | {
        "enable.partition.eof": True,
    }


def producer_properties(params: Params, transactional_id: str | None = None) -> dict[str, str | int | float | bool]:
    """For alerts and dead letters; with a transactional id for exactly-once."""
    transactional: dict[str, str | int | float | bool] = (
        {"transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS}
        if transactional_id
        else {}
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
