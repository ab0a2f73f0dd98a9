"""Reads every setting: option > environment (`FLOWSENTRY_…`) > params.yaml > default.

Environment names join section and field with two underscores: `FLOWSENTRY_TRAIN__LEARNING_RATE=0.001`;
`FLOWSENTRY_KAFKA='{"security.protocol": "SSL"}'` takes JSON.

A secret may stand in a file, as container platforms mount them: any name in the section kafka with `_file` behind it,
`FLOWSENTRY_KAFKA__SASL__PASSWORD_FILE=/run/secrets/kafka` for instance, takes that file's text for its value; so does
`api.key_file`.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import SecretStr, ValidationError

from schemas.errors import ParamsError
from schemas.params import FILE_SUFFIX, DataParams, DatasetParams, Params, allowed_names

__all__ = ["NULL", "load_params", "parse_value"]

_ENV_PREFIX = "FLOWSENTRY_"
_KEY = "api.key"
_DEFAULT_FILE = Path("params.yaml")
NULL: Final = object()
"""An option whose value is null, such as `--set train.threads=null`; a `None` is an option that was not given."""


def load_params(
    options: Mapping[str, object] | None = None,
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Params:
    """Read params.yaml (or `file`), lay the environment over it and `options` ({"train.d_model": 64, …}) on top.

    What the file holds for the data set that is chosen, by whichever of them, is laid over the file's other settings.

    A `None` among the options is one that was not given, `NULL` one that is null. params.yaml need not exist; a `file`
    that is named must.

    Raises:
        ParamsError: a wrong key or value, or the file of a secret cannot be read; the message names it, where it came from
            and what is allowed.
    """
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    path = file or _DEFAULT_FILE
    if file is not None or path.exists():
        _overlay(merged, sources, _flat(_read_yaml(path)), str(path))
    found = _from_environment(os.environ if environment is None else environment)
    given = {key: None if value is NULL else value for key, value in (options or {}).items() if value is not None}
    named, own = _of_dataset(merged, found | given)
    _overlay(merged, sources, own, f"{path} per_dataset.{named}")
    _overlay(merged, sources, found, "environment")
    _overlay(merged, sources, given, "option")
    try:
        params = Params.model_validate(merged)
    except ValidationError as error:
        problems = dict.fromkeys(_explain(problem, sources) for problem in error.errors())
        raise ParamsError("\n".join(problems)) from None
    kafka, api = _with_files_read(params.kafka, sources), params.api
    if api.key_file is not None:
        key = SecretStr(_text_of(str(api.key_file), "api.key_file", sources))
        api = api.model_copy(update={"key": key, "key_file": None})
    return params.model_copy(update={"kafka": kafka, "api": api})


def _of_dataset(content: Mapping[str, Any], over: Mapping[str, object]) -> tuple[object, dict[str, object]]:
    """The data set that a file and what is laid over it name, and the file's settings for it; mistakes are told later."""
    data, own = content.get("data"), content.get("per_dataset")
    default = data.get("dataset", DataParams().dataset) if isinstance(data, dict) else DataParams().dataset
    name = over.get("data.dataset", default)
    settings = own.get(name) if isinstance(own, dict) and isinstance(name, str) else None
    if not isinstance(settings, dict):
        return name, {}
    known = {section: settings[section] for section in DatasetParams.model_fields if section in settings}
    return name, {key: value for key, value in _flat(known).items() if "." in key}


def _with_files_read(
    kafka: Mapping[str, str | int | float | bool], sources: Mapping[str, str]
) -> dict[str, str | int | float | bool]:
    """Each NAME_file replaced by NAME with that file's text, less the line's end."""
    read = dict(kafka)
    for name in [name for name in kafka if name.endswith(FILE_SUFFIX)]:
        path, secret = str(read.pop(name)), name.removesuffix(FILE_SUFFIX)
        key = f"kafka.{name}"
        if secret in read:
            raise ParamsError(f"{_source_of(key, sources)}: {key}: kafka.{secret} is given too; leave one of them out")
        read[secret] = _text_of(path, key, sources)
    return read


def _text_of(path: str, key: str, sources: Mapping[str, str]) -> str:
    """The text of the file that a setting names, less the line's end."""
    where = f"{_source_of(key, sources)}: {key} = {path}"
    try:
        text = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a path of a UTF-8 text"
        raise ParamsError(f"{where}: {why}") from None
    if not text:
        raise ParamsError(f"{where}: the file is empty")
    return text


def parse_value(key: str, text: str) -> object:
    """What a text from the environment or an option means: YAML, but a librdkafka property (`kafka.…`) or a key is that text.

    So a password of digits stays as it is. What is no YAML is text too.
    """
    if key.startswith("kafka.") or key == _KEY:
        return text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # ValueError: the 31st of February
        return text


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParamsError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # whose own words quote the line, which may hold a password
        mark = getattr(error, "problem_mark", None)
        raise ParamsError(
            f"{path}: not YAML{f', line {mark.line + 1}, column {mark.column + 1}' if mark else ''}"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ParamsError(
            f"{path}: expected sections ({', '.join(Params.model_fields)}), got a {type(content).__name__}"
        )
    return content


def _flat(content: Mapping[str, Any]) -> dict[str, object]:
    """{"train": {"d_model": 1}} → {"train.d_model": 1}; what is no section stays as it is."""
    flat: dict[str, object] = {}
    for section, values in content.items():
        if isinstance(values, dict):
            flat.update({f"{section}.{key}": value for key, value in values.items()})
        elif not (values is None and section in Params.model_fields):
            flat[str(section)] = values
    return flat


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in sorted(environment.items()):  # a section before its settings, which are laid over it
        if not name.startswith(_ENV_PREFIX) or name.startswith(_ENV_PREFIX + "TEST_"):
            continue
        key = name.removeprefix(_ENV_PREFIX).lower().replace("__", ".")
        section = key.partition(".")[0]
        if section not in Params.model_fields:
            raise ParamsError(f"environment {name}: no such setting; {allowed_names('', section)}")
        found |= _flat({key: parse_value(key, value)})
    return found


def _overlay(merged: dict[str, Any], sources: dict[str, str], values: Mapping[str, object], source: str) -> None:
    for key, value in values.items():
        sources.pop(key, None)
        sources[key] = source  # now the last one
        section, _, name = key.partition(".")
        if not name:
            merged[section] = value
        else:
            place = merged.setdefault(section, {})
            if not isinstance(place, dict):
                shown = "no section" if section == "kafka" else f"{place!r}, expected a section"  # it may be a password
                raise ParamsError(f"{source} {key}: {section} is {shown}")
            place[name] = value


def _explain(problem: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    place = [str(part) for part in problem["loc"]]
    if place[0] == "kafka" and problem["type"] == "value_error":
        told = str(problem["ctx"]["error"])
        return f"{_source_of(told.partition(':')[0], sources)}: {told}"
    if place[0] == "kafka":  # without the value, which may be a password
        key = ".".join(place[:2])
        return f"{_source_of(key, sources)}: {key}: expected {'a text, a number or a boolean' if place[1:] else 'a section'}"
    key = ".".join(place)
    source = _source_of(key, sources)
    if key == _KEY:  # without the value
        return f"{source}: {key}: {problem['msg']}"
    if problem["type"] == "extra_forbidden":
        return f"{source}: {key}: no such setting; {allowed_names('.'.join(place[:-1]), place[-1])}"
    if problem["type"] == "value_error":  # of several settings together; it shows the values that matter
        return f"{source}: {key}: {problem['ctx']['error']}"
    return f"{source}: {key} = {problem['input']!r}: {problem['msg']}"


def _source_of(key: str, sources: Mapping[str, str]) -> str:
    """Where a setting or a part of one comes from; of a section, where the strongest of its settings does."""
    section = key.partition(".")[0]
    for name in (key, ".".join(key.split(".")[:2]), section):
        if name in sources:
            return sources[name]
    return next(
        (source for name, source in reversed(list(sources.items())) if name.startswith(section + ".")), "default"
    )
