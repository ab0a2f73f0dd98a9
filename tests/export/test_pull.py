"""`pull` brings whole bundles or nothing, and switches in one step; with a real model registry."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from export.bundle import FILES, MANIFEST, MODEL, REFERENCE, read_bundle, write_manifest, write_signature
from export.detector import load
from export.pull import DirectorySource, RegistrySource, SourceError, pull, source_of, watch
from export.signing import ANYONE, PRIVATE_KEY, PUBLIC_KEY, Trust, make_keys, sign
from schemas.errors import BundleError, FlowsentryError
from tests.bundles import make_bundle
from tests.export.registry import MODEL_NAME, Registry, running_registry
from tests.stream.rig import Command

CHAMPION = f"models:/{MODEL_NAME}@champion"


@pytest.fixture
def bundles(tmp_path: Path) -> Callable[..., Path]:
    """Factory of bundles: `bundles(version)`, at the place `tmp_path / version`."""

    def make(version: str, **changes: object) -> Path:
        return make_bundle(tmp_path / version, "unsw-nb15", version=version, **changes)  # type: ignore[arg-type]

    return make


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "served" / "live"


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    with running_registry() as registry, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        yield registry


def bring(source: Path, place: Path, trust: Trust = ANYONE) -> bool:
    return pull(DirectorySource(source), place, trust).switched


def version_at(place: Path) -> str:
    return load(place).manifest.version


def versions_of(place: Path) -> list[str]:
    return sorted(path.name for path in place.with_name("live.versions").iterdir() if not path.name.startswith("."))


def test_the_first_pull_makes_the_link_and_the_next_ones_switch_it(bundles: Callable[..., Path], place: Path) -> None:
    place.parent.mkdir()
    assert bring(bundles("1"), place)
    assert place.is_symlink() and not Path(os.readlink(place)).is_absolute()
    assert place.resolve().parent == place.with_name("live.versions").resolve()
    assert place.resolve().name.endswith(load(place).manifest.hash[:12])
    assert read_bundle(place).files == read_bundle(bundles("1")).files
    assert version_at(place) == "1"
    assert bring(bundles("2"), place)
    assert version_at(place) == "2"
    place.parent.rename(place.parent.with_name("moved"))  # the link is relative
    assert version_at(place.parent.with_name("moved") / "live") == "2"


def test_a_bundle_that_is_there_already_changes_nothing(bundles: Callable[..., Path], place: Path) -> None:
    bundle = bundles("1")
    assert bring(bundle, place)
    before = place.resolve()
    assert not bring(bundle, place)
    assert (place.resolve(), len(versions_of(place))) == (before, 1)


def test_a_bundle_that_is_damaged_at_the_place_is_brought_again(bundles: Callable[..., Path], place: Path) -> None:
    bundle = bundles("1")
    bring(bundle, place)
    (place / MODEL).write_bytes(b"")
    assert bring(bundle, place)
    assert version_at(place) == "1"


def test_the_last_three_versions_are_kept(bundles: Callable[..., Path], place: Path) -> None:
    (place.parent / "live.versions" / "mine").mkdir(parents=True)
    hashes = []
    for number in range(5):
        assert bring(bundles(str(number)), place)
        hashes.append(load(place).manifest.hash[:12])
    assert [name.rpartition("-")[2] for name in versions_of(place)] == [*hashes[-3:], "mine"]
    assert version_at(place) == "4"


def break_model(bundle: Path) -> None:
    (bundle / MODEL).write_bytes((bundle / MODEL).read_bytes()[:-1])


def break_reference(bundle: Path) -> None:
    other = make_bundle(bundle.with_name("other"), "unsw-nb15", gain=2.0)
    shutil.copy(other / REFERENCE, bundle / REFERENCE)
    content = read_bundle(other).manifest.content
    write_manifest(bundle, {key: value for key, value in content.items() if key not in ("format", "files")})


def leave_out_the_manifest(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (break_model, "model.onnx: sha256 is "),
        (break_reference, "reference: torch and ONNX Runtime differ"),
        (leave_out_the_manifest, "bundle.json: missing"),
        (lambda bundle: (bundle / REFERENCE).write_bytes(b""), "reference.npz: sha256 is "),
        (shutil.rmtree, "no such bundle directory"),
    ],
)
def test_whatever_is_wrong_with_a_bundle_the_place_keeps_what_it_has(
    bundles: Callable[..., Path], place: Path, damage: Callable[[Path], object], told: str
) -> None:
    bring(bundles("1"), place)
    before = place.resolve()
    damage(bundles("2"))
    with pytest.raises(BundleError) as caught:
        bring(place.parent.parent / "2", place)
    assert told in str(caught.value)
    assert ".incoming" not in str(caught.value)
    assert (place.resolve(), version_at(place), len(versions_of(place))) == (before, "1", 1)
    assert sorted(path.name for path in place.parent.iterdir()) == ["live", "live.versions"]
    assert sorted(path.name for path in (place.parent / "live.versions").glob(".*")) == [".lock"]


def test_a_signature_is_brought_along_and_can_be_required(
    bundles: Callable[..., Path], place: Path, tmp_path: Path
) -> None:
    key = make_keys(tmp_path / "keys")
    trust = Trust(tmp_path / "keys" / PUBLIC_KEY, required=True)
    bundle = bundles("1")
    with pytest.raises(BundleError, match=r"bundle\.json\.sig: missing, and a signature is required"):
        bring(bundle, place, trust)
    assert not place.exists()
    bring(bundle, place)
    content = read_bundle(bundle)
    write_signature(content, sign(content.files[MANIFEST], tmp_path / "keys" / PRIVATE_KEY))
    assert bring(bundle, place, trust)
    assert str(read_bundle(place, trust).manifest.signature) == f"by trusted key {key}"


def test_a_place_that_is_a_directory_is_left_alone_and_it_is_said_why(
    bundles: Callable[..., Path], place: Path
) -> None:
    shutil.copytree(bundles("1"), place)
    with pytest.raises(FlowsentryError, match="is no symbolic link, and only a link can be switched in one step"):
        bring(bundles("2"), place)
    assert version_at(place) == "1"
    assert not place.with_name("live.versions").exists()


def test_two_pulls_to_one_place_do_not_meet(bundles: Callable[..., Path], place: Path) -> None:
    bring(bundles("1"), place)
    with (place.with_name("live.versions") / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FlowsentryError, match="another pull is at work there"):
            bring(bundles("2"), place)
    assert bring(bundles("2"), place)


def test_what_a_killed_pull_left_behind_is_removed(bundles: Callable[..., Path], place: Path) -> None:
    bring(bundles("1"), place)
    left = place.with_name("live.versions") / ".incoming-abc"
    shutil.copytree(bundles("2"), left)
    place.with_name(".live.next").symlink_to("nowhere")
    assert bring(bundles("3"), place)
    assert not left.exists()
    assert version_at(place) == "3"


def test_who_reads_while_it_is_switched_finds_a_whole_bundle(bundles: Callable[..., Path], place: Path) -> None:
    sources = [bundles("1"), bundles("2")]
    bring(sources[0], place)
    stop, seen, failures = threading.Event(), set(), []

    def read() -> None:
        while not stop.is_set():
            try:
                seen.add(version_at(place))
            except Exception as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20):
        link = place.with_name("next")
        link.symlink_to(sources[number % 2])
        link.replace(place)
        load(place)
    stop.set()
    reader.join()
    assert failures == []
    assert seen == {"1", "2"}


@pytest.mark.parametrize(
    "text", ["s3://bucket/bundle", "runs:/abc/bundle", "models:/name", "models:/a/b", "http://h/x"]
)
def test_a_source_that_is_none_is_told(text: str) -> None:
    with pytest.raises(FlowsentryError, match="expected models:/NAME@ALIAS, models:/NAME/VERSION or a directory"):
        source_of(text, "sqlite:///none.db")


def test_a_source_names_itself(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for text in (CHAMPION, "models:/name/12", "bundles/x", "C/x"):
        assert str(source_of(text, uri)) == text


class TestRegistry:
    """With a real MLflow server."""

    def source(self, registry: Registry, reference: str) -> RegistrySource:
        return RegistrySource(MODEL_NAME, reference, registry.uri)

    def test_the_alias_and_the_number_of_a_version_bring_its_bundle(
        self, registry: Registry, bundles: Callable[..., Path], place: Path
    ) -> None:
        first = registry.add_version(bundles("1"), alias="champion")
        second = registry.add_version(bundles("2"), folder=None)  # its files at the root of the artifacts
        champion = self.source(registry, "@champion")
        assert pull(champion, place, Trust()).manifest.version == "1"
        state = champion.state()
        registry.point("champion", second)
        assert champion.state() != state
        assert pull(champion, place, Trust()).switched
        assert version_at(place) == "2"
        assert pull(self.source(registry, f"/{first}"), place, Trust()).switched
        assert version_at(place) == "1"
        assert read_bundle(place).files == read_bundle(bundles("1")).files

    def test_a_version_without_a_bundle_is_refused(
        self, registry: Registry, bundles: Callable[..., Path], place: Path
    ) -> None:
        number = registry.add_version(bundles("1"), folder="elsewhere")
        with pytest.raises(BundleError, match=f"version {number} has no bundle.json among its artifacts"):
            pull(self.source(registry, f"/{number}"), place, Trust())
        assert not place.exists()

    def test_files_that_are_too_large_are_refused_before_they_are_fetched(
        self, registry: Registry, bundles: Callable[..., Path], place: Path
    ) -> None:
        bundle = bundles("1")
        (bundle / REFERENCE).write_bytes(bytes(FILES[REFERENCE] + 1))
        number = registry.add_version(bundle)
        with pytest.raises(BundleError, match=rf"reference\.npz: {FILES[REFERENCE] + 1} bytes, more than"):
            pull(self.source(registry, f"/{number}"), place, Trust())

    def test_other_artifacts_are_not_fetched(
        self, registry: Registry, bundles: Callable[..., Path], place: Path
    ) -> None:
        bundle = bundles("1")
        (bundle / "notes.txt").write_text("not of a bundle")
        pull(self.source(registry, f"/{registry.add_version(bundle)}"), place, Trust())
        assert {path.name for path in place.iterdir()} == FILES.keys() - {"bundle.json.sig"}

    @pytest.mark.parametrize("reference", ["/4096", "@nobody"])
    def test_a_version_that_is_not_there_is_told(self, registry: Registry, place: Path, reference: str) -> None:
        with pytest.raises(SourceError, match=f"models:/{MODEL_NAME}{reference}: the registry gave no such bundle"):
            pull(self.source(registry, reference), place, Trust())

    def test_a_registry_that_is_not_there_is_told_without_the_password(self, registry: Registry, place: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        source = RegistrySource(MODEL_NAME, "@champion", f"http://someone:hunter2@127.0.0.1:{port}")
        with pytest.raises(SourceError) as caught:
            pull(source, place, Trust())
        assert f"127.0.0.1:{port}" in str(caught.value)
        assert "hunter2" not in str(caught.value)


@contextmanager
def watching(source: str, place: Path, *options: str) -> Iterator[Command]:
    """`python -m export pull --watch`, killed at the end if it is still there."""
    words = [sys.executable, "-m", "export", "pull", source, "--to", str(place), "--watch", "--every", "0.2", *options]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    running = Command(process)
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def said(running: Command, text: str, times: int = 1) -> None:
    running.until(lambda: sum(text in line for line in running.lines) >= times, f"{times} times {text!r}")


def test_watch_brings_each_champion_refuses_bad_ones_and_outlives_the_registry(
    bundles: Callable[..., Path], place: Path
) -> None:
    with running_registry() as registry:
        registry.add_version(bundles("1"), alias="champion")
        bad = bundles("2")
        break_model(bad)
        with watching(CHAMPION, place, "--set", f"tracking.mlflow_uri={registry.uri}") as running:
            said(running, f"{place}: switched to tiny-unsw-nb15 1 ")
            registry.add_version(bad, alias="champion")
            said(running, f"refused: {CHAMPION}: model.onnx: sha256 is ")
            third = registry.add_version(bundles("3"))
            registry.stop()
            said(running, f"trying again: {CHAMPION}: the registry gave no such bundle", times=2)
            assert version_at(place) == "1"
            registry.start()
            registry.point("champion", third)
            said(running, f"{place}: switched to tiny-unsw-nb15 3 ")
            assert version_at(place) == "3"
            assert running.stop(signal.SIGTERM) == 0
            assert sum("refused: " in line for line in running.lines) == 1
            assert sum("switched to" in line for line in running.lines) == 2


def test_watch_stops_while_a_registry_does_not_answer(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with watching(CHAMPION, place, "--set", f"tracking.mlflow_uri={uri}") as running:
            connection, _ = silent.accept()
            with connection:
                assert running.stop(signal.SIGTERM) == 0


def test_watch_outlives_any_number_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Over(Exception):
        pass

    class Away(DirectorySource):
        def state(self) -> object:
            raise SourceError("away")

    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2000:
            raise Over

    monkeypatch.setattr("export.pull.time.sleep", pause)
    with pytest.raises(Over):
        watch(Away(tmp_path), tmp_path / "live", ANYONE, every_s=30.0, say=lambda _: None)
    assert pauses[:3] == [60.0, 120.0, 240.0] and set(pauses[4:]) == {300.0}


def test_watch_of_a_directory_takes_what_is_copied_there_when_it_is_whole(
    bundles: Callable[..., Path], place: Path, tmp_path: Path
) -> None:
    first, second = bundles("1"), bundles("2")
    source = Path(shutil.copytree(first, tmp_path / "source"))
    with watching(str(source), place) as running:
        said(running, "switched to tiny-unsw-nb15 1 ")
        shutil.copy(second / MANIFEST, source)
        said(running, f"refused: {source}: ")
        shutil.copytree(second, source, dirs_exist_ok=True)
        said(running, "switched to tiny-unsw-nb15 2 ")
        assert version_at(place) == "2"
        assert running.stop(signal.SIGTERM) == 0
