"""What malformed records cost: throughput of a stream of which half is malformed, over that of a clean one.

Both are measured in turn in one run, so that only their ratio matters. A record is a record, scored or set aside.
"""

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path

from rich.console import Console
from rich.table import Table

from export.detector import Detector, load
from stream.alert_json import json_of
from stream.batch import Batch, FlowRecord
from stream.csv_records import records
from stream.decode import Decoded, Decoder, Limits
from stream.detect import dead_letter, detect

__all__ = ["KINDS", "half_malformed", "machine", "main"]

SAMPLE = Path("stream/sample/cicids2017-improved.csv.gz")
BUNDLE = Path("bundles/cicids2017-improved")

Malform = Callable[[bytes, random.Random], bytes]
Work = Callable[[Batch], object]


def _other_value(value: bytes, rng: random.Random, raw: str) -> bytes:
    """The record with one of its values, an unquoted one, replaced by `raw`."""
    members = json.loads(value)
    key = rng.choice([key for key, given in members.items() if isinstance(given, int | float)])
    parts = [f"{json.dumps(name)}: {raw if name == key else json.dumps(given)}" for name, given in members.items()]
    return ("{" + ", ".join(parts) + "}").encode()


KINDS: dict[str, Malform] = {
    "truncated": lambda value, rng: value[: rng.randrange(1, len(value))],
    "cut within": lambda value, rng: value[: value.index(b'":', rng.randrange(len(value) // 2)) + 2] + b"}",
    "garbage": lambda value, rng: rng.randbytes(len(value)),
    "wrong type": lambda value, rng: _other_value(value, rng, rng.choice(['"x"', "true", "[1, 2]", '{"a": 1}'])),
    "NaN": lambda value, rng: _other_value(value, rng, rng.choice(["NaN", "Infinity", "-Infinity"])),
    "out of range": lambda value, rng: _other_value(value, rng, rng.choice(["1e400", "1e39", "9" * 60])),
    "given twice": lambda value, rng: value[:-1] + b', "Flow Duration": 1}',
    "string too long": lambda value, rng: _other_value(value, rng, '"' + "x" * (Limits().max_string_chars + 1) + '"'),
    "too deep": lambda value, rng: _other_value(value, rng, "[" * Limits().max_depth + "]" * Limits().max_depth),
}


def half_malformed(values: Sequence[bytes], kind: str, rng: random.Random) -> list[bytes]:
    """The same records, every other one of them malformed in one way, or each in another one if the kind is `mixed`."""
    ways = list(KINDS.values()) if kind == "mixed" else [KINDS[kind]]
    return [rng.choice(ways)(value, rng) if row % 2 else value for row, value in enumerate(values)]


def _batch(values: Sequence[bytes]) -> Batch:
    return Batch([FlowRecord("flows", 0, offset, None, value, (), 0) for offset, value in enumerate(values)])


def _set_aside(batch: Batch, decoded: Decoded) -> None:
    for reject in decoded.rejects:
        dead_letter(batch.records[reject.row], reject).to_headers()


def _works(detector: Detector) -> dict[str, Callable[[], Work]]:
    """What is timed, each with a decoder of its own that has seen the stream before."""

    def decoder() -> Decoder:
        return Decoder(detector.schema, min_feature_coverage=0.5)

    def decode_only() -> Work:
        reading = decoder()
        return lambda batch: reading.decode(batch.values)

    def decode_and_set_aside() -> Work:
        reading = decoder()
        return lambda batch: _set_aside(batch, reading.decode(batch.values))

    def everything() -> Work:
        reading = decoder()
        policy = detector.manifest.policy_for(0.01)

        def work(batch: Batch) -> None:
            decoded = reading.decode(batch.values)
            scores = detector.score(decoded.columns)
            alerts = detect(batch, decoded, scores, policy.alerts(scores.score, scores.novelty), detector, policy)
            json_of(alerts)
            _set_aside(batch, decoded)

        return work

    return {"decode": decode_only, "decode, set aside": decode_and_set_aside, "all": everything}


def _compare(make: Callable[[], Work], clean: Batch, half: Batch, rounds: int) -> tuple[float, float]:
    """Records a second of the clean stream and of the other, medians of batches taken in turn."""
    seconds: dict[int, list[float]] = {0: [], 1: []}
    works = (make(), make())
    for number in range(rounds + 1):
        for which in (0, 1) if number % 2 else (1, 0):
            batch = (clean, half)[which]
            begin = time.process_time()
            works[which](batch)
            if number:  # the first is to warm up
                seconds[which].append(time.process_time() - begin)
    return len(clean) / statistics.median(seconds[0]), len(half) / statistics.median(seconds[1])


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.malformed",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog="""what is timed, in this process, without Kafka:
  decode             bytes to feature columns
  decode, set aside  and the dead letters' headers: the ratio of a detector that costs nothing, the hardest
  all                and scores and alerts, with the bundle: the service but for Kafka. Its ratio is the promise

Time is the processor's, of all threads, so that other programs on the machine do not count.

examples:
  python -m bench.malformed                            all kinds, batches of 512 and 4096, a table, then JSON
  python -m bench.malformed --kind NaN --rounds 50     one kind, more exactly
  python -m bench.malformed --no-score                 seconds instead of minutes: leaves `all` out

The exit status is 1 if a ratio of `all` is below --least.""",
    )
    parser.add_argument("--kind", action="append", choices=[*KINDS, "mixed"], help="may be repeated; default: all")
    parser.add_argument("--batch-size", action="append", type=int, help="may be repeated; default: 512 and 4096")
    parser.add_argument("--rounds", type=int, default=9, help="batches of each stream (default: 9), of `all` a quarter")
    parser.add_argument("--no-score", action="store_true", help="leave `all` out, which takes most of the time")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help=f"detector for `all` (default: {BUNDLE})")
    parser.add_argument("--input", type=Path, default=SAMPLE, help=f"CSV of flows (default: {SAMPLE})")
    parser.add_argument("--seed", type=int, default=1, help="of what is malformed, and how (default: 1)")
    parser.add_argument("--least", type=float, default=0.5, help="smallest ratio that passes (default: 0.5)")
    return parser.parse_args(argv)


def machine() -> dict[str, object]:
    """What a measurement was made on."""
    packages = ("polars", "numpy", "onnxruntime", "pydantic")
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table and the same as JSON; the exit status."""
    arguments = _arguments(argv)
    detector = load(arguments.bundle, threads=1)
    rows = [record.value for record in records(arguments.input, detector.schema)]
    works = _works(detector)
    if arguments.no_score:
        del works["all"]
    results = []
    table = Table("batch", "malformed half", "timed", "clean/s", "half malformed/s", "ratio", title="Malformed records")
    for size in arguments.batch_size or (512, 4096):
        values = list(islice(cycle(rows), size))
        for kind in arguments.kind or [*KINDS, "mixed"]:
            half = _batch(half_malformed(values, kind, random.Random(arguments.seed)))
            for timed, make in works.items():
                clean_per_s, half_per_s = _compare(
                    make, _batch(values), half, max(1, arguments.rounds // 4) if timed == "all" else arguments.rounds
                )
                ratio = half_per_s / clean_per_s
                results.append(
                    {
                        "batch_size": size,
                        "kind": kind,
                        "timed": timed,
                        "clean_per_s": round(clean_per_s),
                        "half_malformed_per_s": round(half_per_s),
                        "ratio": round(ratio, 3),
                    }
                )
                table.add_row(str(size), kind, timed, f"{clean_per_s:,.0f}", f"{half_per_s:,.0f}", f"{ratio:.2f}")
    Console().print(table)
    print(json.dumps({"machine": machine(), "seed": arguments.seed, "results": results}))
    if arguments.no_score:
        return 0
    worst = min(float(str(result["ratio"])) for result in results if result["timed"] == "all")
    print(f"smallest ratio of all: {worst:.2f}, expected at least {arguments.least:g}")
    return 0 if worst >= arguments.least else 1


if __name__ == "__main__":
    sys.exit(main())
