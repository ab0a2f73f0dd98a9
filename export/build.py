"""`build`: a training run → a bundle directory, with thresholds, metrics and parity measured on the graph that ships."""

import platform
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from export import graph
from export.bundle import MODEL, REFERENCE, sha256_of, write_manifest
from export.detector import Detector, load
from export.metrics import summarize
from export.run import Run, read_run
from export.thresholds import choose, severity_bounds
from schemas.errors import FlowsentryError
from schemas.flow import FlowSchema, Kind
from schemas.params import ExportParams

__all__ = ["build"]

_PROBE_ROWS = 256
_PARITY_ROWS = 2000


def build(directory: Path, out: Path, params: ExportParams, *, name: str | None = None) -> Path:
    """Build the bundle of the run in `directory` at `out`, replacing what was there; returns `out`.

    Raises:
        FlowsentryError: the run is not complete, or its data were prepared anew after the training; the message says
            which command to run.
    """
    run = read_run(directory)
    program = graph.load_program(run.model)
    preprocessor = joblib.load(run.preprocessor)
    if not np.array_equal(graph.knots(program), preprocessor["knots"]):
        raise FlowsentryError(
            f"{run.model} was trained on other rows than {run.preprocessor.parent} holds: "
            "run `python -m trainer finetune` again"
        )
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    graph.write_onnx(program, partial / MODEL)
    probes = _probes(preprocessor, run.schema)
    probe_attack, probe_families = graph.run_program(program, *probes)
    answers: dict[str, Any] = {"attack": probe_attack, "families": probe_families}
    if run.novelty is not None:
        answers["novelty"] = _add_novelty(run.novelty, partial / MODEL, probes, preprocessor)
    np.savez_compressed(partial / REFERENCE, numeric=probes[0], categories=probes[1], **answers)
    content: dict[str, Any] = {
        "name": name or run.schema.name,
        "version": params.version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": run.schema.name,
        "schema": {"version": run.schema.version, "hash": run.schema.fingerprint()},
        "features": [_feature(run.schema, index, preprocessor) for index in range(len(run.schema.features))],
        "families": [family.name for family in run.schema.attack_families],
        "thresholds": [],
        "severity": {},
        "novelty_severity": {},
        "tells_novelty": run.novelty is not None,
    }
    write_manifest(partial, content)
    detector = load(partial)

    y, scores, predicted, family, novelty = _scored(detector, run, "validation")
    thresholds = choose(y, scores, params.target_fprs, novelty=novelty, novelty_share=params.novelty_share)
    content["thresholds"] = [asdict(threshold) for threshold in thresholds]
    content["severity"] = severity_bounds([threshold.threshold for threshold in thresholds])
    if novelty is not None:
        content["novelty_severity"] = severity_bounds([item.novelty for item in thresholds if item.novelty is not None])
    content["metrics"] = {"validation": summarize(y, scores, predicted, family)}
    y, scores, predicted, family, _ = _scored(detector, run, "test")
    if len(y):
        content["metrics"]["test"] = summarize(y, scores, predicted, family)
    content["parity"] = parity(detector, program, run, [threshold.threshold for threshold in thresholds])
    content["training"] = run.training
    content["data"] = {key: run.metadata[key] for key in ("inputs", "rows", "splits", "not_features")}
    content["source"] = {path.name: sha256_of(path) for path in (run.model, run.novelty) if path is not None}
    content["versions"] = {
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "onnx", "onnxruntime", "numpy", "scikit-learn")},
    }
    write_manifest(partial, content)
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    return out


def parity(detector: Detector, program: Any, run: Run, thresholds: list[float]) -> dict[str, float]:
    """Torch against the graph on held-out rows: the largest difference of probability, and verdicts that differ."""
    rows = run.rows("test" if len(run.rows("test")) else "validation")[:_PARITY_ROWS]
    numeric, codes = run.inputs(rows)
    ours = detector.score_matrix(numeric, codes)
    attack, families = graph.run_program(program, numeric, codes)
    return {
        "rows": len(rows),
        "max_difference": float(np.abs(ours.score - attack).max()),
        "max_family_difference": float(np.abs(ours.family_probability - families.max(axis=1)).max()),
        "verdicts_differing": int(
            sum(((ours.score >= threshold) != (attack >= threshold)).sum() for threshold in thresholds)
        ),
    }


def _add_novelty(
    program_file: Path, model: Path, probes: tuple[np.ndarray, np.ndarray], preprocessor: dict[str, Any]
) -> np.ndarray:
    """Take the novelty model into the graph; torch's answers to the probes."""
    program = graph.load_program(program_file)
    if not np.array_equal(graph.knots(program), preprocessor["knots"]):
        raise FlowsentryError(
            f"{program_file} was trained on rows prepared otherwise: run `python -m trainer novelty` again, or remove it"
        )
    part = model.with_name("novelty.onnx")
    graph.write_onnx(program, part, outputs=graph.NOVELTY_OUTPUTS)
    graph.merge(model, part)
    part.unlink()
    return graph.run_novelty(program, *probes)


def _scored(
    detector: Detector, run: Run, split: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    rows = run.rows(split)
    scores = detector.score_matrix(*run.inputs(rows))
    attack_number = np.cumsum([family.is_attack for family in run.schema.families]) - 1
    return run.y[rows], scores.score, scores.family, attack_number[run.family[rows]], scores.novelty


def _probes(preprocessor: dict[str, Any], schema: FlowSchema) -> tuple[np.ndarray, np.ndarray]:
    """Made-up rows: each value drawn on its own from its feature's quantiles, one in ten missing."""
    rng = np.random.default_rng(0)
    knots = preprocessor["knots"]
    place = rng.integers(0, knots.shape[1] - 1, (_PROBE_ROWS, len(knots)))
    share = rng.random(place.shape)
    features = np.arange(len(knots))
    numeric = knots[features, place] * (1 - share) + knots[features, place + 1] * share
    numeric[rng.random(place.shape) < 0.1] = np.nan
    sizes = [len(preprocessor["vocabularies"][feature.name]) for feature in schema.categorical]
    codes = np.zeros((_PROBE_ROWS, len(sizes)), dtype=np.int64)
    for index, size in enumerate(sizes):
        codes[:, index] = rng.integers(0, size + 2, _PROBE_ROWS)  # missing and unknown ones too
    return numeric.astype(np.float32), codes


def _feature(schema: FlowSchema, index: int, preprocessor: dict[str, Any]) -> dict[str, Any]:
    feature = schema.features[index]
    common = {"name": feature.name, "kind": feature.kind.value, "unit": feature.unit}
    if feature.kind is Kind.CATEGORICAL:
        vocabulary = preprocessor["vocabularies"][feature.name]
        shares = preprocessor["benign_categories"][feature.name]
        return {**common, "vocabulary": list(vocabulary), "benign_shares": [shares[item] for item in vocabulary]}
    limits = preprocessor["benign"][feature.name]
    return {
        **common,
        "benign_low": limits["low"],
        "benign_median": limits["median"],
        "benign_high": limits["high"],
    }
