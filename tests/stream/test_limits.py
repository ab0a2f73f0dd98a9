"""The most that a record may be: what is just within each limit is scored, what is just beyond it is a dead letter."""

import json
from collections.abc import Sequence
from dataclasses import fields

import pytest

from schemas.dead_letter import Reason, Reject
from schemas.params import StreamParams
from stream.decode import Decoder, Limits, decode_slow
from tests.stream.records import COVERAGE, DIALECTS, GOOD, UNSW, assert_same, encode, flow, warm, with_member

SMALL = Limits(max_message_bytes=5000, max_depth=5, max_fields=60, max_string_chars=40)


def rejects(values: Sequence[bytes], limits: Limits | None = None) -> list[Reject]:
    """Those of a batch, which are the same fast and slow, early and late."""
    slow = decode_slow(values, UNSW, min_feature_coverage=COVERAGE, limits=limits)
    decoder = Decoder(UNSW, min_feature_coverage=COVERAGE, limits=limits)
    for _ in range(3):
        assert_same(decoder.decode(values), slow)
    return slow.rejects


def test_the_limits_are_the_settings_with_their_defaults() -> None:
    settings = StreamParams()
    for limit in fields(Limits):
        assert limit.default == getattr(settings, limit.name)


def at_and_beyond(name: str, limits: Limits) -> tuple[bytes, bytes]:
    """Two records that differ by one: right at a limit, and beyond it."""

    def record(extra: int) -> bytes:
        match name:
            case "max_message_bytes":
                return GOOD + b" " * (limits.max_message_bytes - len(GOOD) + extra)
            case "max_depth":
                levels = limits.max_depth - 1 + extra
                return with_member(UNSW, "id", "[" * levels + "]" * levels)
            case "max_fields":
                more = limits.max_fields - len(flow(UNSW)) + extra
                return encode(flow(UNSW) | {f"x{number}": number for number in range(more)})
            case "max_string_chars":
                return encode(flow(UNSW) | {"id": "x" * (limits.max_string_chars + extra)})
            case _:
                raise AssertionError(f"no record for {name}")

    return record(0), record(1)


REASONS = {
    "max_message_bytes": Reason.TOO_LONG,
    "max_depth": Reason.TOO_DEEP,
    "max_fields": Reason.TOO_MANY_FIELDS,
    "max_string_chars": Reason.STRING_TOO_LONG,
}


@pytest.mark.parametrize("limits", [SMALL, Limits()], ids=["small", "default"])
@pytest.mark.parametrize("name", REASONS)
def test_each_limit_holds_to_one(name: str, limits: Limits) -> None:
    at, beyond = at_and_beyond(name, limits)
    batch = [*[GOOD] * 12, *[at, beyond] * 10]
    found = rejects(batch, limits)
    assert [reject.row for reject in found] == list(range(13, 32, 2))
    assert {reject.reason for reject in found} == {REASONS[name]}


@pytest.mark.parametrize("name", REASONS)
def test_a_limit_says_what_was_found_what_is_allowed_and_which_setting_it_is(name: str) -> None:
    limit = getattr(SMALL, name)
    (reject,) = rejects([at_and_beyond(name, SMALL)[1]], SMALL)
    for part in (str(limit + 1), f"at most {limit}", f"stream.{name}"):
        assert part in reject.detail


def test_length_comes_before_all_else() -> None:
    values = [b" " * 5001, b"\xff" * 5001, b"[" * 5001, b"{" + b'"a":1,' * 900 + b"}"]
    assert {reject.reason for reject in rejects(values, SMALL)} == {Reason.TOO_LONG}
    assert rejects([b" " * 5000], SMALL)[0].reason is Reason.EMPTY


def test_depth_comes_before_the_parser() -> None:
    for value in (b"[" * 1_000_000, b'{"a":' * 200_000, b"[" * 500_000 + b"]" * 500_000, GOOD + b"[" * 1000):
        (reject,) = rejects([value])
        assert reject.reason is Reason.TOO_DEEP
    (reject,) = rejects([b'{"id": [' + b'"[", ' * 1000 + b"}"])
    assert reject.reason is Reason.NOT_JSON


@pytest.mark.parametrize("levels", [1, 2, 100, 300, 511, 512])
@pytest.mark.parametrize("opened", ["[", '{"a": ', '["\\ud83d\\ude00", '])
def test_any_depth_that_can_be_set_can_be_read(levels: int, opened: str) -> None:
    """512 is the largest `stream.max_depth`; a wrong value as deep as that is told, too."""
    closed = "]" if opened.startswith("[") else "}"
    limits = Limits(max_depth=512)
    nested = opened * (levels - 1) + "1" + closed * (levels - 1)
    ignored, wrong = with_member(UNSW, "id", nested), with_member(UNSW, "dur", nested)
    expected = [] if levels == 1 else [(1, Reason.WRONG_TYPE)]
    assert [(reject.row, reject.reason) for reject in rejects([ignored, wrong], limits)] == expected
    if levels > 1:
        (bare,) = rejects([nested.encode()], limits)
        assert bare.reason is (Reason.NO_KNOWN_FIELD if opened.startswith("{") else Reason.NOT_AN_OBJECT)


def test_nested_fields_and_strings_count_too() -> None:
    nested = json.dumps([{"a": number} for number in range(20)])
    (reject,) = rejects([with_member(UNSW, "id", nested)], SMALL)
    assert reject.reason is Reason.TOO_MANY_FIELDS
    (reject,) = rejects([with_member(UNSW, "id", json.dumps([{"a": "x" * 41}]))], SMALL)
    assert reject.reason is Reason.STRING_TOO_LONG
    assert reject.value == '"' + "x" * 41 + '"'


def test_keys_are_strings_too() -> None:
    (reject,) = rejects([encode(flow(UNSW) | {"y" * 41: 1})], SMALL)
    assert reject.reason is Reason.STRING_TOO_LONG


def test_a_strings_length_is_that_of_its_characters() -> None:
    for character in ("x", "é", "€", "😀", "\n", '"', "\\", "\x00", "/", "\u2028"):
        for ascii_only in (True, False):
            text = json.dumps(character * 40, ensure_ascii=ascii_only)
            assert not rejects([with_member(UNSW, "id", text)], SMALL)
            beyond = json.dumps(character * 41, ensure_ascii=ascii_only)
            assert [reject.reason for reject in rejects([with_member(UNSW, "id", beyond)], SMALL)] == [
                Reason.STRING_TOO_LONG
            ]


def test_colons_and_commas_in_strings_are_no_fields() -> None:
    limits = Limits(max_fields=60)
    assert not rejects([with_member(UNSW, "id", json.dumps(':,\\":' * 300))], limits)


def test_what_is_no_json_is_told_before_its_fields_and_strings() -> None:
    value = encode(flow(UNSW) | {"id": "x" * 41} | {f"x{number}": number for number in range(60)})
    assert rejects([value], SMALL)[0].reason is Reason.TOO_MANY_FIELDS
    assert rejects([value[:-1]], SMALL)[0].reason is Reason.NOT_JSON


def test_a_tight_limit_does_not_slow_flows_down_that_are_within_it(monkeypatch: pytest.MonkeyPatch) -> None:
    record = flow(UNSW) | {"id": "x" * 20}
    limits = Limits(max_message_bytes=4000, max_depth=1, max_fields=len(record), max_string_chars=20)
    batch = [encode(record)] * 100
    decoder = Decoder(UNSW, min_feature_coverage=COVERAGE, limits=limits)
    assert len(decoder.decode(batch).rows) == 100

    def read(*_: object) -> None:
        raise AssertionError("a record is read by itself")

    monkeypatch.setattr("stream.decode.RecordReader.read", read)
    assert len(decoder.decode(batch).rows) == 100


def test_long_records_cost_their_neighbours_nothing() -> None:
    huge = b'{"id": "' + b"x" * 10_000_000 + b'"}'
    decoder = warm(UNSW)
    decoded = decoder.decode([GOOD, huge, b"{" + b" " * 20_000_000, GOOD, b"[" * 20_000_000] * 4)
    assert {reject.reason for reject in decoded.rejects} == {Reason.TOO_LONG}
    assert len(decoded.rows) == 8


def test_dialects_do_not_matter_to_limits() -> None:
    for spelling in DIALECTS.values():
        assert not rejects([encode(flow(UNSW, spelling))] * 12, SMALL)


def test_fields_that_are_all_known_are_counted_too() -> None:
    most = len(flow(UNSW)) + 1
    decoder = Decoder(UNSW, min_feature_coverage=COVERAGE, limits=Limits(max_fields=most))
    for known in ("x", "y"):
        assert len(decoder.decode([encode(flow(UNSW) | {known: 1})] * 20).rows) == 20
    both = decoder.decode([encode(flow(UNSW) | {"x": 1, "y": 1})] * 20)
    assert {reject.reason for reject in both.rejects} == {Reason.TOO_MANY_FIELDS}
    assert not len(both.rows)
