"""One record → feature values, or why not. What it decides is the rule; `stream.decode` only does the same faster."""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Annotated, Any, NoReturn

import numpy as np
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from export.cells import FLOAT32_MAX, category_name, is_missing
from schemas.dead_letter import Reason, Reject
from schemas.flow import Feature, FlowSchema, Kind, Metadata, key_of
from schemas.params import StreamParams

__all__ = [
    "LONGEST_KEY",
    "VALUE_CHARS",
    "Features",
    "Limits",
    "Number",
    "Record",
    "RecordError",
    "RecordReader",
    "limits_of",
    "read_metadata",
    "remembered_key",
    "shorten",
    "string_too_long",
    "wrong_value",
]

LONGEST_KEY = 128  # of a spelling that is remembered; longer ones are read all the same
_MOST_KEYS = 4096  # that are remembered
_NUMERIC = Kind.NUMERIC
VALUE_CHARS = 200
_EXCERPT_CHARS = 80

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE_PAIR = re.compile(rb"\\u[dD][89aAbB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_BRACKET_STEPS = np.zeros(256, dtype=np.int8)
_BRACKET_STEPS[[*b"[{"]] = 1
_BRACKET_STEPS[[*b"]}"]] = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that a record may be; beyond it is a dead letter. The settings of `stream` that have these names.

    `max_depth` counts the record itself: 1 is a flat object. `max_fields` and `max_string_chars` (which keys are, too)
    count nested objects' as well.
    """

    max_message_bytes: int = 1 << 20
    max_depth: int = 64
    max_fields: int = 1024
    max_string_chars: int = 16_384


def limits_of(stream: StreamParams) -> Limits:
    """Those that the settings name."""
    return Limits(
        max_message_bytes=stream.max_message_bytes,
        max_depth=stream.max_depth,
        max_fields=stream.max_fields,
        max_string_chars=stream.max_string_chars,
    )


_WIDEST = Limits(max_message_bytes=sys.maxsize, max_depth=512, max_fields=sys.maxsize, max_string_chars=sys.maxsize)


class RecordError(ValueError):
    """A record that cannot be scored, and what a dead letter says of it."""

    def __init__(self, reason: Reason, detail: str, *, field: str = "", value: str = "") -> None:
        super().__init__(detail)
        self.reason, self.detail, self.field, self.value = reason, detail, field, value

    def reject(self, row: int) -> Reject:
        return Reject(row, self.reason, self.detail, self.field, self.value)


class _Members(list[tuple[str, Any]]):
    """A JSON object as its members, repeated keys and all."""


class Number(str):
    """A JSON number as the record spells it."""

    __slots__ = ()


class _NoJsonNumber(ValueError):
    """NaN or an infinity."""


def _refuse_constant(name: str) -> NoReturn:
    raise _NoJsonNumber(f"not JSON: {name} is no JSON number, and a missing value is null")


def _decoder(number: Callable[[str], Any]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_Members, parse_int=number, parse_float=number, parse_constant=_refuse_constant
    )


_AS_SPELLED = _decoder(Number)
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

    def __init__(self, schema: FlowSchema, limits: Limits) -> None:
        self._schema = schema
        self._limits = limits
        self._features = Features(schema)

    def read(self, value: bytes | None) -> Record:
        """Understand one record.

        Raises:
            RecordError: it is beyond a limit, no JSON object, or the first of its features, as they stand, that cannot
                be used.
        """
        _check_length(value, self._limits)
        features, doubled = self._features, self._schema.doubled
        record = Record({}, {}, {}, [])
        numbers, categories, spellings = record.numbers, record.categories, record.spellings
        for key, given in _members_of(value, self._limits):
            feature = features[key]
            if feature is None:
                record.ignored.append(key)
                continue
            name, is_numeric = feature.name, feature.kind is _NUMERIC
            if name in spellings:
                if name in doubled:
                    continue
                raise _duplicate(key, given, spellings[name], name)
            spellings[name] = key
            kind = type(given)
            if kind is Number:
                number = float(given) + 0.0  # as exact as a float64 is, whatever its digits; -0 is 0
                if not -FLOAT32_MAX <= number <= FLOAT32_MAX:
                    raise wrong_value(key, given, feature)
                if is_numeric:
                    numbers[name] = number
                else:
                    categories[name] = category_name(number)
            elif given is None and is_numeric:
                numbers[name] = math.nan
            elif given is None:
                categories[name] = None
            elif kind is str and not is_numeric:
                categories[name] = None if is_missing(given) else category_name(given)
            else:
                raise wrong_value(key, given, feature)
        return record

    def verdict(self, value: bytes | None) -> Record | RecordError:
        """The record, or what is wrong with it."""
        try:
            return self.read(value)
        except RecordError as error:
            return error


class Features(dict[str, Feature | None]):
    """Spelling → the feature that it means, None for anything else."""

    def __init__(self, schema: FlowSchema) -> None:
        super().__init__()
        self._schema = schema

    def __missing__(self, spelling: str) -> Feature | None:
        role = self._schema.roles.get(key_of(spelling))
        feature = role if isinstance(role, Feature) else None
        if len(self) < _MOST_KEYS and len(spelling) <= LONGEST_KEY:
            self[spelling] = feature
        return feature


def wrong_value(key: str, given: object, feature: Feature) -> RecordError:
    """Of a feature's value, numbers as a `Number`, that is of the wrong type or out of range."""
    spelled = _to_json(given)
    return RecordError(
        Reason.OUT_OF_RANGE if isinstance(given, Number) else Reason.WRONG_TYPE,
        f"{shorten(key)!r} is {shorten(spelled)}, expected {_expected(feature.kind, isinstance(given, Number))}",
        field=shorten(key),
        value=shorten(spelled, VALUE_CHARS),
    )


def string_too_long(string: str, limits: Limits) -> RecordError:
    return RecordError(
        Reason.STRING_TOO_LONG,
        f"a string has {len(string)} characters, expected at most {limits.max_string_chars} (stream.max_string_chars)",
        value=shorten(json.dumps(string[:VALUE_CHARS]), VALUE_CHARS),
    )


def _duplicate(key: str, given: object, first: str, name: str) -> RecordError:
    how = "stands twice" if key == first else f"and {shorten(first)!r} both stand"
    return RecordError(
        Reason.DUPLICATE_FIELD,
        f"{shorten(key)!r} {how} for {name}, expected one value for a field",
        field=shorten(key),
        value=shorten(_to_json(given), VALUE_CHARS),
    )


def read_metadata(value: bytes, schema: FlowSchema) -> dict[str, str]:
    """What an alert says of a flow besides its features: column name → text, numbers as they are spelled.

    The record is one that was decoded, within all limits. Lenient: what is null or cannot be read is left out, of
    repeated columns the first counts, long texts are shortened.
    """
    try:
        members = _members_of(value, _WIDEST, _AS_TEXTS)
    except RecordError:
        return {}
    texts: dict[str, str] = {}
    spelled: _Members | None = None
    for place, (key, given) in enumerate(members):
        role = schema.roles.get(_key(key))
        if isinstance(role, Metadata) and given is not None and role.name not in texts:
            if not isinstance(given, str):
                spelled = spelled or _members_of(value, _WIDEST, _AS_SPELLED)
                given = _to_json(spelled[place][1])
            texts[role.name] = shorten(given, VALUE_CHARS)
    return texts


def _check_length(value: bytes | None, limits: Limits) -> None:
    if value is not None and len(value) > limits.max_message_bytes:
        raise RecordError(
            Reason.TOO_LONG,
            f"the record has {len(value)} bytes, expected at most {limits.max_message_bytes} (stream.max_message_bytes)",
        )


def _members_of(value: bytes | None, limits: Limits, decoder: json.JSONDecoder = _AS_SPELLED) -> _Members:
    """The members of the one JSON object that a record is, all of it within the limits; each number a `Number`."""
    if value is None:
        raise RecordError(Reason.EMPTY, "the record has no value (a tombstone), expected a JSON object")
    if not value or value.isspace():
        raise RecordError(Reason.EMPTY, "the record is empty, expected a JSON object")
    try:
        text = value.decode()
        _check_depth(value, limits)  # before the parser, which is recursive
        parsed = decoder.decode(text)
    except UnicodeDecodeError as error:
        problem = f"not UTF-8: byte 0x{value[error.start]:02x} at position {error.start}"
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 20) : error.pos + 20]
        problem = f"not JSON: {error.msg} at character {error.pos}, near {near!r}"
    except _NoJsonNumber as error:
        problem = str(error)
    else:
        if not _has_lone_surrogate(value):
            _check_size(value, limits)
            if isinstance(parsed, _Members):
                return parsed
            spelled = _to_json(parsed)
            detail = f"expected a JSON object, got {shorten(spelled)}"
            raise RecordError(Reason.NOT_AN_OBJECT, detail, value=shorten(spelled, VALUE_CHARS))
        problem = "not JSON text: a \\u escape is one half of a surrogate pair, expected both"
    raise RecordError(Reason.NOT_JSON, problem)


def _has_lone_surrogate(value: bytes) -> bool:
    if rb"\u" not in value or not _SURROGATE_ESCAPE.search(value):
        return False
    return bool(_SURROGATE_ESCAPE.search(_SURROGATE_PAIR.sub(b"", value.replace(rb"\\", b"--"))))


def _split_at_quotes(value: bytes) -> list[bytes]:
    """What stands outside of strings and inside, in turn; what is escaped is longer here than it is, or as long."""
    return value.replace(rb"\\", b"-").replace(rb"\"", b"-").split(b'"')


def _check_depth(value: bytes, limits: Limits) -> None:
    """It need not be JSON: up to where it is not, this is the depth that a parser would reach."""
    if value.count(b"[") + value.count(b"{") <= limits.max_depth:
        return
    outside_strings = b"".join(_split_at_quotes(value)[::2])
    steps = _BRACKET_STEPS[np.frombuffer(outside_strings, dtype=np.uint8)]
    depth = int(np.cumsum(steps, dtype=np.int64).max(initial=0))
    if depth > limits.max_depth:
        raise RecordError(
            Reason.TOO_DEEP,
            f"arrays and objects are nested {depth} deep, expected at most {limits.max_depth} (stream.max_depth)",
        )


def _check_size(value: bytes, limits: Limits) -> None:
    """Of a record that is JSON: its fields, then its strings. Neither can be more than a record's bytes allow."""
    if len(value) <= limits.max_string_chars and value.count(b":") <= limits.max_fields:
        return
    parts = _split_at_quotes(value)
    fields = b"".join(parts[::2]).count(b":")
    if fields > limits.max_fields:
        raise RecordError(
            Reason.TOO_MANY_FIELDS,
            f"the record has {fields} fields, expected at most {limits.max_fields} (stream.max_fields)",
        )
    for part in parts[1::2]:
        if len(part) > limits.max_string_chars:
            string = json.loads(b'"' + part + b'"')
            if len(string) > limits.max_string_chars:
                raise string_too_long(string, limits)


def _to_json(given: object) -> str:
    """As JSON with numbers as they are spelled; of what is longer than anyone is shown, the beginning."""
    text = ""
    for token in _json_tokens(given):
        text += token
        if len(text) > VALUE_CHARS:
            break
    return text


def _json_tokens(given: object) -> Iterator[str]:
    match given:
        case Number():
            yield given
        case _Members():
            yield "{"
            for index, (key, member) in enumerate(given):
                yield f"{', ' if index else ''}{json.dumps(key)}: "
                yield from _json_tokens(member)
            yield "}"
        case list():
            yield "["
            for index, member in enumerate(given):
                yield ", " if index else ""
                yield from _json_tokens(member)
            yield "]"
        case _:
            yield json.dumps(given)


@cache
def _expected(kind: Kind, is_number: bool) -> str:
    """What a feature's value is to be, in pydantic's words; `is_number`: the value is one, out of range."""
    number = Annotated[float, AfterValidator(_within_float32)]
    adapter = TypeAdapter[object](number if kind is Kind.NUMERIC else str | number, config=ConfigDict(strict=True))
    try:
        adapter.validate_python(math.inf if is_number else [])
    except ValidationError as error:
        return " or ".join(each["msg"].removeprefix("Input should be ") for each in error.errors(include_input=False))
    raise AssertionError(f"{kind} takes anything")


def _within_float32(number: float) -> float:
    if abs(number) <= FLOAT32_MAX:
        return number
    raise PydanticCustomError(
        "out_of_range", "Input should be a number up to ±{limit}", {"limit": f"{FLOAT32_MAX:.3g}"}
    )


def _key(spelling: str) -> str:
    return remembered_key(spelling) if len(spelling) <= LONGEST_KEY else key_of(spelling)


remembered_key = lru_cache(maxsize=_MOST_KEYS)(key_of)


def shorten(text: str, limit: int = _EXCERPT_CHARS) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
