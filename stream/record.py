"""One record → feature values, or why not. What it decides is the rule; `stream.decode` only does the same faster."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated, Any, NoReturn

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import PydanticCustomError

from export.cells import FLOAT32_MAX, category_name, is_missing
from schemas.dead_letter import Reason, Reject
from schemas.flow import Feature, FlowSchema, Kind, Metadata, key_of

__all__ = ["LONGEST_KEY", "Record", "RecordError", "RecordReader", "read_metadata"]

LONGEST_KEY = 128  # of a spelling that is remembered; longer ones are read all the same
MAX_DEPTH = 64
_VALUE_CHARS = 200
_EXCERPT_CHARS = 80

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_BRACKET_STEPS = np.zeros(256, dtype=np.int8)
_BRACKET_STEPS[[*b"[{"]] = 1
_BRACKET_STEPS[[*b"]}"]] = -1


class RecordError(ValueError):
    """A record that cannot be scored, and what a dead letter says of it."""

    def __init__(self, reason: Reason, detail: str, *, field: str = "", value: str = "") -> None:
        super().__init__(detail)
        self.reason, self.detail, self.field, self.value = reason, detail, field, value

    def reject(self, row: int) -> Reject:
        return Reject(row, self.reason, self.detail, self.field, self.value)


class _Members(list[tuple[str, Any]]):
    """A JSON object as its members, repeated keys and all."""


class _Number(str):
    """A JSON number as the record spells it."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is no JSON number, and a missing value is null")


def _decoder(number: Callable[[str], Any]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_Members, parse_int=number, parse_float=number, parse_constant=_refuse_constant
    )


# Integers become floats at once: that is exact where a float64 can be, and has no limit on digits.
_AS_FLOATS = _decoder(float)
_AS_SPELLED = _decoder(_Number)
_AS_TEXTS = _decoder(str)


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was understood: the values of its features by name, NaN or None for null, the keys by which it
    calls them, and the keys of everything else."""

    numbers: dict[str, float]
    categories: dict[str, str | None]
    spellings: dict[str, str]
    ignored: list[str]


class RecordReader:
    """Reads records of one schema, one at a time."""

    def __init__(self, schema: FlowSchema) -> None:
        self._schema = schema

    @cached_property
    def _model(self) -> type[BaseModel]:
        return _model_of(self._schema)

    def read(self, value: bytes | None) -> Record:
        """Understand one record.

        Raises:
            RecordError: it is no flat JSON object, or the first of its features, as they stand, that cannot be used.
        """
        roles, doubled = self._schema.roles, self._schema.doubled
        record = Record({}, {}, {}, [])
        for place, (key, given) in enumerate(_members_of(value)):
            feature = roles.get(_key(key))
            if not isinstance(feature, Feature):
                record.ignored.append(key)
                continue
            name = feature.name
            if name in record.spellings:
                if name in doubled:
                    continue
                raise self._duplicate(value, place, record.spellings[name], name)
            record.spellings[name] = key
            if feature.kind is Kind.NUMERIC:
                if given is None:
                    record.numbers[name] = math.nan
                elif isinstance(given, float) and abs(given) <= FLOAT32_MAX:
                    record.numbers[name] = given + 0.0  # -0 is 0
                else:
                    raise self._wrong_value(value, place, given, name)
            elif given is None:
                record.categories[name] = None
            elif isinstance(given, str):
                record.categories[name] = None if is_missing(given) else category_name(given)
            elif isinstance(given, float) and abs(given) <= FLOAT32_MAX:
                record.categories[name] = category_name(given + 0.0)
            else:
                raise self._wrong_value(value, place, given, name)
        return record

    def _duplicate(self, value: bytes | None, place: int, first: str, name: str) -> RecordError:
        key, spelled = _as_spelled(value, place)
        how = "stands twice" if key == first else f"and {_shorten(first)!r} both stand"
        return RecordError(
            Reason.DUPLICATE_FIELD,
            f"{_shorten(key)!r} {how} for {name}, expected one value for a field",
            field=_shorten(key),
            value=_shorten(spelled, _VALUE_CHARS),
        )

    def _wrong_value(self, value: bytes | None, place: int, given: object, name: str) -> RecordError:
        key, spelled = _as_spelled(value, place)
        expected: list[str] = []
        try:
            self._model.model_validate({name: given})
        except ValidationError as error:
            expected += [each["msg"].removeprefix("Input should be ") for each in error.errors(include_input=False)]
        return RecordError(
            Reason.OUT_OF_RANGE if isinstance(given, float) else Reason.WRONG_TYPE,
            f"{_shorten(key)!r} is {_shorten(spelled)}, expected {' or '.join(expected)}",
            field=_shorten(key),
            value=_shorten(spelled, _VALUE_CHARS),
        )


def read_metadata(value: bytes, schema: FlowSchema) -> dict[str, str]:
    """What an alert says of a flow besides its features: column name → text, numbers as they are spelled.

    Lenient: what is null or cannot be read is left out, of repeated columns the first counts, long texts are shortened.
    """
    try:
        members = _members_of(value, _AS_TEXTS)
    except RecordError:
        return {}
    texts: dict[str, str] = {}
    for place, (key, given) in enumerate(members):
        role = schema.roles.get(_key(key))
        if isinstance(role, Metadata) and given is not None and role.name not in texts:
            texts[role.name] = _shorten(given if isinstance(given, str) else _as_spelled(value, place)[1], _VALUE_CHARS)
    return texts


def _members_of(value: bytes | None, decoder: json.JSONDecoder = _AS_FLOATS) -> _Members:
    """The members of the one JSON object that a record is."""
    if value is None:
        raise RecordError(Reason.EMPTY, "the record has no value (a tombstone), expected a JSON object")
    if not value or value.isspace():
        raise RecordError(Reason.EMPTY, "the record is empty, expected a JSON object")
    try:
        text = value.decode()
        if _is_too_deep(value):
            raise RecursionError
        parsed = decoder.decode(text)
        if _SURROGATE_ESCAPE.search(value):
            json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        problem = f"not UTF-8: byte 0x{value[error.start]:02x} at position {error.start}"
    except UnicodeEncodeError:
        problem = "not JSON text: a \\u escape is one half of a surrogate pair, expected both"
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 20) : error.pos + 20]
        problem = f"not JSON: {error.msg} at character {error.pos}, near {near!r}"
    except RecursionError:
        problem = f"not JSON that can be read: arrays and objects are nested deeper than {MAX_DEPTH} levels"
    except ValueError as error:
        problem = str(error)
    else:
        if isinstance(parsed, _Members):
            return parsed
        spelled = _to_json(_AS_SPELLED.decode(text))
        detail = f"expected a JSON object, got {_shorten(spelled)}"
        raise RecordError(Reason.NOT_AN_OBJECT, detail, value=_shorten(spelled, _VALUE_CHARS))
    raise RecordError(Reason.NOT_JSON, problem)


def _is_too_deep(value: bytes) -> bool:
    if value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    outside_strings = b"".join(value.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    steps = _BRACKET_STEPS[np.frombuffer(outside_strings, dtype=np.uint8)]
    return int(np.cumsum(steps, dtype=np.int64).max(initial=0)) > MAX_DEPTH


def _as_spelled(value: bytes | None, place: int) -> tuple[str, str]:
    """A member of a record once more: its key, and its value as JSON with numbers as they are spelled."""
    key, given = _members_of(value, _AS_SPELLED)[place]
    return key, _to_json(given)


def _to_json(given: object) -> str:
    match given:
        case _Number():
            return str(given)
        case _Members():
            return "{" + ", ".join(f"{json.dumps(key)}: {_to_json(member)}" for key, member in given) + "}"
        case list():
            return "[" + ", ".join(map(_to_json, given)) + "]"
        case _:
            return json.dumps(given)


@lru_cache(maxsize=8)
def _model_of(schema: FlowSchema) -> type[BaseModel]:
    """The schema as a pydantic model. It words what is wrong with a value; records are not passed through it."""
    number = Annotated[float, AfterValidator(_within_float32)]
    fields: dict[str, Any] = {
        feature.name: ((number if feature.kind is Kind.NUMERIC else str | number) | None, None)
        for feature in schema.features
    }
    return create_model("Flow", __config__=ConfigDict(strict=True), **fields)


def _within_float32(number: float) -> float:
    if abs(number) <= FLOAT32_MAX:
        return number
    raise PydanticCustomError(
        "out_of_range", "Input should be a number up to ±{limit}", {"limit": f"{FLOAT32_MAX:.3g}"}
    )


def _key(spelling: str) -> str:
    return _remembered_key(spelling) if len(spelling) <= LONGEST_KEY else key_of(spelling)


_remembered_key = lru_cache(maxsize=4096)(key_of)


def _shorten(text: str, limit: int = _EXCERPT_CHARS) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
