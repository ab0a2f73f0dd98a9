"""The feed: sample flows and malformed records onto every partition, paced, each exactly once whatever the broker does."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream.batch import headers_of
from stream.connection import brokers_are_forgotten
from tests.faults.given import MALFORMED, Given
from tests.faults.kafka import PROMPT
from tests.kafka import each_message

__all__ = ["Feed"]

_TICK_S = 0.01
_PATIENCE_S = 120.0


_Told = Callable[[KafkaError | None, Message], None]


@dataclass(frozen=True, slots=True)
class _Sent:
    value: bytes | None
    chosen: int
    partition: int
    told: _Told


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
        self._servers, self._topic, self._given, self._bad_share = servers, topic, given, bad_share
        self._waiting, self.most_waiting = waiting, most_waiting
        self._good = [number for number, each in enumerate(given) if each.reason is None]
        self._bad = [number for number, each in enumerate(given) if each.reason in MALFORMED]
        self._random = random.Random(seed)
        self._finished = threading.Event()
        self._sending = threading.Lock()  # serial numbers have no gaps
        self._unconfirmed: dict[int, _Sent] = {}
        self._next: dict[int, int] = {}  # by partition: the offset after the last that is confirmed
        self._forgotten = False
        self._producer = self._new_producer()

    def run(self) -> None:
        due, at_s = 0.0, time.monotonic()
        while not self._finished.wait(_TICK_S):
            now_s = time.monotonic()
            if self.most_waiting is None or self._waiting(self.alerts_due) < self.most_waiting:
                due += self.rate * (now_s - at_s)
            at_s = now_s
            self._renew()
            self.give(int(due))
            due -= int(due)

    def give(self, count: int) -> None:
        """Produce so many records now."""
        for _ in range(count):
            chosen = self._random.choice(self._bad if self._random.random() < self._bad_share else self._good)
            self._give(chosen, self._random.randrange(self.partitions), lambda error, message: None)
            self._producer.poll(0)
        self._producer.poll(0)

    def give_one(self, chosen: int, partition: int) -> int:
        """Produce one record, by its number among those given, and wait for it; its offset."""
        offsets: list[int] = []

        self._give(chosen, partition, lambda error, message: offsets.append(message.offset() or 0))
        deadline = time.monotonic() + _PATIENCE_S
        while not offsets:
            assert time.monotonic() < deadline, "a record of the feed was not confirmed"
            self._producer.poll(0.05)
            self._renew()
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
        deadline = time.monotonic() + _PATIENCE_S
        while self._producer.flush(1.0):
            self._renew()
            left = f"{len(self._unconfirmed)} records of the feed were not confirmed in {_PATIENCE_S:.0f} s"
            assert time.monotonic() < deadline, left

    def _new_producer(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._servers,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": 1_000_000,
                "statistics.interval.ms": 1_000,
                "stats_cb": self._heard,
                **PROMPT,
            }
        )

    def _heard(self, statistics: str) -> None:
        self._forgotten = brokers_are_forgotten(statistics)

    def _renew(self) -> None:
        """Go on with a new producer when the present one has forgotten its brokers: send again what is not on the topic."""
        with self._sending:
            if not self._forgotten:
                return
            try:
                arrived = {_serial(it): it for it in each_message(self._servers, self._topic, self._next)}
            except KafkaException:  # the broker is away
                return
            self._forgotten, self._producer = False, self._new_producer()
            for serial, sent in list(self._unconfirmed.items()):
                if serial in arrived:
                    self._told(serial, None, arrived[serial])
                else:
                    self._produce(serial, sent)

    def _give(self, chosen: int, partition: int, told: _Told) -> None:
        with self._sending:
            sent = self._unconfirmed[self.sent] = _Sent(self._given[chosen].value, chosen, partition, told)
            self._produce(self.sent, sent)
            self.sent += 1
            self.alerts_due += self._given[chosen].alert

    def _produce(self, serial: int, sent: _Sent) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    sent.value,
                    b"key-%d" % serial,
                    partition=sent.partition,
                    headers=[("serial", b"%d" % serial), ("given", b"%d" % sent.chosen)],
                    on_delivery=lambda error, message: self._told(serial, error, message),
                )
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:  # a new partition that this client has not heard of yet
                if error.args[0].code() != KafkaError._UNKNOWN_PARTITION:
                    raise
                self._producer.poll(0.1)

    def _told(self, serial: int, error: KafkaError | None, message: Message) -> None:
        self._unconfirmed.pop(serial).told(error, message)
        if error is None:
            self.confirmed += 1
            self._next[message.partition() or 0] = (message.offset() or 0) + 1
        else:
            self.refused.append(error.str())


def _serial(message: Message) -> int:
    return int(dict(headers_of(message))["serial"] or -1)
