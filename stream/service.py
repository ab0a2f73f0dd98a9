"""The service: bytes ─decode→ columns ─score→ scores ─detect→ alerts ─publish→ bytes, and nothing lost on the way."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import numpy as np
import structlog

from schemas.errors import FlowsentryError
from schemas.event import DriftEvent
from stream.batch import Batch
from stream.batch_limit import BatchLimit
from stream.encode import messages_of, messages_of_events
from stream.judge import BatchFailed, Judge, Judged, OnPoison, judge_or_bisect
from stream.metrics import Metrics
from stream.sink import Outgoing, RetryBatch, Sink, Stopped
from stream.source import Source
from stream.status import Status

__all__ = ["BatchFailed", "Service"]

log = structlog.get_logger()

_LAG_EVERY_S = 1.0
_GIVE_UP_AFTER_S = 300.0
_EVENTS_WAIT_S = 20.0
_DRAIN_WITHIN_S = 10.0


class Succession(Protocol):
    """Whoever knows of a new bundle: given the judge in office and a batch it has done, the judge of the next batch."""

    def successor(self, judge: Judge, batch: Batch) -> Judge: ...


class Service:
    """One worker."""

    def __init__(
        self,
        *,
        source: Source,
        judge: Judge,
        sink: Sink,
        succession: Succession | None,
        limit: BatchLimit,
        alerts_topic: str,
        dead_letters_topic: str,
        events_topic: str | None,
        on_poison: OnPoison,
        metrics: Metrics,
        status: Status,
        progressed: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._judge = judge
        self._sink = sink
        self._succession = succession
        self._limit = limit
        self._alerts_topic = alerts_topic
        self._dead_letters_topic = dead_letters_topic
        self._events_topic = events_topic
        self._on_poison: OnPoison = on_poison
        self._metrics = metrics
        self._status = status
        self._progressed = progressed
        self._lag_at = 0.0
        self._events: list[DriftEvent] = []  # that are to go out with the next batch
        self._failing_since: float | None = None
        self._alone: set[str] = set()  # records whose messages were refused as too large, perhaps with others
        self._cut: set[str] = set()  # and those whose dead letters were so alone
        source.drain = self._drain

    def run(self, stopping: Callable[[], bool]) -> None:
        """Go on until `stopping()`; the batch in hand is finished first.

        Raises:
            FlowsentryError: the broker refuses, or another worker has taken this one's place.
            BatchFailed: a bug.
        """
        try:
            while not stopping():
                self._status.beat()
                with self._metrics.stage("consume"):
                    batch = self._source.poll(stopping)
                if len(batch):
                    self._attempt(batch)
                self._report_lag()
                self._report_drift()
        except Stopped:
            log.warning("stopped while waiting for Kafka; the batch in hand is left uncommitted")

    def process(self, batch: Batch, within_s: float | None = None) -> None:
        """One batch, from bytes to the committed transaction."""
        began = time.monotonic()
        judged, messages = judge_or_bisect(self._judge, batch, self._on_poison, self._encode)
        with self._metrics.stage("publish"):
            left_s = None if within_s is None else max(0.0, within_s - (time.monotonic() - began))
            self._sink.publish([*messages, *self._event_messages()], batch.next_offsets, within_s=left_s)
        self._source.done(batch)
        self._limit.observe(len(batch), time.monotonic() - began)
        self._alone.clear()
        self._cut.clear()
        self._events.clear()
        self._watch_drift(judged)
        self._count(batch, judged)

    def _encode(self, judged: Judged) -> list[Outgoing]:
        with self._metrics.stage("encode"):
            return messages_of(
                judged,
                alerts_topic=self._alerts_topic,
                dead_letters_topic=self._dead_letters_topic,
                alone=self._alone,
                cut=self._cut,
            )

    def _event_messages(self) -> list[Outgoing]:
        if self._events_topic is None:
            return []
        return messages_of_events(self._events, self._events_topic, alone=self._alone)

    def _attempt(self, batch: Batch) -> None:
        try:
            self.process(batch)
        except RetryBatch as error:
            retry = error.with_traceback(None)  # whose frames would keep a producer that has been given up
        else:
            self._failing_since = None
            if self._succession is not None:
                self._judge = self._succession.successor(self._judge, batch)
            return
        # Not in the `except`, see `TransactionalSink.publish`.
        self._metrics.retries.inc()
        if not retry.fenced:  # that alone does not say that Kafka was away
            self._status.trouble()
        self._give_up_if_too_long(batch, retry)
        self._drop_events_if_too_long()
        self._note_too_large(retry)
        log.warning("batch is done again", records=len(batch), why=str(retry))
        time.sleep(retry.after_s)
        self._sink.settle()
        self._source.rewind(batch, maybe_committed=retry.maybe_committed)

    def _drain(self, batch: Batch) -> None:
        self.process(batch, _DRAIN_WITHIN_S)

    def _give_up_if_too_long(self, batch: Batch, error: RetryBatch) -> None:
        self._failing_since = self._failing_since or time.monotonic()
        if time.monotonic() - self._failing_since > _GIVE_UP_AFTER_S:
            places = ", ".join(f"{place.topic}-{place.partition}-{place.offset}" for place in batch.first_offsets)
            raise FlowsentryError(
                f"nothing could be published for {_GIVE_UP_AFTER_S:.0f} s ({error}); stopping, with the offsets "
                f"uncommitted, at the batch that begins with {places}"
            ) from error

    def _drop_events_if_too_long(self) -> None:
        """Their topic may be why nothing can be published, and alerts do not wait for it."""
        failing_s = 0.0 if self._failing_since is None else time.monotonic() - self._failing_since
        if self._events and failing_s > _EVENTS_WAIT_S:
            log.warning("events of drift are dropped", count=len(self._events))
            self._events.clear()

    def _note_too_large(self, error: RetryBatch) -> None:
        for message in error.too_large:
            if not message.alone:
                self._alone.add(message.record_id)
            elif message.topic == self._dead_letters_topic and message.record_id not in self._cut:
                self._cut.add(message.record_id)
            else:
                raise FlowsentryError(
                    f"topic {message.topic!r} takes no message of {len(message.value or b'')} bytes ({error}): raise its "
                    "max.message.bytes"
                ) from error

    def _count(self, batch: Batch, judged: Judged) -> None:
        now_ms = time.time() * 1000
        for alerts in judged.alerts:
            for (family, severity), count in alerts.count().items():
                self._metrics.alerts.labels(family, severity).inc(count)
            self._metrics.latency_seconds.observe(np.maximum(0.0, now_ms - alerts.sent_ms) / 1000)
        for reason, count in Counter(reject.reason.value for _, reject in judged.rejects).items():
            self._metrics.dead_letters.labels(reason).inc(count)
            log.warning("records set aside", reason=reason, count=count)
        self._metrics.batches.inc()
        self._metrics.batch_size.observe(len(batch))
        self._metrics.flows.inc(len(batch))  # last: who sees flows counted sees what came of them counted
        self._status.broker_seen()
        self._progressed()

    def _watch_drift(self, judged: Judged) -> None:
        """Only now that the batch is published: one that is done again counts once."""
        if self._judge.drift is not None:
            for scored in judged.scored:
                self._judge.drift.observe(*scored)

    def _report_drift(self) -> None:
        picture = None if self._judge.drift is None else self._judge.drift.look()
        if picture is None:
            return
        self._metrics.set_drift(picture)
        self._events += picture.events
        for event in picture.events:
            log.warning("drift", state=event.state.value, feature=event.feature, psi=round(event.psi, 3))

    def _report_lag(self) -> None:
        now = time.monotonic()
        if now - self._lag_at >= _LAG_EVERY_S:
            self._metrics.set_lags(self._source.lags())
            self._lag_at = now
