"""CSV rows as JSON records: every dialect, and the contract with `export score`."""

import csv
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.reading import read_flows
from schemas.datasets import SCHEMAS
from schemas.errors import FlowsentryError, HeaderError
from schemas.flow import FlowSchema, Kind
from stream.csv_records import ReplayRecord, detect_schema, records
from stream.decode import Decoder

CIC = SCHEMAS["cicids2017"]
IMPROVED = SCHEMAS["cicids2017-improved"]
UNSW = SCHEMAS["unsw-nb15"]
CIC_HEADER = " Destination Port, Flow Duration, Fwd Header Length,Flow Bytes/s, Fwd Header Length, Label"


def written(folder: Path, text: str, name: str = "flows.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def objects(path: Path, schema: FlowSchema) -> list[dict[str, Any]]:
    return [json.loads(record.value) for record in records(path, schema)]


def headers(record: ReplayRecord) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


def full_header(schema: FlowSchema) -> str:
    names = [name.replace("_", " ").title() for name in schema.names]
    return ",".join([" Timestamp", *names, " Label"])


def assert_contract(path: Path, schema: FlowSchema) -> int:
    """What the service decodes is what `export score` reads; → how many usable rows there are."""
    batches = list(read_flows(path, schema, min_feature_coverage=0.0, batch_rows=7))
    decoded = Decoder(schema, min_feature_coverage=0.0).decode([record.value for record in records(path, schema)])
    rows = np.concatenate([batch.rows for batch in batches])
    assert decoded.rows.tolist() == rows.tolist()
    assert sorted(reject.row for batch in batches for reject in batch.rejects) == [it.row for it in decoded.rejects]
    for feature in schema.features:
        got = decoded.columns[feature.name]
        if feature.name not in batches[0].columns:
            assert all(value is None or np.isnan(value) for value in got)
            continue
        expected = np.concatenate([batch.columns[feature.name] for batch in batches])
        if feature.kind is Kind.NUMERIC:
            expected, got = expected.astype(np.float32), got.astype(np.float32)
            np.testing.assert_array_equal(got, expected, err_msg=feature.name)
        else:
            assert got.tolist() == expected.tolist()
    return len(rows)


def test_machine_learning_cve_form(tmp_path: Path) -> None:
    text = f"{CIC_HEADER}\r\n80,3.10,20,1E5,20,BENIGN\r\n443,-1,40,Infinity,40,Web Attack \x96 XSS\r\n"
    path = written(tmp_path, text, encoding="latin-1")
    first, second = records(path, CIC)
    assert first.value == b'{"Destination Port":80,"Flow Duration":3.10,"Fwd Header Length":20,"Flow Bytes/s":1E5}'
    assert headers(first) == {"row": "0", "file": "flows.csv", "label": "Benign"}
    assert json.loads(second.value)["Flow Bytes/s"] is None
    assert headers(second)["label"] == "Web Attack - XSS"
    assert (first.row, second.row, first.timestamp_us) == (0, 1, None)
    assert_contract(path, CIC)


def test_numbers_keep_their_digits_and_odd_ones_their_value(tmp_path: Path) -> None:
    cells = ["0", "-0", "-0.50", "1e400", "3.0000000000000000001", "+5", " 7 ", "1_000", ".5", "5.", "007", "+1e400"]
    path = written(tmp_path, "Flow Duration,Idle Max\n" + "".join(f"{cell},1\n" for cell in cells))
    expected = [
        *("0", "-0.0", "-0.50", "1e400", "3.0000000000000000001", "5.0", "7", "1000.0", "0.5", "5.0", "7.0", "1e999"),
    ]
    assert [it.value.decode() for it in records(path, CIC)] == [
        f'{{"Flow Duration":{it},"Idle Max":1}}' for it in expected
    ]
    assert assert_contract(path, CIC) == 10


def test_what_is_no_number_stays_a_text_to_be_refused(tmp_path: Path) -> None:
    path = written(tmp_path, 'Flow Duration,Idle Max\nabc,1\n"1,5",1\n-nan,1\n"a""b\\",1\n')
    assert [it["Flow Duration"] for it in objects(path, CIC)] == ["abc", "1,5", "-nan", 'a"b\\']
    assert assert_contract(path, CIC) == 0


def test_metadata_and_unknown_columns_never_spoil_a_record(tmp_path: Path) -> None:
    text = (
        "id,Src IP,Src Port,Timestamp,Protocol,Flow Duration,Extra,Extra,\n"
        "7,10.0.0.1,80,2017-07-07 12:02:55.371187,17,5,1e400,x,9\n,,0x0b,never,,5, ÿ ,x,NaN\n"
    )
    path = written(tmp_path, text)
    first, second = objects(path, IMPROVED)
    assert first == {"id": 7, "Src IP": "10.0.0.1", "Src Port": 80, "Timestamp": "2017-07-07 12:02:55.371187",
                     "Protocol": "17", "Flow Duration": 5, "Extra": "1e400", "": 9}  # fmt: skip
    assert second == {"id": None, "Src IP": None, "Src Port": "0x0b", "Timestamp": "never", "Protocol": None,
                      "Flow Duration": 5, "Extra": "ÿ", "": None}  # fmt: skip
    assert [it.timestamp_us for it in records(path, IMPROVED)] == [1_499_428_975_371_187, None]
    assert assert_contract(path, IMPROVED) == 2


def test_raw_unsw_without_a_header(tmp_path: Path) -> None:
    row = dict.fromkeys(UNSW.headerless, "1") | {
        "srcip": "10.0.0.1", "dstip": "10.0.0.2", "proto": "TCP", "state": "FIN", "service": "-", "dur": "0.5",
        "stime": "1421927414", "attack_cat": " Fuzzers ", "is_ftp_login": "", "ct_ftp_cmd": " ", "sport": "",
    }  # fmt: skip
    benign = row | {"attack_cat": "", "label": "0", "is_ftp_login": "1"}
    path = written(tmp_path, "\n".join(",".join(it.values()) for it in (row, benign)))
    assert detect_schema(path) is UNSW
    first, second = records(path, UNSW)
    value = json.loads(first.value)
    assert "attack_cat" not in value and "label" not in value and len(value) == 47
    assert (value["is_ftp_login"], value["ct_ftp_cmd"], value["sport"], value["stime"]) == (0.0, 0.0, None, 1421927414)
    assert [headers(it)["label"] for it in (first, second)] == ["Fuzzers", "Benign"]
    assert first.timestamp_us == 1_421_927_414_000_000
    assert assert_contract(path, UNSW) == 2


def test_unsw_partition_and_a_byte_order_mark(tmp_path: Path) -> None:
    header = ",".join(["id", *UNSW.names, "attack_cat", "label"])
    cells = ["tcp" if feature.kind is Kind.CATEGORICAL else "2" for feature in UNSW.features]
    path = written(tmp_path, f"\ufeff{header}\n{','.join(['9', *cells, 'Normal', '0'])}\n")
    assert detect_schema(path) is UNSW
    assert next(iter(objects(path, UNSW)[0].items())) == ("id", 9)
    assert assert_contract(path, UNSW) == 1


def test_ragged_rows(tmp_path: Path) -> None:
    path = written(tmp_path, 'dur,proto,is_ftp_login,attack_cat\n1\n1,tcp,1,DoS,"x,y"\n\n2,udp,,\n')
    short, long, last = records(path, UNSW)
    assert json.loads(short.value) == {"dur": 1, "proto": None, "is_ftp_login": 0.0}
    assert "label" not in headers(short)
    assert long.value == b'1,tcp,1,DoS,"x,y"'
    assert headers(long) == {"row": "1", "file": "flows.csv"}
    assert headers(last) == {"row": "2", "file": "flows.csv", "label": "Benign"}
    assert assert_contract(path, UNSW) == 2


def test_gzip_and_unknown_labels(tmp_path: Path) -> None:
    path = tmp_path / "flows.csv.gz"
    path.write_bytes(gzip.compress(b"Flow Duration,Label\n5, Brand New \n5,\n"))
    named, unnamed = records(path, CIC)
    assert headers(named) == {"row": "0", "file": "flows.csv.gz", "label": "Brand New"}
    assert "label" not in headers(unnamed)


def test_one_column_is_enough(tmp_path: Path) -> None:
    assert objects(written(tmp_path, "proto\ntcp\n"), UNSW) == [{"proto": "tcp"}]


def test_schemas_are_told_apart(tmp_path: Path) -> None:
    for schema in SCHEMAS.values():
        assert detect_schema(written(tmp_path, full_header(schema) + "\n")) is schema


@pytest.mark.parametrize("text", ["No.,Name\n1,x\n", "proto,ts,Flow Duration\n6,1,2\n", ""])
def test_a_file_of_no_data_set_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FlowsentryError, match=r"(?s)flows\.csv: .*(cicids2017|empty)") as caught:
        detect_schema(written(tmp_path, text))
    assert ("empty" in str(caught.value)) == (text == "")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FlowsentryError, match=r"absent\.csv: No such file"):
        detect_schema(tmp_path / "absent.csv")
    with pytest.raises(HeaderError, match=r"absent\.csv: No such file"):
        next(records(tmp_path / "absent.csv", CIC))


numbers = (
    st.floats().map(repr)
    | st.integers().map(str)
    | st.from_regex(r"[-+]?[0-9_.]{1,6}([eE][-+]?[0-9]{1,3})?", fullmatch=True)
)
odd = st.sampled_from(
    ["", " ", "NaN", "Infinity", "-inf", "null", "-0", "1e39", "1e400", "-nan", "٣", "1 2", "0x1f", "tcp", "6.0"]
)
cells = numbers | odd | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.lists(cells, min_size=1, max_size=7), min_size=1, max_size=20))
def test_the_service_reads_what_export_score_reads(rows: list[list[str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flows.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["dur", "proto", "is_ftp_login", "spkts", "dpkts", "extra"], *rows])
        assert_contract(path, UNSW)
