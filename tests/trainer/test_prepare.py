"""CSVs of every dialect → arrays and the record of what was done to them."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from schemas.datasets import SCHEMAS
from schemas.errors import FlowsentryError, LabelError
from schemas.flow import Feature, FlowSchema, Kind
from schemas.params import DataParams
from tests.flows import FlowTable, dialects_of, flows
from trainer.__main__ import main
from trainer.prepare import Prepared, load_prepared, prepare
from trainer.splitting import SPLITS

UNSW = DataParams(dataset="unsw-nb15", n_quantiles=16)
UNSW_SCHEMA = SCHEMAS["unsw-nb15"]
# In these places a table is spoilt; the first row is left as it is in every one.
REJECTED, UNBOUNDED, NEGATIVE = 5, 6, 7


def spoilt(dialect: str, seed: int) -> FlowTable:
    """60 flows: one is refused, one has an infinite rate, one a negative duration, and the first stands there twice."""
    table = flows(dialect, rows=60, seed=seed)
    rate, duration = ("sload", "dur") if table.schema.name == "unsw-nb15" else ("flow_bytes_s", "flow_duration")
    table.set(REJECTED, rate, "many")
    table.set(UNBOUNDED, rate, "Infinity")
    table.set(NEGATIVE, duration, "-1")
    table.repeat(0)
    return table


def prepared_from(tables: list[FlowTable], folder: Path, params: DataParams, **more: Any) -> Prepared:
    paths = [table.write(folder / f"part-{number}.csv") for number, table in enumerate(tables)]
    return load_prepared(prepare(paths, params, folder / "out", **more))


def vectors(table: FlowTable, result: Prepared) -> list[np.ndarray]:
    """A table's rows as they should stand in X, worked out cell by cell; derived features are NaN here."""
    columns = [
        [_value(cell, feature, result) for cell in table.column(feature.name)]
        if table.has(feature.name)
        else [math.nan] * len(table.rows)
        for feature in table.schema.features
    ]
    return list(np.array(columns, dtype=np.float32).T)


def _value(cell: str, feature: Feature, result: Prepared) -> float:
    if feature.kind is Kind.NUMERIC:
        return math.nan if cell in ("Infinity", "many") else float(cell)
    known = result.preprocessor.vocabularies[feature.name]
    return known.index(cell.lower()) + 1 if cell.lower() in known else (len(known) + 1 if cell else 0)


def places(wanted: np.ndarray, result: Prepared) -> list[int]:
    """The rows of X that are `wanted`, where that says something."""
    said = ~np.isnan(wanted)
    return np.flatnonzero((result.x[:, said] == wanted[said]).all(axis=1)).tolist()


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS.keys())
def test_every_row_of_every_dialect_arrives_and_what_does_not_is_accounted_for(
    schema: FlowSchema, tmp_path: Path
) -> None:
    folder, runs = tmp_path / "data", tmp_path / "runs"
    tables = {dialect: spoilt(dialect, seed=number) for number, dialect in enumerate(dialects_of(schema.name))}
    paths = {
        name: table.write((folder if number % 2 else tmp_path) / (f"{name}.csv" if number % 3 else f"{name}.csv.gz"))
        for number, (name, table) in enumerate(tables.items())
    }
    (folder / "notes.csv").write_text("when,who\n1,me\n")
    (folder / "readme.txt").write_text("no CSV, not looked at")
    alone = [str(path) for path in paths.values() if path.parent == tmp_path]

    with capture_logs() as logs:
        status = main(
            ["prepare", "--dataset", schema.name, "--data", *alone, str(folder), "--runs", str(runs),
             "--set", "data.n_quantiles=16"]
        )  # fmt: skip
    assert status == 0
    result = load_prepared(runs / schema.name / "prepared")

    # Arrays: shapes, types, and every usable row in its place with its label.
    per_table = 60 - 1  # the last repeats the first, and stays
    n_rows = per_table * len(tables)
    assert result.x.shape == (n_rows, len(schema.features)) and result.x.dtype == np.float32
    assert [str(array.dtype) for array in (result.y, result.family, result.split)] == ["int8", "int16", "int8"]
    assert result.y.shape == result.family.shape == result.split.shape == (n_rows,)
    assert set(result.split.tolist()) == {0, 1, 2}
    for dialect, table in tables.items():
        for row, wanted in enumerate(vectors(table, result)[:60]):
            found = places(wanted, result)
            assert len(found) == (0 if row in (REJECTED, NEGATIVE) else 2 if row == 0 else 1), f"{dialect} row {row}"
            for place in found:
                family = schema.families[result.family[place]]
                assert family.name == table.families[row]
                assert result.y[place] == family.is_attack
    assert not np.isinf(result.x).any()

    # The record.
    metadata: Any = result.metadata
    assert metadata["dataset"] == schema.name
    assert metadata["schema"] == {
        "version": schema.version, "hash": schema.fingerprint(), "citation": schema.citation
    }  # fmt: skip
    reports = {report["file"]: report for report in metadata["inputs"]}
    assert set(reports) == {path.name for path in paths.values()} | {"notes.csv"}
    for path in paths.values():
        assert reports[path.name] == {
            "file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "rows": 60,
            "rejected": {"wrong_type": 1},
        }  # fmt: skip
    assert "none of the 2 columns is a feature" in reports["notes.csv"]["skipped"]
    skipped = [entry for entry in logs if entry["event"] == "file skipped"]
    assert [(entry["file"], entry["log_level"]) for entry in skipped] == [("notes.csv", "warning")]
    assert [entry["wrong_type"] for entry in logs if entry["event"] == "rows refused"] == [1] * len(tables)

    rows = metadata["rows"]
    assert rows["read"] == 60 * len(tables)
    assert rows["kept"] == n_rows == rows["read"] - sum(
        rows[rule] for rule in ("negative_duration", "conflicting_labels")
    )  # fmt: skip
    assert rows["negative_duration"] == len(tables)
    assert rows["distinct_vectors"] == n_rows - len(tables)
    missing = int(np.isnan(result.x).any(axis=1).sum())
    assert rows["rows_with_missing_values_kept"] == missing > 0
    for name in SPLITS:
        counts = np.bincount(result.family[result.rows(name)], minlength=len(schema.families))
        assert metadata["splits"][name] == {
            family.name: count for family, count in zip(schema.families, counts.tolist(), strict=True)
        }  # fmt: skip

    # What became of each column.
    train = result.x[result.rows("train")]
    assert [item["name"] for item in metadata["features"]] == list(schema.names)
    for index, (feature, item) in enumerate(zip(schema.features, metadata["features"], strict=True)):
        assert (item["kind"], item["unit"]) == (feature.kind.value, feature.unit)
        if feature.kind is Kind.NUMERIC:
            assert item["transformation"] == "piecewise-linear map onto a standard normal"
            assert item["missing_share"] == pytest.approx(np.isnan(train[:, index]).mean())
            assert 1 <= item["points"] <= 16
            assert item["benign_range"]["low"] <= item["benign_range"]["median"] <= item["benign_range"]["high"]
        else:
            assert item["transformation"].startswith("code per category seen in training")
            assert item["categories"] == len(result.preprocessor.vocabularies[feature.name])
    reasons = metadata["not_features"]
    assert set(reasons) == {
        *(column.name for column in schema.metadata), *(column.name for column in schema.dropped), *schema.label_columns
    }  # fmt: skip
    assert all(reasons.values())
    assert reasons["dst_port"] == "metadata: travels into the alert, never into the model"
    assert metadata["params"]["n_quantiles"] == 16


def test_the_raw_release_gets_the_rate_that_the_partition_has(tmp_path: Path) -> None:
    table = flows("unsw-raw", rows=40)
    result = prepared_from([table], tmp_path, UNSW)
    rate = UNSW_SCHEMA.names.index("rate")
    for row, wanted in enumerate(vectors(table, result)):
        packets = float(table.get(row, "spkts")) + float(table.get(row, "dpkts"))
        (place,) = places(wanted, result)
        assert result.x[place, rate] == pytest.approx((packets - 1) / float(table.get(row, "dur")), rel=1e-6)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    path = flows("unsw-partition", rows=80).write(tmp_path / "flows.csv")
    first, second = (prepare([path], UNSW, tmp_path / name) for name in ("first", "second"))
    names = {file.name for file in first.iterdir()}
    assert names == {"X.npy", "y.npy", "family.npy", "split.npy", "time.npy", "preprocessor.joblib", "metadata.json"}
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_a_vector_that_two_files_share_is_on_one_side(tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=40)
    result = prepared_from([table, table], tmp_path, UNSW)
    assert len(result.x) == 80
    assert result.split[:40].tolist() == result.split[40:].tolist()
    assert set(result.split.tolist()) == {0, 1, 2}


def test_attempted_attacks_count_as_benign(tmp_path: Path) -> None:
    table = flows("improved", rows=40)
    row = table.families.index("Portscan")
    table.set(row, "label", "Portscan - Attempted")
    result = prepared_from([table], tmp_path, DataParams(dataset="cicids2017-improved", n_quantiles=16))
    (place,) = places(vectors(table, result)[row], result)
    assert (result.y[place], result.family[place]) == (0, 0)


def test_a_category_of_no_training_row_is_unknown(tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=60)
    table.set(3, "proto", "Carrier-Pigeon")
    sample = FlowTable(table.schema, list(table.header), [table.rows[3]], [table.families[3]])
    excluded = sample.write(tmp_path / "sample.csv")
    result = prepared_from([table], tmp_path, UNSW, exclude=[excluded])
    known = result.preprocessor.vocabularies["proto"]
    assert "carrier-pigeon" not in known
    (place,) = places(vectors(table, result)[3], result)
    assert result.x[place, UNSW_SCHEMA.names.index("proto")] == len(known) + 1
    assert result.split[place] == SPLITS.index("test")


def test_excluded_rows_are_test_rows_in_whatever_dialect_they_come(tmp_path: Path) -> None:
    table = flows("unsw-raw", rows=90)
    paths = [table.write(tmp_path / "flows.csv")]
    before = load_prepared(prepare(paths, UNSW, tmp_path / "before"))
    spelled = flows("unsw-raw-headerless", rows=1)
    sample = FlowTable(table.schema, spelled.header, table.rows[:20], table.families[:20], has_header=False)
    excluded = sample.write(tmp_path / "sample.csv.gz")

    after = load_prepared(prepare(paths, UNSW, tmp_path / "after", exclude=[excluded]))
    chosen = [places(wanted, after)[0] for wanted in vectors(table, after)[:20]]
    test = SPLITS.index("test")
    assert set(before.split[chosen].tolist()) == {0, 1, 2}, "the rows do come from every side"
    assert set(after.split[chosen].tolist()) == {test}
    others = np.setdiff1d(np.arange(90), chosen)
    assert after.split[others].tolist() == before.split[others].tolist()
    assert after.metadata["held_out_as_sample"] == 20


def test_balanced_rows_are_half_benign_and_half_attacks(tmp_path: Path) -> None:
    table = flows("unsw-partition", families={"Benign": 100, "DoS": 30, "Fuzzers": 20})
    params = UNSW.model_copy(update={"balanced_rows": 60})
    result = prepared_from([table], tmp_path, params)
    assert np.bincount(result.y).tolist() == [30, 30]
    assert (result.metadata["balanced_rows"], result.metadata["rows"]["kept"]) == (60, 60)  # type: ignore[index]

    more = prepared_from([table], tmp_path, UNSW.model_copy(update={"balanced_rows": 1000}))
    assert np.bincount(more.y).tolist() == [50, 50], "as many of each as the rarer class allows"


def test_a_feature_that_no_file_has_is_missing_everywhere_and_named_in_a_warning(tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=60)
    table.drop("sttl")
    table.drop("service")
    with capture_logs() as logs:
        result = prepared_from([table], tmp_path, UNSW)
    (warning,) = [entry for entry in logs if entry["log_level"] == "warning"]
    assert warning["features"] == ["service", "sttl"]
    assert np.isnan(result.x[:, UNSW_SCHEMA.names.index("sttl")]).all()
    assert (result.x[:, UNSW_SCHEMA.names.index("service")] == 0).all()
    features: Any = result.metadata["features"]
    shares = {item["name"]: item.get("missing_share", item.get("missing_or_unknown_share")) for item in features}
    assert shares["sttl"] == shares["service"] == 1.0 and shares["dur"] == 0.0


# Errors: each names the file and what is wrong with it.


def test_an_unknown_label_is_an_error_that_names_it_and_its_file(tmp_path: Path) -> None:
    good, bad = flows("unsw-partition", rows=40), flows("unsw-partition", rows=40, seed=1)
    bad.set(3, "attack_cat", "Gremlins")
    with pytest.raises(LabelError, match=r"part-1\.csv: label 'Gremlins' is not one of unsw-nb15's: Benign, Analysis"):
        prepared_from([good, bad], tmp_path, UNSW)


def test_a_file_without_labels_is_an_error_and_not_skipped(tmp_path: Path) -> None:
    good, bad = flows("unsw-partition", rows=40), flows("unsw-partition", rows=40, seed=1)
    bad.drop("attack_cat")
    bad.drop("label")
    with pytest.raises(FlowsentryError, match=r"part-1\.csv: no label column: expected attack_cat or label"):
        prepared_from([good, bad], tmp_path, UNSW)


def test_labels_that_tell_no_family_are_an_error_that_says_which_column_does(tmp_path: Path) -> None:
    table = flows("unsw-partition", rows=40)
    table.drop("attack_cat")
    with pytest.raises(LabelError, match=r"part-0\.csv: label '1' is .*The family is read from attack_cat.*lacks"):
        prepared_from([table], tmp_path, UNSW)


def test_label_columns_that_contradict_each_other_are_an_error_that_names_the_row(tmp_path: Path) -> None:
    table = flows("unsw-raw", rows=40)
    row = table.families.index("Benign")
    table.set(row, "label", "1")
    with pytest.raises(LabelError, match=rf"part-0\.csv: data row {row}: attack_cat '' means Benign, but label is 1"):
        prepared_from([table], tmp_path, UNSW)


def test_a_header_without_rows_is_no_data(tmp_path: Path) -> None:
    empty, good = flows("unsw-partition", rows=0), flows("unsw-partition", rows=40)
    with pytest.raises(FlowsentryError, match="none of the files has usable rows of unsw-nb15"):
        prepared_from([empty], tmp_path, UNSW)
    result = prepared_from([empty, good], tmp_path, UNSW)
    inputs: Any = result.metadata["inputs"]
    assert [report["rows"] for report in inputs] == [0, 40]


@pytest.mark.parametrize(
    ("families", "seen"), [({"Benign": 40}, "0 attacks and 40"), ({"DoS": 40}, "40 attacks and 0")]
)
def test_flows_of_one_kind_alone_are_an_error(families: dict[str, int], seen: str, tmp_path: Path) -> None:
    with pytest.raises(FlowsentryError, match=f"all rows after cleaning: {seen} benign flows, but both are needed"):
        prepared_from([flows("unsw-partition", families=families)], tmp_path, UNSW)


def test_attacks_too_few_to_validate_on_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FlowsentryError, match="the validation rows: 0 attacks and 4 benign flows"):
        prepared_from([flows("unsw-partition", families={"Benign": 40, "Worms": 2})], tmp_path, UNSW)


def test_data_of_another_data_set_alone_say_why_nothing_was_read(tmp_path: Path) -> None:
    with pytest.raises(FlowsentryError, match=r"usable rows of unsw-nb15: .*none of the 79 columns is a feature"):
        prepared_from([flows("cicids2017", rows=20)], tmp_path, UNSW)


@pytest.mark.parametrize("name", ["nowhere.csv", "empty"])
def test_data_that_are_not_there_end_the_command_with_their_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    wanted = tmp_path / name
    assert main(["prepare", "--dataset", "unsw-nb15", "--data", str(wanted), "--runs", str(tmp_path / "runs")]) == 2
    assert f"error: {wanted}: no " in capsys.readouterr().err.lower()
    assert not (tmp_path / "runs").exists()


def test_what_was_prepared_with_another_schema_is_refused(tmp_path: Path) -> None:
    prepared_from([flows("unsw-partition", rows=40)], tmp_path, UNSW)
    path = tmp_path / "out" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["schema"]["hash"] = "0" * 64
    path.write_text(json.dumps(metadata))
    with pytest.raises(FlowsentryError, match="prepared with another unsw-nb15 schema: run `prepare` again"):
        load_prepared(tmp_path / "out")


def test_what_was_not_prepared_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FlowsentryError, match=r"metadata\.json: .*Run `python -m trainer prepare` first"):
        load_prepared(tmp_path)
