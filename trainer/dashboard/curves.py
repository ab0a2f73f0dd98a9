"""Bundles side by side: what each is, its figures, its curves on labelled rows, its report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from export.bundle import Manifest
from schemas.errors import FlowsentryError
from trainer.evaluation.card import REPORT
from trainer.evaluation.metrics import Curve, calibration_bins
from trainer.evaluation.report import FIGURES

__all__ = ["Report", "calibration", "described", "figures_table", "find_report", "roc"]

_POINTS = 400


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation of a bundle: its page, and its figures where they lie beside it. `is_own` is False where they are of a twin,
    made of fewer rows by the same recipe, and None where nothing says so."""

    page: Path
    metrics: Mapping[str, Any] | None
    is_own: bool | None


def find_report(bundle: Path, manifest: Manifest, reports: Path) -> Report | None:
    """The page beside a bundle (`trainer card` puts it there), or else in REPORTS/NAME, REPORTS/DIRECTORY or REPORTS; the figures
    of the evaluation that the page is from.

    Raises:
        FlowsentryError: metrics.json cannot be read.
    """
    for place in (reports / manifest.name, reports / bundle.name, reports):
        metrics = _metrics(place)
        if metrics is None or metrics["bundle"]["dataset"] != manifest.schema.name:
            continue
        page = bundle / REPORT if (bundle / REPORT).exists() else place / REPORT
        if page.exists():
            return Report(page, metrics, metrics["bundle"]["hash"] == manifest.hash)
    return Report(bundle / REPORT, None, None) if (bundle / REPORT).exists() else None


def _metrics(directory: Path) -> dict[str, Any] | None:
    path = directory / "metrics.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content if {"bundle", *FIGURES} <= content.keys() else None
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise FlowsentryError(f"{path}: not JSON: {error}. Run `python -m trainer evaluate --out` again") from None


def described(manifest: Manifest) -> dict[str, str]:
    """What a bundle is, line by line."""
    content = manifest.content
    splits = content["data"].get("splits", {})
    parameters = content["training"].get("parameters")
    return {
        "version": manifest.version,
        "data set": manifest.schema.name,
        "hash": manifest.hash[:12],
        "signature": str(manifest.signature),
        "built": str(content.get("created", "–"))[:10],
        "parameters": "–" if parameters is None else f"{parameters:,}",
        "training rows": f"{sum(splits['train'].values()):,}" if "train" in splits else "–",
        "tells": " and ".join(
            what for what, told in (("attacks", manifest.classifies), ("what is novel", manifest.tells_novelty)) if told
        ),
    }


def figures_table(names: Sequence[str], measured: Sequence[Mapping[str, float | None]]) -> pl.DataFrame:
    """A line per figure, a column per bundle; figures that none of them has are left out."""
    lines = [
        {"figure": shown, **{name: of.get(key) for name, of in zip(names, measured, strict=True)}}
        for key, shown in {**FIGURES, "family_accuracy": "family right"}.items()
        if any(of.get(key) is not None for of in measured)
    ]
    return pl.DataFrame(lines, schema={"figure": pl.String, **dict.fromkeys(names, pl.Float64)})


def roc(y: np.ndarray, scores: np.ndarray) -> pl.DataFrame:
    """`false-positive rate` and `recall`, from the strictest threshold on, a few hundred points; rates of 0 stand at half of one
    false positive, since the axis is logarithmic. y int[N] with both classes, scores f32[N]."""
    curve = Curve.of(y, scores)
    benign, attacks = curve.false_positives[-1], curve.true_positives[-1]
    rates = np.maximum(np.append(0, curve.false_positives) / benign, 0.5 / benign)
    recall = np.append(0, curve.true_positives) / attacks
    # The last point of each step up, then as many as can be told apart on the axis.
    ends = np.flatnonzero(np.append(np.diff(rates) > 0, True))
    if len(ends) > _POINTS:
        wanted = np.geomspace(rates[0], 1, _POINTS)
        ends = np.unique(ends[np.clip(np.searchsorted(rates[ends], wanted), 0, len(ends) - 1)])
    return pl.DataFrame({"false-positive rate": rates[ends], "recall": recall[ends]})


def calibration(y: np.ndarray, scores: np.ndarray) -> pl.DataFrame:
    """`mean score`, `share of attacks` and `rows` of each of 15 bins of equal width that has rows."""
    rows, mean, share = calibration_bins(y, scores)
    return pl.DataFrame({"mean score": mean, "share of attacks": share, "rows": rows}).filter(pl.col("rows") > 0)
