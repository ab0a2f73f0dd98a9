"""Does a bundle still answer as torch did? Checked on its reference rows, by numpy and onnxruntime alone."""

import io
import zipfile
from pathlib import Path

import numpy as np

from export.bundle import REFERENCE, Bundle
from export.detector import Detector, Scores, open_detector
from schemas.errors import BundleError

__all__ = ["MAX_DIFFERENCE", "agreement", "check_reference", "load_checked"]

MAX_DIFFERENCE = 1e-4
MAX_NOVELTY_DIFFERENCE = 1e-2
_LARGEST_UNPACKED = 64 << 20


def load_checked(bundle: Bundle, *, threads: int | None = None) -> Detector:
    """Make the detector of a bundle that was read, and have it answer its reference rows, after which its first flow is no
    slower than others.

    Raises:
        BundleError: it cannot be loaded, or does not answer as it did when it was built.
    """
    detector = open_detector(bundle, threads=threads)
    check_reference(bundle, detector)
    return detector


def check_reference(bundle: Bundle, detector: Detector) -> str:
    """Score the reference rows; the line that says how far the answers are from torch's.

    Raises:
        BundleError: there are no such rows, or the answers differ.
    """
    path = bundle.directory / REFERENCE
    try:
        arrays = _unpacked(bundle.files[REFERENCE])
        told = "attack" if detector.manifest.classifies else "novelty"
        numeric, codes, expected = (arrays[name] for name in ("numeric", "categories", told))
    except (KeyError, TypeError, ValueError, EOFError, OSError, MemoryError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: not the arrays of a reference: {error}") from None
    rows, schema = len(expected), detector.schema
    shapes = [(rows, len(schema.numeric)), (rows, len(schema.categorical)), (rows,)]
    kinds = [array.dtype.kind for array in (numeric, codes, expected)]
    if [numeric.shape, codes.shape, expected.shape] != shapes or kinds != ["f", "i", "f"] or rows == 0:
        raise BundleError(f"{path}: not the arrays of a reference: expected shapes {shapes}")
    try:
        scores = detector.score_matrix(numeric.astype(np.float32), codes.astype(np.int64))
    except Exception as error:  # onnxruntime raises its own classes, which share no public base
        raise BundleError(f"{path}: the graph cannot score these rows: {error}") from error
    return agreement(
        "reference",
        scores,
        expected if detector.manifest.classifies else None,
        arrays.get("novelty"),
        detector,
        f"{rows} made-up rows",
        path,
    )


def agreement(
    what: str,
    ours: Scores,
    attack: np.ndarray | None,
    novelty: np.ndarray | None,
    detector: Detector,
    rows: str,
    path: Path,
) -> str:
    """The line that says that ours and torch's answers, f32[N] each, are the same but for rounding, in all that the bundle
    tells; `path` is the file that torch's are from.

    Raises:
        BundleError: they are not, or there are none.
    """
    if ours.novelty is not None:
        difference = _check_novelty(ours.novelty, novelty, path)
    if attack is None:
        return f"{what:<10} torch and ONNX Runtime agree on {rows}: max |Δnovelty| {difference:.1e}"
    return _compared(what, ours.score, attack, detector, rows)


def _check_novelty(ours: np.ndarray, torchs: np.ndarray | None, path: Path) -> float:
    """How far two answers f32[N] differ; `path` is the file that the second one is from.

    Raises:
        BundleError: they differ by more than rounding, or the second is none.
    """
    if torchs is None or torchs.shape != ours.shape or torchs.dtype.kind != "f":
        raise BundleError(f"{path}: not the arrays of a reference: expected novelty of shape {ours.shape}")
    difference = float(np.abs(ours - torchs).max())
    if not difference < MAX_NOVELTY_DIFFERENCE:
        raise BundleError(
            f"{path}: torch and ONNX Runtime differ in novelty by {difference:.1e} "
            f"(allowed {MAX_NOVELTY_DIFFERENCE:.0e})"
        )
    return difference


def _compared(what: str, ours: np.ndarray, torchs: np.ndarray, detector: Detector, rows: str) -> str:
    """The line that says that two answers, f32[N] both, are the same but for rounding.

    Raises:
        BundleError: they are not.
    """
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


def _unpacked(content: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(member.file_size for member in archive.infolist()) > _LARGEST_UNPACKED:
            raise ValueError(f"more than {_LARGEST_UNPACKED} bytes when unpacked")
    with np.load(io.BytesIO(content), allow_pickle=False) as reference:
        return {name: reference[name] for name in reference.files}
