"""`verify`: is this bundle whole, is it what it says it is, and does it still answer as torch did?"""

from collections.abc import Iterator
from pathlib import Path

from export.bundle import MANIFEST, MODEL, Bundle, read_bundle, sha256_of
from export.detector import Detector, open_detector
from export.reference import agreement, check_reference
from export.signing import ANYONE, Trust
from export.thresholds import NO_SCORE, Threshold
from schemas.errors import BundleError

__all__ = ["verify"]


def verify(directory: Path, run_directory: Path | None = None, trust: Trust = ANYONE) -> Iterator[str]:
    """Check a bundle, yielding a line per check that held.

    Args:
        run_directory: the training run that it was built from; with it (and torch) parity is measured anew on held-out
            rows, without it the figures measured at build time are shown.
        trust: whose signatures count, and whether there must be one.

    Raises:
        BundleError: a check failed; the message names the file, the field or the difference.
    """
    bundle = read_bundle(directory, trust)
    detector, manifest = open_detector(bundle), bundle.manifest
    yield f"hashes     {len(manifest.content['files']) + 1} files as recorded; bundle {manifest.hash[:12]}"
    yield f"signature  {manifest.signature}"
    yield f"identity   {manifest.name} {manifest.version}, data set {manifest.schema.name}"
    yield _graph(bundle)
    yield check_reference(bundle, detector)
    yield _recorded_parity(directory, detector) if run_directory is None else _held_out(run_directory, detector)
    yield from _metrics(directory, detector)
    for threshold in manifest.thresholds:
        yield (
            f"threshold  {threshold.target_fpr:<7g} → {_limits(threshold)}: "
            f"{threshold.false_positives} of {threshold.benign_rows} benign and {threshold.detected} of "
            f"{threshold.attack_rows} attacks above it"
        )


def _limits(threshold: Threshold) -> str:
    score = [] if threshold.threshold == NO_SCORE else [f"{threshold.threshold:.6f}"]
    novelty = [] if threshold.novelty is None else [f"novelty {threshold.novelty:.3f}"]
    return " or ".join([*score, *novelty])


def _graph(bundle: Bundle) -> str:
    import onnx

    model = onnx.load_model_from_string(bundle.files[MODEL])  # unlike `load`, it follows no path in the model
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BundleError(f"{bundle.directory / MODEL}: {error}") from None
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    shapes = (
        f"{value.name}{[dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]}"
        for value in (*model.graph.input, *model.graph.output)
    )
    return f"graph      opset {opset}, " + ", ".join(shapes)


def _recorded_parity(directory: Path, detector: Detector) -> str:
    try:
        recorded = detector.manifest.content["parity"]
        what = "p" if detector.manifest.classifies else "novelty"
        return (
            f"held-out   measured at build on {recorded['rows']} rows: max |Δ{what}| {recorded['max_difference']:.1e}, "
            f"{recorded['verdicts_differing']} verdicts differ"
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{directory / MANIFEST}: parity: field {error} is missing or of the wrong type") from None


def _metrics(directory: Path, detector: Detector) -> list[str]:
    try:
        return [
            f"{split:<10} measured at build on {figures['rows']} rows, {figures['attacks']} of them attacks: AUC "
            f"{figures['auc']:.5f}, recall {figures['recall_at_0.1%_fpr']:.4f} at 0.1% and "
            f"{figures['recall_at_1%_fpr']:.4f} at 1% false positives, family right {figures['family_accuracy']:.4f}"
            for split, figures in detector.manifest.content["metrics"].items()
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{directory / MANIFEST}: metrics: field {error} is missing or of the wrong type") from None


def _held_out(run_directory: Path, detector: Detector) -> str:
    from export import graph
    from export.run import read_run

    run = read_run(run_directory)
    for path in (run.model, run.novelty):
        if path is not None and sha256_of(path) != detector.manifest.content["source"].get(path.name):
            raise BundleError(f"{path} is not the model that this bundle was built from: build it again")
    rows = run.rows("test") if len(run.rows("test")) else run.rows("validation")
    numeric, codes = run.inputs(rows)
    attack = None if run.model is None else graph.run_program(graph.load_program(run.model), numeric, codes)[0]
    novelty = None if run.novelty is None else graph.run_novelty(graph.load_program(run.novelty), numeric, codes)
    ours = detector.score_matrix(numeric, codes)
    return agreement("held-out", ours, attack, novelty, detector, f"{len(rows)} rows", run_directory)
