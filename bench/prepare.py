"""What `trainer prepare` needs for a data set as large as the whole of CICIDS2017 (2.8 million flows) or UNSW-NB15 (2.5 million).

The flows are drawn at random: what they mean does not matter here, but how many there are and how wide they are.
"""

import argparse
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from export.progress import track
from schemas.datasets import SCHEMAS
from schemas.flow import FlowSchema, Kind

__all__ = ["main", "write_flows"]

ROWS = {"cicids2017": 2_830_743, "cicids2017-improved": 2_099_976, "unsw-nb15": 2_540_044}
"""As many as the whole data sets have."""
_CHUNK = 100_000
_CATEGORIES = tuple(f"c{number}" for number in range(12))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.prepare", description=__doc__)
    parser.add_argument("--dataset", choices=SCHEMAS, default="cicids2017", help="whose columns (default: cicids2017)")
    parser.add_argument("--rows", type=int, metavar="N", help="default: as many as the whole data set has")
    parser.add_argument("--most-gb", type=float, default=4.0, metavar="GB", help="fail above this peak (default: 4)")
    arguments = parser.parse_args(argv)
    rows = arguments.rows or ROWS[arguments.dataset]
    schema = SCHEMAS[arguments.dataset]
    with TemporaryDirectory(prefix="flowsentry-prepare-") as folder:
        size = write_flows(Path(folder) / "flows", schema, rows)
        began_s = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "trainer", "prepare", "--dataset", schema.name, "--data", f"{folder}/flows",
             "--out", f"{folder}/prepared"],
            check=True,
        )  # fmt: skip
        took_s = time.monotonic() - began_s
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6  # Linux tells kilobytes
    print(
        f"{schema.name}: {rows:,} rows of {len(schema.features)} features, {size / 1e9:.2f} GB of CSV, on {platform.machine()}: "
        f"{took_s:.0f} s, {rows / took_s:,.0f} rows/s, at most {peak_gb:.2f} GB of memory"
    )
    return 0 if peak_gb <= arguments.most_gb else 1


def write_flows(folder: Path, schema: FlowSchema, rows: int, *, seed: int = 0) -> int:
    """Write CSVs of random flows, half of them attacks, no two alike; how many bytes."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    starts = list(range(0, rows, _CHUNK))
    for number, start in enumerate(track(starts, "inventing flows")):
        count = min(_CHUNK, rows - start)
        columns: dict[str, np.ndarray] = {}
        for feature in schema.features:
            if feature.kind is Kind.NUMERIC:
                columns[feature.name] = np.round(np.exp(rng.normal(4, 3, count)), 3)
            else:
                columns[feature.name] = rng.choice(_CATEGORIES, count)
        columns[schema.label_columns[0]] = rng.choice([family.name for family in schema.families], count)
        pl.DataFrame(columns).write_csv(folder / f"part-{number:02}.csv")
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    sys.exit(main())
