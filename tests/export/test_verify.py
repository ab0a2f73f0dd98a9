"""`verify`: a bundle that is not what it says it is must not pass."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

import export
from export.bundle import MODEL, REFERENCE, read_bundle, sha256_of, write_manifest
from export.detector import load
from export.verify import verify
from schemas.datasets import SCHEMAS
from schemas.errors import BundleError, FlowsentryError
from tests.bundles import make_bundle, make_model
from tests.export.runs import make_run


def signed(directory: Path, **changes: Any) -> Path:
    """Write the manifest anew, with the hashes of the files as they are now."""
    content = dict(read_content(directory))
    write_manifest(directory, content | changes)
    return directory


def read_content(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "bundle.json").read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key not in ("format", "files")}


def refusal(directory: Path, run: Path | None = None) -> str:
    with pytest.raises(FlowsentryError) as caught:
        list(verify(directory, run))
    return str(caught.value)


def change_reference(directory: Path, **arrays: np.ndarray) -> None:
    with np.load(directory / REFERENCE) as reference:
        kept = {name: reference[name] for name in reference.files}
    np.savez_compressed(directory / REFERENCE, **(kept | arrays))
    signed(directory)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", "unsw-nb15")


@pytest.mark.parametrize("dataset", SCHEMAS)
def test_a_line_for_every_check_that_held(tiny_bundles: dict[str, Path], dataset: str) -> None:
    lines = list(verify(tiny_bundles[dataset]))
    assert [line.split()[0] for line in lines] == [
        "hashes",
        "signature",
        "identity",
        "graph",
        "reference",
        "held-out",
    ] + ["threshold"] * 5
    assert lines[0] == f"hashes     3 files as recorded; bundle {read_bundle(tiny_bundles[dataset]).manifest.hash[:12]}"
    assert lines[1] == "signature  none"
    assert lines[2] == f"identity   tiny-{dataset} 0.0.1, data set {dataset}"
    assert lines[3].startswith("graph      opset 20, numeric['batch', ")
    assert ("categories" in lines[3]) == bool(SCHEMAS[dataset].categorical)
    assert (
        lines[4] == "reference  torch and ONNX Runtime agree on 100 made-up rows: max |Δp| 0.0e+00, no verdict differs"
    )
    assert lines[5] == "held-out   measured at build on 100 rows: max |Δp| 0.0e+00, 0 verdicts differ"
    assert lines[6] == "threshold  0.0001  → 0.980000: 0 of 1000 benign and 9 of 10 attacks above it"


def test_a_damaged_bundle_is_refused_before_anything_is_said(bundle: Path) -> None:
    (bundle / MODEL).write_bytes(b"")
    assert refusal(bundle).startswith(f"{bundle / MODEL}: sha256 is ")


def test_answers_that_differ_from_the_reference_are_refused(bundle: Path) -> None:
    with np.load(bundle / REFERENCE) as reference:
        attack = reference["attack"]
    change_reference(bundle, attack=attack + np.float32(2e-4))
    assert "reference: torch and ONNX Runtime differ on 100 made-up rows: max |Δp| 2.0e-04 (allowed 1e-04)" in refusal(
        bundle
    )
    change_reference(bundle, attack=attack + np.float32(1e-6))
    assert len(list(verify(bundle))) == 11


def test_a_verdict_that_differs_is_refused_however_small_the_difference(bundle: Path) -> None:
    score = load(bundle).score_matrix(*(np.load(bundle / REFERENCE)[name] for name in ("numeric", "categories"))).score
    between = float(score[0]) + 5e-7  # less than the score that torch is now said to have given
    thresholds = [{**threshold, "threshold": between} for threshold in read_content(bundle)["thresholds"]]
    change_reference(bundle, attack=score + np.float32(1e-6))
    signed(bundle, thresholds=thresholds)
    assert "verdicts differing by target false-positive rate: {0.0001: " in refusal(bundle)


def test_an_answer_that_is_no_number_is_refused(bundle: Path) -> None:
    change_reference(bundle, attack=np.full(100, np.nan, dtype=np.float32))
    assert "max |Δp| nan" in refusal(bundle)
    signed(bundle, thresholds=[])  # so that no verdict differs
    assert "max |Δp| nan" in refusal(bundle)


def test_a_reference_without_its_arrays_is_refused_by_its_name(bundle: Path) -> None:
    np.savez_compressed(bundle / REFERENCE, numeric=np.zeros((1, 39)))
    assert refusal(signed(bundle)).startswith(f"{bundle / REFERENCE}: not the arrays of a reference: ")
    np.save(bundle / "array.npy", np.zeros(3))
    for content in (b"PK\x03\x04 no archive", b"", b"text", (bundle / "array.npy").read_bytes()):
        (bundle / REFERENCE).write_bytes(content)
        assert refusal(signed(bundle)).startswith(f"{bundle / REFERENCE}: not the arrays of a reference: ")


def test_a_reference_of_other_shapes_or_types_is_refused(bundle: Path) -> None:
    rows = np.zeros((3, 39), dtype=np.float32)
    for wrong in (
        {"numeric": rows[:, :5]}, {"numeric": rows}, {"attack": np.array(["x"] * 100)}, {"categories": rows[:, :3]},
        {"attack": np.zeros(0, dtype=np.float32), "numeric": rows[:0], "categories": np.zeros((0, 3), dtype=np.int64)},
    ):  # fmt: skip
        with np.load(bundle / REFERENCE) as reference:
            kept = {name: reference[name] for name in reference.files}
        change_reference(bundle, **wrong)
        assert refusal(bundle).startswith(f"{bundle / REFERENCE}: not the arrays of a reference: expected shapes [(")
        change_reference(bundle, **kept)
    assert len(list(verify(bundle))) == 11


def test_a_reference_that_would_fill_the_memory_is_refused_before_it_does(bundle: Path) -> None:
    change_reference(bundle, more=np.zeros(70 << 20, dtype=np.uint8))
    assert (bundle / REFERENCE).stat().st_size < 1 << 20
    assert "more than 67108864 bytes when unpacked" in refusal(bundle)


@pytest.mark.parametrize("metrics", [5, {"test": {}}, {"test": 7}, {"test": {"rows": 1, "attacks": 1, "auc": "x"}}])
def test_metrics_that_are_none_are_refused(bundle: Path, metrics: object) -> None:
    assert refusal(signed(bundle, metrics=metrics)).startswith(f"{bundle / 'bundle.json'}: metrics: field ")


def test_pickled_objects_in_a_reference_are_never_loaded(bundle: Path) -> None:
    np.savez_compressed(bundle / REFERENCE, numeric=np.array([{}], dtype=object), categories=[0], attack=[0])
    assert "allow_pickle" in refusal(signed(bundle))


def test_a_graph_of_other_widths_is_refused_with_the_expected_shape(bundle: Path) -> None:
    make_model(bundle / MODEL, SCHEMAS["cicids2017"])
    assert f"{bundle / MODEL}: numeric has shape ['batch', 68], expected ['batch', 39]" in refusal(signed(bundle))


def test_a_graph_that_lacks_an_output_is_refused(bundle: Path) -> None:
    model = onnx.load(bundle / MODEL)
    model.graph.output[2].name = "look"
    onnx.save_model(model, bundle / MODEL)
    assert f"{bundle / MODEL}: attention has shape None, expected ['batch', 42]" in refusal(signed(bundle))


@pytest.mark.parametrize("parity", [{}, None, {"rows": 1, "max_difference": "x", "verdicts_differing": 0}])
def test_a_manifest_without_the_parity_measured_at_build_is_refused(bundle: Path, parity: object) -> None:
    told = refusal(signed(bundle, parity=parity))
    assert told.startswith(f"{bundle / 'bundle.json'}: parity: ")


def use_torch_that_answers(monkeypatch: pytest.MonkeyPatch, directory: Path, shift: float) -> None:
    """In place of torch: the bundle's own graph, its answers shifted."""
    detector = load(directory)

    def run_program(program: object, numeric: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, None]:
        return detector.score_matrix(numeric, codes).score + np.float32(shift), None

    graph = ModuleType("export.graph")
    vars(graph).update(load_program=lambda path: path, run_program=run_program)
    monkeypatch.setitem(sys.modules, "export.graph", graph)
    monkeypatch.setattr(export, "graph", graph, raising=False)


@pytest.mark.parametrize("splits", [("train", "validation", "test"), ("train", "validation", "validation")])
def test_with_the_training_run_parity_is_measured_anew(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits: tuple[str, ...]
) -> None:
    run = make_run(tmp_path / "run", "unsw-nb15", splits)
    signed(bundle, source={"model.pt2": sha256_of(run / "model.pt2")})
    use_torch_that_answers(monkeypatch, bundle, 0.0)
    rows = sum(split == splits[-1] for split in splits)
    assert f"held-out   torch and ONNX Runtime agree on {rows} rows: max |Δp| 0.0e+00, no verdict differs" in list(
        verify(bundle, run)
    )
    use_torch_that_answers(monkeypatch, bundle, 1e-3)
    assert f"held-out: torch and ONNX Runtime differ on {rows} rows" in refusal(bundle, run)


def test_another_training_run_is_refused(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_torch_that_answers(monkeypatch, bundle, 0.0)
    run = make_run(tmp_path / "run", "unsw-nb15")
    assert (
        refusal(bundle, run) == f"{run / 'model.pt2'} is not the model that this bundle was built from: build it again"
    )


def test_bundle_errors_are_errors_that_commands_print() -> None:
    assert issubclass(BundleError, FlowsentryError)
