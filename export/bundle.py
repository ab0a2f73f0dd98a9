"""The bundle on disk: what its files are, how they are written, and why one is refused.

    bundle.json          what the detector is: data set, features, thresholds, metrics, what drift is measured against,
                         hashes of the other files
    bundle.json.sha256   hash of bundle.json, as `sha256sum` writes it
    bundle.json.sig      signature of bundle.json (optional; its form: export/signing.py)
    model.onnx           raw feature values → probabilities
    reference.npz        made-up inputs and what torch answered to them: parity can be checked anywhere

Nothing in a bundle is code: JSON, ONNX and plain arrays. A bundle has these files and no others; each is read once, up to
a size, and what was hashed is what is run.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.drift_reference import NOVELTY, SCORE, DriftReference, reference_from_json
from export.signing import ANYONE, Signature, Trust, check_signature, stamp_of_file
from export.thresholds import Policy, Threshold
from schemas.datasets import SCHEMAS
from schemas.errors import BundleError
from schemas.flow import FlowSchema, Kind

__all__ = [
    "FILES",
    "FORMAT",
    "MANIFEST",
    "MANIFEST_HASH",
    "MODEL",
    "REFERENCE",
    "SIGNATURE",
    "Bundle",
    "FeatureInfo",
    "Manifest",
    "manifest_hash",
    "read_bundle",
    "sha256_of",
    "stamp",
    "write_manifest",
    "write_signature",
]

FORMAT = 1
MANIFEST = "bundle.json"
MANIFEST_HASH = "bundle.json.sha256"
MODEL = "model.onnx"
REFERENCE = "reference.npz"
SIGNATURE = "bundle.json.sig"
FILES: Mapping[str, int] = {
    MANIFEST_HASH: 1 << 10,
    MANIFEST: 4 << 20,
    SIGNATURE: 1 << 10,
    MODEL: 256 << 20,
    REFERENCE: 16 << 20,
}
"""A bundle's files and how many bytes each may have; together they bound the bundle."""

_SEVERITIES = frozenset({"medium", "high", "critical"})
_LONGEST_TEXT = 200
_LARGEST_NUMBER = 3.4e38  # a float32's
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)  # for a pipe that nobody writes to


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
    """bundle.json, checked. `hash` is the sha256 of bundle.json itself, which lists those of the other files; `drift` is None
    for bundles of before."""

    name: str
    version: str
    hash: str
    signature: Signature
    schema: FlowSchema
    features: tuple[FeatureInfo, ...]
    families: tuple[str, ...]
    thresholds: tuple[Threshold, ...]
    severity: dict[str, float]
    novelty_severity: dict[str, float]
    tells_novelty: bool
    classifies: bool
    drift: DriftReference | None
    content: dict[str, Any]

    def threshold_for(self, target_fpr: float) -> float:
        """The threshold of the score that was chosen for that false-positive rate. Raises as `policy_for` does."""
        return self.policy_for(target_fpr).threshold

    def policy_for(self, target_fpr: float) -> Policy:
        """What makes an alert at that false-positive rate.

        Raises:
            BundleError: the bundle has no threshold for it; the message lists those it has.
        """
        for threshold in self.thresholds:
            if abs(threshold.target_fpr - target_fpr) < 1e-12:
                return Policy(threshold.threshold, threshold.novelty)
        known = ", ".join(f"{threshold.target_fpr:g}" for threshold in self.thresholds)
        raise BundleError(
            f"bundle {self.name}: no threshold for a false-positive rate of {target_fpr:g}: it has {known}"
        )

    def policy_of(self, target_fpr: float, threshold: float | None, *, novel: bool) -> Policy:
        """What makes an alert, with a `threshold` of one's own or that of the rate.

        Raises:
            BundleError: the bundle has no threshold for the rate, and one is needed; or it can tell only what is novel, and
                that is not what is asked for.
        """
        if not self.classifies and (threshold is not None or not novel):
            asked = "stream.novel_alerts = false" if threshold is None else f"a threshold of {threshold:g}"
            raise BundleError(
                f"bundle {self.name}: it knows no attacks and tells only what is novel: {asked} would leave no alert"
            )
        needs_rate = threshold is None or (novel and self.tells_novelty)
        chosen = self.policy_for(target_fpr) if needs_rate else Policy(0.0)
        return Policy(chosen.threshold if threshold is None else threshold, chosen.novelty if novel else None)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle as it was read from `directory`: every file's content, checked."""

    directory: Path
    manifest: Manifest
    files: Mapping[str, bytes]


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_hash(directory: Path) -> str:
    """A bundle's hash, before anything in it is checked. Raises BundleError when it has no bundle.json."""
    return hashlib.sha256(_Place(directory).read(MANIFEST)).hexdigest()


def stamp(directory: Path) -> tuple[object, ...]:
    """What changes when a bundle's place does, without reading it: which real directory it is, and the inode, size and
    times of each file."""
    real = os.path.realpath(directory)
    return (real, *(stamp_of_file(os.path.join(real, name)) for name in FILES))


def write_manifest(directory: Path, content: dict[str, Any]) -> None:
    """Write bundle.json with the hashes of the files beside it, and its own hash; a signature is void and removed."""
    files = {
        name: {"sha256": sha256_of(directory / name), "bytes": (directory / name).stat().st_size}
        for name in (MODEL, REFERENCE)
    }
    path = directory / MANIFEST
    text = json.dumps({"format": FORMAT, **content, "files": files}, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
    (directory / MANIFEST_HASH).write_text(f"{sha256_of(path)}  {MANIFEST}\n", encoding="utf-8")
    (directory / SIGNATURE).unlink(missing_ok=True)


def write_signature(bundle: Bundle, signature: bytes) -> Path:
    """Put a signature beside what it signs, in one step; the path of its file."""
    path = bundle.directory / SIGNATURE
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(signature)
    return partial.replace(path)


def read_bundle(directory: Path, trust: Trust = ANYONE) -> Bundle:
    """Read and check a bundle: every file there, every hash right, signed as `trust` asks, a format and a schema we speak.

    Raises:
        BundleError: it is not so; the message names the file or the field.
        FlowsentryError: the trusted keys cannot be read.
    """
    if not directory.is_dir():
        raise BundleError(f"{directory}: no such bundle directory")
    place = _Place(directory)
    files = {MANIFEST_HASH: place.read(MANIFEST_HASH), MANIFEST: place.read(MANIFEST)}
    path = directory / MANIFEST
    digest = _checked_hash(path, files[MANIFEST], _recorded_hash(directory, files[MANIFEST_HASH]), MANIFEST_HASH)
    if place.has(SIGNATURE):
        files[SIGNATURE] = place.read(SIGNATURE)
    signature = check_signature(files[MANIFEST], files.get(SIGNATURE), trust, directory / SIGNATURE)
    content = _parse_json(files[MANIFEST], path)
    try:
        if unknown := content["files"].keys() - {MODEL, REFERENCE}:
            raise BundleError(f"{path}: lists {sorted(unknown)[0]!r}, which is no file of a bundle")
        for name in (MODEL, REFERENCE):
            files[name] = place.read(name)
            _checked_hash(directory / name, files[name], content["files"][name]["sha256"], MANIFEST)
        manifest = _parse(content, path, digest, signature)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path}: field {error} is missing or of the wrong type") from None
    return Bundle(directory, manifest, files)


class _Place:
    """The real directory behind a path: a link that is switched meanwhile does not mix two bundles."""

    def __init__(self, directory: Path) -> None:
        self._shown = directory
        self._real = Path(os.path.realpath(directory))

    def has(self, name: str) -> bool:
        return os.path.lexists(self._real / name)

    def read(self, name: str) -> bytes:
        """A file's content; refuses what is no ordinary file, is too large or lies elsewhere."""
        path, real = self._shown / name, Path(os.path.realpath(self._real / name))
        if not real.is_relative_to(self._real):
            raise BundleError(f"{path}: is a link out of the bundle's directory: put the file itself there")
        try:
            with open(real, "rb", opener=lambda file, flags: os.open(file, flags | _NO_WAITING)) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise BundleError(f"{path}: is not an ordinary file")
                if status.st_size > FILES[name]:
                    raise BundleError(f"{path}: {status.st_size} bytes, more than the {FILES[name]} that it may have")
                return file.read(status.st_size)
        except FileNotFoundError:
            raise BundleError(f"{path}: missing; the bundle is incomplete, build or fetch it again") from None
        except OSError as error:
            raise BundleError(f"{path}: {error.strerror}") from None


def _recorded_hash(directory: Path, content: bytes) -> str:
    match = re.fullmatch(rf"([0-9a-f]{{64}})  {re.escape(MANIFEST)}\n".encode(), content)
    if match is None:
        raise BundleError(
            f"{directory / MANIFEST_HASH}: not the hash of {MANIFEST}: the file was changed, build or fetch it again"
        )
    return match[1].decode()


def _checked_hash(path: Path, content: bytes, expected: str, source: str) -> str:
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise BundleError(
            f"{path}: sha256 is {actual}, expected {expected} by {source}: the file was changed, build or fetch it again"
        )
    return actual


def _parse_json(text: bytes, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path}: expected a JSON object")
    if content.get("format") != FORMAT:
        raise BundleError(f"{path}: bundle format {content.get('format')!r} is not known, this version reads {FORMAT}")
    return content


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _parse(content: dict[str, Any], path: Path, digest: str, signature: Signature) -> Manifest:
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
    classifies, tells_novelty = _flag(content, "classifies", default=True), _flag(content, "tells_novelty")
    if not (classifies or tells_novelty):
        raise BundleError(f"{path}: tells neither attacks nor what is novel")
    thresholds = tuple(_threshold(item) for item in content["thresholds"])
    if not classifies and any(item.threshold <= 1 or item.novelty is None for item in thresholds):
        raise BundleError(f"{path}: a threshold is for a score, and there are no scores: build it again")
    if content["families"] != ([family.name for family in schema.attack_families] if classifies else []):
        raise BundleError(f"{path}: families are not those of the {dataset} schema, in its order: build it again")
    features = tuple(_feature(item) for item in content["features"])
    return Manifest(
        name=_text(content, "name"),
        version=_text(content, "version"),
        hash=digest,
        signature=signature,
        schema=schema,
        features=features,
        families=tuple(content["families"]),
        thresholds=thresholds,
        severity=_severity(content["severity"]),
        novelty_severity=_severity(content.get("novelty_severity", {})),
        tells_novelty=tells_novelty,
        classifies=classifies,
        drift=_drift(content, features, classifies=classifies, tells_novelty=tells_novelty),
        content=content,
    )


# What an alert is made of must have the types that an alert has: else the first alert would fail, in the service.


def _feature(item: dict[str, Any]) -> FeatureInfo:
    vocabulary, shares = item.get("vocabulary", []), item.get("benign_shares", [])
    if len(shares) != len(vocabulary) or not all(isinstance(category, str) for category in vocabulary):
        raise TypeError("'vocabulary'")
    return FeatureInfo(
        name=item["name"],
        kind=item["kind"],
        unit=_text(item, "unit"),
        **{key: _optional(item, key) for key in ("benign_low", "benign_median", "benign_high")},
        vocabulary=tuple(vocabulary),
        benign_shares=tuple(_number({"benign_shares": share}, "benign_shares", 0, 1) for share in shares),
    )


def _drift(
    content: dict[str, Any], features: tuple[FeatureInfo, ...], *, classifies: bool, tells_novelty: bool
) -> DriftReference | None:
    if content.get("drift") is None:
        return None
    vocabularies = [(it.name, it.vocabulary if it.kind == Kind.CATEGORICAL else None) for it in features]
    scores = [name for name, told in ((SCORE, classifies), (NOVELTY, tells_novelty)) if told]
    return reference_from_json(content["drift"], vocabularies, scores)


def _threshold(item: dict[str, Any]) -> Threshold:
    threshold = Threshold(**item)
    _number(item, "target_fpr", 0, 1)
    _number(item, "threshold", 0, 2)  # above 1 where no score is to be an alert
    _optional(item, "novelty")
    return threshold


def _severity(item: dict[str, Any]) -> dict[str, float]:
    bounds = {name: _number(item, name) for name in dict(item)}
    if not bounds.keys() <= _SEVERITIES:
        raise TypeError("'severity'")
    return bounds


def _flag(item: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    """The default where there is none: bundles of before had none."""
    value = item.get(key, default)
    if not isinstance(value, bool):
        raise TypeError(repr(key))
    return value


def _text(item: Mapping[str, Any], key: str) -> str:
    value = item[key]
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise TypeError(repr(key))
    return value


def _number(item: Mapping[str, Any], key: str, low: float = -_LARGEST_NUMBER, high: float = _LARGEST_NUMBER) -> float:
    value = item[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise TypeError(repr(key))
    return value


def _optional(item: Mapping[str, Any], key: str) -> float | None:
    return None if item.get(key) is None else _number(item, key)
