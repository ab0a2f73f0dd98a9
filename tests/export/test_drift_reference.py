"""What drift is measured against, in bundle.json: written, read back, left out, and refused where it is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import MANIFEST, read_bundle
from export.detector import load
from export.drift_reference import reference_of
from schemas.datasets import SCHEMAS
from schemas.errors import BundleError
from tests.bundles import VOCABULARIES, make_bundle
from tests.references import columns_of, made_up_columns, reference_content

UNSW = "unsw-nb15"


@pytest.mark.parametrize("dataset", SCHEMAS)
def test_what_is_written_is_read_back(tmp_path: Path, dataset: str) -> None:
    columns, score = made_up_columns(dataset, 3000), np.linspace(0, 1, 500, dtype=np.float32)
    made = reference_of(SCHEMAS[dataset], VOCABULARIES, columns_of(dataset, columns), score, None)
    read = read_bundle(make_bundle(tmp_path, dataset, drift=made.to_json())).manifest.drift
    assert read is not None and (read.rows, read.score_rows) == (3000, 500)
    assert tuple(feature.name for feature in read.features) == SCHEMAS[dataset].names
    assert [score.name for score in read.scores] == ["score"]
    for ours, theirs in zip((*made.features, *made.scores), (*read.features, *read.scores), strict=True):
        counts = ours.count(columns.get(ours.name, score))
        assert theirs.count(columns.get(ours.name, score)).tolist() == counts.tolist()
        found = theirs.distances(counts)
        assert found.psi < 1e-5 and found.wasserstein < 1e-4


def test_a_bundle_of_before_has_none(tmp_path: Path) -> None:
    assert load(make_bundle(tmp_path, UNSW)).manifest.drift is None


@pytest.mark.parametrize(("classifies", "names"), [(True, ["score", "novelty"]), (False, ["novelty"])])
def test_there_is_one_for_each_thing_that_the_bundle_tells(tmp_path: Path, classifies: bool, names: list[str]) -> None:
    content = reference_content(UNSW, novelty=True)
    content["scores"] = [item for item in content["scores"] if item["name"] in names]
    drift = read_bundle(make_bundle(tmp_path, UNSW, novelty=True, classifies=classifies, drift=content)).manifest.drift
    assert drift is not None and [score.name for score in drift.scores] == names


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "no rows": lambda it: it.pop("rows"),
    "rows are no number": lambda it: it.update(rows="many"),
    "no scores": lambda it: it.update(score_rows=0),
    "a feature left out": lambda it: it["features"].pop(),
    "features in another order": lambda it: it["features"].reverse(),
    "a score of another name": lambda it: it["scores"][0].update(name="novelty"),
    "fewer shares than bins": lambda it: it["features"][0]["shares"].pop(),
    "shares that are text": lambda it: it["features"][0].update(shares="0.5"),
    "a share that is true": lambda it: it["features"][0]["shares"].__setitem__(0, True),
    "a share that is negative": lambda it: it["features"][0]["shares"].__setitem__(0, -0.1),
    "shares that are not all": lambda it: it["features"][0].update(missing=0.5),
    "a bound that is none": lambda it: it["features"][0]["uppers"].__setitem__(0, None),
    "a bound beyond a float32": lambda it: it["features"][0]["uppers"].__setitem__(-1, 1e39),
    "a bound beyond any number": lambda it: it["features"][0]["uppers"].__setitem__(-1, 10**400),
    "bounds that fall": lambda it: it["features"][0]["uppers"].reverse(),
    "a low without a high": lambda it: it["features"][0].update(high=None),
    "a low above the high": lambda it: it["features"][0].update(low=1e9),
    "a category too few": lambda it: next(each for each in it["features"] if each["name"] == "proto")["shares"].pop(),
    "too many bins": lambda it: it["features"][0].update(
        uppers=list(range(100)), shares=[1 / 101] * 101, missing=0.0
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", WRONG.values(), ids=[*WRONG])
def test_one_that_is_wrong_is_refused_by_its_field(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(json.dumps(reference_content(UNSW)))
    change(content)
    with pytest.raises(BundleError, match=r"field .* is missing or of the wrong type") as caught:
        read_bundle(make_bundle(tmp_path, UNSW, drift=content))
    assert str(tmp_path / MANIFEST) in str(caught.value)


@pytest.mark.parametrize("wrong", [[], "none", 1, {}])
def test_one_that_is_no_reference_is_refused(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(BundleError, match=r"bundle\.json: field"):
        read_bundle(make_bundle(tmp_path, UNSW, drift=wrong))


def test_it_takes_little_room(tmp_path: Path) -> None:
    without, with_it = (
        (make_bundle(tmp_path / name, "cicids2017", drift=drift) / MANIFEST).stat().st_size
        for name, drift in (("without", None), ("with", reference_content("cicids2017")))
    )
    assert with_it - without < 150_000
