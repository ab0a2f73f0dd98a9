"""The dead-letter contract: what the headers say, and that they can be read back."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.dead_letter import HEADER_PREFIX, DeadLetter, Reason

TEXTS = st.text(st.characters(codec="utf-8"), max_size=50)
LETTERS = st.builds(
    DeadLetter,
    reason=st.sampled_from(Reason),
    detail=TEXTS,
    field=TEXTS,
    value=st.text(st.characters(codec="utf-8"), max_size=200),
    topic=TEXTS,
    partition=st.integers(0, 10_000),
    offset=st.integers(0, 2**63 - 1),
    hops=st.integers(0, 10),
    cut=st.integers(0, 2**40),
)


def letter(**changes: Any) -> DeadLetter:
    content = {"reason": "wrong_type", "detail": "expected a number", "topic": "flows", "partition": 1, "offset": 42}
    return DeadLetter.model_validate(content | changes)


@settings(deadline=None)
@given(LETTERS, st.lists(st.tuples(TEXTS.filter(lambda name: not name.startswith(HEADER_PREFIX)), st.binary())))
def test_a_dead_letter_survives_the_wire_among_the_records_own_headers(
    sent: DeadLetter, own: list[tuple[str, bytes]]
) -> None:
    assert DeadLetter.from_headers([*own, *sent.to_headers()]) == sent


def test_every_field_is_one_header_of_text() -> None:
    assert dict(letter(field="dur", value='"x"').to_headers()) == {
        "flowsentry-reason": b"wrong_type",
        "flowsentry-detail": b"expected a number",
        "flowsentry-field": b"dur",
        "flowsentry-value": b'"x"',
        "flowsentry-topic": b"flows",
        "flowsentry-partition": b"1",
        "flowsentry-offset": b"42",
        "flowsentry-hops": b"0",
        "flowsentry-cut": b"0",
        "flowsentry-schema_version": b"1",
    }


OWN_NAMES = st.one_of(TEXTS, st.sampled_from([*dict(letter().to_headers()), "flowsentry-surplus", "flowsentry-"]))


@settings(deadline=None)
@given(LETTERS, st.lists(st.tuples(OWN_NAMES, st.none() | st.binary())))
def test_a_record_s_own_headers_can_neither_break_a_dead_letter_nor_speak_for_it_and_come_back_as_they_were(
    sent: DeadLetter, own: list[tuple[str, bytes | None]]
) -> None:
    headers = [*own, *sent.to_headers()]
    assert DeadLetter.from_headers(headers) == sent
    assert DeadLetter.own_headers(headers) == tuple(own)


def test_of_a_dead_letter_set_aside_again_the_last_headers_count() -> None:
    twice = [*letter(offset=1).to_headers(), *letter(offset=2).to_headers()]
    assert DeadLetter.from_headers(twice).offset == 2


def test_text_that_utf8_cannot_hold_is_escaped_not_fatal() -> None:
    assert dict(letter(detail="half \ud800").to_headers())["flowsentry-detail"] == b"half \\ud800"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("flowsentry-reason", b"empty")],
        [*letter().to_headers(), ("flowsentry-reason", b"no such reason")],
        [*letter().to_headers(), ("flowsentry-reason", b"\xff")],
        [*letter().to_headers(), ("flowsentry-offset", b"-1")],
        [*letter().to_headers(), ("flowsentry-partition", b"one")],
    ],
)
def test_other_headers_are_no_dead_letter(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(ValidationError):
        DeadLetter.from_headers(headers)


def test_a_header_without_a_value_counts_as_absent() -> None:
    assert DeadLetter.from_headers([*letter().to_headers(), ("flowsentry-reason", None)]) == letter()


def test_a_value_is_at_most_200_characters() -> None:
    with pytest.raises(ValidationError, match="at most 200 characters"):
        letter(value="x" * 201)


def test_every_field_has_a_description() -> None:
    assert [name for name, field in DeadLetter.model_fields.items() if not field.description] == []
