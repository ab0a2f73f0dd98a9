"""Rows for a page: drawn from the whole file, with their labels, whatever the dialect."""

from pathlib import Path

import numpy as np
import pytest

from schemas.datasets import SCHEMAS
from schemas.errors import FlowsentryError
from tests.flows import DIALECTS, flows
from trainer.dashboard.rows import Rows, read_rows, schema_of


def read(path: Path, most: int = 1000) -> Rows:
    return read_rows(path, schema_of(path), most=most, min_feature_coverage=0.5)


@pytest.mark.parametrize("dialect", [name for name in DIALECTS if not name.endswith("-port")])
def test_a_files_data_set_is_told_from_its_columns(dialect: str, tmp_path: Path) -> None:
    table = flows(dialect, rows=4)
    assert schema_of(table.write(tmp_path / "flows.csv")) is table.schema


def test_a_file_of_no_data_set_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(FlowsentryError, match=r"other\.csv: none of the 2 columns is a feature"):
        schema_of(path)


def test_all_rows_are_kept_in_their_order_where_there_are_few(tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=60, seed=3)
    table.set(7, "dur", "")
    rows = read(table.write(tmp_path / "flows.csv.gz"))
    assert rows.total == len(rows.x) == 60
    assert [rows.schema.families[number].name for number in rows.family.tolist()] == table.families  # type: ignore[union-attr]
    assert rows.column("service").tolist() == table.column("service")
    assert np.isnan(rows.column("dur")[7])
    flow = rows.flow(7)
    assert (
        flow["dur"] is None and flow["proto"] == table.get(7, "proto") and flow["sttl"] == float(table.get(7, "sttl"))
    )
    assert set(flow) == set(rows.schema.names)


def test_of_many_rows_some_are_drawn_from_the_whole_file_each_with_its_own_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.dashboard.rows._BATCH_ROWS", 50)
    table = flows("unsw-partition", rows=1000, seed=4)
    for row in range(1000):
        table.set(row, "sbytes", str(row))
    rows = read(table.write(tmp_path / "flows.csv"), most=100)
    places = rows.column("sbytes").astype(int)
    assert rows.total == 1000 and len(places) == 100 == len(set(places.tolist()))
    assert (np.diff(places) > 0).all() and places[0] < 150 and places[-1] >= 850
    named = [rows.schema.families[number].name for number in rows.family.tolist()]  # type: ignore[union-attr]
    assert named == [table.families[place] for place in places]
    assert rows.column("proto").tolist() == [table.get(place, "proto") for place in places]


def test_without_labels_there_are_no_classes_and_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    table = flows("improved", rows=20)
    table.drop("label")
    table.drop("attempted_category")
    table.set(3, "flow_duration", "long")
    rows = read(table.write(tmp_path / "flows.csv"))
    assert rows.schema is SCHEMAS["cicids2017-improved"]
    assert rows.family is None and rows.is_attack is None
    assert rows.total == 19 and rows.refused == {"wrong_type": 1}


def test_a_file_without_a_usable_row_has_none(tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=2)
    del table.rows[:]
    rows = read(table.write(tmp_path / "flows.csv"))
    assert rows.total == 0 and rows.x.shape == (0, len(rows.schema.features))
