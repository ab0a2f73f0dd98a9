"""Plots of an evaluation, as SVG that is the same byte for byte whenever the numbers are."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trainer.evaluation.metrics import FPRS, Curve, calibration_bins

__all__ = ["figures"]

matplotlib.use("Agg")

_BENIGN, _ATTACK, _GUIDE = "#2a6f97", "#c1440e", "#888888"
_STYLE: Any = {
    "figure.figsize": (5.6, 4.0),
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "svg.hashsalt": "flowsentry",
    "svg.fonttype": "path",
}


def figures(
    y: np.ndarray, scores: np.ndarray, metrics: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """SVG texts by name. Those that these rows cannot give (one class alone, no history of training) are left out.

    Args:
        y, scores: int[N] and f32[N].
        metrics: of these rows, as `evaluate_scores` gives them.
        history: an entry per epoch: stage, epoch, loss and validation figures.
    """
    with matplotlib.rc_context(_STYLE):
        drawn = {"confusion_matrix": _confusion_matrix(metrics), "score_histogram": _histogram(y, scores)}
        if metrics["auc"] is not None:
            curve = Curve.of(y, scores)
            drawn |= {"roc": _roc(curve, metrics), "precision_recall": _precision_recall(curve, metrics)}
            drawn["calibration"] = _calibration(y, scores, metrics)
        if history:
            drawn["learning_curves"] = _learning_curves(history)
        return {name: _svg(figure) for name, figure in drawn.items()}


def _roc(curve: Curve, metrics: Mapping[str, Any]) -> Figure:
    figure, axes = _axes("false-positive rate", "recall", f"ROC, AUC {metrics['auc']:.5f}")
    benign = curve.false_positives[-1]
    x = np.append(0, curve.false_positives) / benign
    recall = np.append(0, curve.true_positives) / curve.true_positives[-1]
    least = 0.5 / benign  # where no false positive at all is drawn: a logarithm knows no 0
    axes.step(np.maximum(x, least), recall, where="post", color=_ATTACK)
    axes.set_xscale("log")
    axes.set_xlim(least, 1)
    axes.set_ylim(0, 1.02)
    for rate in FPRS:
        axes.axvline(rate, color=_GUIDE, linewidth=0.8, linestyle=":")
    axes.plot(np.geomspace(least, 1), np.geomspace(least, 1), color=_GUIDE, linewidth=0.8)
    return figure


def _precision_recall(curve: Curve, metrics: Mapping[str, Any]) -> Figure:
    figure, axes = _axes("recall", "precision", f"Precision and recall, average {metrics['average_precision']:.5f}")
    precision = curve.true_positives / (curve.true_positives + curve.false_positives)
    axes.step(curve.true_positives / curve.true_positives[-1], precision, where="pre", color=_ATTACK)
    axes.axhline(curve.true_positives[-1] / len(curve.order), color=_GUIDE, linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(0, 1.01)
    return figure


def _confusion_matrix(metrics: Mapping[str, Any]) -> Figure:
    figure, axes = _axes("verdict", "truth", f"Verdicts at a score of {metrics['threshold']:g}")
    matrix = np.array(metrics["confusion_matrix"])
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row in range(2):
        for column in range(2):
            axes.text(
                column, row, f"{matrix[row, column]:,}\n{shares[row, column]:.2%}", ha="center", va="center",
                color="white" if shares[row, column] > 0.5 else "black",
            )  # fmt: skip
    axes.set_xticks([0, 1], ["benign", "attack"])
    axes.set_yticks([0, 1], ["benign", "attack"])
    axes.grid(visible=False)
    return figure


def _calibration(y: np.ndarray, scores: np.ndarray, metrics: Mapping[str, Any]) -> Figure:
    error = metrics["expected_calibration_error"]
    figure, axes = _axes("mean score", "share of attacks", f"Calibration, expected error {error:.4f}")
    rows, mean, share = calibration_bins(y, scores)
    axes.plot([0, 1], [0, 1], color=_GUIDE, linewidth=0.8)
    filled = rows > 0
    axes.scatter(mean[filled], share[filled], s=12 + 160 * rows[filled] / rows.max(), color=_ATTACK, alpha=0.8)
    axes.plot(mean[filled], share[filled], color=_ATTACK, linewidth=0.8)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    return figure


def _histogram(y: np.ndarray, scores: np.ndarray) -> Figure:
    figure, axes = _axes("score", "rows", "Scores by class")
    bins = np.linspace(0, 1, 51)
    for value, name, color in ((0, "benign", _BENIGN), (1, "attack", _ATTACK)):
        axes.hist(scores[y == value], bins=bins.tolist(), histtype="stepfilled", alpha=0.55, color=color, label=name)
    axes.set_yscale("symlog", linthresh=1)
    axes.legend(frameon=False)
    return figure


def _learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """One panel per stage: the loss, and the stage's criterion on validation rows."""
    stages = list(dict.fromkeys(entry["stage"] for entry in history))
    figure = Figure(figsize=(5.6, 2.6 * len(stages)), layout="constrained")
    for place, stage in enumerate(stages, start=1):
        axes = figure.add_subplot(len(stages), 1, place)
        epochs = [entry for entry in history if entry["stage"] == stage]
        [criterion] = {entry["criterion"] for entry in epochs}
        x = [entry["epoch"] for entry in epochs]
        axes.plot(x, [entry["loss"] for entry in epochs], color=_BENIGN, marker="o", markersize=3)
        axes.set_ylabel("training loss", color=_BENIGN)
        axes.set_xlabel("epoch")
        axes.set_title(stage, loc="left", fontsize=11)
        other = axes.twinx()
        other.plot(x, [entry[criterion] for entry in epochs], color=_ATTACK, marker="o", markersize=3)
        other.set_ylabel(criterion.replace("_", " "), color=_ATTACK)
        other.grid(visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _axes(x: str, y: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left", fontsize=11)
    return figure, axes


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
