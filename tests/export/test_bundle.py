"""A bundle on disk: written, read back, and refused for every way in which it can be wrong."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle import FILES as LARGEST
from export.bundle import (
    FORMAT,
    MANIFEST,
    MANIFEST_HASH,
    MODEL,
    REFERENCE,
    SIGNATURE,
    read_bundle,
    sha256_of,
    write_manifest,
)
from export.detector import Detector, load, open_detector
from export.runtime import ort
from schemas.datasets import SCHEMAS
from schemas.errors import BundleError
from tests.bundles import make_bundle

FILES = (MANIFEST, MANIFEST_HASH, MODEL, REFERENCE)
THRESHOLD = {
    "target_fpr": 0.1, "threshold": 0.5, "benign_rows": 1, "false_positives": 0, "attack_rows": 1, "detected": 1
}  # fmt: skip


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


@pytest.mark.parametrize("name", [*FILES, SIGNATURE])
def test_a_file_too_large_to_be_a_bundles_is_refused_unread(copy: Path, name: str) -> None:
    with (copy / name).open("ab") as file:
        file.truncate(LARGEST[name] + 1)  # sparse: it takes no room on the disk
    told = f"{copy / name}: {LARGEST[name] + 1} bytes, more than the {LARGEST[name]} that it may have"
    assert refusal(copy) == told


def test_a_bundle_is_bounded_in_all() -> None:
    assert sum(LARGEST.values()) < 300 << 20
    assert set(LARGEST) == {*FILES, SIGNATURE}


@pytest.mark.parametrize("name", [*FILES, SIGNATURE])
def test_a_link_out_of_the_directory_is_refused(copy: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").write_bytes(b"secret" if name == SIGNATURE else (copy / name).read_bytes())
    (copy / name).unlink(missing_ok=True)
    for target in (tmp_path / "elsewhere", Path("../elsewhere"), tmp_path / "nowhere", Path("/dev/zero")):
        (copy / name).symlink_to(target)
        told = f"{copy / name}: is a link out of the bundle's directory: put the file itself there"
        assert refusal(copy) == told
        (copy / name).unlink()


def test_a_directory_of_links_as_kubernetes_mounts_one_can_be_read(tiny_bundle: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "mounted"
    shutil.copytree(tiny_bundle, mounted / "..2026_01_01")
    (mounted / "..data").symlink_to("..2026_01_01")
    for name in FILES:
        (mounted / name).symlink_to(f"..data/{name}")
    assert load(mounted).manifest.name == "tiny-unsw-nb15"


@pytest.mark.parametrize("name", [*FILES, SIGNATURE])
def test_what_is_no_ordinary_file_is_refused_without_waiting(copy: Path, name: str) -> None:
    path = copy / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)  # with nobody at its other end, for whom a plain open would wait for ever
    assert refusal(copy) == f"{path}: is not an ordinary file"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # its name may not be long
    assert refusal(copy) == f"{path}: No such device or address"
    path.unlink()
    path.mkdir()
    assert refusal(copy) == f"{path}: Is a directory"


def test_what_was_hashed_is_what_runs_whatever_becomes_of_the_files(copy: Path, detector: Detector) -> None:
    bundle = read_bundle(copy)
    shutil.rmtree(copy)
    columns = {"sttl": np.array([254.0, 31.0])}
    assert open_detector(bundle).score(columns).score.tolist() == detector.score(columns).score.tolist()


def externally(tensor: onnx.TensorProto, location: str) -> onnx.TensorProto:
    """The tensor, its data in another file."""
    moved = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    moved.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(tensor.raw_data)))):
        moved.external_data.add(key=key, value=value)
    return moved


def as_constant(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))


def in_a_branch(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    inner = onnx.helper.make_tensor_value_info("inner", tensor.data_type, list(tensor.dims))
    constant = onnx.helper.make_node("Constant", [], ["inner"], value=tensor)
    branch = onnx.helper.make_graph([constant], "branch", [], [inner])
    condition = onnx.numpy_helper.from_array(np.array(True), "condition")
    model.graph.initializer.append(condition)
    node = onnx.helper.make_node("If", ["condition"], [tensor.name], then_branch=branch, else_branch=branch)
    model.graph.node.insert(0, node)


def in_a_function(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    constant = onnx.helper.make_node("Constant", [], ["out"], value=tensor)
    opsets = [onnx.helper.make_opsetid("", 20)]
    model.functions.append(onnx.helper.make_function("local", "Weights", [], ["out"], [constant], opsets))
    model.opset_import.append(onnx.helper.make_opsetid("local", 1))
    model.graph.node.insert(0, onnx.helper.make_node("Weights", [], [tensor.name], domain="local"))


def in_a_sparse_tensor(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    size = int(np.prod(tensor.dims))
    indices = onnx.numpy_helper.from_array(np.arange(size, dtype=np.int64), "indices")
    values = onnx.TensorProto()
    values.CopyFrom(tensor)
    values.dims[:] = [size]
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, list(tensor.dims)))


def as_initializer(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.initializer.append(tensor)


def replace_model(directory: Path, model: onnx.ModelProto) -> None:
    (directory / MODEL).write_bytes(model.SerializeToString())
    rewrite(directory, lambda manifest: manifest["files"][MODEL].update(sha256=sha256_of(directory / MODEL)))


PUT = (as_initializer, as_constant, in_a_branch, in_a_function, in_a_sparse_tensor)


@pytest.mark.parametrize("put", PUT)
def test_a_graph_with_its_weights_in_any_part_of_it_is_read(
    copy: Path, put: Callable[[onnx.ModelProto, onnx.TensorProto], None]
) -> None:
    model = onnx.load(copy / MODEL)
    [weights] = [tensor for tensor in model.graph.initializer if tensor.name == "family_weight"]
    model.graph.initializer.remove(weights)
    put(model, weights)
    replace_model(copy, model)
    assert load(copy).manifest.name == "tiny-unsw-nb15"


@pytest.mark.parametrize("put", PUT)
@pytest.mark.parametrize("place", ["working directory", "bundle", "parent", "absolute"])
def test_a_graph_whose_weights_lie_in_another_file_is_refused(
    copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    put: Callable[[onnx.ModelProto, onnx.TensorProto], None],
    place: str,
) -> None:
    model = onnx.load(copy / MODEL)
    [weights] = [tensor for tensor in model.graph.initializer if tensor.name == "family_weight"]
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)  # where ONNX Runtime looks for the files of a graph that has no path
    for directory in (working, copy, tmp_path):
        (directory / "weights.bin").write_bytes(weights.raw_data)
    location = {"parent": "../weights.bin", "absolute": str(tmp_path / "weights.bin")}.get(place, "weights.bin")
    if place == "bundle":
        (working / "weights.bin").unlink()
    put(model, externally(weights, location))
    model.graph.initializer.remove(weights)
    replace_model(copy, model)
    assert refusal(copy).startswith(f"{copy / MODEL}: ONNX Runtime cannot load it: ")


def test_without_our_setting_onnx_runtime_would_read_that_file(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(copy / MODEL)
    [weights] = [tensor for tensor in model.graph.initializer if tensor.name == "family_weight"]
    monkeypatch.chdir(tmp_path)
    Path("weights.bin").write_bytes(weights.raw_data)
    model.graph.initializer.remove(weights)
    as_initializer(model, externally(weights, "weights.bin"))
    assert ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).get_inputs()


@pytest.mark.parametrize("domain", ["com.example", "com.microsoft", ""])
def test_a_graph_with_an_operation_that_nobody_knows_is_refused(copy: Path, domain: str) -> None:
    model = onnx.load(copy / MODEL)
    model.opset_import.append(onnx.helper.make_opsetid(domain or "unused", 1))
    [node] = [node for node in model.graph.node if node.op_type == "IsNaN"]
    node.op_type, node.domain = "RunThis", domain
    replace_model(copy, model)
    assert refusal(copy).startswith(f"{copy / MODEL}: ONNX Runtime cannot load it: ")


def test_a_model_in_onnx_runtimes_own_format_is_refused(copy: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(copy / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    ort.InferenceSession(copy / MODEL, options, providers=["CPUExecutionProvider"])
    (copy / MODEL).write_bytes((copy / "model.ort").read_bytes())
    rewrite(copy, lambda manifest: manifest["files"][MODEL].update(sha256=sha256_of(copy / MODEL)))
    assert refusal(copy).startswith(f"{copy / MODEL}: ONNX Runtime cannot load it: ")


def test_a_graph_with_outputs_in_another_order_or_of_another_type_is_refused(copy: Path) -> None:
    model = onnx.load(copy / MODEL)
    first = model.graph.output.pop(0)
    model.graph.output.append(first)
    replace_model(copy, model)
    told = "has family_probabilities, attention, attack_probability, expected attack_probability, family_probabilities,"
    assert refusal(copy).startswith(f"{copy / MODEL}: {told}")
    model.graph.output.pop()
    model.graph.output.insert(0, onnx.helper.make_tensor_value_info("attack_probability", onnx.TensorProto.BOOL, ["n"]))
    [node] = [node for node in model.graph.node if node.op_type == "Sigmoid"]
    node.op_type = "Cast"
    node.attribute.append(onnx.helper.make_attribute("to", onnx.TensorProto.BOOL))
    replace_model(copy, model)
    assert refusal(copy) == f"{copy / MODEL}: attack_probability is a tensor(bool), expected tensor(float)"


def test_a_graph_for_batches_of_one_size_alone_is_refused(copy: Path) -> None:
    model = onnx.load(copy / MODEL)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 32
    replace_model(copy, model)
    assert refusal(copy) == f"{copy / MODEL}: numeric has shape [32, 39], expected ['batch', 39]"


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
        ({"classifies": 0}, "field 'classifies' is missing or of the wrong type"),
        ({"classifies": False}, "tells neither attacks nor what is novel"),
        ({"classifies": False, "tells_novelty": True}, "a threshold is for a score, and there are no scores"),
        (
            {"classifies": False, "tells_novelty": True, "thresholds": []},
            "families are not those of the unsw-nb15 schema",
        ),
        ({"files": {}}, "field 'model.onnx' is missing"),
        ({"files": 5}, "of the wrong type"),
        ({"features": [{}]}, "field 'name' is missing"),
        ({"thresholds": [{"target_fpr": 0.1}]}, "of the wrong type"),
        (
            {"files": {MODEL: {}, REFERENCE: {}, "../../etc/passwd": {}}},
            "lists '../../etc/passwd', which is no file of a",
        ),
        ({"name": 7}, "field 'name' is missing or of the wrong type"),
        ({"version": "9" * 201}, "field 'version' is missing or of the wrong type"),
        ({"thresholds": [THRESHOLD | {"threshold": "0.5"}]}, "field 'threshold' is missing or of the wrong type"),
        ({"thresholds": [THRESHOLD | {"threshold": True}]}, "field 'threshold' is missing or of the wrong type"),
        ({"thresholds": [THRESHOLD | {"threshold": 10**400}]}, "field 'threshold' is missing or of the wrong type"),
        ({"thresholds": [THRESHOLD | {"target_fpr": -0.1}]}, "field 'target_fpr' is missing or of the wrong type"),
        ({"severity": {"apocalyptic": 0.5}}, "field 'severity' is missing or of the wrong type"),
        ({"severity": {"high": None}}, "field 'high' is missing or of the wrong type"),
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
        (b'{"format": NaN}', "not JSON: NaN is no JSON number"),
        (b'{"format": -Infinity}', "not JSON: -Infinity is no JSON number"),
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
