"""An evaluation as one HTML page that needs no other file, and as tables on a terminal."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.table import Table as Shown

from trainer.evaluation.metrics import FPRS, rate_name
from trainer.experiments.table import Table

__all__ = ["CAPTIONS", "FIGURES", "between", "figure", "print_tables", "render", "share", "templates"]

CAPTIONS = {
    "roc": "Share of attacks found against share of benign flows that become alerts, on a logarithmic axis: a network has "
    "far more benign flows than attacks, so the left end is what matters. Dotted: 0.1%, 1% and 5%.",
    "precision_recall": "How many alerts are right, against how many attacks are found. Dotted: what chance would give.",
    "confusion_matrix": "Rows are what flows were, columns what the detector said; shares are of a row.",
    "calibration": "Of the flows with a score of p, a share of p should be attacks: points on the line. A larger point has "
    "more flows.",
    "score_histogram": "How many flows have which score, on a logarithmic axis.",
    "learning_curves": "Loss on training rows and figures on validation rows, epoch by epoch.",
}
FIGURES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1_score": "F1",
    "auc": "AUC",
    "average_precision": "average precision",
    **{rate_name(rate): f"recall at {rate * 100:g}% false positives" for rate in FPRS},
    "brier_score": "Brier score",
    "expected_calibration_error": "expected calibration error",
}


def render(metrics: Mapping[str, Any], figures: Mapping[str, str], tables: Sequence[Table]) -> str:
    """The page: `metrics` as `evaluate` writes them, SVG texts by name, what experiments found."""
    environment = templates(autoescape=True)
    images = {name: base64.b64encode(figures[name].encode()).decode() for name in CAPTIONS if name in figures}
    page: str = environment.get_template("report.html").render(
        metrics=metrics, names=FIGURES, images=images, captions=CAPTIONS, tables=tables
    )
    return page


def templates(*, autoescape: bool) -> Environment:
    """Where the texts of reports and cards stand, with what they need to show figures."""
    environment = Environment(
        loader=PackageLoader("trainer.evaluation"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"figure": figure, "share": share, "between": between}
    return environment


def print_tables(metrics: Mapping[str, Any], console: Console) -> None:
    """The figures, and the families, each with its interval of 95%."""
    rows = metrics["rows"]
    reasons = ", ".join(f"{reason}: {count}" for reason, count in rows["refused_by_reason"].items())
    console.print(
        f"{rows['in']} rows in, {rows['used']} used, {rows['refused']} refused{f' ({reasons})' if reasons else ''}"
    )
    table = Shown("figure", "value", "95%", title_justify="left", title="figures")
    for name, shown in FIGURES.items():
        table.add_row(shown, figure(metrics[name]), between(metrics["intervals"].get(name)))
    console.print(table)
    table = Shown("family", "rows", "alerts", "share", "95%", title_justify="left", title="families")
    for name, family in metrics["families"].items():
        table.add_row(
            name,
            f"{family['count']:,}",
            f"{family['detected']:,}",
            share(family["recall"]),
            between(family["interval"]),
        )
    console.print(table)
    [(tn, fp), (fn, tp)] = metrics["confusion_matrix"]
    console.print(
        f"confusion matrix at {metrics['threshold']:g}: {tp} attacks found, {fn} missed; {fp} of {tn + fp} benign flows alarmed"
    )


def figure(value: float | None) -> str:
    """With five digits behind the point."""
    return "–" if value is None else f"{value:.5f}"


def share(value: float | None) -> str:
    """In per cent."""
    return "–" if value is None else f"{value:.2%}"


def between(interval: tuple[float, float] | None) -> str:
    """An interval, or nothing."""
    return "" if interval is None else f"{interval[0]:.5f} – {interval[1]:.5f}"
