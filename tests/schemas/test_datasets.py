"""The three data sets: every header dialect, every label spelling, and what the raw UNSW release leaves out."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.datasets import SCHEMAS, schema_named
from schemas.errors import HeaderError, LabelError, ParamsError
from schemas.flow import BENIGN, FlowSchema, Kind, key_of
from tests.flows import flows

CIC, IMPROVED, UNSW = (SCHEMAS[name] for name in ("cicids2017", "cicids2017-improved", "unsw-nb15"))

# CICFlowMeter as it wrote CSE-CIC-IDS2018.
_2018 = (
    "Dst Port,Protocol,Timestamp,Flow Duration,Tot Fwd Pkts,Tot Bwd Pkts,TotLen Fwd Pkts,TotLen Bwd Pkts,"
    "Fwd Pkt Len Max,Fwd Pkt Len Min,Fwd Pkt Len Mean,Fwd Pkt Len Std,Bwd Pkt Len Max,Bwd Pkt Len Min,"
    "Bwd Pkt Len Mean,Bwd Pkt Len Std,Flow Byts/s,Flow Pkts/s,Flow IAT Mean,Flow IAT Std,Flow IAT Max,Flow IAT Min,"
    "Fwd IAT Tot,Fwd IAT Mean,Fwd IAT Std,Fwd IAT Max,Fwd IAT Min,Bwd IAT Tot,Bwd IAT Mean,Bwd IAT Std,Bwd IAT Max,"
    "Bwd IAT Min,Fwd PSH Flags,Bwd PSH Flags,Fwd URG Flags,Bwd URG Flags,Fwd Header Len,Bwd Header Len,Fwd Pkts/s,"
    "Bwd Pkts/s,Pkt Len Min,Pkt Len Max,Pkt Len Mean,Pkt Len Std,Pkt Len Var,FIN Flag Cnt,SYN Flag Cnt,RST Flag Cnt,"
    "PSH Flag Cnt,ACK Flag Cnt,URG Flag Cnt,CWE Flag Count,ECE Flag Cnt,Down/Up Ratio,Pkt Size Avg,Fwd Seg Size Avg,"
    "Bwd Seg Size Avg,Fwd Byts/b Avg,Fwd Pkts/b Avg,Fwd Blk Rate Avg,Bwd Byts/b Avg,Bwd Pkts/b Avg,Bwd Blk Rate Avg,"
    "Subflow Fwd Pkts,Subflow Fwd Byts,Subflow Bwd Pkts,Subflow Bwd Byts,Init Fwd Win Byts,Init Bwd Win Byts,"
    "Fwd Act Data Pkts,Fwd Seg Size Min,Active Mean,Active Std,Active Max,Active Min,Idle Mean,Idle Std,Idle Max,"
    "Idle Min,Label"
)
HEADER_2018 = _2018.split(",")

# dialect → (data set, columns, header); the headers of `tests.flows` are written out there as released.
HEADERS: dict[str, tuple[FlowSchema, int, list[str]]] = {
    "MachineLearningCVE": (CIC, 79, flows("cicids2017", rows=0).header),
    "TrafficLabelling": (CIC, 85, flows("cicids2017-addresses", rows=0).header),
    "CSE-CIC-IDS2018": (CIC, 80, HEADER_2018),
    "Python port": (CIC, 81, flows("cicids2017-port", rows=0).header),
    "improved": (IMPROVED, 91, flows("improved", rows=0).header),
    "UNSW partition": (UNSW, 45, flows("unsw-partition", rows=0).header),
    "UNSW raw": (UNSW, 49, flows("unsw-raw", rows=0).header),
    "UNSW raw, headerless": (UNSW, 49, list(UNSW.headerless)),
}
DIALECTS = pytest.mark.parametrize("dialect", HEADERS)


@pytest.mark.parametrize(("schema", "numeric", "categorical"), [(CIC, 68, 0), (IMPROVED, 77, 1), (UNSW, 39, 3)])
def test_the_data_sets_have_as_many_features_as_documented(schema: FlowSchema, numeric: int, categorical: int) -> None:
    assert (len(schema.numeric), len(schema.categorical)) == (numeric, categorical)
    assert len(set(schema.names)) == len(schema.features) == numeric + categorical


@DIALECTS
def test_every_dialect_binds_fully(dialect: str) -> None:
    schema, columns, header = HEADERS[dialect]
    assert len(header) == columns
    binding = schema.bind(header)
    assert binding.missing == ()
    assert [name for name in binding.ignored if name] == []  # the Python port's first column has no name
    assert binding.labels.keys() == set(schema.label_columns)


@DIALECTS
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_neither_case_nor_order_nor_separators_of_a_header_matter(dialect: str, data: st.DataObject) -> None:
    schema, _, released = HEADERS[dialect]
    header = data.draw(st.permutations(released))
    change = data.draw(st.sampled_from([str.upper, str.lower, str.title]))
    separator = data.draw(st.sampled_from(["_", " ", "  ", ".", "-"]))
    spelled = [separator.join(re.split(r"[^A-Za-z0-9]+", change(name))) for name in header]
    binding, expected = schema.bind(spelled), schema.bind(released)
    assert binding.missing == ()
    found = {name: key_of(header[place]) for name, place in binding.features.items()}
    assert found == {name: key_of(released[place]) for name, place in expected.features.items()}


def test_all_cicflowmeter_dialects_give_the_same_features_in_the_same_order() -> None:
    orders = [
        [name for name, _ in sorted(CIC.bind(header).features.items(), key=lambda item: item[1])]
        for schema, _, header in HEADERS.values()
        if schema is CIC
    ]
    assert len(orders) == 4
    assert all(order == orders[0] for order in orders)


def test_both_unsw_releases_give_the_same_features() -> None:
    partition, raw = (UNSW.bind(HEADERS[name][2]) for name in ("UNSW partition", "UNSW raw"))
    assert set(partition.features) - set(raw.features) == {"rate"}
    assert set(raw.features) < set(partition.features)
    assert set(raw.metadata) == {"src_ip", "src_port", "dst_ip", "dst_port", "timestamp", "end_time"}
    assert [key_of(name) for name in HEADERS["UNSW raw"][2]] == [key_of(name) for name in UNSW.headerless]


def test_the_2018_dialect_lacks_only_what_the_corrected_meter_added() -> None:
    missing = ("fwd_rst_flags", "bwd_rst_flags", "icmp_code", "icmp_type", "total_tcp_flow_time")
    assert IMPROVED.bind(HEADER_2018).missing == missing


def test_of_the_doubled_header_length_the_first_is_read() -> None:
    header = HEADERS["MachineLearningCVE"][2]
    places = [place for place, name in enumerate(header) if name == " Fwd Header Length"]
    assert len(places) == 2
    assert CIC.bind(header).features["fwd_header_length"] == places[0]
    renamed = [f"{name}.1" if place == places[1] else name for place, name in enumerate(header)]
    assert CIC.bind(renamed).missing == CIC.bind(renamed).ignored == ()


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_what_identifies_a_host_or_a_time_is_never_a_feature(schema: FlowSchema) -> None:
    shortcuts = {
        "flow_id",
        "src_ip",
        "src_port",
        "dst_ip",
        "dst_port",
        "timestamp",
        "srcip",
        "sport",
        "dstip",
        "dsport",
    }
    assert shortcuts.isdisjoint(schema.names)
    assert {key_of(name) for name in schema.names}.isdisjoint(key_of(name) for name in schema.label_columns)


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_every_feature_has_a_unit_and_every_attack_a_technique(schema: FlowSchema) -> None:
    assert [feature.name for feature in schema.features if not feature.unit] == []
    techniques = [technique for family in schema.attack_families for technique in family.techniques]
    assert all(family.techniques for family in schema.attack_families)
    assert [technique for technique in techniques if not re.fullmatch(r"T\d{4}(\.\d{3})?", technique)] == []
    assert schema.families[0].name == BENIGN


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_of_another_data_sets_header_the_error_names_a_column(schema: FlowSchema) -> None:
    other = CIC if schema is UNSW else UNSW
    header = [name for name in other.names if not schema.knows(name)]
    with pytest.raises(HeaderError, match=rf"a feature of {schema.name}: the first is '{header[0]}'"):
        schema.bind(header)


def test_a_repeated_column_is_an_error_that_names_it() -> None:
    header = HEADERS["UNSW partition"][2]
    with pytest.raises(HeaderError, match=r"'sbytes' \(number 8\) and 'SBytes' \(number 46\) both mean 'sbytes'"):
        UNSW.bind([*header, "SBytes"])


@pytest.mark.parametrize(
    ("schema", "label", "family"),
    [
        (CIC, "BENIGN", BENIGN),
        (CIC, "Web Attack \x96 Brute Force", "Web Attack - Brute Force"),
        (CIC, "Web Attack \ufffd XSS", "Web Attack - XSS"),
        (CIC, "Web Attack – Sql Injection", "Web Attack - Sql Injection"),
        (CIC, "Web Attack â€“ Sql Injection", "Web Attack - Sql Injection"),
        (CIC, "Web Attack ï¿½ XSS", "Web Attack - XSS"),
        (CIC, "DoS slowloris", "DoS Slowloris"),
        (CIC, "DoS Slowhttptest ", "DoS Slowhttptest"),
        (CIC, "PortScan", "PortScan"),
        (CIC, "FTP-Patator", "FTP-Patator"),
        (CIC, "Heartbleed", "Heartbleed"),
        (CIC, "Bot", "Bot"),
        (IMPROVED, "BENIGN", BENIGN),
        (IMPROVED, "Botnet - Attempted", BENIGN),
        (IMPROVED, "Web Attack - SQL Injection - Attempted", BENIGN),
        (IMPROVED, "Web Attack - SQL Injection", "Web Attack - SQL Injection"),
        (IMPROVED, "Infiltration - Portscan", "Infiltration - Portscan"),
        (IMPROVED, "Infiltration - Attempted", BENIGN),
        (IMPROVED, "Portscan", "Portscan"),
        (UNSW, "Normal", BENIGN),
        (UNSW, "", BENIGN),
        (UNSW, "  ", BENIGN),
        (UNSW, "Backdoors", "Backdoor"),
        (UNSW, "Backdoor", "Backdoor"),
        (UNSW, " Fuzzers ", "Fuzzers"),
        (UNSW, " Shellcode ", "Shellcode"),
        (UNSW, " Reconnaissance", "Reconnaissance"),
        (UNSW, "worms", "Worms"),
    ],
)
def test_labels_in_every_released_spelling(schema: FlowSchema, label: str, family: str) -> None:
    assert schema.family_of(label).name == family


@pytest.mark.parametrize(("schema", "label"), [(CIC, ""), (CIC, "Worms"), (IMPROVED, "1"), (UNSW, "1"), (UNSW, "Bot")])
def test_a_label_of_no_family_is_an_error_that_names_it(schema: FlowSchema, label: str) -> None:
    with pytest.raises(LabelError, match=f"label {label!r} is not one of {schema.name}'s: Benign, "):
        schema.family_of(label)


def test_rate_is_derived_as_the_partition_has_it() -> None:
    columns = {
        "spkts": np.array([2.0, 10.0, 1.0, 5.0, np.nan, 9.0, 2.0]),
        "dpkts": np.array([0.0, 5.0, 0.0, 5.0, 1.0, 9.0, 1.0]),
        "dur": np.array([0.5, 2.0, 0.0, np.nan, 1.0, -1.0, 1e-300]),
    }
    UNSW.derive(columns)
    np.testing.assert_array_equal(columns["rate"], [2.0, 7.0, 0.0, np.nan, np.nan, 0.0, np.nan])


def test_only_numeric_features_have_a_value_for_blank() -> None:
    blanks = {feature.name: feature.blank for feature in UNSW.features if feature.blank is not None}
    assert blanks == {"is_ftp_login": 0.0, "ct_ftp_cmd": 0.0, "ct_flw_http_mthd": 0.0}
    assert all(feature.kind is Kind.NUMERIC for feature in UNSW.features if feature.blank is not None)


def test_a_schema_is_found_by_name_and_an_unknown_name_lists_all() -> None:
    assert schema_named("unsw-nb15") is UNSW
    with pytest.raises(
        ParamsError, match="'unsw' is not known: it is one of cicids2017, cicids2017-improved, unsw-nb15"
    ):
        schema_named("unsw")
