"""The feed: sample flows and malformed records onto every partition, paced, each exactly once whatever the broker does."""

import random
import threading
import time
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tests.faults.given import MALFORMED, Given
from tests.faults.kafka import PROMPT

__all__ = ["Feed"]

_TICK_S = 0.01
_PATIENCE_S = 120.0


class Feed(threading.Thread):
    """Produces until `finish`; a record's headers `serial` and `given` say which it is and what it was made from.

    Args:
        rate: flows/s, which may be set anew at any time.
        bad_share: share of malformed records.
        waiting: how many alerts have not come yet, of so many that are due.
        most_waiting: beyond that it pauses, so that a slow machine's backlog is bounded; None never does.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        given: Sequence[Given],
        *,
        seed: int,
        partitions: int,
        rate: float,
        bad_share: float,
        waiting: Callable[[int], int],
        most_waiting: int | None,
    ) -> None:
        super().__init__(name="feed", daemon=True)
        self.rate = rate
        self.sent = 0
        self.alerts_due = 0
        self.confirmed = 0
        self.refused: list[str] = []
        self.partitions = partitions
        self._topic, self._given, self._bad_share = topic, given, bad_share
        self._waiting, self.most_waiting = waiting, most_waiting
        self._good = [number for number, each in enumerate(given) if each.reason is None]
        self._bad = [number for number, each in enumerate(given) if each.reason in MALFORMED]
        self._random = random.Random(seed)
        self._finished = threading.Event()
        self._sending = threading.Lock()  # serial numbers have no gaps
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": 1_000_000,
                **PROMPT,
            }
        )

    def run(self) -> None:
        due, at_s = 0.0, time.monotonic()
        while not self._finished.wait(_TICK_S):
            now_s = time.monotonic()
            if self.most_waiting is None or self._waiting(self.alerts_due) < self.most_waiting:
                due += self.rate * (now_s - at_s)
            at_s = now_s
            self.give(int(due))
            due -= int(due)

    def give(self, count: int) -> None:
        """Produce so many records now."""
        for _ in range(count):
            chosen = self._random.choice(self._bad if self._random.random() < self._bad_share else self._good)
            with self._sending:
                self._send(self._given[chosen].value, chosen, self._random.randrange(self.partitions), self._told)
            self._producer.poll(0)
        self._producer.poll(0)

    def give_one(self, chosen: int, partition: int) -> int:
        """Produce one record, by its number among those given, and wait for it; its offset."""
        offsets: list[int] = []

        def told(error: KafkaError | None, message: Message) -> None:
            self._told(error, message)
            offsets.append(message.offset() or 0)

        with self._sending:
            self._send(self._given[chosen].value, chosen, partition, told)
        deadline = time.monotonic() + _PATIENCE_S
        while not offsets:
            assert time.monotonic() < deadline, "a record of the feed was not confirmed"
            self._producer.poll(0.05)
        return offsets[0]

    def use(self, partitions: int) -> None:
        """Produce to so many partitions from now on; they must be there."""
        deadline = time.monotonic() + _PATIENCE_S
        while (
            len(self._producer.list_topics(self._topic, timeout=_PATIENCE_S).topics[self._topic].partitions)
            < partitions
        ):
            assert time.monotonic() < deadline, f"the feed does not see {partitions} partitions"
        self.partitions = partitions

    def finish(self) -> None:
        """Stop, and wait until every record is on the topic."""
        self._finished.set()
        if self.is_alive():
            self.join(_PATIENCE_S)
        left = self._producer.flush(_PATIENCE_S)
        assert left == 0, f"{left} records of the feed were not confirmed in {_PATIENCE_S:.0f} s"

    def _send(
        self, value: bytes | None, chosen: int, partition: int, told: Callable[[KafkaError | None, Message], None]
    ) -> None:
        headers: list[tuple[str, str | bytes | None]] = [("serial", b"%d" % self.sent), ("given", b"%d" % chosen)]
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value,
                    b"key-%d" % self.sent,
                    partition=partition,
                    headers=headers,
                    on_delivery=told,
                )
                break
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:  # a new partition that this client has not heard of yet
                if error.args[0].code() != KafkaError._UNKNOWN_PARTITION:
                    raise
                self._producer.poll(0.1)
        self.sent += 1
        self.alerts_due += self._given[chosen].alert

    def _told(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.confirmed += 1
        else:
            self.refused.append(error.str())
