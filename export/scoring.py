"""`score`: a CSV → a CSV of verdicts, by the code that the service uses."""

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np

from export.detector import Detector, Scores
from export.progress import steps
from export.reading import FlowBatch, read_flows
from export.thresholds import Policy
from schemas.dead_letter import Reject
from schemas.errors import FlowsentryError
from schemas.flow import BENIGN, UNKNOWN

__all__ = ["Counts", "score_file", "score_flows"]

_BATCH_ROWS = 1024


@dataclass(slots=True)
class Counts:
    """What became of a file's rows, and the features that it has no column for."""

    scored: int = 0
    attacks: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    missing: tuple[str, ...] = ()


def score_flows(path: Path, detector: Detector, min_feature_coverage: float) -> Iterator[tuple[FlowBatch, Scores]]:
    """Each batch of a file with what the detector says of its rows."""
    for batch in read_flows(path, detector.schema, min_feature_coverage=min_feature_coverage, batch_rows=_BATCH_ROWS):
        yield batch, detector.score(batch.columns)


def score_file(
    source: Path,
    target: Path,
    detector: Detector,
    *,
    policy: Policy,
    min_feature_coverage: float,
    rejects: Path | None,
) -> Counts:
    """Score `source` into `target` (row, score, verdict, family, and novelty if the bundle tells it).

    Rows that cannot be used go to `rejects`.

    Raises:
        HeaderError: the file does not fit the bundle's data set; the message names the column.
        FlowsentryError: two of the three files are one.
    """
    _check_distinct(source, target, rejects)
    counts = Counts()
    batches = score_flows(source, detector, min_feature_coverage)
    first = next(batches, None)  # before anything is written: a file that does not fit leaves nothing behind
    total = _count_lines(source) // _BATCH_ROWS + 1
    with target.open("w", newline="") as file, _optional_csv(rejects) as refused, steps("scoring", total) as bar:
        writer = csv.writer(file)
        tells_novelty, classifies = detector.manifest.tells_novelty, detector.manifest.classifies
        writer.writerow(("row", "score", "verdict", "family", *(["novelty"] if tells_novelty else [])))
        for batch, scores in chain([first] if first else [], batches):
            verdicts = policy.alerts(scores.score, scores.novelty)
            families = _families(scores, verdicts, policy, detector.manifest.families)
            more = [] if scores.novelty is None else [[f"{value:.6g}" for value in scores.novelty.tolist()]]
            columns = (
                batch.rows.tolist(),
                [f"{score:.9g}" for score in scores.score.tolist()] if classifies else [""] * len(scores),
                verdicts.astype(int).tolist(),
            )
            writer.writerows(zip(*columns, families, *more, strict=True))
            counts.attacks += int(verdicts.sum())
            counts.scored += len(scores)
            counts.missing = batch.missing
            for reject in batch.rejects:
                counts.rejected[reject.reason.value] += 1
                if refused is not None:
                    refused.writerow(_reject_row(reject))
            bar.advance(f"{counts.scored} scored, {counts.attacks} attacks")
    return counts


def _families(scores: Scores, verdicts: np.ndarray, policy: Policy, families: tuple[str, ...]) -> list[str]:
    """What each flow is called: its most probable family, or that it is benign or novel."""
    known = policy.known(scores.score)
    return [
        (families[family] if is_known else UNKNOWN) if verdict else BENIGN
        for family, verdict, is_known in zip(scores.family.tolist(), verdicts.tolist(), known.tolist(), strict=True)
    ]


def _check_distinct(source: Path, target: Path, rejects: Path | None) -> None:
    for written in (target, rejects):
        if written is not None and source.is_file() and written.exists() and written.samefile(source):
            raise FlowsentryError(f"{written}: is the input, which would be overwritten: write to another file")
    if rejects is not None and rejects.resolve() == target.resolve():
        raise FlowsentryError(f"{target}: is named for both the scores and the rejects: write them to two files")


def _count_lines(path: Path) -> int:
    """For the progress bar: how many lines a file has, unpacked; 0 for a pipe, which can be read only once."""
    if not path.is_file():
        return 0
    with path.open("rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        try:
            return sum(1 for _ in (gzip.GzipFile(fileobj=raw) if packed else raw))
        except (EOFError, OSError, zlib.error):
            return 0  # damaged: reading the rows will say where


@contextmanager
def _optional_csv(path: Path | None) -> Iterator["_Writer | None"]:
    if path is None:
        yield None
        return
    with path.open("w", newline="") as file:
        writer = _Writer(file)
        writer.writerow(("row", "reason", "field", "value", "detail"))
        yield writer


class _Writer:
    def __init__(self, file: TextIO) -> None:
        self.writerow = csv.writer(file).writerow


def _reject_row(reject: Reject) -> tuple[int, str, str, str, str]:
    return reject.row, reject.reason.value, reject.field, reject.value, reject.detail
