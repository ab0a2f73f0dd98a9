"""The FT-Transformer beside what one would use instead: quality, size, time to train, speed in ONNX Runtime."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from export import graph
from export.runtime import ort
from schemas.params import Params
from trainer.baselines.networks import MLP, LogisticRegression, TabTransformer
from trainer.baselines.trees import Trees
from trainer.evaluation.metrics import Curve, area_under_roc, recall_at
from trainer.experiments.fitting import fit_network, score_rows
from trainer.experiments.table import Table
from trainer.freezing import without_fast_path
from trainer.model import FlowClassifier, TabularExpert
from trainer.prepare import Prepared
from trainer.stages import raw_inputs

__all__ = ["compare"]

_SPEED_ROWS = 64  # of one run
_SPEED_S = 2.0
NETWORKS: dict[str, type[FlowClassifier]] = {
    "FT-Transformer": TabularExpert,
    "TabTransformer": TabTransformer,
    "MLP": MLP,
    "logistic regression": LogisticRegression,
}


def compare(prepared: Prepared, params: Params, *, seed: int, device: torch.device) -> Table:
    """Train each of them on the training rows and measure it on the test rows."""
    test = prepared.rows("test")
    y = prepared.y[test]
    rows: list[tuple[str | float | int | None, ...]] = []
    for name, kind in NETWORKS.items():
        began = time.monotonic()
        model = fit_network(kind, prepared, params.train, seed=seed, device=device)
        took_s = time.monotonic() - began
        weights = sum(parameter.numel() for parameter in model.parameters())
        quality = _quality(y, score_rows(model, prepared, test))
        speed = _flows_per_s(_network_graph(model, prepared), prepared)
        rows.append((name, *quality, f"{weights:,} weights", f"{took_s:.0f}", speed))
    began = time.monotonic()
    trees = Trees(prepared, seed=seed)
    took_s = time.monotonic() - began
    quality = _quality(y, trees.score(prepared.x[test]))
    speed = _flows_per_s(trees.onnx(), prepared)
    rows.append((trees.name, *quality, f"{trees.leaves:,} leaves", f"{took_s:.0f}", speed))
    return Table(
        name="compare",
        title="Beside other models",
        note=(
            f"{len(test):,} test rows, one seed. Seconds of training, and flows/s in ONNX Runtime from raw features to score, "
            f"{_SPEED_ROWS} a run, were measured one after the other on the machine that wrote this."
        ),
        columns=("model", "AUC", "recall at 0.1%", "recall at 1%", "accuracy", "size", "training s", "flows/s"),
        rows=tuple(rows),
    )


def _quality(y: np.ndarray, scores: np.ndarray) -> tuple[float | None, ...]:
    curve = Curve.of(y, scores)
    counts = curve.true_positives, curve.false_positives
    accuracy = float(((scores >= 0.5) == (y == 1)).mean())
    return area_under_roc(*counts), recall_at(*counts, 0.001), recall_at(*counts, 0.01), accuracy


class _Scorer(nn.Module):
    """Raw values → attack probability alone."""

    def __init__(self, model: FlowClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, numeric: Tensor, categories: Tensor) -> Tensor:
        attack, _ = self.model.classify(self.model.normalizer(numeric), self.model.known(categories))
        return self.model.probability(attack)


def _network_graph(model: FlowClassifier, prepared: Prepared) -> bytes:
    numeric, categories = raw_inputs(prepared, prepared.rows("test")[:_SPEED_ROWS])
    batch = torch.export.Dim("batch", min=1, max=1 << 20)
    with without_fast_path():
        program = torch.export.export(
            _Scorer(model.cpu().eval()), (numeric, categories), dynamic_shapes=({0: batch}, {0: batch})
        )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        graph.write_onnx(program, path, outputs=("attack_probability",))
        return path.read_bytes()


def _flows_per_s(content: bytes, prepared: Prepared) -> int:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # the trees' converter states a shape wrongly
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    rows = prepared.rows("test")[:_SPEED_ROWS]
    numeric, categories = raw_inputs(prepared, rows)
    known = {"numeric": numeric.numpy(), "categories": categories.numpy(), "features": prepared.x[rows]}
    feeds = {value.name: known[value.name] for value in session.get_inputs()}
    session.run(None, feeds)
    began, runs = time.monotonic(), 0
    while (took_s := time.monotonic() - began) < _SPEED_S:
        session.run(None, feeds)
        runs += 1
    return round(runs * len(rows) / took_s)
