"""The benchmark of drift measures what it says, and fails where drift costs too much."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bench.drift import main, reference_from
from export.detector import Scores, load
from stream.drift import DriftWatch
from tests.bundles import make_bundle
from tests.flows import flows

IMPROVED = "cicids2017-improved"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", IMPROVED)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return flows("improved", rows=60).write(tmp_path / "flows.csv")


def test_a_reference_is_made_of_the_flows_that_are_given(bundle: Path, file: Path) -> None:
    detector = load(bundle, threads=1)
    made = reference_from(file, detector)
    assert tuple(feature.name for feature in made.features) == detector.schema.names
    assert sum(made.rows) == 60 and made.rows == made.score_rows and min(made.rows) > 0
    assert [score.name for score in made.scores] == ["score"]


def test_it_prints_its_figures_and_fails_below_the_ratio_that_is_asked(
    bundle: Path, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    observe = DriftWatch.observe

    def observed(watch: DriftWatch, columns: Mapping[str, np.ndarray], scores: Scores, alerting: np.ndarray) -> None:
        seen.append(len(scores))
        observe(watch, columns, scores, alerting)

    monkeypatch.setattr(DriftWatch, "observe", observed)
    words = ["--batch-size", "16", "--rounds", "2", "--bundle", str(bundle), "--input", str(file)]
    assert main([*words, "--least", "0"]) == 0
    report = json.loads(next(line for line in capsys.readouterr().out.splitlines() if line.startswith("{")))
    assert [*report["ratios"]] == ["16"] and 0 < report["ratios"]["16"] < 2
    assert seen == [16] * 4, "two rounds and two to warm up"
    assert main([*words, "--least", "1000"]) == 1
