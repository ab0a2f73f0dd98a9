"""CSV files as they come: every dialect, encoding and accident → batches and rejects, or one error that names the file."""

import csv
import gzip
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.reading import FlowBatch, open_csv, read_flows
from schemas.datasets import SCHEMAS
from schemas.dead_letter import Reason
from schemas.errors import HeaderError
from schemas.flow import FlowSchema
from tests.flows import DIALECTS, flows

CIC, UNSW = SCHEMAS["cicids2017"], SCHEMAS["unsw-nb15"]


def written(folder: Path, content: str | bytes, name: str = "flows.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, schema: FlowSchema = UNSW, minimum: float = 0.0, batch_rows: int = 8192) -> FlowBatch:
    """The whole file as one batch."""
    batches = list(read_flows(path, schema, min_feature_coverage=minimum, batch_rows=batch_rows))
    names = batches[0].columns if batches else {}
    labels = batches[0].labels if batches else {}
    return FlowBatch(
        rows=np.concatenate([batch.rows for batch in batches]) if batches else np.array([], dtype=np.int64),
        columns={name: np.concatenate([batch.columns[name] for batch in batches]) for name in names},
        labels={name: [cell for batch in batches for cell in batch.labels[name]] for name in labels},
        rejects=[reject for batch in batches for reject in batch.rejects],
    )


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", ["flows.csv", "flows.csv.gz"])
def test_every_dialect_is_read_row_by_row(tmp_path: Path, dialect: str, name: str) -> None:
    table = flows(dialect, rows=20)
    batch = read(table.write(tmp_path / name), table.schema, minimum=0.9)
    assert batch.rows.tolist() == list(range(20))
    assert batch.rejects == []
    for feature in table.schema.numeric:
        if feature.name == "rate" and dialect.startswith("unsw-raw"):
            continue
        if feature.name in batch.columns:
            expected = [float(table.get(row, feature.name)) for row in range(20)]
            assert batch.columns[feature.name].tolist() == expected, feature.name
    for feature in table.schema.categorical:
        expected_names = [table.get(row, feature.name).lower() for row in range(20)]
        assert batch.columns[feature.name].tolist() == expected_names
    spelled = batch.labels[table.schema.label_columns[0]]
    assert [table.schema.family_of(label).name for label in spelled] == table.families


def test_the_raw_unsw_release_gets_its_rate_derived(tmp_path: Path) -> None:
    table = flows("unsw-raw-headerless", rows=5)
    columns = read(table.write(tmp_path / "raw.csv")).columns
    packets = columns["spkts"] + columns["dpkts"]
    np.testing.assert_allclose(columns["rate"], (packets - 1) / columns["dur"])


def test_a_row_that_looks_like_no_header_is_data_only_where_the_release_has_none(tmp_path: Path) -> None:
    assert len(read(flows("unsw-raw-headerless", rows=3).write(tmp_path / "a.csv")).rows) == 3
    table = flows("unsw-partition", rows=3)
    table.has_header = False
    with pytest.raises(HeaderError, match="Is it another data set, or a file without a header"):
        read(table.write(tmp_path / "b.csv"))


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert read(written(tmp_path, "dur,sbytes\n1,2\n".encode("utf-8-sig"))).columns["dur"].tolist() == [1.0]


def test_a_cp1252_dash_in_a_label_does_no_harm(tmp_path: Path) -> None:
    path = written(tmp_path, " Flow Duration, Label\r\n5,Web Attack \x96 XSS\r\n".encode("latin-1"))
    batch = read(path, CIC)
    assert batch.columns["flow_duration"].tolist() == [5.0]
    assert CIC.family_of(batch.labels["label"][0]).name == "Web Attack - XSS"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_any_line_ending_and_none_at_the_end(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path, ending.join(["dur,sbytes", "1,2", "", "3,4"]))
    assert read(path).columns["sbytes"].tolist() == [2.0, 4.0]


def test_blank_lines_are_no_rows_but_a_line_of_spaces_is_one(tmp_path: Path) -> None:
    batch = read(written(tmp_path, "\n\ndur,sbytes\n\n1,2\n\n\n  \n3,4\n\n"))
    assert batch.rows.tolist() == [0, 2]
    assert [(reject.row, reject.reason) for reject in batch.rejects] == [(1, Reason.NO_KNOWN_FIELD)]


def test_what_is_missing_and_what_is_wrong(tmp_path: Path) -> None:
    cells = ["1", "", "NaN", "Infinity", "-1", "1e400", "0x1F", "word"]
    batch = read(written(tmp_path, "sbytes,dur\n" + "".join(f"7,{cell}\n" for cell in cells)))
    np.testing.assert_array_equal(batch.columns["dur"], [1.0, np.nan, np.nan, np.nan, -1.0])
    assert batch.rows.tolist() == [0, 1, 2, 3, 4]
    assert [(it.row, it.reason, it.field, it.value) for it in batch.rejects] == [
        (5, Reason.OUT_OF_RANGE, "dur", "1e400"),
        (6, Reason.WRONG_TYPE, "dur", "0x1F"),
        (7, Reason.WRONG_TYPE, "dur", "word"),
    ]


def test_a_short_row_lacks_features_and_a_long_one_is_refused(tmp_path: Path) -> None:
    batch = read(written(tmp_path, "dur,sbytes,dbytes\n1,2\n1,2,3,4\n1,2,3,\n1,2,3\n1\n"))
    np.testing.assert_array_equal(batch.columns["dbytes"], [np.nan, 3.0, np.nan])
    assert batch.rows.tolist() == [0, 3, 4]
    assert [(reject.row, reject.reason) for reject in batch.rejects] == [
        (1, Reason.MALFORMED_ROW),
        (2, Reason.MALFORMED_ROW),
    ]
    assert batch.rejects[0].detail == "expected 3 cells as in the header, got 4"


def test_of_several_faults_of_a_row_one_is_told(tmp_path: Path) -> None:
    batch = read(written(tmp_path, "dur,sbytes\nx,y,z\nx,y\n"))
    assert [(reject.row, reject.reason) for reject in batch.rejects] == [
        (0, Reason.MALFORMED_ROW),
        (1, Reason.WRONG_TYPE),
    ]


def test_a_rejects_value_is_shortened(tmp_path: Path) -> None:
    (reject,) = read(written(tmp_path, "dur\n" + "x" * 5000 + "\n")).rejects
    assert len(reject.value) == 200


def test_a_row_with_too_few_features_is_refused(tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=3)
    for name in UNSW.names[:22]:
        table.set(1, name, "")
    batch = read(table.write(tmp_path / "flows.csv"), minimum=0.5)
    assert batch.rows.tolist() == [0, 2]
    assert [(reject.row, reject.reason) for reject in batch.rejects] == [(1, Reason.TOO_FEW_FEATURES)]


def test_a_header_with_too_few_features_is_refused_as_a_whole(tmp_path: Path) -> None:
    path = written(tmp_path, "dur,sbytes\n1,2\n")
    with pytest.raises(HeaderError) as caught:
        read(path, minimum=0.5)
    told = str(caught.value)
    assert told.startswith(f"{path}: has 5% of the features of unsw-nb15, at least 50% are needed")
    assert "Missing columns: proto, service, state, spkts" in told


def test_rows_are_numbered_across_batches(tmp_path: Path) -> None:
    path = written(tmp_path, "dur\n" + "".join(f"{row}\n" if row != 4 else "x\n" for row in range(7)))
    batches = list(read_flows(path, UNSW, min_feature_coverage=0.0, batch_rows=3))
    assert [batch.rows.tolist() for batch in batches] == [[0, 1, 2], [3, 5], [6]]
    assert [[reject.row for reject in batch.rejects] for batch in batches] == [[], [4], []]


def test_a_header_without_rows_gives_no_batch(tmp_path: Path) -> None:
    assert list(read_flows(written(tmp_path, "dur,sbytes\n"), UNSW, min_feature_coverage=0.0)) == []


CELL = st.sampled_from(
    ["1", "-2.5", "", "NaN", "word", "1e400", "5\x00", "0x1", " 3 ", "tcp", "6.0", 'a"b', "x,y", "\n"]
)
HEADER = ["dur", "proto", "ct_ftp_cmd", "mystery", "attack_cat"]


@settings(deadline=None, max_examples=150)
@given(rows=st.lists(st.lists(CELL, max_size=7), max_size=12), batch_rows=st.integers(1, 5))
def test_every_data_row_is_in_exactly_one_of_rows_and_rejects_wherever_batches_end(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], batch_rows: int
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([HEADER, *rows])
    path = written(tmp_path_factory.getbasetemp(), text.getvalue(), "property.csv")
    count = sum(1 for row in rows if row)
    batch = read(path, batch_rows=batch_rows)
    rejected = [reject.row for reject in batch.rejects]
    assert sorted([*batch.rows.tolist(), *rejected]) == list(range(count))
    assert batch.rows.tolist() == sorted(batch.rows.tolist())
    assert rejected == sorted(rejected)
    assert {len(values) for values in batch.columns.values()} <= {len(batch.rows)}
    assert {len(cells) for cells in batch.labels.values()} <= {len(batch.rows)}

    whole = read(path)
    assert whole.rejects == batch.rejects
    assert whole.labels == batch.labels
    for name, values in whole.columns.items():
        np.testing.assert_array_equal(values, batch.columns[name])


def damaged() -> Iterator[tuple[str, bytes, str]]:
    packed = gzip.compress(b"dur,sbytes\n" + b"1,2\n3.5,4\n" * 200, mtime=0)
    yield "empty", b"", "the file is empty, expected a header and rows"
    yield "blank lines alone", b"\n\n\r\n", "the file is empty"
    yield "empty gzip", gzip.compress(b""), "the file is empty"
    yield "no CSV", b'{"dur": 1}\n', "none of the 1 columns is a feature of unsw-nb15"
    yield "another separator", b"dur;sbytes\n1;2\n", "none of the 1 columns"
    yield "binary", bytes(range(256)) * 8, "none of the"
    yield "UTF-16", "dur,sbytes\n1,2\n".encode("utf-16"), "none of the 2 columns"
    yield "truncated gzip", packed[:-20], "not a readable CSV"
    yield "gzip header alone", packed[:12], "not a readable CSV"
    yield "corrupt gzip", packed[:30] + b"\xff\xff\xff\xff" + packed[34:], "not a readable CSV"
    yield "garbage after the magic bytes", b"\x1f\x8b" + b"garbage" * 9, "not a readable CSV"
    yield "huge cell", b"dur,sbytes\n" + b"9" * ((1 << 20) + 1) + b",1\n", "field larger than field limit"
    yield "unclosed quote", b'dur,sbytes\n1,"' + b"2,3\n" * (1 << 19), "field larger than field limit"
    yield "column twice", b"dur,Dur\n1,2\n", "'dur' (number 1) and 'Dur' (number 2) both mean 'dur'"


@pytest.mark.parametrize(("content", "told"), [it[1:] for it in damaged()], ids=[it[0] for it in damaged()])
def test_a_file_that_cannot_be_used_is_one_error_that_names_it(tmp_path: Path, content: bytes, told: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(HeaderError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert told in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_path_that_cannot_be_opened_is_one_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match=r"none\.csv: No such file or directory"):
        read(tmp_path / "none.csv")
    with pytest.raises(HeaderError, match=f"{tmp_path}: Is a directory"):
        read(tmp_path)


def test_gzip_cut_or_changed_anywhere_is_read_or_refused_but_never_a_crash(tmp_path: Path) -> None:
    packed = gzip.compress(b"dur,sbytes\n1,2\n3.5,4\n", mtime=0)
    cuts = [packed[:length] for length in range(len(packed))]
    flips = [packed[:place] + bytes([packed[place] ^ 0x55]) + packed[place + 1 :] for place in range(len(packed))]
    for content in cuts:
        with pytest.raises(HeaderError):
            read(written(tmp_path, content))
    refused = 0
    for content in flips:
        try:
            read(written(tmp_path, content))
        except HeaderError:
            refused += 1
    assert refused > len(flips) // 2  # a few bytes of a gzip header mean nothing


@settings(deadline=None, max_examples=100)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    for start in (b"", b"dur,sbytes\n", b"\x1f\x8b"):
        path = written(tmp_path_factory.getbasetemp(), start + content, "garbage.csv")
        try:
            batch = read(path)
        except HeaderError as error:
            assert str(path) in str(error)  # noqa: PT017  (either outcome is right)
        else:
            assert all(np.isfinite(values[~np.isnan(values)]).all() for values in batch.columns.values())


def test_an_open_file_gives_its_binding_and_its_rows_as_they_stand(tmp_path: Path) -> None:
    path = written(tmp_path, "dur,mystery,label\n1, x ,0\n\n2\n")
    with open_csv(path, UNSW) as file:
        assert file.path == path
        assert file.binding.features == {"dur": 0}
        assert file.binding.ignored == ("mystery",)
        assert list(file.rows) == [["1", " x ", "0"], ["2"]]


def test_parquet_is_read_as_the_csv_that_it_could_be(tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=20)
    table.set(3, "dur", "")
    table.set(4, "proto", "")
    csv_file = table.write(tmp_path / "flows.csv")
    frame = pl.read_csv(csv_file, infer_schema_length=None)
    assert frame["dur"].dtype == pl.Float64 and frame["sttl"].dtype == pl.Int64
    frame.write_parquet(tmp_path / "flows.parquet")
    from_csv, from_parquet = read(csv_file), read(tmp_path / "flows.parquet")
    assert from_parquet.rows.tolist() == from_csv.rows.tolist() and from_parquet.labels == from_csv.labels
    assert list(from_parquet.columns) == list(from_csv.columns)
    for name, column in from_csv.columns.items():
        np.testing.assert_array_equal(from_parquet.columns[name], column, err_msg=name)


def test_a_null_in_parquet_is_missing_and_not_what_a_blank_cell_stands_for(tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=2)
    table.set(0, "ct_ftp_cmd", "")
    assert read(table.write(tmp_path / "flows.csv")).columns["ct_ftp_cmd"][0] == 0
    pl.read_csv(tmp_path / "flows.csv").write_parquet(tmp_path / "flows.parquet")
    assert np.isnan(read(tmp_path / "flows.parquet").columns["ct_ftp_cmd"][0])


def test_a_broken_or_foreign_parquet_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeaderError, match=r"cut\.parquet: not a readable Parquet file"):
        read(written(tmp_path, b"PAR1 and no more", "cut.parquet"))
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(HeaderError, match=r"foreign\.parquet: none of the 1 columns is a feature"):
        read(tmp_path / "foreign.parquet")
