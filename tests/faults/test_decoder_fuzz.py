"""Whatever the bytes: the fast decoder says of every record, bit for bit, what the slow one says."""

import json
import os
import random
from collections.abc import Iterator, Sequence
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.datasets import SCHEMAS
from schemas.flow import FlowSchema, Kind
from stream import decode as module
from stream.decode import Decoded, Decoder, Limits, decode_slow
from tests.stream.records import (
    DIALECTS,
    GOOD,
    PROPERTY,
    UNSW,
    assert_complete,
    assert_same,
    encode,
    flow,
    good_records,
    odd_records,
    with_member,
)

SMALL = Limits(max_message_bytes=3000, max_depth=4, max_fields=48, max_string_chars=30)
COVERAGE = 0.5
BATCHES = 60
MUTANTS = 40  # in a batch

RAW = (
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e-400", "3.4028234663852886e38", "3.4028234663852887e38"),
    *("340282346638528859811704183484516925440", "340282346638528859811704183484516925441", "3.5e38", "1e39", "1e308"),
    *(str(2**63), str(-(2**63) - 1), str(2**64), str(2**127), str(2**128), "9" * 400, "9" * 5000, "0." + "1" * 999),
    *("0e99999999999", "0.0e-99999999999", "1e99999999999", "1E+0000000000000000002", "-0", "-0.0", "00", "-", "1.e1"),
    *(
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\\ud83d\\ude00"',
        '"\\u0000"',
        '"\x00"',
        '"\x1f"',
        '"\x7f"',
        '"\\""',
        '"\\\\"',
    ),
    *(
        '""',
        '"1"',
        '"NaN"',
        '"tcp"',
        '" TCP "',
        '"6.0"',
        '"true"',
        '"a,b"',
        '":x"',
        '"::"',
        '"{"',
        '"}"',
        '"["',
        '"\u2028"',
    ),
    *(
        "true",
        "false",
        "null",
        "nul",
        "[]",
        "{}",
        "[1,2]",
        '{"dur":1}',
        "[[[1]]]",
        "[[[[1]]]]",
        '[{"a":[1]}]',
        '[{"a":[[1]]}]',
    ),
    *(json.dumps("x" * count) for count in (29, 30, 31, 300)),
    *(json.dumps("é" * count, ensure_ascii=False) for count in (29, 30, 31)),
    *(json.dumps("\n" * count) for count in (30, 31)),
)
KEYS = (
    "dur",
    "Dur",
    " dur ",
    "DUR",
    "\\u0064ur",
    "proto",
    "Proto",
    "sbytes",
    "rate",
    "id",
    "label",
    "x",
    "",
    ":",
    "y" * 31,
)
AROUND = (b"", b" ", b"\n", b"\r\n", b"\t", b"\xef\xbb\xbf", b"\x00", b"x", b",", b"}", b"{", b"[", b"]", b'"', b"\\")
WHOLE = (
    None,
    b"",
    b" ",
    b"\n",
    b"{}",
    b"[]",
    b"null",
    b"1",
    b'"x"',
    b"[" * 5000,
    b'{"a":' * 600,
    b"\xff\xfe",
    b"{" * 9,
    b"}",
)


@st.composite
def with_raw_members(draw: st.DrawFn) -> bytes:
    """A flow whose members are left out, repeated and replaced by whatever there is."""
    spelling = draw(st.sampled_from([*DIALECTS.values()]))
    members = [(json.dumps(key)[1:-1], json.dumps(value)) for key, value in flow(UNSW, spelling).items()]
    for key, raw in draw(st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(RAW)), max_size=7)):
        members.insert(draw(st.integers(0, len(members))), (key, raw))
    for place in draw(st.lists(st.integers(0, len(members) - 1), max_size=2)):
        members[place] = (members[place][0], draw(st.sampled_from(RAW)))
    comma, colon = draw(
        st.sampled_from([(",", ":"), (", ", ": "), (",", " :"), (" , ", " : "), (",\n", ":"), (",", ":\t")])
    )
    text = "{" + comma.join(f'"{key}"{colon}{raw}' for key, raw in members) + "}"
    before, after = draw(
        st.tuples(st.sampled_from([b""] * 12 + list(AROUND)), st.sampled_from([b""] * 12 + list(AROUND)))
    )
    return before + text.encode(errors="surrogatepass") + after


@st.composite
def at_limits(draw: st.DrawFn) -> bytes:
    """As long, as deep, with as many fields, or as long a string as is allowed, give or take one."""
    extra = draw(st.integers(-1, 1))
    record = flow(UNSW, draw(st.sampled_from([*DIALECTS.values()])))
    match draw(st.sampled_from(["length", "depth", "fields", "string", "key"])):
        case "length":
            value = encode(record)
            return value[:1] + b" " * (SMALL.max_message_bytes - len(value) + extra) + value[1:]
        case "depth":
            levels = SMALL.max_depth - 1 + extra
            opened, closed = draw(st.sampled_from([("[", "]"), ('{"a":', "}")]))
            return with_member(UNSW, draw(st.sampled_from(["id", "dur"])), opened * levels + "1" + closed * levels)
        case "fields":
            more = SMALL.max_fields - len(record) + extra
            return encode(record | {f"x{number}": draw(st.sampled_from([1, "a,b", None])) for number in range(more)})
        case "string":
            field = draw(st.sampled_from(["id", "proto", "dur"]))
            return encode(record | {field: draw(st.sampled_from("xé\n€")) * (SMALL.max_string_chars + extra)})
        case _:
            return encode(record | {"k" * (SMALL.max_string_chars + extra): 1})


def batches() -> st.SearchStrategy[list[list[bytes | None]]]:
    anything = st.one_of(
        good_records(),
        good_records(),
        odd_records(),
        with_raw_members(),
        at_limits(),
        st.sampled_from(WHOLE),
        st.binary(max_size=60),
        good_records().flatmap(lambda value: st.integers(0, len(value)).map(lambda end: value[:end])),
    )
    return st.lists(st.lists(anything, max_size=16), min_size=1, max_size=4)


def bits(decoded: Decoded, schema: FlowSchema) -> Iterator[bytes]:
    """The numeric columns' bits: NaN and -0 included."""
    for feature in schema.features:
        if feature.kind is Kind.NUMERIC:
            column = decoded.columns[feature.name]
            yield np.where(np.isnan(column), np.nan, column).tobytes()


def assert_agree(decoder: Decoder, batch: Sequence[bytes | None], schema: FlowSchema, limits: Limits) -> None:
    slow = decode_slow(batch, schema, min_feature_coverage=COVERAGE, limits=limits)
    fast = decoder.decode(batch)
    assert_complete(slow, schema, len(batch))
    assert_same(fast, slow)
    assert list(bits(fast, schema)) == list(bits(slow, schema))


@pytest.mark.parametrize("limits", [SMALL, Limits()], ids=["small", "default"])
@given(parts=batches())
@settings(PROPERTY, max_examples=60)
def test_fast_and_slow_agree_on_records_made_up_to_break_them(limits: Limits, parts: list[list[bytes | None]]) -> None:
    decoder = Decoder(UNSW, min_feature_coverage=COVERAGE, limits=limits)
    with patch.object(module, "FEW", 1):  # so that small batches go the fast way, too
        for batch in parts:
            assert_agree(decoder, batch, UNSW, limits)


@pytest.mark.parametrize("limits", [SMALL, Limits()], ids=["small", "default"])
def test_fast_and_slow_agree_on_every_value_in_every_kind_of_place(limits: Limits) -> None:
    decoder = Decoder(UNSW, min_feature_coverage=COVERAGE, limits=limits)
    for key in KEYS:
        records = [with_member(UNSW, "dur", raw).replace(b'"dur"', f'"{key}"'.encode()) for raw in RAW]
        records += [GOOD[:-1] + f', "{key}": {raw}}}'.encode(errors="surrogatepass") for raw in RAW]
        for batch in (records, [value for record in records for value in (record, GOOD)]):
            assert_agree(decoder, batch, UNSW, limits)
    for before in AROUND:
        assert_agree(decoder, [part for after in AROUND for part in (before + GOOD + after, GOOD)], UNSW, limits)


def test_strings_of_ten_megabytes_and_more_of_anything() -> None:
    large = 10 << 20
    batch = [GOOD, encode("x" * large), with_member(UNSW, "id", json.dumps("x" * large)), b"[" * large, b"\\" * large]
    batch += [with_member(UNSW, "dur", "9" * large), b" " * large, b'{"a":1,' * (large // 7), b"\x00" * large, GOOD] * 2
    for limits in (Limits(), Limits(max_message_bytes=1 << 25)):
        assert_agree(Decoder(UNSW, min_feature_coverage=COVERAGE, limits=limits), batch, UNSW, limits)


def mutated(value: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """Bytes flipped, removed, put in, repeated, and taken over from another record."""
    mutant = bytearray(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        place = rng.randrange(len(mutant) + 1)
        end = min(len(mutant), place + rng.choice((1, 1, 2, 4, 30)))
        match rng.randrange(6):
            case 0 if place < len(mutant):
                mutant[place] ^= 1 << rng.randrange(8)
            case 1:
                del mutant[place:end]
            case 2:
                mutant[place:place] = rng.choice(
                    (*AROUND, rng.randbytes(2), *(raw.encode("utf-8", "replace") for raw in RAW))
                )
            case 3:
                mutant[place:place] = mutant[place:end] * rng.choice((1, 2, 40))
            case 4:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                mutant[place:end] = other[start : start + rng.choice((1, 8, 64))]
            case _:
                mutant[place:end] = bytes(rng.choice(b'{}[]",:\\ \n\x000123456789eE.+-ntf') for _ in range(end - place))
    return bytes(mutant)


def test_fast_and_slow_agree_on_mutants_of_flows() -> None:
    seed = int(os.environ.get("FLOWSENTRY_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"FLOWSENTRY_TEST_SEED={seed} repeats these cases")
    rng = random.Random(seed)
    for schema in SCHEMAS.values():
        names = [*DIALECTS.values()]
        flows = [
            encode(
                flow(schema, spelling, start) | {"id": start, "src_ip": "10.0.0.1", "timestamp": "7 July 2017, 10:00"}
            )
            for start in range(4)
            for spelling in names
        ]
        limits = rng.choice((Limits(), Limits(max_fields=len(schema.features) + 3, max_string_chars=40, max_depth=2)))
        decoder = Decoder(schema, min_feature_coverage=COVERAGE, limits=limits)
        with patch.object(module, "FEW", rng.choice((1, module.FEW))):
            for _ in range(BATCHES):
                batch: list[bytes | None] = [
                    mutated(rng.choice(flows), flows, rng) for _ in range(rng.randrange(MUTANTS))
                ]
                batch += rng.choices(flows, k=rng.randrange(MUTANTS))
                rng.shuffle(batch)
                assert_agree(decoder, batch, schema, limits)
