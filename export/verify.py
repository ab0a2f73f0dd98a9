"""`verify`: is this bundle whole, is it what it says it is, and does it still answer as torch did?"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from export.bundle import MANIFEST, MODEL, REFERENCE, sha256_of
from export.detector import Detector, load
from schemas.errors import BundleError

__all__ = ["MAX_DIFFERENCE", "verify"]

MAX_DIFFERENCE = 1e-4


def verify(directory: Path, run_directory: Path | None = None) -> Iterator[str]:
    """Check a bundle, yielding a line per check that held.

    Args:
        run_directory: the training run that it was built from; with it (and torch) parity is measured anew on held-out
            rows, without it the figures measured at build time are shown.

    Raises:
        BundleError: a check failed; the message names the file, the field or the difference.
    """
    detector = load(directory)
    manifest = detector.manifest
    yield f"hashes     {len(manifest.content['files']) + 1} files as recorded; bundle {manifest.hash[:12]}"
    yield f"identity   {manifest.name} {manifest.version}, data set {manifest.schema.name}"
    yield _graph(directory, detector)
    yield _reference(directory, detector)
    yield _recorded_parity(directory, detector) if run_directory is None else _held_out(run_directory, detector)
    for split, figures in manifest.content["metrics"].items():
        yield (
            f"{split:<10} measured at build on {figures['rows']} rows, {figures['attacks']} of them attacks: AUC "
            f"{figures['auc']:.5f}, recall {figures['recall_at_0.1%_fpr']:.4f} at 0.1% and "
            f"{figures['recall_at_1%_fpr']:.4f} at 1% false positives, family right {figures['family_accuracy']:.4f}"
        )
    for threshold in manifest.thresholds:
        yield (
            f"threshold  {threshold.target_fpr:<7g} → {threshold.threshold:.6f}: {threshold.false_positives} of "
            f"{threshold.benign_rows} benign and {threshold.detected} of {threshold.attack_rows} attacks above it"
        )


def _graph(directory: Path, detector: Detector) -> str:
    import onnx

    model = onnx.load(directory / MODEL)
    onnx.checker.check_model(model)
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    shapes = {
        value.name: [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    schema, families = detector.schema, len(detector.manifest.families)
    expected = {
        "numeric": [len(schema.numeric)],
        **({"categories": [len(schema.categorical)]} if schema.categorical else {}),
        "attack_probability": [],
        "family_probabilities": [families],
        "attention": [len(schema.features)],
    }
    for name, width in expected.items():
        if name not in shapes or shapes[name][1:] != width:
            raise BundleError(f"{directory / MODEL}: {name} has shape {shapes.get(name)}, expected {['batch', *width]}")
    return f"graph      opset {opset}, " + ", ".join(f"{name}{shapes[name]}" for name in expected)


def _reference(directory: Path, detector: Detector) -> str:
    try:
        with (directory / REFERENCE).open("rb") as file, np.load(file, allow_pickle=False) as reference:
            numeric, codes, expected = (reference[name] for name in ("numeric", "categories", "attack"))
    except (KeyError, TypeError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise BundleError(f"{directory / REFERENCE}: not the arrays of a reference: {error}") from None
    scores = detector.score_matrix(numeric, codes)
    return _compared("reference", scores.score, expected, detector, f"{len(expected)} made-up rows")


def _recorded_parity(directory: Path, detector: Detector) -> str:
    try:
        recorded = detector.manifest.content["parity"]
        return (
            f"held-out   measured at build on {recorded['rows']} rows: max |Δp| {recorded['max_difference']:.1e}, "
            f"{recorded['verdicts_differing']} verdicts differ"
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{directory / MANIFEST}: parity: field {error} is missing or of the wrong type") from None


def _held_out(run_directory: Path, detector: Detector) -> str:
    from export import graph
    from export.run import read_run

    run = read_run(run_directory)
    if sha256_of(run.model) != detector.manifest.content["source"]["model.pt2"]:
        raise BundleError(f"{run.model} is not the model that this bundle was built from: build it again")
    rows = run.rows("test") if len(run.rows("test")) else run.rows("validation")
    numeric, codes = run.inputs(rows)
    attack, _ = graph.run_program(graph.load_program(run.model), numeric, codes)
    return _compared("held-out", detector.score_matrix(numeric, codes).score, attack, detector, f"{len(rows)} rows")


def _compared(what: str, ours: np.ndarray, torchs: np.ndarray, detector: Detector, rows: str) -> str:
    difference = float(np.abs(ours - torchs).max())
    differing = {
        threshold.target_fpr: int(((ours >= threshold.threshold) != (torchs >= threshold.threshold)).sum())
        for threshold in detector.manifest.thresholds
    }
    if not difference < MAX_DIFFERENCE or any(differing.values()):  # NaN is a difference too
        raise BundleError(
            f"{what}: torch and ONNX Runtime differ on {rows}: max |Δp| {difference:.1e} (allowed {MAX_DIFFERENCE:.0e}), "
            f"verdicts differing by target false-positive rate: {differing}"
        )
    return f"{what:<10} torch and ONNX Runtime agree on {rows}: max |Δp| {difference:.1e}, no verdict differs"
