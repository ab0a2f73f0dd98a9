"""The demo's sample: test rows alone, as they stand in their files."""

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from export.reading import read_flows
from schemas.errors import FlowsentryError
from schemas.params import DataParams
from tests.flows import FlowTable, flows
from trainer.__main__ import main
from trainer.prepare import Prepared, load_prepared, prepare
from trainer.sample import sample
from trainer.splitting import SPLITS


def prepared_from(tables: list[FlowTable], folder: Path) -> tuple[Prepared, list[Path]]:
    paths = [table.write(folder / f"part-{number}.csv") for number, table in enumerate(tables)]
    params = DataParams(dataset=tables[0].schema.name, n_quantiles=16)
    return load_prepared(prepare(paths, params, folder / "prepared")), paths


def read(path: Path) -> tuple[list[str], list[list[str]]]:
    header, *rows = csv.reader(gzip.decompress(path.read_bytes()).decode().splitlines())
    return header, rows


def side_of(prepared: Prepared, table: FlowTable, row: int) -> str:
    """Where a table's row went, found by a feature that no two rows share."""
    value = np.float32(table.get(row, table.schema.names[0]))
    (place,) = np.flatnonzero(prepared.x[:, 0] == value)
    return SPLITS[prepared.split[place]]


def test_rows_are_of_the_test_split_alone_unchanged_and_in_the_order_of_the_files(tmp_path: Path) -> None:
    tables = [flows("unsw-partition", rows=150, seed=seed) for seed in (1, 2)]
    prepared, paths = prepared_from(tables, tmp_path)
    count = sample(prepared, paths, tmp_path / "new" / "out.csv.gz", rows=30, attack_share=0.6, seed=0)
    header, rows = read(tmp_path / "new" / "out.csv.gz")
    assert (count, len(rows)) == (30, 30)
    assert header == tables[0].header

    places = [
        (number, table.rows.index(row)) for row in rows for number, table in enumerate(tables) if row in table.rows
    ]
    assert len(places) == 30 and places == sorted(places)
    assert {number for number, _ in places} == {0, 1}
    assert {side_of(prepared, tables[number], row) for number, row in places} == {"test"}
    assert sum(tables[number].families[row] != "Benign" for number, row in places) == 18


def test_too_few_of_one_kind_are_made_up_with_the_other(tmp_path: Path) -> None:
    table = flows("unsw-partition", families={"Benign": 100, "DoS": 20})
    prepared, paths = prepared_from([table], tmp_path)
    test = prepared.rows("test")
    attacks = int(prepared.y[test].sum())
    assert sample(prepared, paths, tmp_path / "few.csv.gz", rows=10, attack_share=1.0, seed=0) == attacks == 4
    count = sample(prepared, paths, tmp_path / "all.csv.gz", rows=1000, attack_share=0.5, seed=0)
    assert count == len(test)


def test_all_of_the_test_rows_with_their_repetitions(tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=90)
    table.rows += table.rows
    table.families += table.families
    prepared, paths = prepared_from([table], tmp_path)
    assert sample(prepared, paths, tmp_path / "all.csv.gz", rows=None, attack_share=0.5, seed=0) == len(
        prepared.rows("test")
    )
    _, rows = read(tmp_path / "all.csv.gz")
    assert sorted(rows) == sorted(row for row in table.rows if row in rows)


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    prepared, paths = prepared_from([flows("unsw-partition", rows=150)], tmp_path)
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        sample(prepared, paths, tmp_path / name, rows=12, attack_share=0.5, seed=seed)
    one, again, other = ((tmp_path / name).read_bytes() for name in ("one", "again", "other"))
    assert one == again != other
    assert one[4:8] == bytes(4), "no time of day in the archive"


def test_the_order_of_the_label_columns_does_not_matter(tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=90)
    for cells in (table.header, *table.rows):
        cells.insert(0, cells.pop())
    assert table.header[0] == "label" and table.header[-1] == "attack_cat"
    prepared, paths = prepared_from([table], tmp_path)
    assert sample(prepared, paths, tmp_path / "out.csv.gz", rows=10, attack_share=0.5, seed=0) == 10


@pytest.mark.parametrize("dialect", ["cicids2017", "unsw-raw-headerless", "improved"])
def test_a_sample_can_be_read_and_excluded_like_any_file_of_its_dialect(dialect: str, tmp_path: Path) -> None:
    table = flows(dialect, rows=120)
    prepared, paths = prepared_from([table], tmp_path)
    out = tmp_path / "sample.csv.gz"
    assert sample(prepared, paths, out, rows=20, attack_share=0.5, seed=0) == 20
    (batch,) = read_flows(out, table.schema, min_feature_coverage=0.5)
    assert len(batch.rows) == 20 and not batch.rejects

    params = DataParams(dataset=table.schema.name, n_quantiles=16, seed=99)
    again = load_prepared(prepare(paths, params, tmp_path / "again", exclude=[out]))
    assert again.metadata["held_out_as_sample"] == 20
    first = table.schema.names[0]
    held_out = np.isin(again.x[:, 0], np.float32(batch.columns[first]))
    assert held_out.sum() == 20 and set(again.split[held_out].tolist()) == {SPLITS.index("test")}


def test_files_of_other_columns_or_other_rows_are_errors(tmp_path: Path) -> None:
    prepared, paths = prepared_from([flows("unsw-partition", rows=60)], tmp_path)
    other_columns = flows("unsw-raw", rows=20).write(tmp_path / "raw.csv")
    with pytest.raises(FlowsentryError, match=rf"{other_columns}: another header"):
        sample(prepared, [*paths, other_columns], tmp_path / "out", rows=5, attack_share=0.5, seed=0)
    other_rows = flows("unsw-partition", rows=20, seed=5).write(tmp_path / "strangers.csv")
    with pytest.raises(FlowsentryError, match="none of the rows is a test row of the prepared data"):
        sample(prepared, [other_rows], tmp_path / "out", rows=5, attack_share=0.5, seed=0)
    assert not (tmp_path / "out").exists()


def test_the_command_writes_the_file_and_says_how_many_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = flows("unsw-partition", rows=90).write(tmp_path / "flows.csv")
    common = ["--dataset", "unsw-nb15", "--runs", str(tmp_path), "--data", str(data), "--set", "data.n_quantiles=16"]
    assert main(["sample", *common, "--out", str(tmp_path / "early")]) == 2
    assert "Run `python -m trainer prepare` first" in capsys.readouterr().err
    assert main(["prepare", *common]) == 0
    out = tmp_path / "sample.csv.gz"
    assert main(["sample", *common, "--out", str(out), "--rows", "8", "--attack-share", "0.25"]) == 0
    assert f"wrote 8 rows to {out}" in capsys.readouterr().out
    header, rows = read(out)
    assert [row[header.index("label")] for row in rows].count("1") == 2


@pytest.mark.parametrize("wrong", [["--rows", "0"], ["--attack-share", "1.5"], ["--attack-share", "nan"]])
def test_numbers_that_make_no_sense_are_errors(
    wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = flows("unsw-partition", rows=60).write(tmp_path / "flows.csv")
    common = ["--dataset", "unsw-nb15", "--runs", str(tmp_path), "--data", str(data), "--set", "data.n_quantiles=16"]
    assert main(["prepare", *common]) == 0
    assert main(["sample", *common, "--out", str(tmp_path / "out"), *wrong]) == 2
    assert "must be 1 or more" in capsys.readouterr().err
