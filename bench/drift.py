"""What measuring drift costs: throughput of decoding, scoring and detecting with it, over that without.

Both are measured in turn in one run, so that only their ratio matters. Batches come as fast as they are judged, and the limit of
flows that are counted in a second holds for the processor's seconds: as on a machine that does nothing else.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.malformed import machine
from export.detector import Detector, load
from export.drift_reference import DriftReference
from schemas.alert import BundleRef
from schemas.params import DriftParams
from stream.batch import Batch, FlowRecord
from stream.csv_records import records
from stream.decode import Decoder
from stream.drift import DriftWatch
from stream.judge import Judge
from trainer.drift import read_window, reference_of_rows

__all__ = ["compare", "main", "reference_from"]

SAMPLE = Path("stream/sample/cicids2017-improved.csv.gz")
BUNDLE = Path("bundles/cicids2017-improved")
_TARGET_FPR = 0.01


def reference_from(file: Path, detector: Detector) -> DriftReference:
    """A reference of a file's flows, of which alerts are the attacks, for bundles that were built before they had one."""
    flows = read_window([file], detector, 0.5)
    policy = detector.manifest.policy_for(_TARGET_FPR)
    return reference_of_rows(
        detector, flows.columns, flows.scores, policy.alerts(flows.scores.score, flows.scores.novelty).astype(np.int8)
    )


def compare(detector: Detector, reference: DriftReference, values: Sequence[bytes], size: int, rounds: int) -> float:
    """Flows a second with drift over those without: of batches judged in turn, the median of the pairs."""
    decoder = Decoder(detector.schema, min_feature_coverage=0.5)
    policy = detector.manifest.policy_for(_TARGET_FPR)
    watch = DriftWatch(
        reference, DriftParams(), bundle=BundleRef(name="", version="", hash=""), worker="", clock=time.process_time
    )
    judges = [Judge(detector, decoder, policy, lambda _: nullcontext(), drift) for drift in (None, watch)]
    rows = cycle(values)
    ratios = []
    for number in range(rounds + 2):
        batch = Batch([FlowRecord("flows", 0, at, None, value, (), 0) for at, value in enumerate(islice(rows, size))])
        seconds = [0.0, 0.0]
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.process_time()
            judged = judges[which].judge(batch)
            if which:
                for scored in judged.scored:
                    watch.observe(*scored)
                watch.look()
            seconds[which] = time.process_time() - began
        if number > 1:  # the first are to warm up
            ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.drift",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=__doc__,
        epilog="""examples:
  python -m bench.drift                                  batches of 16, 128 and 512, a table, then JSON
  python -m bench.drift --batch-size 512 --rounds 100    one size, more exactly

Time is the processor's, of all threads, so that other programs on the machine do not count.
The exit status is 1 if the ratio of the largest batches is below --least: on a busy stream they are full.""",
    )
    parser.add_argument("--batch-size", action="append", type=int, help="may be repeated; default: 16, 128 and 512")
    parser.add_argument("--rounds", type=int, default=40, help="pairs of batches of each size (default: 40)")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help=f"detector (default: {BUNDLE})")
    parser.add_argument("--input", type=Path, default=SAMPLE, help=f"CSV of flows (default: {SAMPLE})")
    parser.add_argument("--least", type=float, default=0.97, help="smallest ratio that passes (default: 0.97)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table and the same as JSON; the exit status."""
    arguments = _arguments(argv)
    detector = load(arguments.bundle, threads=1)
    reference = detector.manifest.drift or reference_from(arguments.input, detector)
    values = [record.value for record in records(arguments.input, detector.schema)]
    sizes = sorted(arguments.batch_size or (16, 128, 512))
    ratios = {size: compare(detector, reference, values, size, arguments.rounds) for size in sizes}
    table = Table("batch", "with drift over without", title="What measuring drift costs")
    for size, ratio in ratios.items():
        table.add_row(str(size), f"{ratio:.4f}")
    Console().print(table)
    print(json.dumps({"machine": machine(), "ratios": {str(size): round(ratio, 4) for size, ratio in ratios.items()}}))
    print(f"ratio of batches of {sizes[-1]}: {ratios[sizes[-1]]:.4f}, expected at least {arguments.least:g}")
    return 0 if ratios[sizes[-1]] >= arguments.least else 1


if __name__ == "__main__":
    sys.exit(main())
