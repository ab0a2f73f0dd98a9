"""Records in every dialect, good, odd and broken, and what to hold two decoders against each other with."""

import json
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from export.cells import FLOAT32_MAX
from schemas.datasets import SCHEMAS
from schemas.dead_letter import DeadLetter
from schemas.flow import Feature, FlowSchema, Kind
from stream.decode import Decoded, Decoder

__all__ = [
    "COVERAGE",
    "DIALECTS",
    "GOOD",
    "KEYS",
    "PROPERTY",
    "SEPARATORS",
    "TOKENS",
    "UNSW",
    "Spelling",
    "assert_complete",
    "assert_same",
    "decode",
    "encode",
    "flow",
    "good_records",
    "odd_records",
    "warm",
    "with_member",
]

UNSW = SCHEMAS["unsw-nb15"]
COVERAGE = 0.5
PROPERTY = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False)


Spelling = Callable[[Feature], str]
DIALECTS: dict[str, Spelling] = {
    "names": lambda feature: feature.name,
    "first aliases": lambda feature: (*feature.aliases, feature.name)[0],
    "last aliases": lambda feature: (feature.name, *feature.aliases)[-1],
    "titles": lambda feature: " " + feature.name.replace("_", " ").title(),
    "capitals": lambda feature: feature.name.upper(),
}


def flow(schema: FlowSchema, spelling: Spelling = DIALECTS["names"], start: int = 1) -> dict[str, object]:
    """A record with every feature: numbers count up from `start` by halves, categories are `tcp`."""
    return {
        spelling(feature): start + index / 2 if feature.kind is Kind.NUMERIC else "tcp"
        for index, feature in enumerate(schema.features)
    }


def encode(record: object) -> bytes:
    return json.dumps(record).encode()


def with_member(schema: FlowSchema, key: str, raw: str, *, first: bool = False) -> bytes:
    """A full record without the feature `key`, and with the member `"key": raw`, which need not be JSON."""
    members = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in flow(schema).items() if name != key]
    members.insert(0 if first else len(members), f"{json.dumps(key)}: {raw}")
    return ("{" + ", ".join(members) + "}").encode()


def decode(values: Sequence[bytes | None], schema: FlowSchema, coverage: float = COVERAGE) -> Decoded:
    return Decoder(schema, min_feature_coverage=coverage).decode(values)


def warm(schema: FlowSchema, coverage: float = COVERAGE) -> Decoder:
    """A decoder that knows the dialects."""
    decoder = Decoder(schema, min_feature_coverage=coverage)
    for spelling in DIALECTS.values():
        decoder.decode([encode(flow(schema, spelling) | {"id": 1, "Source IP": "::1", "label": "x"})])
    return decoder


def assert_same(left: Decoded, right: Decoded) -> None:
    assert left.rows.dtype == right.rows.dtype == np.int64
    assert left.rows.tolist() == right.rows.tolist()
    assert left.rejects == right.rejects
    assert list(left.columns) == list(right.columns)
    for name, column in left.columns.items():
        assert column.dtype == right.columns[name].dtype
        assert len(column) == len(left.rows)
        np.testing.assert_array_equal(column, right.columns[name], err_msg=name)


def assert_complete(decoded: Decoded, schema: FlowSchema, count: int) -> None:
    """Every position once, in order; columns as the schema has them; rejects that a dead letter can hold."""
    refused = [reject.row for reject in decoded.rejects]
    assert refused == sorted(refused)
    assert decoded.rows.tolist() == sorted(decoded.rows.tolist())
    assert sorted([*decoded.rows.tolist(), *refused]) == list(range(count))
    assert tuple(decoded.columns) == schema.names
    for feature in schema.features:
        column = decoded.columns[feature.name]
        if feature.kind is Kind.NUMERIC:
            assert column.dtype == np.float64
            assert np.all(np.isnan(column) | (np.abs(column) <= FLOAT32_MAX))
        else:
            assert all(name is None or type(name) is str for name in column)
    for reject in decoded.rejects:
        assert reject.detail
        letter = DeadLetter(
            reason=reject.reason,
            detail=reject.detail,
            field=reject.field,
            value=reject.value,
            topic="flows",
            partition=0,
            offset=0,
        )
        assert letter.to_headers()


GOOD = encode(flow(UNSW))

TOKENS = (
    *("0", "-0", "1", "6.0", "-7.25", "1e2", "1e-400", "1e400", "3.5e38", "9223372036854775808", "9" * 39, "9" * 400),
    *("01", "1.", "+1", "NaN", "-Infinity", "null", "null5", "true", "false", "[]", "[[1, 2]]", "{}", '{"a": 1}'),
    *('""', '"1"', '"tcp"', '" TCP"', '"6.0"', '"nan"', '"true"', '"a, b"', '":null"', '"::1"', '"{"', '"}"'),
    *('"\\ud800"', '"\\ud83d\\ude00"', '"\\u0041"', '"\\""', '"\\\\"', '"é"', '"\x00"', '"\t"', '"\u0661"', '"1e2"'),
)
KEYS = (
    *("dur", "Dur", " DUR ", "\\u0064ur", "proto", "PROTO", "service", "sbytes", "res_bdy_len", "smeansz", "rate"),
    *("id", "srcip", "Src IP", "label", "x", "y", "", "*", "a,b", ":null", ":1", "y" * 200),
)
SEPARATORS = ((",", ":"), (", ", ": "), (" ,", " :"), (",\n", ": "), (",", ":  "))


@st.composite
def odd_records(draw: st.DrawFn) -> bytes:
    """A record in some dialect, with some members left out, put in and repeated, and some bytes changed."""
    spelling = draw(st.sampled_from([*DIALECTS.values()]))
    members = [(key, json.dumps(value)) for key, value in flow(UNSW, spelling).items()]
    members = members[draw(st.sampled_from([0, 0, 0, 5, 30, 42])) :]
    for key, raw in draw(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(TOKENS)), max_size=2)):
        members.append((key, raw))
    for place in draw(st.lists(st.integers(0, 50), max_size=2)):
        if place < len(members):
            members[place] = (members[place][0], draw(st.sampled_from(TOKENS)))
    comma, colon = draw(st.sampled_from([*SEPARATORS, *SEPARATORS[:2] * 4]))
    text = "{" + comma.join(f'"{key}"{colon}{raw}' for key, raw in members) + "}"
    value = bytearray(text.encode())
    for place, byte in draw(
        st.lists(st.tuples(st.integers(0, 600), st.sampled_from(b'{}[]",:\\ \n\x000e.-\xff\xc3')), max_size=1)
    ):
        value[place : place + place % 2] = bytes([byte])
    return bytes(value)


def good_records() -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda spelling, start, separators: json.dumps(flow(UNSW, spelling, start), separators=separators).encode(),
        st.sampled_from([*DIALECTS.values()]),
        st.integers(0, 1000),
        st.sampled_from(SEPARATORS[:2]),
    )
