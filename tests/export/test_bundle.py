"""A bundle on disk: written, read back, and refused for every way in which it can be wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle import FORMAT, MANIFEST, MANIFEST_HASH, MODEL, REFERENCE, read_bundle, sha256_of, write_manifest
from export.detector import load
from schemas.datasets import SCHEMAS
from schemas.errors import BundleError
from tests.bundles import make_bundle

FILES = (MANIFEST, MANIFEST_HASH, MODEL, REFERENCE)


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of the test's own."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def refusal(directory: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load(directory)
    return str(caught.value)


def rewrite(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change bundle.json, and its hash with it: what a hash cannot catch."""
    content = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    change(content)
    sign(directory, json.dumps(content).encode())


def sign(directory: Path, content: bytes) -> None:
    (directory / MANIFEST).write_bytes(content)
    (directory / MANIFEST_HASH).write_text(f"{sha256_of(directory / MANIFEST)}  {MANIFEST}\n")


@pytest.mark.parametrize("dataset", SCHEMAS)
def test_what_is_written_is_read_back(tiny_bundles: dict[str, Path], dataset: str) -> None:
    manifest = read_bundle(tiny_bundles[dataset]).manifest
    schema = SCHEMAS[dataset]
    assert (manifest.name, manifest.version) == (f"tiny-{dataset}", "0.0.1")
    assert manifest.schema is schema
    assert manifest.hash == sha256_of(tiny_bundles[dataset] / MANIFEST)
    assert [(info.name, info.kind, info.unit) for info in manifest.features] == [
        (feature.name, feature.kind, feature.unit) for feature in schema.features
    ]
    assert manifest.families == tuple(family.name for family in schema.attack_families)
    assert list(manifest.severity) == ["medium", "high", "critical"]
    assert [threshold.target_fpr for threshold in manifest.thresholds] == [0.0001, 0.001, 0.005, 0.01, 0.05]
    assert manifest.content["format"] == FORMAT


def test_the_manifest_lists_the_other_files_and_sha256sum_can_check_it(tiny_bundle: Path) -> None:
    files = json.loads((tiny_bundle / MANIFEST).read_text(encoding="utf-8"))["files"]
    assert files == {
        name: {"sha256": sha256_of(tiny_bundle / name), "bytes": (tiny_bundle / name).stat().st_size}
        for name in (MODEL, REFERENCE)
    }
    assert (tiny_bundle / MANIFEST_HASH).read_text() == f"{sha256_of(tiny_bundle / MANIFEST)}  bundle.json\n"
    assert sorted(path.name for path in tiny_bundle.iterdir()) == sorted(FILES)


def test_a_bundle_made_twice_has_the_same_model_and_manifest_but_for_the_reference(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    again = make_bundle(tmp_path / "again", "unsw-nb15")
    assert (again / MODEL).read_bytes() == (tiny_bundle / MODEL).read_bytes()


@settings(deadline=None, max_examples=150)
@given(name=st.sampled_from(FILES), place=st.integers(0, 1 << 20), mask=st.integers(1, 255))
def test_a_changed_byte_in_any_file_is_refused_by_the_files_name(
    tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory, name: str, place: int, mask: int
) -> None:
    directory = Path(shutil.copytree(tiny_bundle, tmp_path_factory.getbasetemp() / "changed", dirs_exist_ok=True))
    content = bytearray((directory / name).read_bytes())
    content[place % len(content)] ^= mask
    (directory / name).write_bytes(content)
    assert name in refusal(directory)


def test_every_changed_byte_of_the_manifests_hash_is_refused(copy: Path) -> None:
    path = copy / MANIFEST_HASH
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert str(path) in refusal(copy) or MANIFEST_HASH in refusal(copy)
    path.write_bytes(whole)
    assert load(copy).manifest.name == "tiny-unsw-nb15"


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_its_name(copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert refusal(copy).startswith(f"{copy / name}: missing")


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_or_grown_is_refused_by_its_name(copy: Path, name: str) -> None:
    whole = (copy / name).read_bytes()
    for content in (b"", whole[:-1], whole + b"\n"):
        (copy / name).write_bytes(content)
        assert name in refusal(copy)


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    assert refusal(tmp_path / "none") == f"{tmp_path / 'none'}: no such bundle directory"
    assert refusal(tiny_bundle / MODEL) == f"{tiny_bundle / MODEL}: no such bundle directory"
    assert refusal(tmp_path).startswith(f"{tmp_path / MANIFEST_HASH}: missing")


def test_a_file_too_large_to_be_a_bundles_is_refused_unread(copy: Path) -> None:
    with (copy / MODEL).open("r+b") as file:
        file.truncate((256 << 20) + 1)  # sparse: it takes no room on the disk
    assert f"{copy / MODEL}: {(256 << 20) + 1} bytes, more than" in refusal(copy)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "bundle format 2 is not known, this version reads 1"),
        ({"format": None}, "bundle format None is not known"),
        ({"dataset": "kdd99"}, "data set 'kdd99' is not known: cicids2017, cicids2017-improved, unsw-nb15"),
        (
            {"schema": {"version": "1", "hash": "0" * 64}},
            "made for another version of the unsw-nb15 schema (000000000000",
        ),
        ({"dataset": "cicids2017"}, "made for another version of the cicids2017 schema"),
        ({"features": []}, "features are not those of the unsw-nb15 schema"),
        ({"families": ["Worms"]}, "families are not those of the unsw-nb15 schema"),
        ({"files": {}}, "field 'model.onnx' is missing"),
        ({"files": 5}, "of the wrong type"),
        ({"features": [{}]}, "field 'name' is missing"),
        ({"thresholds": [{"target_fpr": 0.1}]}, "of the wrong type"),
        ({"severity": 5}, "of the wrong type"),
        ({"severity": "high"}, "of the wrong type"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused_by_the_field(copy: Path, change: dict[str, object], told: str) -> None:
    rewrite(copy, lambda content: content.update(change))
    assert refusal(copy).startswith(f"{copy / MANIFEST}: ")
    assert told in refusal(copy)


@pytest.mark.parametrize(
    "field", ["name", "version", "dataset", "schema", "features", "families", "thresholds", "files"]
)
def test_a_manifest_without_a_field_is_refused_by_its_name(copy: Path, field: str) -> None:
    rewrite(copy, lambda content: content.pop(field))
    assert refusal(copy) == f"{copy / MANIFEST}: field '{field}' is missing or of the wrong type"


def test_features_in_another_order_are_refused(copy: Path) -> None:
    rewrite(copy, lambda content: content["features"].reverse())
    assert "features are not those of the unsw-nb15 schema, in its order" in refusal(copy)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_manifest_that_is_no_json_object_is_refused(copy: Path, content: bytes, told: str) -> None:
    sign(copy, content)
    assert refusal(copy).startswith(f"{copy / MANIFEST}: {told}")


@pytest.mark.parametrize("content", [b"", b"not an ONNX file", b"\x08\x0a" * 50])
def test_a_model_that_is_no_onnx_is_refused_by_its_name(copy: Path, content: bytes) -> None:
    (copy / MODEL).write_bytes(content)
    rewrite(copy, lambda manifest: manifest["files"][MODEL].update(sha256=sha256_of(copy / MODEL)))
    assert refusal(copy).startswith(f"{copy / MODEL}: ONNX Runtime cannot load it: ")


def test_overrides_of_the_manifest_are_written(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "named", "cicids2017", name="mine", version="7")
    assert (read_bundle(bundle).manifest.name, read_bundle(bundle).manifest.version) == ("mine", "7")


def test_the_threshold_of_a_rate_and_for_another_rate_those_there_are(tiny_bundle: Path) -> None:
    manifest = read_bundle(tiny_bundle).manifest
    assert manifest.threshold_for(0.01) == 0.75
    assert manifest.threshold_for(0.1 * 0.1) == 0.75  # not the same float
    told = "no threshold for a false-positive rate of 0.02: it has 0.0001, 0.001, 0.005, 0.01, 0.05"
    with pytest.raises(BundleError, match=told):
        manifest.threshold_for(0.02)


def test_writing_again_replaces_hash_and_content(copy: Path) -> None:
    content = read_bundle(copy).manifest.content
    write_manifest(
        copy, {key: value for key, value in content.items() if key not in ("format", "files")} | {"name": "µ"}
    )
    assert read_bundle(copy).manifest.name == "µ"
