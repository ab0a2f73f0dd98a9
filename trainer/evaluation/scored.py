"""Labelled CSVs → labels and scores, row by row as the service would judge them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import sha256_of
from export.detector import Detector
from export.progress import track
from export.reading import read_flows
from schemas.errors import FlowsentryError
from trainer.reading import families_of

__all__ = ["ScoredRows", "score_files"]

_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """The usable rows of some files: y int8[N] (1 = attack), true family int64[N] (index into the schema's families),
    score f32[N], family said int64[N] (likewise; of rows that are no attacks too), novelty f32[N], or None if the bundle does
    not tell. `files` says what became of each file."""

    y: np.ndarray
    family: np.ndarray
    score: np.ndarray
    predicted: np.ndarray
    novelty: np.ndarray | None
    files: list[dict[str, Any]]

    def counts(self) -> dict[str, Any]:
        """Rows in, used and refused, the latter by reason."""
        refused = sum((Counter(file["refused"]) for file in self.files), Counter())
        return {
            "in": len(self.y) + refused.total(),
            "used": len(self.y),
            "refused": refused.total(),
            "refused_by_reason": dict(refused),
        }


def score_files(files: Iterable[Path], detector: Detector, min_feature_coverage: float) -> ScoredRows:
    """Read and score labelled CSVs with the code that the service uses.

    Raises:
        FlowsentryError: a file does not fit the bundle's data set, a label is missing or unknown, or no row can be used.
    """
    schema = detector.schema
    if not detector.manifest.classifies:
        raise FlowsentryError(f"bundle {detector.manifest.name} knows no attacks: there is no score to be measured")
    attack_families = np.flatnonzero([family.is_attack for family in schema.families])
    trained_on = {item.get("sha256") for item in detector.manifest.content["data"].get("inputs", [])}
    families, scores, predicted, reports = [], [], [], []
    novelty: list[np.ndarray] = []
    for path in track(list(files), "scoring"):
        refused: Counter[str] = Counter()
        used = 0
        for batch in read_flows(path, schema, min_feature_coverage=min_feature_coverage, batch_rows=_BATCH_ROWS):
            refused.update(reject.reason.value for reject in batch.rejects)
            scored = detector.score(batch.columns)
            families.append(families_of(batch, schema, path))
            scores.append(scored.score)
            predicted.append(attack_families[scored.family])
            if scored.novelty is not None:
                novelty.append(scored.novelty)
            used += len(scored)
        digest = sha256_of(path)
        reports.append(
            {
                "file": path.name,
                "sha256": digest,
                "used": used,
                "refused": dict(refused),
                "trained_on": digest in trained_on,
            }
        )
    if not any(map(len, scores)):
        raise FlowsentryError(f"none of the files has a usable row of {schema.name}")
    family = np.concatenate(families)
    is_attack = np.array([item.is_attack for item in schema.families])
    return ScoredRows(
        y=is_attack[family].astype(np.int8),
        family=family,
        score=np.concatenate(scores),
        predicted=np.concatenate(predicted),
        novelty=np.concatenate(novelty) if novelty else None,
        files=reports,
    )
