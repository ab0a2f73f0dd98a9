"""`stream sample`: a uniform sample of the flows on the topic, as Parquet, for drift reports and for training anew."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl
import structlog

from schemas.errors import FlowsentryError, ParamsError
from schemas.flow import FlowSchema, Kind
from stream.decode import Decoder
from stream.reservoir import RecentReservoir
from stream.viewing import open_view

__all__ = ["run_sampling", "write_sample"]

log = structlog.get_logger()

WRITE_EVERY_S = 5.0
_BATCH = 512
_BATCH_S = 0.5


def run_sampling(
    bootstrap_servers: str,
    topic: str,
    decoder: Decoder,
    schema: FlowSchema,
    out: Path,
    *,
    kafka: Mapping[str, str | int | float | bool],
    size: int,
    seconds: float | None,
    from_beginning: bool,
    limit: int | None,
    stop: threading.Event,
    on_progress: Callable[[int, float], None] = lambda seen, seconds: None,
    report: Callable[[str], None] | None = None,
) -> tuple[int, int]:
    """Keep `size` of the flows that come, each as likely as any other, until `stop` is set or `limit` flows came.

    The file is written anew every few seconds and at the end, in one step. Nothing is committed or taken from others; records
    that the service would set aside are left out.

    Args:
        seconds: of the flows of the last so many seconds; None: of all that come.
        on_progress: called with the flows that came so far, and the seconds that took.

    Returns:
        How many flows came, and how many the file holds: 0 where none came, and then nothing is written.

    Raises:
        FlowsentryError: no Kafka answers at the start, access is refused, or the file cannot be written.
    """
    for name, value in (("size", size), ("seconds", seconds)):
        if value is not None and not value > 0:
            raise ParamsError(f"--{name} {value:g}: expected a number above 0")
    sample = RecentReservoir(schema, size, seconds)
    view = open_view(bootstrap_servers, topic, kafka=kafka, from_beginning=from_beginning, what="flows", report=report)
    began_s = written_s = time.monotonic()
    came = unusable = 0
    try:
        while not stop.is_set() and (limit is None or came < limit):
            values: list[bytes | None] = []
            until_s = time.monotonic() + _BATCH_S
            while len(values) < _BATCH and time.monotonic() < until_s and not stop.is_set():
                if (message := view.poll()) is not None:
                    values.append(message.value())
                    if limit is not None and came + len(values) >= limit:
                        break
            decoded = decoder.decode(values)
            unusable += len(decoded.rejects)
            came += len(values)
            if len(decoded.rows):
                sample.add(decoded.columns)
            on_progress(came, time.monotonic() - began_s)
            if time.monotonic() - written_s > WRITE_EVERY_S and len(sample):
                write_sample(sample, schema, out)
                written_s = time.monotonic()
    finally:
        view.close()
    if unusable:
        log.warning("records that cannot be used are left out", count=unusable)
    kept = write_sample(sample, schema, out) if len(sample) else 0
    return came, kept


def write_sample(sample: RecentReservoir, schema: FlowSchema, out: Path) -> int:
    """Write the flows that are kept now, in one step: a column for each feature, null where it is missing; how many.

    Raises:
        FlowsentryError: it cannot be written.
    """
    columns = sample.sample()
    frame = pl.DataFrame(
        {
            feature.name: pl.Series(columns[feature.name], dtype=pl.Float32, nan_to_null=True)
            if feature.kind is Kind.NUMERIC
            else pl.Series(columns[feature.name].tolist(), dtype=pl.String)
            for feature in schema.features
        }
    )
    partial = out.with_name(out.name + ".partial")
    try:
        frame.write_parquet(partial)
        partial.replace(out)
    except OSError as error:
        raise FlowsentryError(f"{out}: {error.strerror or error}") from None
    return frame.height
