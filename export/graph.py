"""Trained program → ONNX graph. Needs torch, onnx and onnxscript; the service never comes here."""

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

__all__ = ["INPUTS", "OPSET", "OUTPUTS", "knots", "load_program", "run_program", "write_onnx"]

OPSET = 20
INPUTS = ("numeric", "categories")
OUTPUTS = ("attack_probability", "family_probabilities", "attention")


def load_program(path: Path) -> torch.export.ExportedProgram:
    """The frozen model that `trainer finetune` wrote."""
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
