"""A CSV that is uploaded: the verdicts of `export score`, and errors that name no file of ours."""

import gzip
from pathlib import Path

import pytest

from export.__main__ import main as export_main
from export.detector import load
from schemas.errors import FlowsentryError
from tests.bundles import make_bundle
from tests.flows import flows
from trainer.dashboard.scoring import verdicts


def test_verdicts_are_those_of_export_score_and_refused_rows_are_told(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny", "unsw-nb15")
    table = flows("unsw-partition", rows=50, seed=6)
    table.set(11, "dur", "long")
    source, scores, rejects = table.write(tmp_path / "flows.csv"), tmp_path / "scores.csv", tmp_path / "rejects.csv"
    words = ["score", str(bundle), "--input", str(source), "--output", str(scores), "--rejects", str(rejects)]
    assert export_main(words) == 0
    detector = load(bundle)
    policy = detector.manifest.policy_of(0.01, None, novel=True)
    for content in (source.read_bytes(), gzip.compress(source.read_bytes())):
        found = verdicts(content, detector, policy, 0.5)
        assert found.verdicts == scores.read_bytes() and found.rejects == rejects.read_bytes()
        assert (found.scored, found.rejected) == (49, {"wrong_type": 1}) and 0 < found.attacks < 49
        assert found.first(5)["row"].to_list() == [0, 1, 2, 3, 4]


def test_a_file_that_does_not_fit_is_refused_without_the_name_of_a_temporary_one(tmp_path: Path) -> None:
    detector = load(make_bundle(tmp_path / "tiny", "unsw-nb15"))
    policy = detector.manifest.policy_of(0.01, None, novel=True)
    with pytest.raises(FlowsentryError, match=r"^: none of the 2 columns is a feature of unsw-nb15"):
        verdicts(b"a,b\n1,2\n", detector, policy, 0.5)
