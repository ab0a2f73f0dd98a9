"""What is wrong with a plain record, found in a third of the reader's time: for streams of which much is malformed."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic_core import SchemaValidator, ValidationError, core_schema, from_json

from export.cells import FLOAT32_MAX
from schemas.flow import Feature, FlowSchema, Kind
from stream.record import (
    LONGEST_KEY,
    Features,
    Limits,
    Number,
    Record,
    RecordError,
    RecordReader,
    string_too_long,
    wrong_value,
)

__all__ = ["PlainReader"]

_MOST_FORMS = 64
_LARGE = 1e38  # numbers that polars may refuse, or a float32 not hold, are larger
_NUMERIC = Kind.NUMERIC
# It keeps nothing of what it parses; NaN and the infinities pass it.
_IS_JSON = SchemaValidator(core_schema.typed_dict_schema({}, extra_behavior="ignore"))
_TOKEN = re.compile(rb"[^,}\s]+")


class PlainReader:
    """Judges plain records: one flat object in one line, without arrays and escapes.

    Its parser neither tells repeated keys nor how a number is spelled. What it cannot be sure of, it asks the reader.
    """

    def __init__(self, schema: FlowSchema, limits: Limits, reader: RecordReader) -> None:
        self._limits = limits
        self._reader = reader
        self._forms = _Forms(schema)

    def check_syntax(self, value: bytes) -> Record | RecordError | None:
        """What the reader says of what may be no JSON; None if it is."""
        try:
            _IS_JSON.validate_json(value)
        except ValidationError:
            return self._reader.verdict(value)
        return self._reader.verdict(value) if b"NaN" in value or b"Infinity" in value else None

    def judge(self, value: bytes) -> Record | RecordError | None:
        """What the reader says of a plain record within `max_message_bytes`; None if nothing is wrong with it, and
        polars can read it, too."""
        try:
            members = from_json(value, allow_inf_nan=False)
        except ValueError:
            return self._reader.verdict(value)
        form = self._forms[tuple(members)]
        if (
            not form.is_clear
            or form.longest_key > self._limits.max_string_chars
            or len(members) > self._limits.max_fields
            or not _has_all(members, value)
        ):
            return self._reader.verdict(value)
        if len(value) > self._limits.max_string_chars:
            for given in members.values():
                if type(given) is str and len(given) > self._limits.max_string_chars:
                    return string_too_long(given, self._limits)
        is_doubtful = False
        for feature, (key, given) in zip(form.features, members.items(), strict=True):
            kind = type(given)
            if kind is float or kind is int:
                if -_LARGE <= given <= _LARGE:
                    continue
                is_doubtful = True
                if feature is not None:
                    number = _spelled(value, key)
                    if number is None:
                        return self._reader.verdict(value)
                    if not abs(float(number)) <= FLOAT32_MAX:
                        return wrong_value(key, number, feature)
            elif feature is not None and given is not None and (kind is not str or feature.kind is _NUMERIC):
                return wrong_value(key, given, feature)
        return self._reader.verdict(value) if is_doubtful else None


@dataclass(frozen=True, slots=True)
class _Form:
    """A record's keys in their order, and what they mean; `is_clear` if no feature is among them twice."""

    features: tuple[Feature | None, ...]
    is_clear: bool
    longest_key: int


class _Forms(dict[tuple[str, ...], _Form]):
    """Keys → form; of what is usual, remembered."""

    def __init__(self, schema: FlowSchema) -> None:
        super().__init__()
        self._doubled = schema.doubled
        self._features = Features(schema)

    def __missing__(self, keys: tuple[str, ...]) -> _Form:
        features: list[Feature | None] = []
        is_clear = True
        for key in keys:
            feature = self._features[key]
            if feature is not None and feature in features:
                is_clear = is_clear and feature.name in self._doubled
                feature = None
            features.append(feature)
        form = _Form(tuple(features), is_clear, max(map(len, keys), default=0))
        if form.longest_key <= LONGEST_KEY and len(keys) <= LONGEST_KEY:
            if len(self) == _MOST_FORMS:
                self.clear()
            self[keys] = form
        return form


def _has_all(members: dict[str, Any], value: bytes) -> bool:
    """Whether a plain record has no members but these: repeated ones would bring more commas, and more quotes."""
    if value.count(b",") == len(members) - 1:
        return True
    strings = sum(type(given) is str for given in members.values())
    return value.count(b'"') == 2 * (len(members) + strings)


def _spelled(value: bytes, key: str) -> Number | None:
    """The number that stands in a plain record right after a key and its colon, if it does."""
    name = b'"' + key.encode() + b'":'
    place = value.find(name)
    token = _TOKEN.search(value, place + len(name)) if place >= 0 else None
    return Number(token[0].decode()) if token else None
