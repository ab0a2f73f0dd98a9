"""The bundle on disk: what its files are, how they are written, and why one is refused.

    bundle.json          what the detector is: data set, features, thresholds, metrics, hashes of the other files
    bundle.json.sha256   hash of bundle.json, as `sha256sum` writes it
    model.onnx           raw feature values → probabilities
    reference.npz        made-up inputs and what torch answered to them: parity can be checked anywhere

Nothing in a bundle is code: JSON, ONNX and plain arrays.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.thresholds import Threshold
from schemas.datasets import SCHEMAS
from schemas.errors import BundleError
from schemas.flow import FlowSchema

__all__ = ["FORMAT", "MANIFEST", "MODEL", "REFERENCE", "FeatureInfo", "Manifest", "read_manifest", "write_manifest"]

FORMAT = 1
MANIFEST = "bundle.json"
MANIFEST_HASH = "bundle.json.sha256"
MODEL = "model.onnx"
REFERENCE = "reference.npz"

_LARGEST_FILE = 256 << 20


@dataclass(frozen=True, slots=True)
class FeatureInfo:
    """One model input: numeric with the benign range, or categorical with its categories and their benign shares."""

    name: str
    kind: str
    unit: str
    benign_low: float | None
    benign_median: float | None
    benign_high: float | None
    vocabulary: tuple[str, ...]
    benign_shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """bundle.json, checked. `hash` is the sha256 of bundle.json itself, which lists those of the other files."""

    name: str
    version: str
    hash: str
    schema: FlowSchema
    features: tuple[FeatureInfo, ...]
    families: tuple[str, ...]
    thresholds: tuple[Threshold, ...]
    severity: dict[str, float]
    content: dict[str, Any]

    def threshold_for(self, target_fpr: float) -> float:
        """The threshold chosen for that false-positive rate.

        Raises:
            BundleError: the bundle has none for it; the message lists those it has.
        """
        for threshold in self.thresholds:
            if abs(threshold.target_fpr - target_fpr) < 1e-12:
                return threshold.threshold
        known = ", ".join(f"{threshold.target_fpr:g}" for threshold in self.thresholds)
        raise BundleError(
            f"bundle {self.name}: no threshold for a false-positive rate of {target_fpr:g}: it has {known}"
        )


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    """Write bundle.json with the hashes of the files beside it, and its own hash."""
    files = {
        name: {"sha256": sha256_of(directory / name), "bytes": (directory / name).stat().st_size}
        for name in (MODEL, REFERENCE)
    }
    path = directory / MANIFEST
    text = json.dumps({"format": FORMAT, **content, "files": files}, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
    (directory / MANIFEST_HASH).write_text(f"{sha256_of(path)}  {MANIFEST}\n", encoding="utf-8")


def read_manifest(directory: Path) -> Manifest:
    """Read and check a bundle: every file there, every hash right, a format and a schema that we speak.

    Raises:
        BundleError: it is not so; the message names the file or the field.
    """
    if not directory.is_dir():
        raise BundleError(f"{directory}: no such bundle directory")
    path = directory / MANIFEST
    digest = _checked_hash(path, _recorded_hash(directory / MANIFEST_HASH), MANIFEST_HASH)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path}: expected a JSON object")
    if content.get("format") != FORMAT:
        raise BundleError(f"{path}: bundle format {content.get('format')!r} is not known, this version reads {FORMAT}")
    try:
        for name in (MODEL, REFERENCE):
            _checked_hash(directory / name, content["files"][name]["sha256"], MANIFEST)
        return _parse(content, path, digest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path}: field {error} is missing or of the wrong type") from None


def _recorded_hash(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise BundleError(f"{path}: missing or unreadable; the bundle is incomplete, build or fetch it again") from None
    match = re.fullmatch(rf"([0-9a-f]{{64}})  {re.escape(MANIFEST)}\n", text)
    if match is None:
        raise BundleError(f"{path}: not the hash of {MANIFEST}: the file was changed, build or fetch it again")
    return match[1]


def _checked_hash(path: Path, expected: str, source: str) -> str:
    if not path.is_file():
        raise BundleError(f"{path}: missing; the bundle is incomplete, build or fetch it again")
    if path.stat().st_size > _LARGEST_FILE:
        raise BundleError(
            f"{path}: {path.stat().st_size} bytes, more than the {_LARGEST_FILE} that a bundle's file may have"
        )
    actual = sha256_of(path)
    if actual != expected:
        raise BundleError(
            f"{path}: sha256 is {actual}, expected {expected} by {source}: the file was changed, build or fetch it again"
        )
    return actual


def _parse(content: dict[str, Any], path: Path, digest: str) -> Manifest:
    dataset = content["dataset"]
    schema = SCHEMAS.get(dataset)
    if schema is None:
        raise BundleError(f"{path}: data set {dataset!r} is not known: {', '.join(SCHEMAS)}")
    if content["schema"]["hash"] != schema.fingerprint():
        raise BundleError(
            f"{path}: made for another version of the {dataset} schema "
            f"({content['schema']['hash'][:12]}, this one is {schema.fingerprint()[:12]}): build it again"
        )
    if [(item["name"], item["kind"]) for item in content["features"]] != [(it.name, it.kind) for it in schema.features]:
        raise BundleError(f"{path}: features are not those of the {dataset} schema, in its order: build it again")
    if content["families"] != [family.name for family in schema.attack_families]:
        raise BundleError(f"{path}: families are not those of the {dataset} schema, in its order: build it again")
    return Manifest(
        name=content["name"],
        version=content["version"],
        hash=digest,
        schema=schema,
        features=tuple(
            FeatureInfo(
                name=item["name"],
                kind=item["kind"],
                unit=item["unit"],
                benign_low=item.get("benign_low"),
                benign_median=item.get("benign_median"),
                benign_high=item.get("benign_high"),
                vocabulary=tuple(item.get("vocabulary", ())),
                benign_shares=tuple(item.get("benign_shares", ())),
            )
            for item in content["features"]
        ),
        families=tuple(content["families"]),
        thresholds=tuple(Threshold(**item) for item in content["thresholds"]),
        severity=dict(content["severity"]),
        content=content,
    )
