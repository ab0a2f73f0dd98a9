"""The contracts as JSON Schema (draft 2020-12), for producers and consumers in any language.

Pure functions of the contracts; `python -m schemas` writes what they return to schemas/json/.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic.json_schema import GenerateJsonSchema

from schemas.alert import Alert
from schemas.datasets import SCHEMAS
from schemas.dead_letter import HEADER_PREFIX, DeadLetter
from schemas.event import DriftEvent
from schemas.flow import Feature, FlowSchema, Kind, Metadata
from schemas.params import Params

__all__ = ["alert_schema", "dead_letter_schema", "documents", "event_schema", "flow_schema", "params_schema"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FLOAT32_MAX = float(np.finfo(np.float32).max)


def documents() -> dict[str, str]:
    """Every document: file name → its text."""
    contents = {
        **{f"flow-{schema.name}.json": flow_schema(schema) for schema in SCHEMAS.values()},
        "alert.json": alert_schema(),
        "dead-letter.json": dead_letter_schema(),
        "event.json": event_schema(),
        "params.json": params_schema(),
    }
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in contents.items()}


def flow_schema(schema: FlowSchema) -> dict[str, Any]:
    """A flow record: the JSON object in the value of a message on the input topic."""
    properties = {feature.name: _feature(feature) for feature in schema.features}
    properties |= {column.name: _metadata(column) for column in schema.metadata}
    return {
        **_head(f"flow-{schema.name}", schema.version),
        "title": f"Flow record: {schema.title}",
        "description": (
            f"{len(schema.features)} features and {len(schema.metadata)} metadata fields, all of them optional. "
            "A feature that is null or absent is missing; a record with too few features "
            "(stream.min_feature_coverage) becomes a dead letter. A name may be spelled as in any release: case, spaces "
            "and separators do not matter. Other fields are ignored. "
            f"Made from: {schema.citation}"
        ),
        "type": "object",
        "minProperties": 1,
        "properties": properties,
        "additionalProperties": True,
    }


def alert_schema() -> dict[str, Any]:
    """The value of a message on the alerts topic."""
    model = Alert.model_json_schema(mode="serialization", schema_generator=_Untitled)
    return _of_model("alert", Alert.model_fields["schema_version"].default, model)


def event_schema() -> dict[str, Any]:
    """The value of a message on the events topic."""
    model = DriftEvent.model_json_schema(mode="serialization", schema_generator=_Untitled)
    return _of_model("event", DriftEvent.model_fields["schema_version"].default, model)


def dead_letter_schema() -> dict[str, Any]:
    """The headers of a dead letter as an object, header name → text, as they are on the wire."""
    model = DeadLetter.model_json_schema(mode="serialization", schema_generator=_Untitled)
    return {
        **_head("dead-letter", DeadLetter.model_fields["schema_version"].default),
        "title": "Headers of a dead letter",
        "description": model["description"],
        "type": "object",
        "properties": {HEADER_PREFIX + name: _as_text(content) for name, content in model["properties"].items()},
        "required": [HEADER_PREFIX + name for name in model["required"]],
        "additionalProperties": True,
        "$defs": model["$defs"],
    }


def params_schema() -> dict[str, Any]:
    """params.yaml."""
    return _of_model("params", "1", Params.model_json_schema(schema_generator=_Untitled))


class _Untitled(GenerateJsonSchema):
    """Without a title for each field: it would only repeat the name."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def _head(name: str, version: str) -> dict[str, Any]:
    return {"$schema": _DIALECT, "$id": f"urn:flowsentry:{name}:{version}"}


def _of_model(name: str, version: str, model: Mapping[str, Any]) -> dict[str, Any]:
    definitions = {"$defs": model["$defs"]}
    return {**_head(name, version), **{key: value for key, value in model.items() if key != "$defs"}, **definitions}


def _feature(feature: Feature) -> dict[str, Any]:
    if feature.kind is Kind.CATEGORICAL:
        return {"type": ["string", "number", "null"], "description": _words("Category", feature)}
    return {
        "type": ["number", "null"],
        "minimum": -_FLOAT32_MAX,
        "maximum": _FLOAT32_MAX,
        "description": _words("Unit", feature),
    }


def _metadata(column: Metadata) -> dict[str, Any]:
    return {
        "type": ["string", "number", "null"],
        "description": _words("Never scored, only shown in the alert", column),
    }


def _words(what: str, column: Feature | Metadata) -> str:
    unit = f": {column.unit}" if isinstance(column, Feature) else ""
    spellings = f" Also spelled: {', '.join(column.aliases)}." if column.aliases else ""
    return f"{what}{unit}.{spellings}"


def _as_text(content: Mapping[str, Any]) -> dict[str, Any]:
    """A field of the model as it is in a header: numbers are text there."""
    if content.get("type") != "integer":
        return dict(content)
    kept = {key: value for key, value in content.items() if key not in ("type", "minimum")}
    return {**kept, "type": "string", "pattern": "^[0-9]+$"}
