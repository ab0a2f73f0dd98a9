"""Two data sets brought to the same features: what they become, and what a detector of one makes of the other."""

import json
from pathlib import Path

import numpy as np
import pytest

from schemas.datasets import SCHEMAS
from schemas.params import DataParams
from tests.flows import flows
from tests.trainer.conftest import Pipeline
from trainer.experiments.ablations import ZEEK_CONN
from trainer.experiments.transfer import COMMON, in_common
from trainer.prepare import Prepared, load_prepared, prepare


def prepared_from(folder: Path, dialect: str, **cells: str) -> Prepared:
    """Some flows, of which the first data row has these cells."""
    table = flows(dialect, rows=90, seed=3)
    for name, value in cells.items():
        table.set(0, name, value)
    params = DataParams(dataset=table.schema.name, n_quantiles=8)
    return load_prepared(prepare([table.write(folder / f"{dialect}.csv")], params, folder / dialect))


def first(prepared: Prepared) -> dict[str, float]:
    return dict(zip(COMMON.names, in_common(prepared)[0].tolist(), strict=True))


def test_unsw_flows_are_taken_as_they_are(tmp_path: Path) -> None:
    got = first(
        prepared_from(
            tmp_path, "unsw-partition", dur="2", spkts="4", dpkts="6", sbytes="400", dbytes="1200", proto="udp"
        )
    )
    assert got == {
        "duration": 2, "fwd_packets": 4, "bwd_packets": 6, "fwd_bytes": 400, "bwd_bytes": 1200, "fwd_mean_bytes": 100,
        "bwd_mean_bytes": 200, "packets_per_s": 5, "bytes_per_s": 800, "protocol": 4,
    }  # fmt: skip


def test_cicflowmeter_s_payload_gets_its_headers_and_microseconds_become_seconds(tmp_path: Path) -> None:
    cells = {
        "flow_duration": "2000000", "total_fwd_packets": "4", "total_bwd_packets": "0", "total_length_of_fwd_packets": "240",
        "total_length_of_bwd_packets": "0", "fwd_header_length": "80", "bwd_header_length": "0", "protocol": "6",
    }  # fmt: skip
    got = first(prepared_from(tmp_path, "improved", **cells))
    assert got == {
        "duration": 2, "fwd_packets": 4, "bwd_packets": 0, "fwd_bytes": 400, "bwd_bytes": 0, "fwd_mean_bytes": 100,
        "bwd_mean_bytes": 0, "packets_per_s": 2, "bytes_per_s": 200, "protocol": 3,
    }  # fmt: skip


def test_without_a_protocol_it_is_missing_and_every_other_name_is_other(tmp_path: Path) -> None:
    assert not in_common(prepared_from(tmp_path, "cicids2017"))[:, -1].any()
    assert first(prepared_from(tmp_path, "unsw-partition", proto="ospf"))["protocol"] == 2


def test_from_one_data_set_to_another_with_ever_more_labels(pipeline: Pipeline, tmp_path: Path) -> None:
    other = flows("improved", rows=400, seed=5).write(tmp_path / "improved.csv")
    runs = str(tmp_path / "runs")
    words = ["--dataset", "cicids2017-improved", "--runs", runs, "--set", "data.n_quantiles=24"]
    from trainer.__main__ import main

    assert main(["prepare", "--data", str(other), *words]) == 0
    (tmp_path / "runs" / "unsw-nb15").symlink_to(pipeline.run)
    options = ["--to", "cicids2017-improved", "--runs", runs, "--seeds", "1", "--out", str(tmp_path / "r")]
    assert pipeline.trainer("transfer", *options) == 0
    got = json.loads((tmp_path / "r" / "tables" / "transfer-cicids2017-improved.json").read_text())
    source, target = "unsw-nb15", "cicids2017-improved"
    assert [row[0] for row in got["rows"]] == [
        source, f"{source} and 1% of {target}", f"{source} and 5% of {target}", f"1% of {target}", f"5% of {target}",
        f"100% of {target}",
    ]  # fmt: skip
    counts = [row[1] for row in got["rows"]]
    assert counts[0] < counts[1] < counts[2] and counts[3] < counts[4] < counts[5]
    assert all(0 <= float(cell) <= 1 for row in got["rows"] for cell in row[2:])
    assert float(got["rows"][5][4]) > 0.9, "trees that have all labels of the target"


def test_a_data_set_is_no_other_than_itself(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline.trainer("transfer", "--to", "unsw-nb15") == 2
    assert "--to unsw-nb15: is the data set that is trained on: name another" in capsys.readouterr().err


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_zeek_tells_are_features(name: str) -> None:
    assert set(ZEEK_CONN[name]) <= set(SCHEMAS[name].names)
    assert np.unique(ZEEK_CONN[name]).size == len(ZEEK_CONN[name])
