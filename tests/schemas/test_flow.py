"""The rules of a flow schema, on a small invented one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import HeaderError, LabelError
from schemas.flow import BENIGN, Derivation, Dropped, Family, Feature, FlowSchema, Kind, Metadata, key_of


def _sum(*, a_bytes: np.ndarray, b: np.ndarray) -> np.ndarray:
    total: np.ndarray = a_bytes + b
    return total


SMALL = FlowSchema(
    name="small",
    version="1",
    title="Small",
    citation="Nobody",
    features=(
        Feature(name="a_bytes", unit="bytes", aliases=("A Byts",)),
        Feature(name="b", unit="s"),
        Feature(name="total", unit="bytes"),
        Feature(name="proto", kind=Kind.CATEGORICAL, unit="name"),
    ),
    metadata=(Metadata(name="src_ip", aliases=("Source IP",)),),
    dropped=(Dropped(name="b_1", reason="the release prints b twice"),),
    label_columns=("label",),
    families=(
        Family(name=BENIGN, labels=("Normal", "")),
        Family(name="Web Attack - XSS", labels=("Cross-site",), techniques=("T1059.007",)),
    ),
    derivations=(Derivation(name="total", inputs=("a_bytes", "b"), formula=_sum),),
)


@pytest.mark.parametrize(
    ("spelling", "key"),
    [
        (" Flow Bytes/s", "flow_bytes_s"),
        ("FLOW_BYTES_S", "flow_bytes_s"),
        ("ct_src_ ltm", "ct_src_ltm"),
        ("Fwd Header Length.1", "fwd_header_length_1"),
        ("\ufeffid", "id"),
        ("Web Attack \x96 XSS", "web_attack_xss"),
        ("Web Attack \ufffd XSS", "web_attack_xss"),
        ("Web Attack â€“ XSS", "web_attack_xss"),
        ("", ""),
        (" - ", ""),
    ],
)
def test_dialects_of_a_name_share_one_key(spelling: str, key: str) -> None:
    assert key_of(spelling) == key


@settings(deadline=None)
@given(st.text())
def test_a_key_is_the_key_of_itself(text: str) -> None:
    assert key_of(key_of(text)) == key_of(text)


def test_widths_follow_from_the_one_list_of_features() -> None:
    assert SMALL.names == ("a_bytes", "b", "total", "proto")
    assert [feature.name for feature in SMALL.numeric] == ["a_bytes", "b", "total"]
    assert [feature.name for feature in SMALL.categorical] == ["proto"]
    assert [family.name for family in SMALL.attack_families] == ["Web Attack - XSS"]
    assert SMALL.doubled == {"b"}


def test_bind_finds_every_role_by_position() -> None:
    binding = SMALL.bind([" Source IP", "B", "mystery", "A Byts", "TOTAL", "Proto ", "Label"])
    assert binding.features == {"b": 1, "a_bytes": 3, "total": 4, "proto": 5}
    assert binding.metadata == {"src_ip": 0}
    assert binding.labels == {"label": 6}
    assert binding.ignored == ("mystery",)
    assert binding.missing == ()


def test_a_feature_that_can_be_derived_is_not_missing() -> None:
    assert SMALL.bind(["a_bytes", "b"]).missing == ("proto",)
    assert SMALL.bind(["a_bytes", "proto"]).missing == ("b", "total")


def test_of_a_column_that_the_release_doubles_the_first_is_read() -> None:
    assert SMALL.bind(["a_bytes", "b", "b", "b.1"]).features["b"] == 1


def test_two_columns_of_one_meaning_are_an_error_that_names_both() -> None:
    with pytest.raises(HeaderError, match=r"'A Byts' \(number 2\) and 'a_bytes' \(number 4\) both mean 'a_bytes'"):
        SMALL.bind(["b", "A Byts", "proto", "a_bytes"])
    with pytest.raises(HeaderError, match=r"'src_ip' \(number 1\) and 'Source IP' \(number 3\) both mean 'src_ip'"):
        SMALL.bind(["src_ip", "b", "Source IP"])
    with pytest.raises(HeaderError, match=r"'label' \(number 2\) and 'LABEL' \(number 3\) both mean 'label'"):
        SMALL.bind(["b", "label", "LABEL"])


def test_a_header_without_any_feature_is_an_error_that_shows_its_first_column() -> None:
    with pytest.raises(
        HeaderError, match=r"none of the 2 columns is a feature of small: the first is 'x', .*'a_bytes'"
    ):
        SMALL.bind(["x", "src_ip"])
    with pytest.raises(HeaderError, match=r"none of the 0 columns"):
        SMALL.bind([])
    with pytest.raises(HeaderError) as caught:
        SMALL.bind(["y" * 10_000])
    assert len(str(caught.value)) < 500


def test_knows_any_role_in_any_spelling() -> None:
    known = ("A BYTS", "source_ip", "Label", "b.1")
    assert all(SMALL.knows(spelling) for spelling in known)
    assert not SMALL.knows("c")


def test_a_schema_in_which_two_columns_share_a_spelling_is_refused() -> None:
    twice = replace(SMALL, metadata=(Metadata(name="id", aliases=("A byts",)),))
    with pytest.raises(ValueError, match="two columns are spelled 'A byts'"):
        twice.bind(["b"])


def test_derive_fills_only_what_is_missing() -> None:
    columns = {"a_bytes": np.array([1.0, 2.0, np.nan]), "b": np.array([10.0, 20.0, 30.0])}
    SMALL.derive(columns)
    np.testing.assert_array_equal(columns["total"], [11.0, 22.0, np.nan])
    columns["total"] = np.array([np.nan, 5.0, 7.0])
    SMALL.derive(columns)
    np.testing.assert_array_equal(columns["total"], [11.0, 5.0, 7.0])


def test_derive_needs_every_input() -> None:
    columns = {"b": np.array([1.0])}
    SMALL.derive(columns)
    assert set(columns) == {"b"}


def test_a_derived_value_that_no_float32_holds_stays_missing() -> None:
    columns = {"a_bytes": np.array([3e38, 1.7e308, -3e38]), "b": np.array([3e38, 1.7e308, 1.0])}
    SMALL.derive(columns)
    np.testing.assert_array_equal(columns["total"], [np.nan, np.nan, -3e38])


@pytest.mark.parametrize(
    ("label", "family"),
    [
        ("Benign", BENIGN),
        ("NORMAL ", BENIGN),
        ("", BENIGN),
        ("web attack - xss", "Web Attack - XSS"),
        ("Web Attack \x96 XSS", "Web Attack - XSS"),
        ("cross-site", "Web Attack - XSS"),
        ("Web Attack - XSS - Attempted", BENIGN),
        ("Benign - Attempted", BENIGN),
    ],
)
def test_a_label_in_any_spelling_means_its_family(label: str, family: str) -> None:
    assert SMALL.family_of(label).name == family


@pytest.mark.parametrize("label", ["DDoS", "DDoS - Attempted", "attempted", "x" * 10_000])
def test_an_unknown_label_is_an_error_that_lists_those_there_are(label: str) -> None:
    with pytest.raises(LabelError, match="is not one of small's: Benign, Web Attack - XSS") as caught:
        SMALL.family_of(label)
    assert label[:80] in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_fingerprint_changes_with_what_decides_inputs_and_outputs() -> None:
    first, second, *rest = SMALL.features
    changed = (
        replace(SMALL, name="other"),
        replace(SMALL, version="2"),
        replace(SMALL, features=(second, first, *rest)),
        replace(SMALL, features=(first, second)),
        replace(SMALL, features=(replace(first, name="c"), second, *rest)),
        replace(SMALL, features=(replace(first, kind=Kind.CATEGORICAL), second, *rest)),
        replace(SMALL, features=(replace(first, unit="bits"), second, *rest)),
        replace(SMALL, families=SMALL.families[::-1]),
        replace(SMALL, families=(*SMALL.families, Family(name="DoS", labels=()))),
    )
    assert len({SMALL.fingerprint(), *(schema.fingerprint() for schema in changed)}) == 1 + len(changed)


def test_the_fingerprint_does_not_change_with_names_for_people() -> None:
    same = replace(
        SMALL,
        title="Another title",
        citation="Somebody",
        metadata=(),
        features=(replace(SMALL.features[0], aliases=()), *SMALL.features[1:]),
        families=(SMALL.families[0], replace(SMALL.families[1], techniques=(), labels=())),
    )
    assert same.fingerprint() == SMALL.fingerprint()
