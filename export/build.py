"""`build`: a training run → a bundle directory, with thresholds, metrics and parity measured on the graph that ships."""

import platform
import shutil
from collections.abc import Sequence
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
from export.drift_reference import reference_of
from export.metrics import summarize
from export.run import Run, read_run
from export.thresholds import Threshold, choose, choose_novel, severity_bounds
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
    preprocessor = joblib.load(run.preprocessor)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    content: dict[str, Any] = {
        "name": name or run.schema.name,
        "version": params.version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": run.schema.name,
        "schema": {"version": run.schema.version, "hash": run.schema.fingerprint()},
        "features": [_feature(run.schema, index, preprocessor) for index in range(len(run.schema.features))],
        "families": [] if run.model is None else [family.name for family in run.schema.attack_families],
        "thresholds": [],
        "severity": {},
        "novelty_severity": {},
        "tells_novelty": run.novelty is not None,
        "classifies": run.model is not None,
    }
    _write_graph(run, partial, preprocessor)
    write_manifest(partial, content)
    content |= _measured(load(partial), run, params, preprocessor["vocabularies"])
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


def _write_graph(run: Run, directory: Path, preprocessor: dict[str, Any]) -> None:
    """The model, and torch's answers to made-up rows."""
    probes = _probes(preprocessor, run.schema)
    answers: dict[str, np.ndarray] = {"numeric": probes[0], "categories": probes[1]}
    novelty = directory / MODEL if run.model is None else directory / "novelty.onnx"
    if run.model is not None:
        program = _program(run.model, preprocessor, "finetune")
        graph.write_onnx(program, directory / MODEL)
        answers["attack"], answers["families"] = graph.run_program(program, *probes)
    if run.novelty is not None:
        program = _program(run.novelty, preprocessor, "novelty")
        graph.write_onnx(program, novelty, outputs=graph.NOVELTY_OUTPUTS)
        answers["novelty"] = graph.run_novelty(program, *probes)
        if run.model is not None:
            graph.merge(directory / MODEL, novelty)
            novelty.unlink()
    np.savez_compressed(directory / REFERENCE, allow_pickle=False, **answers)


def _program(path: Path, preprocessor: dict[str, Any], command: str) -> Any:
    program = graph.load_program(path)
    if not np.array_equal(graph.knots(program), preprocessor["knots"]):
        raise FlowsentryError(
            f"{path} was trained on rows prepared otherwise: run `python -m trainer {command}` again"
            + (", or remove it" if command == "novelty" else "")
        )
    return program


def _measured(
    detector: Detector, run: Run, params: ExportParams, vocabularies: dict[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Thresholds, severities, metrics, what drift is measured against, and parity."""
    validation = run.rows("validation")
    scores = detector.score_matrix(*run.inputs(validation))
    score = None if run.model is None else scores.score
    train = run.rows("train")
    reference = reference_of(
        run.schema,
        vocabularies,
        run.x[train],
        run.y[train],
        score=score,
        novelty=scores.novelty,
        score_y=run.y[validation],
    )
    measured: dict[str, Any] = {"metrics": {}, "drift": reference.to_json()}
    if run.model is None:
        assert scores.novelty is not None
        thresholds = choose_novel(scores.novelty, params.target_fprs)
    else:
        thresholds = choose(
            run.y[validation],
            scores.score,
            params.target_fprs,
            novelty=scores.novelty,
            novelty_share=params.novelty_share,
        )
        measured["severity"] = severity_bounds([threshold.threshold for threshold in thresholds])
        measured["metrics"] = {
            split: _summary(detector, run, rows) for split in ("validation", "test") if len(rows := run.rows(split))
        }
    measured["thresholds"] = [asdict(threshold) for threshold in thresholds]
    if scores.novelty is not None:
        novelty = [item.novelty for item in thresholds if item.novelty is not None]
        measured["novelty_severity"] = severity_bounds(novelty)
    measured["parity"] = parity(detector, run, thresholds)
    return measured


def _summary(detector: Detector, run: Run, rows: np.ndarray) -> dict[str, float]:
    scores = detector.score_matrix(*run.inputs(rows))
    attack_number = np.cumsum([family.is_attack for family in run.schema.families]) - 1
    return summarize(run.y[rows], scores.score, scores.family, attack_number[run.family[rows]])


def parity(detector: Detector, run: Run, thresholds: Sequence[Threshold]) -> dict[str, float]:
    """Torch against the graph on held-out rows: the largest difference of probability (of novelty, where there is nothing
    else), and verdicts that differ."""
    rows = run.rows("test" if len(run.rows("test")) else "validation")[:_PARITY_ROWS]
    numeric, codes = run.inputs(rows)
    ours = detector.score_matrix(numeric, codes)
    if run.model is None:
        assert run.novelty is not None and ours.novelty is not None
        novelty = graph.run_novelty(graph.load_program(run.novelty), numeric, codes)
        differing = [
            (ours.novelty >= limit) != (novelty >= limit) for limit in (np.float32(item.novelty) for item in thresholds)
        ]
        return {
            "rows": len(rows),
            "max_difference": float(np.abs(ours.novelty - novelty).max()),
            "verdicts_differing": int(np.sum(differing)),
        }
    attack, families = graph.run_program(graph.load_program(run.model), numeric, codes)
    return {
        "rows": len(rows),
        "max_difference": float(np.abs(ours.score - attack).max()),
        "max_family_difference": float(np.abs(ours.family_probability - families.max(axis=1)).max()),
        "verdicts_differing": int(
            sum(((ours.score >= item.threshold) != (attack >= item.threshold)).sum() for item in thresholds)
        ),
    }


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
