"""`evaluate`: a bundle and labelled CSVs → metrics.json, figures/ and report.html."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle import read_bundle
from export.detector import Detector, load
from export.thresholds import Policy
from schemas.params import Params, StreamParams
from trainer.evaluation.figures import figures
from trainer.evaluation.metrics import evaluate_novelty, evaluate_scores, operating_points
from trainer.evaluation.report import FIGURES, render
from trainer.evaluation.scored import ScoredRows, score_files
from trainer.experiments.table import read_tables

__all__ = ["EVEN", "evaluate", "evaluate_rows", "track"]

EVEN = 0.5
"""The score from which an attack is the likelier of the two."""
_RESAMPLES = 1000


def evaluate(
    bundle: Path,
    files: Sequence[Path],
    out: Path,
    params: StreamParams,
    *,
    threshold: float | None = None,
    target_fpr: float | None = None,
) -> dict[str, Any]:
    """Score labelled files, write all of it to `out` and return the metrics.

    What experiments (`trainer compare`, `trainer ablate`) have written to `out` becomes a part of the report.

    Args:
        threshold: from which score a row counts as an attack; None: `target_fpr` decides.
        target_fpr: use the bundle's threshold for that rate; None too: the likelier class is the verdict.

    Raises:
        FlowsentryError: the bundle cannot be read, or a file does not fit it; the message names file and column or label.
    """
    detector = load(bundle)
    if threshold is None:
        threshold = EVEN if target_fpr is None else detector.manifest.threshold_for(target_fpr)
    rows = score_files(files, detector, params.min_feature_coverage)
    metrics = evaluate_rows(rows, detector, threshold) | {"service_target_fpr": params.target_fpr}
    history = detector.manifest.content["training"].get("history", [])
    drawn = figures(rows.y, rows.score, metrics, history)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    for name, svg in drawn.items():
        (out / "figures" / f"{name}.svg").write_text(svg, encoding="utf-8")
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "report.html").write_text(render(metrics, drawn, read_tables(out)), encoding="utf-8")
    return metrics


def track(params: Params, metrics: Mapping[str, Any], bundle: Path, out: Path) -> None:
    """Record in MLflow what `evaluate` wrote to `out`, with the bundle that it is of."""
    from trainer.tracking import tracked_run

    schema = read_bundle(bundle).manifest.schema
    with tracked_run(params, "evaluate", schema.name, schema.fingerprint(), metrics["files"]) as run:
        figures = {name.replace("%", "pct"): metrics[name] for name in FIGURES if metrics[name] is not None}
        run.log_metrics(figures, 0)
        for artifact in (out / "metrics.json", out / "report.html", bundle):
            run.log_artifact(artifact)


def evaluate_rows(rows: ScoredRows, detector: Detector, threshold: float) -> dict[str, Any]:
    """The content of metrics.json."""
    manifest, schema = detector.manifest, detector.schema
    names = tuple(family.name for family in schema.families)
    figures_of_rows = evaluate_scores(rows.y, rows.score, rows.family, names, threshold=threshold, resamples=_RESAMPLES)
    hits = rows.score >= np.float32(threshold)
    for number, name in enumerate(names):
        if name in figures_of_rows["families"]:
            alerts = hits & (rows.family == number)
            right = (
                float((rows.predicted[alerts] == number).mean())
                if schema.families[number].is_attack and alerts.any()
                else None
            )
            figures_of_rows["families"][name]["named_right"] = right
    return {
        "bundle": {
            "name": manifest.name,
            "version": manifest.version,
            "hash": manifest.hash,
            "dataset": schema.name,
        },
        **figures_of_rows,
        "rows": rows.counts(),
        "resamples": _RESAMPLES,
        "operating_points": operating_points(
            rows.y,
            rows.score,
            rows.novelty,
            [(item.target_fpr, Policy(item.threshold, item.novelty)) for item in manifest.thresholds],
        ),
        "novelty": None if rows.novelty is None else evaluate_novelty(rows.y, rows.novelty, rows.family, names),
        "files": rows.files,
    }
