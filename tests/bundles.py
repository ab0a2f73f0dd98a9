"""A tiny real bundle, made in a moment: its graph is written by hand, so that no test needs torch for one.

    directory = make_bundle(folder / "tiny", "unsw-nb15")

Its attack probability depends on three features alone (`LEVERS`), so a test can make a flow an attack or not:

    logit = Σ weight · x / (|x| + scale), a missing x adding nothing

If it is to tell novelty, a number's surprise is 10 · (x / (|x| + scale))², an unknown category's 5, and a flow is as novel as
its most surprising feature.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, checker, helper, numpy_helper, save_model

from export.bundle import MODEL, REFERENCE, write_manifest
from export.runtime import ort
from export.thresholds import NO_SCORE, Threshold, severity_bounds
from schemas.datasets import SCHEMAS
from schemas.flow import Feature, FlowSchema, Kind

__all__ = ["LEVERS", "VOCABULARIES", "make_bundle", "make_model"]

# What moves the verdict: numeric feature → (weight, scale), categorical feature → category → weight.
LEVERS: dict[str, dict[str, tuple[float, float] | dict[str, float]]] = {
    "cicids2017": {"total_fwd_packets": (6.0, 20.0), "fwd_packet_length_mean": (-6.0, 20.0)},
    "cicids2017-improved": {
        "total_fwd_packets": (6.0, 20.0),
        "fwd_packet_length_mean": (-6.0, 20.0),
        "protocol": {"17": -1.0, "1": 1.0},
    },
    "unsw-nb15": {"sttl": (6.0, 60.0), "dpkts": (-6.0, 20.0), "service": {"dns": -1.5, "http": 1.0}},
}
VOCABULARIES: dict[str, tuple[str, ...]] = {
    "proto": ("tcp", "udp", "arp"),
    "service": ("-", "dns", "http"),
    "state": ("fin", "con", "int"),
    "protocol": ("6", "17", "1"),
}
_SHARES = (0.5, 0.3, 0.2)
_SCALE = 20.0
_REFERENCE_ROWS = 100


def make_bundle(
    directory: Path,
    dataset: str,
    *,
    gain: float = 1.0,
    novelty: bool = False,
    classifies: bool = True,
    **overrides: Any,
) -> Path:
    """Write the tiny bundle of a data set; returns `directory`.

    Args:
        gain: factor of the weights of numeric levers; with -1 attacks and benign flows change places.
        novelty: the graph tells how novel a flow is.
        classifies: without it the graph tells nothing else, as of a bundle that was made of benign flows alone.
        overrides: fields of bundle.json in place of the made-up ones, e.g. `thresholds=[]`.
    """
    schema = SCHEMAS[dataset]
    directory.mkdir(parents=True, exist_ok=True)
    make_model(directory / MODEL, schema, gain=gain, novelty=novelty, classifies=classifies)
    _write_reference(directory, schema, classifies=classifies)
    thresholds = [
        Threshold(
            target_fpr=rate,
            threshold=threshold if classifies else NO_SCORE,
            benign_rows=1000,
            false_positives=0,
            attack_rows=10,
            detected=9,
            novelty=surprise if novelty else None,
        )
        for rate, threshold, surprise in (
            (0.0001, 0.98, 9.9),
            (0.001, 0.95, 9.8),
            (0.005, 0.9, 9.7),
            (0.01, 0.75, 9.5),
            (0.05, 0.5, 4.0),
        )
    ]
    content: dict[str, Any] = {
        "name": f"tiny-{dataset}",
        "version": "0.0.1",
        "created": "2026-01-01T00:00:00+00:00",
        "dataset": dataset,
        "schema": {"version": schema.version, "hash": schema.fingerprint()},
        "features": [_feature(feature, dataset) for feature in schema.features],
        "families": [family.name for family in schema.attack_families] if classifies else [],
        "thresholds": [asdict(threshold) for threshold in thresholds],
        "severity": severity_bounds([threshold.threshold for threshold in thresholds]) if classifies else {},
        "novelty_severity": {"medium": 9.7, "high": 9.8, "critical": 9.9} if novelty else {},
        "tells_novelty": novelty,
        "classifies": classifies,
        "metrics": {},
        "parity": {
            "rows": _REFERENCE_ROWS,
            "max_difference": 0.0,
            "max_family_difference": 0.0,
            "verdicts_differing": 0,
        },
        "training": {},
        "data": {},
        "source": {"model.pt2": ""},
        "versions": {},
    }
    write_manifest(directory, content | overrides)
    return directory


def make_model(
    path: Path, schema: FlowSchema, *, gain: float = 1.0, novelty: bool = False, classifies: bool = True
) -> None:
    """Write the graph alone: numeric f32[B, N], categories i64[B, C] (if any) → probabilities and attention, and `novelty`."""
    numeric, categorical = schema.numeric, schema.categorical
    levers = LEVERS[schema.name]
    weights, scales = np.zeros((len(numeric), 1)), np.full(len(numeric), _SCALE)
    for index, feature in enumerate(numeric):
        if isinstance(lever := levers.get(feature.name), tuple):
            weights[index], scales[index] = gain * lever[0], lever[1]
    constants = {
        "scale": scales,
        "zero": np.zeros(1),
        "weight": weights,
        "family_weight": np.cos(np.outer(np.arange(len(numeric)), 1 + np.arange(len(schema.attack_families)))),
        "steep": np.full(1, 3.0),
    }
    nodes = [
        helper.make_node("IsNaN", ["numeric"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "numeric"], ["x"]),
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node("Add", ["size", "scale"], ["bound"]),
        helper.make_node("Div", ["x", "bound"], ["u"]),
        helper.make_node("MatMul", ["u", "weight"], ["logit_0"]),
        helper.make_node("MatMul", ["u", "family_weight"], ["family_logits"]),
        helper.make_node("Softmax", ["family_logits"], ["family_probabilities"], axis=1),
        helper.make_node("Mul", ["u", "steep"], ["look_0"]),
    ]
    looks = ["look_0"]
    for index, feature in enumerate(categorical, start=1):
        lever = levers.get(feature.name, {})
        effects = [lever.get(name, 0.0) for name in VOCABULARIES[feature.name]] if isinstance(lever, dict) else []
        constants[f"effects_{index}"] = np.array([0.0, *effects, 0.0])
        looks.append(f"look_{index}")
        nodes += [
            helper.make_node("Gather", ["categories", f"column_{index}"], [f"codes_{index}"], axis=1),
            helper.make_node("Gather", [f"effects_{index}", f"codes_{index}"], [looks[-1]]),
            helper.make_node("Add", [f"logit_{index - 1}", looks[-1]], [f"logit_{index}"]),
        ]
    nodes += [
        helper.make_node("Squeeze", [f"logit_{len(categorical)}", "second_axis"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["attack_probability"]),
        helper.make_node("Concat", looks, ["look"], axis=1),
        helper.make_node("Softmax", ["look"], ["attention"], axis=1),
    ]
    if novelty:
        nodes += _novelty_nodes(constants, categorical)
    arrays = {name: value.astype(np.float32) for name, value in constants.items()}
    integers = {"second_axis": np.array([1])} | {f"column_{i}": np.array([i - 1]) for i in range(1, len(looks))}
    inputs = [_tensor("numeric", TensorProto.FLOAT, len(numeric))]
    if categorical:
        inputs.append(_tensor("categories", TensorProto.INT64, len(categorical)))
    outputs = [
        _tensor("attack_probability", TensorProto.FLOAT),
        _tensor("family_probabilities", TensorProto.FLOAT, len(schema.attack_families)),
        _tensor("attention", TensorProto.FLOAT, len(schema.features)),
    ]
    outputs = outputs if classifies else []
    if novelty:
        outputs += [_tensor("novelty", TensorProto.FLOAT), _tensor("surprise", TensorProto.FLOAT, len(schema.features))]
    initializers = [numpy_helper.from_array(value, name) for name, value in (arrays | integers).items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model)
    save_model(model, path)


def _novelty_nodes(constants: dict[str, np.ndarray], categorical: Sequence[Feature]) -> list[NodeProto]:
    constants["most"] = np.full(1, 10.0)
    nodes = [helper.make_node("Mul", ["u", "u"], ["u_u"]), helper.make_node("Mul", ["u_u", "most"], ["surprise_0"])]
    parts = ["surprise_0"]
    for index, feature in enumerate(categorical, start=1):
        constants[f"surprises_{index}"] = np.array([0.0] * (1 + len(VOCABULARIES[feature.name])) + [5.0])
        parts.append(f"surprise_{index}")
        nodes.append(helper.make_node("Gather", [f"surprises_{index}", f"codes_{index}"], [parts[-1]]))
    return [
        *nodes,
        helper.make_node("Concat", parts, ["surprise"], axis=1),
        helper.make_node("ReduceMax", ["surprise", "second_axis"], ["novelty"], keepdims=0),
    ]


def _tensor(name: str, kind: int, *width: int) -> Any:
    return helper.make_tensor_value_info(name, kind, ["batch", *width])


def _write_reference(directory: Path, schema: FlowSchema, *, classifies: bool) -> None:
    rng = np.random.default_rng(0)
    numeric = np.exp(rng.normal(2, 2, (_REFERENCE_ROWS, len(schema.numeric)))).astype(np.float32)
    numeric[rng.random(numeric.shape) < 0.1] = np.nan
    sizes = [len(VOCABULARIES[feature.name]) for feature in schema.categorical]
    codes = rng.integers(0, np.array(sizes, dtype=np.int64) + 1, (_REFERENCE_ROWS, len(sizes)))
    session = ort.InferenceSession(directory / MODEL, providers=["CPUExecutionProvider"])
    feeds = {"numeric": numeric} | ({"categories": codes} if sizes else {})
    names = ["attack", "families", "attention"] if classifies else []
    told = dict(zip([*names, "novelty", "surprise"], session.run(None, feeds), strict=False))
    answers = {name: told[name] for name in ("attack", "families", "novelty") if name in told}
    np.savez_compressed(directory / REFERENCE, allow_pickle=False, numeric=numeric, categories=codes, **answers)


def _feature(feature: Feature, dataset: str) -> dict[str, Any]:
    common = {"name": feature.name, "kind": feature.kind.value, "unit": feature.unit}
    if feature.kind is Kind.CATEGORICAL:
        return {**common, "vocabulary": list(VOCABULARIES[feature.name]), "benign_shares": list(_SHARES)}
    lever = LEVERS[dataset].get(feature.name)
    scale = lever[1] if isinstance(lever, tuple) else _SCALE
    return {**common, "benign_low": 0.0, "benign_median": scale, "benign_high": 10 * scale}
