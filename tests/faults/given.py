"""What the feed puts on the topic, and what must become of each record: an alert, nothing, or a dead letter."""

import csv
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from schemas.datasets import SCHEMAS
from schemas.dead_letter import Reason
from stream.csv_records import records

__all__ = ["BUNDLE", "MALFORMED", "THRESHOLD", "Given", "flows", "malformed"]

BUNDLE = Path("bundles/cicids2017-improved")
THRESHOLD = 0.5
_SAMPLE = Path("stream/sample/cicids2017-improved.csv.gz")
# The same row may differ by so much with the batch that it is scored in. A row that lies closer to the threshold could
# fall either way, and is not given.
_UNCLEAR = 1e-4

_MALFORMED: Mapping[bytes | None, Reason] = {
    b'{"Flow Duration": NaN}': Reason.NOT_JSON,
    b'{"Flow Duration": 1, "Flow Dur': Reason.NOT_JSON,
    b" \x00\xff garbage \n\n": Reason.NOT_JSON,
    b'[{"Flow Duration": 1}]': Reason.NOT_AN_OBJECT,
    b"": Reason.EMPTY,
    None: Reason.EMPTY,
    b'{"Flow Duration": "long"}': Reason.WRONG_TYPE,
    b'{"Flow Duration": 1e400}': Reason.OUT_OF_RANGE,
    b'{"colour": "red"}\n': Reason.NO_KNOWN_FIELD,
    b'{"Flow Duration": 7}': Reason.TOO_FEW_FEATURES,
}


MALFORMED = frozenset(_MALFORMED.values())
"""Reasons of records that the feed gives by itself."""


@dataclass(frozen=True, slots=True)
class Given:
    """A record. `score` and `alert` are what `export score` says of its row; `reason` is that of a malformed one."""

    value: bytes | None
    score: float = 0.0
    alert: bool = False
    reason: Reason | None = None


def malformed() -> list[Given]:
    """Records of every kind that can only be set aside."""
    return [Given(value, reason=reason) for value, reason in _MALFORMED.items()]


@cache
def flows() -> Sequence[Given]:
    """The rows of the committed sample, with the verdicts of `python -m export score`."""
    with TemporaryDirectory() as folder:
        scores = Path(folder) / "scores.csv"
        command = [sys.executable, "-m", "export", "score", str(BUNDLE), "--threshold", str(THRESHOLD)]
        command += ["--input", str(_SAMPLE), "--output", str(scores)]
        subprocess.run(command, check=True, capture_output=True)
        with scores.open() as file:
            judged = {int(row["row"]): row for row in csv.DictReader(file)}
    return [
        Given(record.value, float(row["score"]), row["verdict"] == "1")
        for record in records(_SAMPLE, SCHEMAS["cicids2017-improved"])
        if (row := judged.get(record.row)) is not None and abs(float(row["score"]) - THRESHOLD) > _UNCLEAR
    ]
