"""`pull`: bring a bundle from a model registry, or from a directory, to the place that a service watches.

    bundles/live → live.versions/20260102T030405.123456-6f2ccc88717d      a symbolic link, switched in one step
    bundles/live.versions/                                                this one and the last few before it

A bundle is fetched into a fresh directory and checked whole; whatever goes wrong, the link stays as it was.
"""

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, Protocol

from export.bundle import FILES, MANIFEST, Manifest, read_bundle, stamp
from export.detector import open_detector
from export.reference import check_reference
from export.signing import Trust
from schemas.errors import BundleError, FlowsentryError

__all__ = [
    "DirectorySource",
    "Pulled",
    "RegistrySource",
    "Source",
    "SourceError",
    "described",
    "pull",
    "source_of",
    "watch",
]

KEPT_VERSIONS = 3
_LONGEST_PAUSE_S = 300.0
_MOST_DOUBLINGS = 20  # of the pause; beyond that only the number would grow
_BUNDLE_FOLDERS = ("", "bundle/")  # where among a model version's artifacts
_VERSION_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}-[0-9a-f]{12}")


class SourceError(FlowsentryError):
    """The source gave no answer, or has no such bundle: it may be worth asking again."""


class Source(Protocol):
    """Where bundles come from; its text names it."""

    def state(self) -> object:
        """What changes when there is another bundle; cheap. Raises SourceError."""

    def fetch(self, directory: Path) -> None:
        """Write the bundle's files into an empty directory. Raises SourceError, or BundleError when it is none."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """The bundle that the place holds now; `switched`: it is another one than before."""

    manifest: Manifest
    switched: bool


def source_of(text: str, registry_uri: str) -> Source:
    """What a text names: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a directory.

    Raises:
        FlowsentryError: it is none of these.
    """
    if match := re.fullmatch(r"models:/([^/@]+)(@[^/@]+|/\d+)", text):
        return RegistrySource(match[1], match[2], registry_uri)
    if re.match(r"[a-z][a-z0-9+.-]+:", text):
        raise FlowsentryError(f"{text}: expected models:/NAME@ALIAS, models:/NAME/VERSION or a directory")
    return DirectorySource(Path(text))


class DirectorySource:
    """A bundle directory, such as one on a volume that several machines mount."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __str__(self) -> str:
        return str(self._directory)

    def state(self) -> object:
        return stamp(self._directory)

    def fetch(self, directory: Path) -> None:
        for name, content in read_bundle(self._directory).files.items():
            (directory / name).write_bytes(content)


class RegistrySource:
    """A model version in the MLflow Model Registry that has a bundle among its artifacts, at their root or in `bundle/`."""

    def __init__(self, name: str, reference: str, registry_uri: str) -> None:
        import mlflow

        self._name, self._reference, self._uri = name, reference, registry_uri  # reference: @ALIAS or /VERSION
        self._artifacts = mlflow.artifacts
        self._client = mlflow.MlflowClient(registry_uri, registry_uri)

    def __str__(self) -> str:
        return f"models:/{self._name}{self._reference}"

    def state(self) -> object:
        version = self._version()
        return version.version, version.source

    def fetch(self, directory: Path) -> None:
        with self._asking():
            version = self._version()
            artifacts = self._client.get_model_version_download_uri(self._name, version.version)
            root, sizes = self._bundle_among(artifacts)
        if MANIFEST not in sizes:
            raise BundleError(f"{self}: version {version.version} has no {MANIFEST} among its artifacts")
        for name, largest in FILES.items():
            if (sizes.get(name) or 0) > largest:
                raise BundleError(f"{name}: {sizes[name]} bytes, more than the {largest} that it may have")
        for name in FILES.keys() & sizes.keys():
            with self._asking():
                self._artifacts.download_artifacts(f"{root}{name}", dst_path=str(directory), tracking_uri=self._uri)

    def _version(self) -> Any:
        kind, wanted = self._reference[0], self._reference[1:]
        with self._asking():
            if kind == "@":
                return self._client.get_model_version_by_alias(self._name, wanted)
            return self._client.get_model_version(self._name, wanted)

    def _bundle_among(self, artifacts: str) -> tuple[str, dict[str, int | None]]:
        """Where the bundle's files are, and their sizes by name as far as the store knows."""
        for folder in _BUNDLE_FOLDERS:
            root = f"{artifacts.rstrip('/')}/{folder}"
            listed = self._artifacts.list_artifacts(root.rstrip("/"), tracking_uri=self._uri)
            sizes = {item.path.rpartition("/")[2]: item.file_size for item in listed if not item.is_dir}
            if MANIFEST in sizes:
                break
        return root, sizes

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except FlowsentryError:
            raise
        except Exception as error:  # MLflow's, and those of every kind of artifact store
            why = re.sub(r"//[^/@\s]+@", "//", str(error).partition("\n")[0])  # without a password
            raise SourceError(f"{self}: the registry gave no such bundle: {type(error).__name__}: {why}") from None


def pull(source: Source, place: Path, trust: Trust, *, kept_versions: int = KEPT_VERSIONS) -> Pulled:
    """Fetch, check whole (hashes, sizes, signature, graph, answers on the reference rows), then switch `place` to it.

    Raises:
        BundleError: the bundle is refused; the place holds what it held before.
        SourceError: there was no bundle to be had; likewise.
        FlowsentryError: the place is no link, or another pull is at work there; likewise.
    """
    if place.exists() and not place.is_symlink():
        raise FlowsentryError(
            f"{place}: is no symbolic link, and only a link can be switched in one step: name another place with --to, "
            "or move this one away first"
        )
    versions = place.with_name(place.name + ".versions")
    versions.mkdir(parents=True, exist_ok=True)
    with _alone(versions):
        incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=versions))
        try:
            source.fetch(incoming)
            bundle = read_bundle(incoming, trust)
            check_reference(bundle, open_detector(bundle, threads=1))
            if bundle.files == _files_at(place, trust):
                return Pulled(bundle.manifest, switched=False)
            target = versions / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{bundle.manifest.hash[:12]}"
            incoming.chmod(0o755)
            _write_through(incoming)
            incoming.rename(target)
        except BundleError as error:
            raise BundleError(f"{source}: {str(error).replace(f'{incoming}/', '')}") from None
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        _switch(place, target)
        for old in sorted(path for path in versions.iterdir() if _VERSION_NAME.fullmatch(path.name))[:-kept_versions]:
            if old != target:
                shutil.rmtree(old)
    return Pulled(bundle.manifest, switched=True)


def watch(source: Source, place: Path, trust: Trust, *, every_s: float, say: Callable[[str], None]) -> NoReturn:
    """Pull whenever the source has another bundle, for ever.

    `say` gets a line for each switch, for each bundle that is refused (which is not asked for again until the source or
    the trusted keys change) and for each time that the source cannot be asked (after which it is asked ever less often).
    """
    handled: object = None
    failures = 0
    while True:
        try:
            seen = (source.state(), trust.stamp())
            if seen != handled:
                try:
                    pulled = pull(source, place, trust)
                    say(f"{'switched to' if pulled.switched else 'has already'} {described(pulled.manifest)}")
                except BundleError as error:
                    say(f"refused: {error}")
                handled = seen
            failures = 0
        except (FlowsentryError, OSError) as error:
            failures += 1
            say(f"trying again: {error}")
        time.sleep(min(every_s * 2 ** min(failures, _MOST_DOUBLINGS), max(every_s, _LONGEST_PAUSE_S)))


def described(manifest: Manifest) -> str:
    """A bundle in one line."""
    return f"{manifest.name} {manifest.version} {manifest.hash[:12]}, signature {manifest.signature}"


def _files_at(place: Path, trust: Trust) -> object:
    try:
        return read_bundle(place, trust).files
    except BundleError:
        return None


def _switch(place: Path, target: Path) -> None:
    link = place.with_name(f".{place.name}.next")
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(target, place.parent))
    link.replace(place)
    _sync(place.parent)


@contextmanager
def _alone(versions: Path) -> Iterator[None]:
    """No other pull to the same place meanwhile; what a killed one left is removed."""
    with (versions / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FlowsentryError(f"{versions}: another pull is at work there") from None
        for left in versions.glob(".incoming-*"):
            shutil.rmtree(left)
        yield


def _write_through(directory: Path) -> None:
    """After a power cut there must be no link to a bundle without content."""
    for path in (*directory.iterdir(), directory):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
