"""The service: bytes ─decode→ columns ─score→ scores ─detect→ alerts ─publish→ bytes, and nothing lost on the way."""

import time
from collections import Counter
from collections.abc import Callable

import structlog

from export.detector import Detector
from stream.decode import Decoder
from stream.detect import Policy, dead_letter, detect
from stream.metrics import Metrics
from stream.sink import Outgoing, RetryBatch, Sink
from stream.source import Batch, Source

__all__ = ["SOURCE_TIME_HEADER", "Service"]

log = structlog.get_logger()

SOURCE_TIME_HEADER = "flowsentry-source-time-ms"
_LAG_EVERY_S = 1.0
_RETRY_AFTER_S = 0.2


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

    def run(self, stopping: Callable[[], bool]) -> None:
        """Go on until `stopping()`; the batch in hand is finished first."""
        while not stopping():
            with self._metrics.stage("consume"):
                batch = self._source.poll()
            if len(batch):
                self._attempt(batch)
            self._report_lag()

    def _attempt(self, batch: Batch) -> None:
        try:
            self.process(batch)
        except RetryBatch as error:
            self._metrics.retries.inc()
            log.warning("batch is done again", records=len(batch), why=str(error))
            self._source.rewind(batch)
            time.sleep(_RETRY_AFTER_S)
        except Exception:
            # A bug, not bad data: stop here, with the offsets uncommitted, and say where.
            log.exception("batch failed", begins=[str(place) for place in batch.first_offsets], records=len(batch))
            raise

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

        self._metrics.flows.inc(len(batch))
        self._metrics.batches.inc()
        self._metrics.batch_size.observe(len(batch))
        now_ms = time.time() * 1000
        for record, alert in alerts:
            self._metrics.alerts.labels(alert.family, alert.severity.value).inc()
            self._metrics.latency_seconds.observe(max(0.0, now_ms - record.timestamp_ms) / 1000)
        for reason, count in Counter(reject.reason.value for reject in decoded.rejects).items():
            self._metrics.dead_letters.labels(reason).inc(count)
            log.warning("records set aside", reason=reason, count=count)

    def _report_lag(self) -> None:
        now = time.monotonic()
        if now - self._lag_at >= _LAG_EVERY_S:
            self._metrics.set_lags(self._source.lags())
            self._lag_at = now
