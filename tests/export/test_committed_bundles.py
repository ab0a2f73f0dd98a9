"""Every bundle in bundles/ is whole, is the data set's own, and answers as torch did."""

from pathlib import Path

import numpy as np
import pytest

from export.bundle import read_bundle
from export.detector import load
from export.reading import read_flows
from export.verify import verify
from tests.flows import dialects_of, flows

_BUNDLES = sorted(path for path in (Path(__file__).parents[2] / "bundles").glob("*") if path.suffix != ".partial")


@pytest.mark.parametrize("bundle", _BUNDLES, ids=[path.name for path in _BUNDLES])
def test_a_committed_bundle_verifies(bundle: Path) -> None:
    checks = [line.split()[0] for line in verify(bundle)]
    assert checks[:6] == ["hashes", "signature", "identity", "graph", "reference", "held-out"]
    assert checks.count("threshold") == len(read_bundle(bundle).manifest.thresholds) > 0


@pytest.mark.parametrize("bundle", _BUNDLES, ids=[path.name for path in _BUNDLES])
def test_a_committed_bundle_is_named_for_its_data_set_and_scores_it_in_every_dialect(
    bundle: Path, tmp_path: Path
) -> None:
    detector = load(bundle)
    assert bundle.name == detector.manifest.name == detector.schema.name
    for dialect in dialects_of(detector.schema.name):
        path = flows(dialect, rows=20).write(tmp_path / f"{dialect}.csv")
        (batch,) = read_flows(path, detector.schema, min_feature_coverage=0.5)
        scores = detector.score(batch.columns).score
        assert len(scores) == 20
        assert ((scores >= 0) & (scores <= 1)).all()
        assert np.ptp(scores) > 0


@pytest.mark.parametrize("bundle", _BUNDLES, ids=[path.name for path in _BUNDLES])
def test_thresholds_of_a_committed_bundle_fall_as_the_rate_rises(bundle: Path) -> None:
    manifest = read_bundle(bundle).manifest
    values = [threshold.threshold for threshold in manifest.thresholds]
    assert values == sorted(values, reverse=True)
    assert all(item.false_positives <= item.target_fpr * item.benign_rows for item in manifest.thresholds)
    assert manifest.severity["medium"] <= manifest.severity["high"] <= manifest.severity["critical"]
