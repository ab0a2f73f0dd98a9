"""`python -m tests.faults --seed 1 --faults 8`: one run of the harness."""

import argparse
import sys
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.harness import run_faults
from tests.faults.kafka import FaultyKafka
from tests.faults.schedule import KINDS, every_kind, schedule


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--faults", type=int, default=10, metavar="N")
    parser.add_argument(
        "--kinds", nargs="+", choices=list(KINDS), default=[], help="one fault of each of these instead"
    )
    parser.add_argument("--rate", type=float, default=200.0, metavar="FLOWS_PER_S")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the service's logs there")
    arguments = parser.parse_args()
    if arguments.kinds:
        faults = every_kind(arguments.seed, arguments.kinds)
    else:
        faults = list(islice(schedule(arguments.seed), arguments.faults))
    with TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with FaultyKafka(folder / "kafka") as kafka:
            replay = f"python -m tests.faults {' '.join(sys.argv[1:])}"
            report = run_faults(kafka, folder, faults, seed=arguments.seed, rate=arguments.rate, replay=replay)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
