"""Why a record could not be used, and the form in which it is set aside."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["HEADER_PREFIX", "HOPS_HEADER", "DeadLetter", "Reason", "Reject"]

HEADER_PREFIX = "flowsentry-"
HOPS_HEADER = HEADER_PREFIX + "hops"
"""Also on a record that was put back: how often that has been done, by now."""


class Reason(StrEnum):
    """Why a record is a dead letter; also the `reason` label of the metric and the column of `--rejects`."""

    EMPTY = "empty"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    DUPLICATE_FIELD = "duplicate_field"
    NO_KNOWN_FIELD = "no_known_field"
    TOO_FEW_FEATURES = "too_few_features"
    MALFORMED_ROW = "malformed_row"
    TOO_LONG = "too_long"
    TOO_DEEP = "too_deep"
    TOO_MANY_FIELDS = "too_many_fields"
    STRING_TOO_LONG = "string_too_long"
    UNDECODABLE = "undecodable"
    POISON = "poison"


@dataclass(frozen=True, slots=True)
class Reject:
    """One record of a batch that cannot be scored. `row` is its position in the batch or its data row in the file."""

    row: int
    reason: Reason
    detail: str
    field: str = ""
    value: str = ""


class DeadLetter(BaseModel):
    """The headers of a dead letter. Its key, value and own headers are the source record's, byte for byte.

    On the wire each field is one header, its name prefixed with `flowsentry-`, its value UTF-8 text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)

    reason: Reason = Field(description="Why the record could not be used.")
    detail: str = Field(description="The reason in words: what was wrong and what is expected.")
    field: str = Field(default="", description="The field at fault, empty where it is the record as a whole.")
    value: str = Field(
        default="", max_length=200, description="The field's value as JSON, shortened to 200 characters."
    )
    topic: str = Field(description="Topic that the record came from.")
    partition: int = Field(ge=0, description="Partition that the record came from.")
    offset: int = Field(ge=0, description="Offset of the record there.")
    hops: int = Field(default=0, ge=0, description="How often the record had been put back on its topic before.")
    cut: int = Field(
        default=0,
        ge=0,
        description="Bytes of the record, its key, value and headers, where they are too large for the dead letters' topic: "
        "they are left out then, and still stand at its topic, partition and offset. 0 where all of it is here.",
    )
    schema_version: str = Field(default="1", description="Version of this contract.")

    def to_headers(self) -> list[tuple[str, bytes]]:
        """The headers to add to the source record's own."""
        return [
            (HEADER_PREFIX + name, str(value).encode(errors="backslashreplace"))
            for name, value in self.model_dump(mode="json").items()
        ]

    @classmethod
    def from_headers(cls, headers: Iterable[tuple[str, bytes | None]]) -> "DeadLetter":
        """Read back what `to_headers` wrote.

        A producer's own headers cannot get in the way: of a repeated header the last one, ours, counts, and a name that
        is none of ours counts for nothing.

        Raises:
            pydantic.ValidationError: the headers are not those of a dead letter.
        """
        ours = _names(cls)
        return cls.model_validate(
            {
                name.removeprefix(HEADER_PREFIX): value.decode(errors="replace")
                for name, value in headers
                if name in ours and value is not None
            }
        )

    @classmethod
    def own_headers(cls, headers: Sequence[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes | None], ...]:
        """The source record's own headers among a dead letter's: all before ours, which stand at the end, each once."""
        ours, end = _names(cls), len(headers)
        while end and headers[end - 1][0] in ours:
            end -= 1
            ours.remove(headers[end][0])
        return tuple(headers[:end])


def _names(model: type[DeadLetter]) -> set[str]:
    return {HEADER_PREFIX + name for name in model.model_fields}
