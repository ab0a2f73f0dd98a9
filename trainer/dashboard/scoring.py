"""A CSV as someone uploads it → its verdicts as a CSV, by the code of `export score`."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from export.detector import Detector
from export.scoring import score_file
from export.thresholds import Policy
from schemas.errors import FlowsentryError

__all__ = ["Verdicts", "verdicts"]


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What `export score` writes, and how many rows were scored, are attacks, were refused (by reason); `missing` are features
    without a column."""

    verdicts: bytes
    rejects: bytes
    scored: int
    attacks: int
    rejected: Mapping[str, int]
    missing: tuple[str, ...]

    def first(self, rows: int) -> pl.DataFrame:
        """The verdicts on the first rows."""
        return pl.read_csv(io.BytesIO(self.verdicts), n_rows=rows)


def verdicts(content: bytes, detector: Detector, policy: Policy, min_feature_coverage: float) -> Verdicts:
    """Judge the flows of a CSV, gzipped or not.

    Raises:
        FlowsentryError: it does not fit the bundle's data set; the message begins with “: ”, for the file's name.
    """
    with TemporaryDirectory() as folder:
        source, target, rejects = (Path(folder) / name for name in ("flows", "verdicts", "rejects"))
        source.write_bytes(content)
        try:
            counts = score_file(
                source, target, detector, policy=policy, min_feature_coverage=min_feature_coverage, rejects=rejects
            )
        except FlowsentryError as error:
            raise FlowsentryError(str(error).removeprefix(str(source))) from None
        return Verdicts(
            target.read_bytes(),
            rejects.read_bytes(),
            counts.scored,
            counts.attacks,
            dict(counts.rejected),
            counts.missing,
        )
