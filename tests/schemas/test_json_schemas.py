"""The JSON Schemas: current, valid in form, and saying what the contracts say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.__main__ import DIRECTORY, main, parser
from schemas.alert import Alert
from schemas.datasets import SCHEMAS
from schemas.dead_letter import DeadLetter, Reason
from schemas.flow import FlowSchema, Kind
from schemas.json_schemas import alert_schema, dead_letter_schema, documents, flow_schema, params_schema
from schemas.params import Params

NAMES = sorted(documents())


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_file_is_current(name: str) -> None:
    path = DIRECTORY / name
    assert path.is_file(), f"{path} is missing: run `make json` and commit it"
    assert path.read_text(encoding="utf-8") == documents()[name], (
        f"{path} is not current: run `make json` and commit it"
    )


def test_nothing_else_is_committed_beside_them() -> None:
    assert sorted(path.name for path in DIRECTORY.iterdir()) == NAMES


def test_there_is_one_flow_schema_per_data_set() -> None:
    flows = [f"flow-{name}.json" for name in SCHEMAS]
    assert sorted([*flows, "alert.json", "dead-letter.json", "event.json", "params.json"]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_document_names_its_draft_and_an_id_without_a_host(name: str) -> None:
    content = json.loads(documents()[name])
    assert content["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert content["$id"] == f"urn:flowsentry:{name.removesuffix('.json')}:1"
    assert content["title"]
    assert content["description"]
    assert content["type"] == "object"


@pytest.mark.parametrize("name", NAMES)
def test_every_property_is_described_and_every_reference_leads_somewhere(name: str) -> None:
    content = json.loads(documents()[name])
    for part in parts(content):
        for key, value in part.get("properties", {}).items():
            assert value.get("description") or resolved(content, value).get("description"), key
        if "$ref" in part:
            assert resolved(content, part)


def parts(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, dict):
        yield content
    for part in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        yield from parts(part)


def resolved(content: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    name = part["$ref"].removeprefix("#/$defs/")
    found: dict[str, Any] = content["$defs"][name]
    return found


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_a_flow_is_its_features_and_metadata_and_open_to_more(schema: FlowSchema) -> None:
    content = flow_schema(schema)
    properties = content["properties"]
    assert tuple(properties) == (*schema.names, *(column.name for column in schema.metadata))
    assert content["additionalProperties"] is True
    assert "required" not in content
    for feature in schema.features:
        given = properties[feature.name]
        categorical = feature.kind is Kind.CATEGORICAL
        assert given["type"] == (["string", "number", "null"] if categorical else ["number", "null"])
        assert feature.unit in given["description"]
        assert all(alias in given["description"] for alias in feature.aliases)
        assert categorical or given["maximum"] == -given["minimum"] == pytest.approx(3.4028e38, rel=1e-4)
    for column in schema.metadata:
        assert properties[column.name]["description"].startswith("Never scored")
        assert all(alias in properties[column.name]["description"] for alias in column.aliases)


def test_an_alert_has_every_field_and_no_other() -> None:
    content = alert_schema()
    assert set(content["required"]) == set(content["properties"]) == set(Alert.model_fields)
    assert content["additionalProperties"] is False
    assert content["$defs"]["Severity"]["enum"] == ["low", "medium", "high", "critical"]


def test_dead_letter_headers_are_those_that_are_written() -> None:
    content = dead_letter_schema()
    letter = DeadLetter(reason=Reason.EMPTY, detail="", topic="flows", partition=0, offset=0)
    names = {name for name, _ in letter.to_headers()}
    assert set(content["required"]) == set(content["properties"]) == names
    assert content["$defs"]["Reason"]["enum"] == list(Reason)
    assert content["additionalProperties"] is True
    kinds = {name: resolved(content, given)["type"] if "$ref" in given else given["type"]
             for name, given in content["properties"].items()}  # fmt: skip
    assert set(kinds.values()) == {"string"}


def test_params_are_sections_with_their_defaults() -> None:
    content = params_schema()
    assert list(content["properties"]) == list(Params.model_fields)
    for section in ("data", "train", "experiments", "export", "stream", "api", "tracking"):
        definition = resolved(content, content["properties"][section])
        assert definition["additionalProperties"] is False
        defaults = {name: given["default"] for name, given in definition["properties"].items()}
        assert defaults == Params().model_dump(mode="json")[section]


def test_write_makes_the_files_and_check_then_finds_them_current(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new" / "json"
    assert main(["--directory", str(new)]) == 0
    assert {path.name: path.read_text(encoding="utf-8") for path in new.iterdir()} == documents()
    capsys.readouterr()
    assert main(["--check", "--directory", str(new)]) == 0
    assert capsys.readouterr().out == f"{new}: {len(NAMES)} files, all current\n"


def test_check_names_what_is_stale_and_the_command_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--directory", str(tmp_path)])
    (tmp_path / "alert.json").write_text("{}")
    (tmp_path / "params.json").unlink()
    capsys.readouterr()
    assert main(["--check", "--directory", str(tmp_path)]) == 2
    told = f"error: {tmp_path}: not current: alert.json, params.json. Run `make json`\n"
    assert capsys.readouterr() == ("", told)
    assert (tmp_path / "alert.json").read_text() == "{}"
    assert not (tmp_path / "params.json").exists()


def test_help_tells_what_each_file_is() -> None:
    text = parser().format_help()
    assert all(
        word in text for word in ("alert.json", "dead-letter.json", "params.json", "flow-", "--check", "make json")
    )
