"""A CSV → a CSV of verdicts."""

import csv
import gzip
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from export.detector import Detector, load
from export.scoring import Counts, score_file, score_flows
from export.thresholds import Policy
from schemas.errors import FlowsentryError, HeaderError
from schemas.flow import BENIGN
from tests.flows import DIALECTS, flows


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def score(
    source: Path, detector: Detector, target: Path, rejects: Path | None = None, threshold: float = 0.75
) -> Counts:
    return score_file(source, target, detector, policy=Policy(threshold), min_feature_coverage=0.5, rejects=rejects)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_usable_row_gets_a_verdict_and_every_other_a_reason(
    tmp_path: Path, tiny_bundles: dict[str, Path], dialect: str
) -> None:
    table = flows(dialect, rows=120)
    detector = load(tiny_bundles[table.schema.name])
    table.set(3, table.schema.numeric[0].name, "word")
    table.set(5, table.schema.numeric[0].name, "1e400")
    table.rows[7] += ["surplus"]
    table.rows[9] = table.rows[9][:8]
    source = table.write(tmp_path / "flows.csv.gz")
    counts = score(source, detector, tmp_path / "scores.csv", tmp_path / "rejects.csv")

    scored, rejected = rows_of(tmp_path / "scores.csv"), rows_of(tmp_path / "rejects.csv")
    assert list(scored[0]) == ["row", "score", "verdict", "family"]
    assert list(rejected[0]) == ["row", "reason", "field", "value", "detail"]
    assert [int(row["row"]) for row in scored] == [row for row in range(120) if row not in (3, 5, 7, 9)]
    name = table.schema.numeric[0].name
    assert [(row["row"], row["reason"], row["field"], row["value"]) for row in rejected] == [
        ("3", "wrong_type", name, "word"),
        ("5", "out_of_range", name, "1e400"),
        ("7", "malformed_row", "", ""),
        ("9", "too_few_features", "", ""),
    ]
    for row in scored:
        assert 0 <= float(row["score"]) <= 1
        assert row["verdict"] == str(int(float(row["score"]) >= 0.75))
        assert row["family"] in (detector.manifest.families if row["verdict"] == "1" else (BENIGN,))
    attacks = sum(row["verdict"] == "1" for row in scored)
    assert 0 < attacks < 116
    assert counts == Counts(scored=116, attacks=attacks, rejected=counts.rejected, missing=counts.missing)
    assert dict(counts.rejected) == {"wrong_type": 1, "out_of_range": 1, "malformed_row": 1, "too_few_features": 1}


def test_scores_are_the_detectors_own_and_keep_every_digit(tmp_path: Path, detector: Detector) -> None:
    source = flows("unsw-partition", rows=1500).write(tmp_path / "flows.csv")  # two batches
    score(source, detector, tmp_path / "scores.csv")
    ((first, *_), (second, *_)) = score_flows(source, detector, 0.5)
    expected = np.concatenate([detector.score(batch.columns).score for batch in (first, second)])
    assert (
        np.array([row["score"] for row in rows_of(tmp_path / "scores.csv")]).astype(np.float32).tolist()
        == expected.tolist()
    )


def test_a_threshold_is_compared_as_the_service_compares_it(tmp_path: Path, detector: Detector) -> None:
    source = flows("unsw-partition", rows=5).write(tmp_path / "flows.csv")
    score(source, detector, tmp_path / "scores.csv")
    exact = float(rows_of(tmp_path / "scores.csv")[2]["score"])
    for threshold in (float(np.float32(exact)), float(np.float32(exact)) + 1e-12):  # the same float32
        score(source, detector, tmp_path / "scores.csv", threshold=threshold)
        assert rows_of(tmp_path / "scores.csv")[2]["verdict"] == "1"
    score(source, detector, tmp_path / "scores.csv", threshold=float(np.nextafter(np.float32(exact), np.float32(1))))
    assert rows_of(tmp_path / "scores.csv")[2]["verdict"] == "0"


def test_a_file_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, detector: Detector) -> None:
    source = flows("cicids2017", rows=3).write(tmp_path / "flows.csv")
    with pytest.raises(HeaderError, match="none of the 79 columns is a feature of unsw-nb15"):
        score(source, detector, tmp_path / "scores.csv", tmp_path / "rejects.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["flows.csv"]


def test_a_truncated_file_is_refused_by_its_name(tmp_path: Path, detector: Detector) -> None:
    packed = flows("unsw-partition", rows=2000).write(tmp_path / "flows.csv.gz").read_bytes()
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) * 3 // 4])
    with pytest.raises(HeaderError, match=r"cut\.csv\.gz: not a readable CSV"):
        score(tmp_path / "cut.csv.gz", detector, tmp_path / "scores.csv")


def test_the_input_is_never_overwritten(tmp_path: Path, detector: Detector) -> None:
    source = flows("unsw-partition", rows=3).write(tmp_path / "flows.csv")
    (tmp_path / "link.csv").symlink_to(source)
    whole = source.read_bytes()
    for target, rejects in ((source, None), (tmp_path / "link.csv", None), (tmp_path / "scores.csv", source)):
        with pytest.raises(FlowsentryError, match="is the input, which would be overwritten"):
            score(source, detector, target, rejects)
    with pytest.raises(FlowsentryError, match="is named for both the scores and the rejects"):
        score(source, detector, tmp_path / "scores.csv", tmp_path / "." / "scores.csv")
    assert source.read_bytes() == whole


def test_a_header_without_rows_gives_a_header_without_rows(tmp_path: Path, detector: Detector) -> None:
    source = flows("unsw-partition", rows=0).write(tmp_path / "flows.csv")
    assert score(source, detector, tmp_path / "scores.csv", tmp_path / "rejects.csv") == Counts()
    assert (tmp_path / "scores.csv").read_text() == "row,score,verdict,family\n"
    assert (tmp_path / "rejects.csv").read_text() == "row,reason,field,value,detail\n"


@pytest.mark.timeout(60)
def test_a_pipe_can_be_scored(tmp_path: Path, detector: Detector) -> None:
    packed = gzip.compress(flows("unsw-partition", rows=4).write(tmp_path / "flows.csv").read_bytes())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(packed,), daemon=True)
    writer.start()
    counts = score(pipe, detector, tmp_path / "scores.csv")
    writer.join()
    assert counts.scored == 4
