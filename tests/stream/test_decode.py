"""What becomes of each kind of record, and that it never depends on the other records of the batch."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from polars.exceptions import PanicException

from export.cells import FLOAT32_MAX
from schemas.datasets import SCHEMAS
from schemas.dead_letter import Reason, Reject
from schemas.flow import Dropped, FlowSchema, Kind
from stream import decode as module
from stream.decode import Decoded, Decoder, decode_slow, read_metadata
from stream.record import RecordReader
from tests.stream.records import (
    COVERAGE,
    DIALECTS,
    GOOD,
    KEYS,
    PROPERTY,
    TOKENS,
    UNSW,
    Spelling,
    assert_complete,
    assert_same,
    decode,
    encode,
    flow,
    good_records,
    odd_records,
    warm,
    with_member,
)

IMPROVED = SCHEMAS["cicids2017-improved"]
CICIDS = SCHEMAS["cicids2017"]


@pytest.fixture(params=list(SCHEMAS.values()), ids=list(SCHEMAS))
def schema(request: pytest.FixtureRequest) -> FlowSchema:
    chosen: FlowSchema = request.param
    return chosen


def only_reject(value: bytes | None, schema: FlowSchema) -> Reject:
    """The one reject of a record, which is the same alone and in the midst of a batch of good ones."""
    good = [encode(flow(schema, start=start)) for start in range(20)]
    decoded = warm(schema).decode([*good, value, *good])
    assert decoded.rows.tolist() == [*range(20), *range(21, 41)]
    (reject,) = decoded.rejects
    (alone,) = decode([value], schema).rejects
    assert (alone.reason, alone.detail, alone.field, alone.value) == (
        reject.reason,
        reject.detail,
        reject.field,
        reject.value,
    )
    assert reject.row == 20
    return reject


@contextmanager
def counted_reads() -> Iterator[list[bytes | None]]:
    """The records that go the slow way."""
    seen: list[bytes | None] = []
    read = RecordReader.read

    def counting(self: RecordReader, value: bytes | None) -> object:
        seen.append(value)
        return read(self, value)

    with patch.object(RecordReader, "read", counting):
        yield seen


# What a record means


@pytest.mark.parametrize("spelling", DIALECTS.values(), ids=DIALECTS)
def test_every_feature_is_found_in_every_dialect(schema: FlowSchema, spelling: Spelling) -> None:
    records = [flow(schema, spelling, start) for start in range(50)]
    decoded = decode([encode(record) for record in records], schema)
    assert_complete(decoded, schema, 50)
    assert decoded.rows.tolist() == list(range(50))
    for feature in schema.features:
        assert decoded.columns[feature.name].tolist() == [record[spelling(feature)] for record in records]


def test_null_and_absent_are_missing(schema: FlowSchema) -> None:
    derived = {derivation.name for derivation in schema.derivations}
    names = [name for name in schema.names if name not in derived]
    absent = [encode({name: value for name, value in flow(schema).items() if name != left_out}) for left_out in names]
    null = [encode(flow(schema) | {name: None}) for name in names]
    for decoder in (Decoder(schema, min_feature_coverage=COVERAGE), warm(schema)):
        decoded = decoder.decode([*absent, *null])
        assert decoded.rows.tolist() == list(range(2 * len(names)))
        for name in schema.names:
            missing = [row for row, value in enumerate(decoded.columns[name]) if value is None or value != value]
            assert missing == [row for row, left_out in enumerate(names * 2) if left_out == name]


def test_what_follows_from_other_features_is_filled_in() -> None:
    record = flow(UNSW) | {"spkts": 3, "dpkts": 2, "dur": 0.5}
    given, null = encode(record | {"rate": 7}), encode(record | {"rate": None})
    absent = encode({name: value for name, value in record.items() if name != "rate"})
    decoded = decode([given, null, absent], UNSW)
    assert decoded.columns["rate"].tolist() == [7.0, 8.0, 8.0]


def test_what_follows_but_fits_no_float32_is_missing() -> None:
    record = flow(UNSW) | {"spkts": 1e38, "dpkts": 1e38, "dur": 5e-324, "rate": None}
    assert math.isnan(decode([encode(record)], UNSW).columns["rate"][0])


WRONG_NUMBERS = ('"1"', '""', '"NaN"', "true", "false", "[]", "[1, 2]", "{}", '{"a": 1}')
WRONG_CATEGORIES = ("true", "false", "[]", '["tcp"]', "{}", '{"a": "tcp"}')


def test_wrong_type_in_each_field(schema: FlowSchema) -> None:
    batch = [encode(flow(schema))] * 20
    rejects = []
    for feature in schema.features:
        is_number = feature.kind is Kind.NUMERIC
        expected = "a valid number" if is_number else "a valid string or a valid number"
        for raw in WRONG_NUMBERS if is_number else WRONG_CATEGORIES:
            detail = f"'{feature.name}' is {raw}, expected {expected}"
            rejects.append(Reject(len(batch), Reason.WRONG_TYPE, detail, feature.name, raw))
            batch.append(with_member(schema, feature.name, raw))
    for decoder in (Decoder(schema, min_feature_coverage=COVERAGE), warm(schema)):
        decoded = decoder.decode(batch)
        assert decoded.rejects == rejects
        assert decoded.rows.tolist() == list(range(20))


@pytest.mark.parametrize("raw", ["1e400", "-1e400", "3.5e38", "-3.5e38", "9" * 39, "9" * 6000])
def test_a_number_that_no_float32_holds_is_out_of_range_in_each_field(schema: FlowSchema, raw: str) -> None:
    shown = raw if len(raw) <= 80 else raw[:79] + "…"
    batch = [with_member(schema, feature.name, raw) for feature in schema.features]
    decoded = warm(schema).decode(batch)
    assert not len(decoded.rows)
    for feature, reject in zip(schema.features, decoded.rejects, strict=True):
        assert (reject.reason, reject.field) == (Reason.OUT_OF_RANGE, feature.name)
        assert reject.value == (raw if len(raw) <= 200 else raw[:199] + "…")
        alternative = "" if feature.kind is Kind.NUMERIC else "a valid string or "
        assert reject.detail == f"'{feature.name}' is {shown}, expected {alternative}a number up to ±3.4e+38"


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        ("3.4028234663852886e38", FLOAT32_MAX),
        ("-3.4028234663852886e38", -FLOAT32_MAX),
        ("9223372036854775808", 2.0**63),
        ("18446744073709551617", 2.0**64),
        ("-170141183460469231731687303715884105729", -(2.0**127)),
        ("123456789012345678901234567890", 123456789012345678901234567890.0),
        ("0.1000000000000000055511151231257827021181583404541015625", 0.1),
        ("1e-400", 0.0),
        ("5e-324", 5e-324),
        ("1E+2", 100.0),
    ],
)
def test_numbers_become_the_nearest_float64(raw: str, number: float) -> None:
    for decoder in (Decoder(UNSW, min_feature_coverage=COVERAGE), warm(UNSW)):
        decoded = decoder.decode([with_member(UNSW, "sbytes", raw)] * 20)
        assert decoded.columns["sbytes"].tolist() == [number] * 20


@pytest.mark.parametrize("raw", ["-0", "-0.0", "-0e3", "-1e-400"])
def test_minus_zero_is_zero(raw: str) -> None:
    for decoder in (Decoder(UNSW, min_feature_coverage=COVERAGE), warm(UNSW)):
        column = decoder.decode([with_member(UNSW, "sbytes", raw)] * 20).columns["sbytes"]
        assert not column.any()
        assert not np.signbit(column).any()


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        *((raw, "6") for raw in ("6", "6.0", "6e0", "0.6e1", '"6"', '"6.0"', '" 6 "')),
        *((raw, "tcp") for raw in ('"tcp"', '"TCP"', '" Tcp "', '"t\\u0063p"')),
        *((raw, None) for raw in ("null", '""', '"nan"', '"Infinity"', '"N/A"', '" null "')),
        ('"-"', "-"),
        ('"3pc"', "3pc"),
        ('"never seen, é"', "never seen, é"),
        ('"true"', "true"),
        ('"007"', "007"),
        ('"1e2"', "1e2"),
        ("1e2", "100"),
        ("-0", "0"),
        ("-7", "-7"),
        ("1e22", "1e+22"),
        ('"1e400"', "1e400"),
        ('"{}"', "{}"),
    ],
)
def test_categories(raw: str, name: str | None) -> None:
    for field in ("proto", "service", "state"):
        value = with_member(UNSW, field, raw)
        for decoder in (Decoder(UNSW, min_feature_coverage=COVERAGE), warm(UNSW)):
            assert decoder.decode([value] * 12).columns[field].tolist() == [name] * 12


@pytest.mark.parametrize("second", ["1", "2", "null", '"x"', "[]"])
@pytest.mark.parametrize("spelling", ["flow_duration", "Flow Duration"])
def test_a_feature_given_twice_is_refused(spelling: str, second: str) -> None:
    for value in (
        with_member(CICIDS, "flow_duration", f'1, "{spelling}": {second}'),
        with_member(CICIDS, "flow_duration", f'null, "{spelling}": {second}', first=True),
    ):
        reject = only_reject(value, CICIDS)
        assert (reject.reason, reject.field, reject.value) == (Reason.DUPLICATE_FIELD, spelling, second)
        assert spelling in reject.detail
        assert "flow_duration" in reject.detail
        assert not len(warm(CICIDS).decode([value] * 20).rows)


def test_of_a_feature_that_the_release_doubles_the_first_counts() -> None:
    assert "fwd_header_length" in CICIDS.doubled
    for repeated in ('5, "fwd_header_length": 6', '5, "Fwd Header Len": 6', '5, "fwd_header_length": "x"'):
        value = with_member(CICIDS, "fwd_header_length", repeated)
        for decoder in (Decoder(CICIDS, min_feature_coverage=COVERAGE), warm(CICIDS)):
            decoded = decoder.decode([value] * 12)
            assert decoded.columns["fwd_header_length"].tolist() == [5.0] * 12


ANY_VALUES = (
    "1",
    "1e400",
    '"x"',
    '", "',
    '"\\""',
    "null",
    "true",
    "[]",
    '[{"dur": 2}, null]',
    "{}",
    '{"proto": 6, "a": {}}',
)


def test_what_is_no_feature_is_ignored_whatever_it_is(schema: FlowSchema) -> None:
    others = ["never seen", "", "*", "^.*$", "a,b", '"', "é", schema.metadata[0].name, *schema.label_columns]
    others += [column.name for column in schema.dropped]
    plain = decode([encode(flow(schema))], schema)
    decoder = warm(schema)
    for key in others:
        batch = [with_member(schema, key, raw) for raw in ANY_VALUES]
        batch += [with_member(schema, key, f"{raw}, {json.dumps(key)}: {raw}") for raw in ANY_VALUES]
        decoded = decoder.decode(batch)
        assert decoded.rows.tolist() == list(range(len(batch)))
        for name, column in decoded.columns.items():
            assert set(column) == set(plain.columns[name])


def test_of_several_problems_the_first_in_the_document_is_reported() -> None:
    value = b'{"label": [], "sbytes": 1, "Dur": 1e99, "proto": [], "sbytes": 2, "dpkts": "x"}'
    assert only_reject(value, UNSW).field == "Dur"
    assert only_reject(value.replace(b'"Dur": 1e99', b'"dur": null'), UNSW).field == "proto"
    assert only_reject(value.replace(b'"Dur": 1e99, "proto": [], ', b""), UNSW).reason is Reason.DUPLICATE_FIELD
    assert only_reject(value + b"}", UNSW).reason is Reason.NOT_JSON


def test_too_few_features(schema: FlowSchema) -> None:
    need = math.ceil(COVERAGE * len(schema.features))
    members = list(flow(schema).items())
    assert decode([encode(dict(members[:need]))], schema).rows.tolist() == [0]
    reject = only_reject(encode(dict(members[: need - 1])), schema)
    assert reject.reason is Reason.TOO_FEW_FEATURES
    assert f"{need - 1} of {len(members)} features" in reject.detail


@pytest.mark.parametrize("value", [b"{}", b'{"a": 1}', b'{"src_ip": "10.0.0.1"}', b'{"dur": null, "proto": ""}'])
def test_no_known_field(value: bytes) -> None:
    assert only_reject(value, UNSW).reason is Reason.NO_KNOWN_FIELD
    assert decode([value], UNSW, coverage=0.0).rejects[0].reason is Reason.NO_KNOWN_FIELD


@pytest.mark.parametrize("value", [None, b"", b" ", b"\n", b" \t\r\n "])
def test_empty(value: bytes | None) -> None:
    assert only_reject(value, UNSW).reason is Reason.EMPTY


@pytest.mark.parametrize(
    "value", [b"[]", b"[1, 2]", b'"x"', b"1", b"-1e400", b"null", b"true", b'[{"dur": 1}]', b" 7\n"]
)
def test_not_an_object(value: bytes) -> None:
    reject = only_reject(value, UNSW)
    assert (reject.reason, reject.value) == (Reason.NOT_AN_OBJECT, value.decode().strip())


NOT_JSON = {
    "random bytes": bytes(range(256)),
    "text": b"GET / HTTP/1.1",
    "truncated": GOOD[:-1],
    "truncated in a string": b'{"dur": 1, "proto": "tc',
    "truncated at a brace": b'{"id": {"a": 1}',
    "NaN": with_member(UNSW, "dur", "NaN"),
    "Infinity": with_member(UNSW, "dur", "Infinity"),
    "-Infinity": with_member(UNSW, "id", "-Infinity"),
    "nan": with_member(UNSW, "dur", "nan"),
    "nullx": with_member(UNSW, "dur", "nullx"),
    "null5": with_member(UNSW, "dur", "null5"),
    "leading zero": with_member(UNSW, "dur", "01"),
    "plus": with_member(UNSW, "dur", "+1"),
    "no fraction": with_member(UNSW, "dur", "1."),
    "no integer": with_member(UNSW, "dur", ".5"),
    "no exponent": with_member(UNSW, "dur", "1e"),
    "hexadecimal": with_member(UNSW, "dur", "0x10"),
    "underscore": with_member(UNSW, "dur", "1_0"),
    "no value": with_member(UNSW, "dur", ""),
    "two values": with_member(UNSW, "dur", "1 2"),
    "trailing comma": GOOD[:-1] + b",}",
    "leading comma": b"{," + GOOD[1:],
    "single quotes": GOOD.replace(b'"', b"'"),
    "bare key": GOOD.replace(b'"dur"', b"dur"),
    "comment": GOOD[:-1] + b"/**/}",
    "trailing garbage": GOOD + b"x",
    "trailing NUL": GOOD + b"\x00",
    "two objects": GOOD + GOOD,
    "two lines": GOOD + b"\n" + GOOD,
    "two lines and a comma": GOOD + b",\n" + GOOD,
    "extra brace": GOOD + b"}",
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "NUL": with_member(UNSW, "proto", '"\x00"'),
    "NUL between": GOOD.replace(b" ", b"\x00"),
    "tab in a string": with_member(UNSW, "proto", '"\t"'),
    "newline in a string": with_member(UNSW, "proto", '"\n"'),
    "form feed": GOOD.replace(b" ", b"\x0c"),
    "invalid UTF-8": with_member(UNSW, "id", '"x"').replace(b"x", b"\xff"),
    "overlong UTF-8": with_member(UNSW, "id", '"x"').replace(b"x", b"\xc0\x80"),
    "surrogate in UTF-8": with_member(UNSW, "id", '"x"').replace(b"x", b"\xed\xa0\x80"),
    "beyond Unicode": with_member(UNSW, "id", '"x"').replace(b"x", b"\xf4\x90\x80\x80"),
    "high surrogate": with_member(UNSW, "id", '"\\ud800"'),
    "low surrogate": with_member(UNSW, "proto", '"\\uDC00"'),
    "surrogates reversed": with_member(UNSW, "id", '"\\udc00\\ud800"'),
    "surrogate in a key": with_member(UNSW, "x", '1, "\\ud800": 2'),
    "surrogates around a backslash": with_member(UNSW, "id", '"\\ud800\\\\\\udc00"'),
    "a pair between two halves": with_member(UNSW, "id", '"\\ud800\\ud83d\\ude00\\udc00"'),
    "nested surrogate": with_member(UNSW, "id", '[{"a": "\\ud800"}]'),
    "bad escape": with_member(UNSW, "proto", '"\\x41"'),
}


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
def test_not_json(value: bytes) -> None:
    reject = only_reject(value, UNSW)
    assert reject.reason is Reason.NOT_JSON
    assert reject.detail.startswith(("not JSON", "not UTF-8"))
    assert "\n" not in reject.detail
    assert len(reject.detail) < 400


ODD_BUT_GOOD = {
    "pretty": json.dumps(flow(UNSW), indent=2).encode(),
    "carriage returns": json.dumps(flow(UNSW), indent=2).replace("\n", "\r\n").encode(),
    "spaces around": b" \t\r\n" + GOOD + b"\n",
    "tabs between": GOOD.replace(b" ", b"\t"),
    "spaces before colons": GOOD.replace(b":", b" :"),
    "no spaces": GOOD.replace(b" ", b""),
    "escaped key": GOOD.replace(b'"dur"', b'"\\u0064ur"'),
    "surrogate pair": with_member(UNSW, "id", '"\\ud83d\\ude00"'),
    "escaped backslash": with_member(UNSW, "id", '"\\\\ud800"'),
    "escaped NUL": with_member(UNSW, "id", '"\\u0000"'),
    "delete, next line, line separator": with_member(UNSW, "id", '"\x7f\x85\u2028"'),
    "a long string": with_member(UNSW, "id", f'"{"x" * 16_384}"'),
    "spaces": GOOD.replace(b" ", b" " * 2000),
    "commas": with_member(UNSW, "id", '"a, b, c"'),
    "colon": with_member(UNSW, "src_ip", '"::1"'),
    "quoted": with_member(UNSW, "src_ip", '"\\":null,\\"dur\\":2"'),
    "looks like null": with_member(UNSW, "src_ip", '": null"'),
    "brackets": with_member(UNSW, "src_ip", '"[::1]"'),
    "brackets in a string are not nested": with_member(UNSW, "id", '"' + "[" * 1000 + '"'),
    "brackets after an escaped quote": with_member(UNSW, "id", '"\\"' + "[" * 1000 + '"'),
    "brackets after an escaped backslash": with_member(UNSW, "id", '["\\\\", "' + "[" * 1000 + '"]'),
    "nested 64 deep": with_member(UNSW, "id", "[" * 63 + "]" * 63),
    "900 members": with_member(UNSW, "id", ", ".join(["1", *(f'"x{n}": 1' for n in range(900))])),
}


@pytest.mark.parametrize("value", ODD_BUT_GOOD.values(), ids=ODD_BUT_GOOD)
def test_odd_but_good(value: bytes) -> None:
    plain = decode([GOOD], UNSW)
    for decoded in (decode([value], UNSW), warm(UNSW).decode([GOOD] * 9 + [value] * 9 + [GOOD] * 9)):
        assert not decoded.rejects
        for name, column in decoded.columns.items():
            assert set(column) == set(plain.columns[name])


def test_an_empty_message_and_a_broken_one_do_not_shift_the_blame() -> None:
    good = [encode(flow(UNSW, start=start)) for start in range(40)]
    batch: list[bytes | None] = list(good)
    batch[3] = b""
    batch[7] = good[7] + b"\n" + good[8]
    batch[9] = json.dumps(flow(UNSW, start=9), indent=1).encode()
    batch[11] = None
    batch[20] = with_member(UNSW, "sbytes", '"x"')
    batch[33] = b"\n"
    for decoder in (Decoder(UNSW, min_feature_coverage=COVERAGE), warm(UNSW)):
        decoded = decoder.decode(batch)
        assert [(reject.row, reject.reason) for reject in decoded.rejects] == [
            (3, Reason.EMPTY),
            (7, Reason.NOT_JSON),
            (11, Reason.EMPTY),
            (20, Reason.WRONG_TYPE),
            (33, Reason.EMPTY),
        ]
        assert decoded.columns["dur"].tolist() == decoded.rows.tolist()


def test_a_reject_shows_little_of_the_record() -> None:
    long = "x" * 1_000_000
    key = "dur" + "_" * 1000
    for value in (
        with_member(UNSW, "dur", f'"{long}"'),
        with_member(UNSW, key, f'["{long}"]', first=True),
        with_member(UNSW, "dur", f'1, "{key}": "{long}"'),
        with_member(UNSW, "dur", long),
        encode([long]),
    ):
        reject = only_reject(value, UNSW)
        assert reject.detail.count("x") <= 100
        assert len(reject.detail) <= 300
        assert len(reject.field) <= 80
        assert len(reject.value) <= 200


def test_an_empty_batch(schema: FlowSchema) -> None:
    assert_complete(decode([], schema), schema, 0)
    assert_complete(decode([None, b""], schema), schema, 2)


# The fast way


def read_one_by_one(values: Sequence[bytes | None], decoder: Decoder) -> int:
    with counted_reads() as seen:
        decoder.decode(values)
    return len(seen)


@pytest.mark.parametrize("spelling", DIALECTS.values(), ids=DIALECTS)
def test_clean_records_are_read_at_once(schema: FlowSchema, spelling: Spelling) -> None:
    record = flow(schema, spelling) | {
        "src_ip": "10.0.0.1",
        "src_port": 80,
        "timestamp": "7 July 2017, 10:00",
        "x": 1.5,
    }
    batch = [encode(record)] * 200
    decoder = Decoder(schema, min_feature_coverage=COVERAGE)
    assert read_one_by_one(batch, decoder) == 1
    assert read_one_by_one(batch, decoder) == 0


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_records_with_nulls_are_read_at_once(separators: tuple[str, str]) -> None:
    names = [feature.name for feature in UNSW.numeric]
    batch = [
        json.dumps(flow(UNSW) | {name: None, "proto": None, "src_ip": None}, separators=separators).encode()
        for name in names
    ]
    decoder = warm(UNSW)
    decoder.decode(batch)
    assert read_one_by_one(batch, decoder) == 0


def test_mixed_dialects_are_read_at_once(schema: FlowSchema) -> None:
    batch = [encode(flow(schema, spelling)) for _ in range(40) for spelling in DIALECTS.values()]
    decoder = Decoder(schema, min_feature_coverage=COVERAGE)
    assert read_one_by_one(batch, decoder) < len(batch) / 2
    assert read_one_by_one(batch, decoder) == 0


def test_a_bad_record_costs_its_neighbours_little() -> None:
    batch: list[bytes | None] = [GOOD] * 1000
    batch[417] = NOT_JSON["NaN"]
    assert read_one_by_one(batch, warm(UNSW)) <= 2 * module.FEW
    for obvious in (
        None,
        b"garbage",
        GOOD[:-1],
        GOOD + b"\n",
        ODD_BUT_GOOD["pretty"],
        with_member(UNSW, "dur", '"x"'),
        with_member(UNSW, "dur", "3.5e38"),
        with_member(UNSW, "proto", "true"),
    ):
        batch[417] = obvious
        assert read_one_by_one(batch, warm(UNSW)) <= 1


def test_bad_records_are_sifted_out_and_their_neighbours_read_at_once() -> None:
    for bad in ("NaN", "two values", "trailing comma", "NUL"):
        batch = [GOOD, NOT_JSON[bad]] * 2000
        decoder = warm(UNSW)
        with patch.object(module._Table, "read", wraps=module._Table.read) as read:
            assert read_one_by_one(batch, decoder) == len(batch) / 2
        assert read.call_count <= 2 * len(DIALECTS)


def test_records_that_no_table_holds_are_not_searched_for_without_end() -> None:
    batch = [GOOD, with_member(UNSW, "x", "0e99999999999")] * 2000
    decoder = warm(UNSW)
    with patch.object(module._Table, "read", wraps=module._Table.read) as read:
        assert len(decoder.decode(batch).rows) == len(batch)
    assert read.call_count <= 3 * module.SPLITS


def test_what_a_decoder_remembers_is_bounded() -> None:
    decoder = Decoder(UNSW, min_feature_coverage=0.0)
    for number in range(15):
        batch = [
            encode(
                {
                    "".join(
                        char.upper() if (number * 31 + row) >> bit & 1 else char for bit, char in enumerate("sbytes")
                    ): 1,
                    "proto": f"p{number}-{row}",
                    "state": "x" * 1000,
                    f"unknown {number} {row}": 1,
                    "y" * 10_000: 1,
                    "dur" + "_" * 10_000: 1,
                }
            )
            for row in range(30)
        ]
        assert_same(decoder.decode(batch), decode_slow(batch, UNSW, min_feature_coverage=0.0))
    decoder.decode([encode(flow(UNSW) | {f"unknown {number}": 1 for number in range(1000)})])
    assert len(decoder._dialects) <= module.MAX_DIALECTS
    keys = [key for dialect in decoder._dialects for key in dialect.columns]
    assert len(keys) <= module.MAX_DIALECTS * (len(UNSW.features) + module.MAX_IGNORED_KEYS) <= 1024
    assert max(map(len, keys)) <= 128
    for number in range(2 * module.MAX_CATEGORIES):
        assert decoder._categories[f"p{number}"] == f"p{number}"
    assert decoder._categories["x" * 1000] == "x" * 1000
    assert len(decoder._categories) == module.MAX_CATEGORIES
    assert max(len(text or "") for text in decoder._categories) <= module.LONGEST_CATEGORY
    good = [GOOD] * 100
    decoder.decode(good)
    assert read_one_by_one(good, decoder) == 0


def test_a_table_that_polars_cannot_read_is_read_one_by_one() -> None:
    batch = [encode(flow(UNSW, start=start)) for start in range(100)]
    with patch("stream.decode.pl.read_ndjson", side_effect=PanicException("a defect of polars")):
        decoded = warm(UNSW).decode(batch)
    assert_same(decoded, decode_slow(batch, UNSW, min_feature_coverage=COVERAGE))


# Whatever comes: the batch makes no difference

NASTY = [
    None,
    b"",
    b"{}",
    *NOT_JSON.values(),
    *ODD_BUT_GOOD.values(),
    b"[1]",
    *(with_member(UNSW, "dur", raw) for raw in TOKENS),
]


@given(
    st.lists(
        st.one_of(good_records(), odd_records(), st.sampled_from([None, b"", b"\n", b"[]", b"{}", b"x"])), max_size=25
    )
)
@example(NASTY)
@example([GOOD, *NASTY, GOOD])
@example([with_member(UNSW, key, raw) for key in KEYS for raw in TOKENS])
@settings(PROPERTY, max_examples=60)
def test_a_record_is_decoded_as_if_it_were_alone(batch: list[bytes | None]) -> None:
    slow = decode_slow(batch, UNSW, min_feature_coverage=COVERAGE)
    assert_complete(slow, UNSW, len(batch))
    with patch.object(module, "FEW", 1):  # so that small batches go the fast way, too
        decoder = warm(UNSW)
        assert_same(decoder.decode(batch), slow)
        assert_same(decoder.decode(batch), slow)
        assert_same(decode(batch, UNSW), slow)
    assert_same(joined([decode([value], UNSW) for value in batch]), slow)


def joined(parts: Iterable[Decoded]) -> Decoded:
    """Batches of one record each as one batch."""
    parts = list(parts)
    rows = [row for row, part in enumerate(parts) if len(part.rows)]
    return Decoded(
        np.array(rows, dtype=np.int64),
        {
            feature.name: np.concatenate(
                [
                    np.empty(0, dtype=np.float64 if feature.kind is Kind.NUMERIC else object),
                    *(part.columns[feature.name] for part in parts),
                ]
            )
            for feature in UNSW.features
        },
        [
            Reject(row, reject.reason, reject.detail, reject.field, reject.value)
            for row, part in enumerate(parts)
            for reject in part.rejects
        ],
    )


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.binary(max_size=40),
            st.binary(max_size=20).map(lambda inner: b'{"dur":1,' + inner + b"}"),
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
                lambda inner: (
                    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=3)
                ),
                max_leaves=8,
            ).map(lambda parsed: json.dumps(parsed, ensure_ascii=False).encode(errors="surrogatepass")),
        ),
        max_size=30,
    )
)
@settings(PROPERTY, max_examples=100)
def test_whatever_the_bytes_every_position_is_accounted_for(batch: list[bytes | None]) -> None:
    for schema in (UNSW, IMPROVED):
        with patch.object(module, "FEW", 1):
            decoded = warm(schema, coverage=0.0).decode(batch)
        assert_complete(decoded, schema, len(batch))
        assert_same(decoded, decode_slow(batch, schema, min_feature_coverage=0.0))
    for value in batch:
        if value is not None:
            assert all(type(text) is str for text in read_metadata(value, UNSW).values())


@given(st.sampled_from([*SCHEMAS]), st.lists(st.sampled_from([*DIALECTS]), min_size=1, max_size=60), st.booleans())
@settings(PROPERTY, max_examples=25)
def test_dialects_mix_in_any_order(name: str, dialects: list[str], nulls: bool) -> None:
    schema = SCHEMAS[name]
    gaps = {feature.name for feature in schema.features[::7]} if nulls else set()
    records = []
    for start, dialect in enumerate(dialects):
        spelling = DIALECTS[dialect]
        missing = {spelling(feature): None for feature in schema.features if feature.name in gaps}
        records.append(encode(flow(schema, spelling, start) | missing))
    mixed = decode(records, schema)
    assert mixed.rows.tolist() == list(range(len(records)))
    for dialect in set(dialects):
        rows = [row for row, other in enumerate(dialects) if other == dialect]
        alone = decode([records[row] for row in rows], schema)
        for feature in schema.features:
            np.testing.assert_array_equal(mixed.columns[feature.name][rows], alone.columns[feature.name])


# Metadata


def test_metadata_is_text_as_the_record_has_it() -> None:
    record = (
        b'{"Src IP": "10.0.0.1", "source port": 443, "dst_ip": null, "Dst Port": 80.50, "Timestamp": "7/7/2017 3:30",'
        b' "flow id": {"a": [1.50, null]}, "label": "DoS", "flow_duration": 1, "x": 2, "protocol": true}'
    )
    assert read_metadata(record, CICIDS) == {
        "src_ip": "10.0.0.1",
        "src_port": "443",
        "dst_port": "80.50",
        "timestamp": "7/7/2017 3:30",
        "flow_id": '{"a": [1.50, null]}',
        "protocol": "true",
    }


def test_of_repeated_metadata_the_first_that_is_not_null_counts() -> None:
    assert read_metadata(b'{"id": null, "id": 1, "ID": 2}', UNSW) == {"id": "1"}


@pytest.mark.parametrize("value", [b"", b"x", b"[]", b"{}", b'{"id": NaN}', b"\xff", b'{"id": "\\ud800"}'])
def test_metadata_that_cannot_be_read_is_none(value: bytes) -> None:
    assert read_metadata(value, UNSW) == {}


def test_long_metadata_is_shortened() -> None:
    text = read_metadata(encode({"id": "x" * 1_000_000}), UNSW)["id"]
    assert len(text) == 200
    assert text.endswith("…")


def test_dropped_columns_are_no_metadata() -> None:
    dropped = [column for column in CICIDS.dropped if isinstance(column, Dropped)]
    assert read_metadata(encode({column.name: 1 for column in dropped}), CICIDS) == {}
