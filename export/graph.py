"""Trained program → ONNX graph. Needs torch, onnx and onnxscript; the service never comes here."""

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.compose
import torch

__all__ = [
    "INPUTS",
    "NOVELTY_OUTPUTS",
    "OPSET",
    "OUTPUTS",
    "knots",
    "load_program",
    "merge",
    "run_novelty",
    "run_program",
    "write_onnx",
]

OPSET = 20
INPUTS = ("numeric", "categories")
OUTPUTS = ("attack_probability", "family_probabilities", "attention")
NOVELTY_OUTPUTS = ("novelty", "surprise")


def load_program(path: Path) -> torch.export.ExportedProgram:
    """A frozen model that `trainer finetune` or `trainer novelty` wrote."""
    return torch.export.load(path)


def knots(program: torch.export.ExportedProgram) -> np.ndarray:
    """The raw values at which the map of the program's preprocessing bends: f32[n_numeric, K]."""
    points: np.ndarray = program.state_dict["normalizer.knots.edges"].numpy()
    return points


def run_program(
    program: torch.export.ExportedProgram, numeric: np.ndarray, codes: np.ndarray, rows_per_run: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """Torch's own answer: raw f32[B, N], codes i64[B, C] → attack f32[B], family probabilities f32[B, n_families]."""
    module = program.module()
    attacks, families = [], []
    with torch.no_grad():
        for start in range(0, len(numeric), rows_per_run):
            part = slice(start, start + rows_per_run)
            attack, family, _ = module(torch.from_numpy(numeric[part]), torch.from_numpy(codes[part]))
            attacks.append(attack.numpy())
            families.append(family.numpy())
    return np.concatenate(attacks), np.concatenate(families)


def run_novelty(
    program: torch.export.ExportedProgram, numeric: np.ndarray, codes: np.ndarray, rows_per_run: int = 512
) -> np.ndarray:
    """Torch's own answer of the other program: raw f32[B, N], codes i64[B, C] → novelty f32[B]."""
    module = program.module()
    with torch.no_grad():
        parts = [
            module(
                torch.from_numpy(numeric[start : start + rows_per_run]),
                torch.from_numpy(codes[start : start + rows_per_run]),
            )
            for start in range(0, len(numeric), rows_per_run)
        ]
    return np.concatenate([novelty.numpy() for novelty, _ in parts])


def merge(path: Path, other: Path) -> None:
    """Add the graph of `other` to that of `path`: the same inputs, the outputs of both."""
    first, second = onnx.load(path), onnx.load(other)
    second = onnx.compose.add_prefix(second, "novelty/", rename_inputs=False, rename_outputs=False)
    known = {value.name for value in first.graph.input}
    first.graph.input.extend(value for value in second.graph.input if value.name not in known)
    first.graph.node.extend(second.graph.node)
    first.graph.initializer.extend(second.graph.initializer)
    first.graph.output.extend(second.graph.output)
    onnx.checker.check_model(first)
    onnx.save(first, path)


def write_onnx(program: torch.export.ExportedProgram, path: Path, outputs: Sequence[str] = OUTPUTS) -> None:
    """Translate the program, preprocessing included, and write one file without external data."""
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        translated = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(outputs),
            verbose=False,
        )
    if translated is None:
        raise RuntimeError("torch.onnx.export gave no program")
    # Stack traces and module paths of the training machine do not belong in a bundle.
    for node in translated.model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
    for value in (*translated.model.graph.inputs, *translated.model.graph.outputs):
        value.metadata_props.clear()
    translated.model.metadata_props.clear()
    translated.model.graph.metadata_props.clear()
    translated.save(str(path), external_data=False)
