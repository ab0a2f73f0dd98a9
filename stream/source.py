"""Where flow records come from: a member of the consumer group, and what it does when partitions come and go.

Offsets are committed by the sink, together with what was published. A partition is released with nothing in hand: what
is, is drained (judged, published, committed) while the group waits, or else left to the next owner, uncommitted.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas.errors import FencedError, FlowsentryError
from stream.batch import Batch, FlowRecord, record_of
from stream.batch_limit import BatchLimit
from stream.connection import error_text
from stream.metrics import Metrics
from stream.offsets import LOST_ITS_PLACE, Offsets
from stream.ownership import Ownership
from stream.sink import Denied, RetryBatch, is_fenced, raise_if_denied
from stream.status import Status
from stream.undecodable import UNDECODABLE, end_of_batch

__all__ = ["Source"]

log = structlog.get_logger()

_STEP = 64  # records between two looks at how many bytes a batch has
_LAG_TIMEOUT_S = 0.1
_ASK_AGAIN_S = 1.0
_LOOK_UP_S = 0.5  # so long a wait at most, before looking whether to stop


@dataclass(slots=True)
class _Undecodable:
    """What is left to set aside of a batch that cannot be unpacked: offsets from `next` to before `end`."""

    topic: str
    next: int
    end: int
    why: str


class Source:
    """A member of the consumer group. `drain` is given what is in hand when partitions are revoked.

    `probe` makes a consumer that belongs to no group, to look at a partition.

    `ownership` is asked after the first assignment, and if a partition has no owner it joins once more. A member that is
    back under its name is given what it had, without a rebalance: partitions that were added while it was away would have
    no owner. Only its joining once more makes the group share them out.

    `start`: OFFSET_BEGINNING or OFFSET_END, where to begin when the group has committed nothing. `step_by_step`: partitions
    come and go one by one (the group's protocol is cooperative), not all at once.
    """

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        *,
        limit: BatchLimit,
        max_wait_s: float,
        max_batch_bytes: int,
        status: Status,
        metrics: Metrics,
        probe: Callable[[], Consumer],
        denied: Denied,
        ownership: Ownership | None,
        start: int,
        step_by_step: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.consumer = consumer
        self.drain: Callable[[Batch], None] | None = None
        self._topic = topic
        self._limit = limit
        self._max_wait_s = max_wait_s
        self._max_batch_bytes = max_batch_bytes
        self._status = status
        self._rebalances = metrics.rebalances
        self._probe = probe
        self._denied = denied
        self._clock = clock
        self._offsets = Offsets(consumer, start=start, status=status, metrics=metrics, clock=clock)
        self._step_by_step = step_by_step
        self._in_hand: list[FlowRecord] = []
        self._released: set[int] = set()  # during the present call of consume
        self._undone: tuple[Batch, bool] | None = None  # what was in hand then, and whether it may be committed
        self._failure: Exception | None = None
        self._met: dict[int, Message] = {}  # errors that say where a batch begins that cannot be unpacked
        self._undecodable: dict[int, _Undecodable] = {}
        self._displaced: set[int] = set()  # partitions that are not read until it is said where to go on
        self._started_at: dict[int, int] = {}  # the committed offset of partitions that nothing was read from yet
        self._ownership = ownership
        self._ask_at: float | None = None  # about it
        self._rejoin = False  # at the next poll
        self._closing = False
        self._subscribe()

    def poll(self, stopping: Callable[[], bool] = lambda: False) -> Batch:
        """What has come within `max_wait_s`, or until `stopping`, up to the batch's limits of records and bytes; it may be
        empty.

        Raises:
            FencedError: another member of the group has this one's name.
            FlowsentryError: not authorised, or the consumer cannot go on. All else passes and is logged, such as a
                broker that is away or a topic that was deleted.
        """
        if self._ownership is not None and self._ask_at is not None and self._clock() >= self._ask_at:
            self._look_for_owners(self._ownership)
        if self._rejoin:
            self._join_once_more()
        if self._displaced:
            self._put_back()
        if self._met or self._undecodable:
            return self._undecodable_batch()
        self._in_hand, size = [], 0
        until, rows = self._clock() + self._max_wait_s, self._limit.rows
        while (room := rows - len(self._in_hand)) > 0 and size < self._max_batch_bytes:
            left_s = until - self._clock()
            taken = self._take(min(_STEP, room), min(max(0.0, left_s), _LOOK_UP_S))
            self._in_hand += taken
            size += sum(record.size for record in taken)
            self._status.beat()
            if left_s <= 0 or stopping():
                break
        batch, self._in_hand = Batch(self._in_hand), []
        if len(batch):
            self._status.broker_seen()
        return batch

    def rewind(self, batch: Batch, *, maybe_committed: bool = False) -> None:
        """Go back to where a batch began that was not published, or to what is committed where that is not certain.

        Partitions that have lost their place are left to `poll`, which goes on there at what is committed.

        Raises:
            FlowsentryError: it cannot be done. To go on would leave records out; a new worker begins in the right place.
        """
        for place in batch.first_offsets:
            self._forget(place.partition)
        assigned = {(place.topic, place.partition) for place in self.consumer.assignment()}
        places = [
            place
            for place in batch.first_offsets
            if (place.topic, place.partition) in assigned and place.partition not in self._displaced
        ]
        if maybe_committed and places:
            committed = {place.partition: place.offset for place in self._offsets.committed(places)}
            for place in places:
                place.offset = max(place.offset, committed[place.partition])
        for place in places:
            self._seek(place)

    def done(self, batch: Batch) -> None:
        """Take note that a batch's offsets are committed."""
        self._offsets.done(batch.next_offsets)

    def lags(self) -> dict[int, int]:
        """Records of each assigned partition that are still to come, as far as the client knows."""
        lags = {}
        positions = self.consumer.position(self.consumer.assignment())
        self._status.partitions = len(positions)
        self._look_where_started([place for place in positions if place.offset < 0])
        for place in positions:
            low, high = self.consumer.get_watermark_offsets(place, cached=True)
            # Before its first record a partition has no position: it stands at its committed offset, or the beginning.
            reached = place.offset if place.offset >= 0 else max(low, self._started_at.get(place.partition, 0))
            if high >= 0:
                lags[place.partition] = max(0, high - reached)
        return lags

    def close(self) -> None:
        """Stop reading. The group keeps a named member's partitions for it until the session is over."""
        self.drain = None
        self._closing = True
        self.consumer.close()

    def _subscribe(self) -> None:
        self.consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def _look_for_owners(self, ownership: Ownership) -> None:
        is_whole = ownership.is_whole()
        self._ask_at = self._clock() + _ASK_AGAIN_S
        if is_whole is not None:
            self._ownership = None
            self._rejoin = not is_whole

    def _join_once_more(self) -> None:
        try:
            self.consumer.unsubscribe()
            self._subscribe()
            self._rejoin = False
        except KafkaException as error:  # if it is fatal, `consume` tells why
            log.warning("cannot join once more yet", error=error_text(error))

    def _put_back(self) -> None:
        """Go on in partitions that have lost their place. Nothing is in hand: what is committed is where to."""
        assigned = self.consumer.assignment()
        displaced = [place for place in assigned if place.partition in self._displaced]
        found = [to for place in displaced if (to := self._offsets.to_go_on_at(place)) is not None]
        known = {place.partition for place in found}
        self._displaced = {place.partition for place in displaced} - known
        if not found:
            return
        # The client does not seek in a partition that it has stopped reading.
        try:
            if self._step_by_step:
                self.consumer.incremental_unassign(found)
                self.consumer.incremental_assign(found)
            else:
                others = [place for place in assigned if place.partition not in known]
                self.consumer.assign([*self._offsets.to_begin_at(others), *found])
        except KafkaException as error:
            raise FlowsentryError(f"{found} cannot be gone on with: {error_text(error)}") from error

    def _seek(self, place: TopicPartition) -> None:
        try:
            self.consumer.seek(place)
        except KafkaException as error:
            raise FlowsentryError(
                f"{place.topic}-{place.partition} cannot be set to {place.offset}: {error_text(error)}"
            ) from error

    def _undecodable_batch(self) -> Batch:
        """Records in the place of those that cannot be unpacked, which say why; all that was read before is committed."""
        for partition, message in list(self._met.items()):
            topic, base = message.topic() or "", message.offset() or 0
            end = end_of_batch(self._probe, topic, partition, base)
            [committed] = self._offsets.committed([TopicPartition(topic, partition)])
            error = message.error()
            why = f"its producer packed it with {end - base - 1} others in a batch that cannot be unpacked: {error}"
            log.error("undecodable batch", begins=f"{topic}-{partition}-{base}", records=end - base, error=str(error))
            self._undecodable[partition] = _Undecodable(topic, max(base, committed.offset), end, why)
            del self._met[partition]
        partition, left = next(iter(self._undecodable.items()))
        first, left.next = left.next, min(left.end, left.next + self._limit.rows)
        if first == left.end:  # and all of it is committed
            self._forget(partition)
            self._seek(TopicPartition(left.topic, partition, left.end))
            return Batch([])
        now_ms = round(time.time() * 1000)
        return Batch(
            [
                FlowRecord(left.topic, partition, offset, None, None, (), now_ms, left.why)
                for offset in range(first, left.next)
            ]
        )

    def _forget(self, partition: int) -> None:
        self._met.pop(partition, None)
        self._undecodable.pop(partition, None)

    def _take(self, count: int, wait_s: float) -> list[FlowRecord]:
        """Up to `count` records of partitions that are still ours.

        Rebalances happen within the call. It may also return records that were fetched before one: whoever has their
        partition now begins at its committed offset, so to judge them here as well would judge them twice.
        """
        self._released = set()
        messages = self.consumer.consume(count, wait_s)
        if self._failure is not None:
            raise self._failure
        records = [record_of(message) for message in messages if not self._is_error(message)]
        for partition in self._released:
            self._forget(partition)
        kept = [record for record in records if record.partition not in self._released]
        if len(kept) < len(records):
            # Back already, in the same call? Then its next record is the first that is not committed.
            dropped = Batch([record for record in records if record.partition in self._released])
            self.rewind(dropped, maybe_committed=True)
        if self._undone is not None:
            (batch, maybe_committed), self._undone = self._undone, None
            self.rewind(Batch([*batch.records, *kept]), maybe_committed=maybe_committed)
            return []
        return kept

    def _is_error(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return False
        if is_fenced(error):
            raise FencedError(
                f"fenced: another worker of the group has this one's name ({error.str()}). "
                "Give each instance its own stream.instance"
            )
        raise_if_denied(error, self._denied)
        if error.code() in UNDECODABLE and (offset := message.offset()) is not None and offset >= 0:
            self._met.setdefault(message.partition() or 0, message)
            return True
        if error.code() in LOST_ITS_PLACE and message.partition() is not None:
            self._displaced.add(message.partition() or 0)
        if error.fatal() or error.code() == KafkaError._FATAL:
            raise FlowsentryError(f"the consumer cannot go on: {error.str()}")
        log.warning("consumer", error=error.str())
        return True

    def _look_where_started(self, places: Iterable[TopicPartition]) -> None:
        unknown = [TopicPartition(it.topic, it.partition) for it in places if it.partition not in self._started_at]
        if not unknown:
            return
        try:
            found = self.consumer.committed(unknown, timeout=_LAG_TIMEOUT_S)
        except KafkaException as error:
            # Only the lag of partitions not read yet hangs on it; the records do not. It is asked again.
            log.debug("committed offsets not known yet", error=error_text(error))
            return
        self._started_at |= {place.partition: place.offset for place in found if place.error is None}

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.info("partitions assigned", partitions=[place.partition for place in partitions])
        self._ask_at = self._ask_at or self._clock() + _ASK_AGAIN_S
        self._rebalances.labels("assigned").inc()
        self._status.broker_seen()
        for place in partitions:
            self._started_at.pop(place.partition, None)
        if self._closing:
            return
        try:
            begin_at = self._offsets.to_begin_at(partitions)
            if self._step_by_step:
                consumer.incremental_assign(begin_at)
            else:
                consumer.assign(begin_at)
        except Exception as error:  # as in `_revoked`
            self._failure = error

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        in_hand, self._in_hand = Batch(self._in_hand), []
        self._released |= {place.partition for place in partitions}
        log.info("partitions revoked", partitions=[place.partition for place in partitions], in_hand=len(in_hand))
        self._rebalances.labels("revoked").inc()
        if not len(in_hand) or self.drain is None:
            return
        try:
            self.drain(in_hand)
        except RetryBatch as error:
            log.warning("not drained, left to the next owner", records=len(in_hand), why=str(error))
            self._undone = in_hand, error.maybe_committed
        except Exception as error:  # an exception here would be lost in the client library: `_take` raises it
            self._failure = error

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        in_hand, self._in_hand = Batch(self._in_hand), []
        self._released |= {place.partition for place in partitions}
        self._status.trouble()
        log.warning("partitions lost", partitions=[place.partition for place in partitions], in_hand=len(in_hand))
        self._rebalances.labels("lost").inc()
        if len(in_hand):
            self._undone = in_hand, False
