"""The service: bytes ─decode→ columns ─score→ scores ─detect→ alerts ─publish→ bytes, and nothing lost on the way."""

import time
import traceback
from collections import Counter
from collections.abc import Callable

import structlog

from export.detector import Detector
from schemas.errors import FlowsentryError
from stream.decode import Decoder
from stream.detect import Policy, dead_letter, detect
from stream.metrics import Metrics
from stream.sink import Outgoing, RetryBatch, Sink
from stream.source import Batch, Source

__all__ = ["SOURCE_TIME_HEADER", "BatchFailed", "Service"]

log = structlog.get_logger()

SOURCE_TIME_HEADER = "flowsentry-source-time-ms"
_LAG_EVERY_S = 1.0
_RETRY_AFTER_S = 0.2
_GIVE_UP_AFTER_S = 300.0


class BatchFailed(Exception):
    """A bug met a batch; it is logged, nothing of the batch was published, and its offsets are not committed."""


class Service:
    """One worker."""

    def __init__(
        self,
        *,
        source: Source,
        decoder: Decoder,
        detector: Detector,
        policy: Policy,
        sink: Sink,
        alerts_topic: str,
        dead_letters_topic: str,
        metrics: Metrics,
    ) -> None:
        self._source = source
        self._decoder = decoder
        self._detector = detector
        self._policy = policy
        self._sink = sink
        self._alerts_topic = alerts_topic
        self._dead_letters_topic = dead_letters_topic
        self._metrics = metrics
        self._lag_at = 0.0
        self._failing_since: float | None = None

    def run(self, stopping: Callable[[], bool]) -> None:
        """Go on until `stopping()`; the batch in hand is finished first.

        Raises:
            FlowsentryError: the broker refuses, or another worker has taken this one's place.
            BatchFailed: a bug.
        """
        while not stopping():
            with self._metrics.stage("consume"):
                batch = self._source.poll()
            if len(batch):
                self._attempt(batch)
            self._report_lag()

    def _attempt(self, batch: Batch) -> None:
        try:
            self.process(batch)
            self._failing_since = None
        except RetryBatch as error:
            self._metrics.retries.inc()
            self._failing_since = self._failing_since or time.monotonic()
            if time.monotonic() - self._failing_since > _GIVE_UP_AFTER_S:
                places = ", ".join(f"{place.topic}-{place.partition}-{place.offset}" for place in batch.first_offsets)
                raise FlowsentryError(
                    f"nothing could be published for {_GIVE_UP_AFTER_S:.0f} s ({error}); stopping, with the offsets "
                    f"uncommitted, at the batch that begins with {places}"
                ) from error
            log.warning("batch is done again", records=len(batch), why=str(error))
            self._source.rewind(batch)
            time.sleep(_RETRY_AFTER_S)
        except FlowsentryError:
            raise
        except Exception as error:
            # A bug, not bad data: stop here, with the offsets uncommitted, and say where. Not in the error's own words,
            # which may quote a flow; whoever has its record can repeat it.
            begins = [f"{place.topic}-{place.partition}-{place.offset}" for place in batch.first_offsets]
            frames = traceback.extract_tb(error.__traceback__)
            log.error(
                "batch failed",
                begins=begins,
                records=len(batch),
                error=type(error).__name__,
                at=[f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
            )
            raise BatchFailed(f"{type(error).__name__} in the {len(batch)} records from {', '.join(begins)}") from None

    def process(self, batch: Batch) -> None:
        """One batch, from bytes to the committed transaction."""
        with self._metrics.stage("decode"):
            decoded = self._decoder.decode(batch.values)
        with self._metrics.stage("score"):
            scores = self._detector.score(decoded.columns)
        with self._metrics.stage("detect"):
            alerts = detect(batch, decoded, scores, self._detector, self._policy)
            letters = [(batch.records[reject.row], reject) for reject in decoded.rejects]
            messages = [
                Outgoing(
                    topic=self._alerts_topic,
                    key=alert.id.encode(),
                    value=alert.model_dump_json().encode(),
                    headers=[(SOURCE_TIME_HEADER, str(record.timestamp_ms).encode())],
                )
                for record, alert in alerts
            ]
            messages += [
                Outgoing(
                    topic=self._dead_letters_topic,
                    key=record.key,
                    value=record.value,
                    headers=[*record.headers, *dead_letter(record, reject).to_headers()],
                )
                for record, reject in letters
            ]
        with self._metrics.stage("publish"):
            self._sink.publish(messages, batch.next_offsets)

        now_ms = time.time() * 1000
        for record, alert in alerts:
            self._metrics.alerts.labels(alert.family, alert.severity.value).inc()
            self._metrics.latency_seconds.observe(max(0.0, now_ms - record.timestamp_ms) / 1000)
        for reason, count in Counter(reject.reason.value for reject in decoded.rejects).items():
            self._metrics.dead_letters.labels(reason).inc(count)
            log.warning("records set aside", reason=reason, count=count)
        self._metrics.batches.inc()
        self._metrics.batch_size.observe(len(batch))
        self._metrics.flows.inc(len(batch))  # last: who sees flows counted sees what came of them counted

    def _report_lag(self) -> None:
        now = time.monotonic()
        if now - self._lag_at >= _LAG_EVERY_S:
            self._metrics.set_lags(self._source.lags())
            self._lag_at = now
