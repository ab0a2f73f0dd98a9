"""Requests that a reader of the API's page can send as they are."""

import json
from pathlib import Path
from typing import Any

from export.bundle import FeatureInfo
from export.detector import Detector
from schemas.flow import Feature, FlowSchema, key_of
from stream.csv_records import records

__all__ = ["examples_of"]

_SAMPLES = Path(__file__).parents[1] / "sample"
_KINDS = 3


def examples_of(detector: Detector) -> dict[str, Any]:
    """The examples of `POST /predict`, as FastAPI's `openapi_extra`: flows of the sample, where there is one of the bundle's
    data set, else one in the middle of what is usual."""
    sample = _SAMPLES / f"{detector.schema.name}.csv.gz"
    flows = _sampled(sample, detector.schema) if sample.exists() else {}
    flows = flows or {"a usual flow": {info.name: _usual(info) for info in detector.manifest.features}}
    examples: dict[str, Any] = {name: {"value": {"features": flow}} for name, flow in flows.items()}
    examples["several"] = {"value": {"flows": list(flows.values())}}
    return {"requestBody": {"content": {"application/json": {"examples": examples}}}}


def _sampled(sample: Path, schema: FlowSchema) -> dict[str, dict[str, Any]]:
    """A flow of each of the first kinds, with its features alone."""
    found: dict[str, dict[str, Any]] = {}
    for record in records(sample, schema):
        label = dict(record.headers).get("label", b"").decode()
        if label in found:
            continue
        given = json.loads(record.value)
        found[label] = {name: given[name] for name in given if isinstance(schema.roles.get(key_of(name)), Feature)}
        if len(found) == _KINDS:
            break
    return found


def _usual(info: FeatureInfo) -> float | str | None:
    if info.vocabulary:
        return info.vocabulary[0]
    return info.benign_median
