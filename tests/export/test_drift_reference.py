"""What drift is measured against, in bundle.json: written, read back, left out, and refused where it is wrong."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import MANIFEST, read_bundle
from export.detector import load
from export.drift_reference import Rows, reference_of
from schemas.datasets import SCHEMAS
from schemas.errors import BundleError
from tests.bundles import VOCABULARIES, make_bundle
from tests.references import columns_of, made_up_columns, reference_content

UNSW = "unsw-nb15"


@pytest.mark.parametrize("dataset", SCHEMAS)
def test_what_is_written_is_read_back(tmp_path: Path, dataset: str) -> None:
    columns, score = made_up_columns(dataset, 3000, attacks=900), np.linspace(0, 1, 500, dtype=np.float32)
    y, score_y = np.arange(3000) < 900, score > 0.9
    rows = columns_of(dataset, columns)
    made = reference_of(SCHEMAS[dataset], VOCABULARIES, rows, y, score=score, novelty=None, score_y=score_y)
    read = read_bundle(make_bundle(tmp_path, dataset, drift=made.to_json())).manifest.drift
    assert read is not None and (read.rows, read.score_rows) == (Rows(2100, 900), Rows(450, 50))
    assert tuple(feature.name for feature in read.features) == SCHEMAS[dataset].names
    assert [score.name for score in read.scores] == ["score"]
    for ours, theirs in zip((*made.features, *made.scores), (*read.features, *read.scores), strict=True):
        values, attack = (score, score_y) if ours.name == "score" else (columns[ours.name], y)
        for some, attack_share in ((values[~attack], 0.0), (values, attack.mean()), (values[attack], 1.0)):
            counts = ours.count(some)
            assert theirs.count(some).tolist() == counts.tolist()
            found = theirs.distances(counts, attack_share)
            assert found.psi < 1e-4 and found.wasserstein < 1e-4


def test_a_bundle_of_before_has_none(tmp_path: Path) -> None:
    assert load(make_bundle(tmp_path, UNSW)).manifest.drift is None


@pytest.mark.parametrize(("classifies", "names"), [(True, ["score", "novelty"]), (False, ["novelty"])])
def test_there_is_one_for_each_thing_that_the_bundle_tells(tmp_path: Path, classifies: bool, names: list[str]) -> None:
    content = reference_content(UNSW, novelty=True)
    content["scores"] = [item for item in content["scores"] if item["name"] in names]
    drift = read_bundle(make_bundle(tmp_path, UNSW, novelty=True, classifies=classifies, drift=content)).manifest.drift
    assert drift is not None and [score.name for score in drift.scores] == names


def first(content: dict[str, Any]) -> dict[str, Any]:
    """Feature `dur`, a number."""
    found: dict[str, Any] = content["features"][0]
    return found


def proto(content: dict[str, Any]) -> dict[str, Any]:
    """A feature of categories."""
    found: dict[str, Any] = next(each for each in content["features"] if each["name"] == "proto")
    return found


def without_attacks(content: dict[str, Any]) -> None:
    for item in content["features"]:
        del item["attack"]


WRONG: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "no rows": ("rows", lambda it: it.pop("rows")),
    "rows are no number": ("drift.rows.attack", lambda it: it["rows"].update(attack="many")),
    "rows of no class": ("drift.rows", lambda it: it.update(rows=5000)),
    "rows of one class": ("drift.rows.attack", lambda it: it["rows"].pop("attack")),
    "no benign rows": ("drift.rows.benign", lambda it: it["rows"].update(benign=0)),
    "fewer attacks than none": ("drift.rows.attack", lambda it: it["rows"].update(attack=-1)),
    "no scores": ("drift.score_rows.benign", lambda it: it["score_rows"].update(benign=0)),
    "features that are no list": ("drift.features", lambda it: it.update(features="dur")),
    "a feature that is none": ("drift.features", lambda it: it["features"].__setitem__(0, None)),
    "a feature left out": ("drift.features", lambda it: it["features"].pop()),
    "features in another order": ("drift.features", lambda it: it["features"].reverse()),
    "a score of another name": ("drift.scores", lambda it: it["scores"][0].update(name="novelty")),
    "no benign part": ("drift.dur.benign.shares", lambda it: first(it).pop("benign")),
    "no attacks, of which there were some": ("drift.dur.attack.shares", without_attacks),
    "attacks, of which there were none": ("drift.dur.attack", lambda it: it["rows"].update(attack=0)),
    "a part that is no part": ("drift.dur.attack.shares", lambda it: first(it).update(attack=[0.5, 0.5])),
    "fewer shares than bins": ("drift.dur.benign.shares", lambda it: first(it)["benign"]["shares"].pop()),
    "shares that are text": ("drift.dur.attack.shares", lambda it: first(it)["attack"].update(shares="0.5")),
    "a share that is true": (
        "drift.dur.benign.shares", lambda it: first(it)["benign"]["shares"].__setitem__(0, True)
    ),
    "a share that is negative": (
        "drift.dur.attack.shares", lambda it: first(it)["attack"]["shares"].__setitem__(0, -0.1)
    ),
    "shares that are not all": ("drift.dur.attack.shares", lambda it: first(it)["attack"].update(missing=0.9)),
    "a share of missing that is missing": ("drift.dur.benign.shares", lambda it: first(it)["benign"].pop("missing")),
    "a bound that is none": ("drift.dur.uppers", lambda it: first(it)["uppers"].__setitem__(0, None)),
    "a bound beyond a float32": ("drift.dur.uppers", lambda it: first(it)["uppers"].__setitem__(-1, 1e39)),
    "a bound beyond any number": ("drift.dur.uppers", lambda it: first(it)["uppers"].__setitem__(-1, 10**400)),
    "bounds that fall": ("drift.dur.uppers", lambda it: first(it)["uppers"].reverse()),
    "a low without a high": ("drift.dur.low", lambda it: first(it).update(high=None)),
    "a low above the high": ("drift.dur.low", lambda it: first(it).update(low=1e9)),
    "a category too few": ("drift.proto.benign.shares", lambda it: proto(it)["benign"]["shares"].pop()),
    "a category too many": ("drift.proto.attack.shares", lambda it: proto(it)["attack"]["shares"].append(0.0)),
    "too many bins": (
        "drift.dur.uppers",
        lambda it: first(it).update(uppers=[*range(64)], benign={"shares": [1 / 65] * 65, "missing": 0.0}),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("field", "change"), WRONG.values(), ids=[*WRONG])
def test_one_that_is_wrong_is_refused_by_its_field(
    tmp_path: Path, field: str, change: Callable[[dict[str, Any]], object]
) -> None:
    content = json.loads(json.dumps(reference_content(UNSW)))
    change(content)
    told = rf"field '{re.escape(field)}' is missing or of the wrong type"
    with pytest.raises(BundleError, match=told) as caught:
        read_bundle(make_bundle(tmp_path, UNSW, drift=content))
    assert str(tmp_path / MANIFEST) in str(caught.value)


@pytest.mark.parametrize(("wrong", "field"), [([], "drift"), ("none", "drift"), (1, "drift"), ({}, "features")])
def test_one_that_is_no_reference_is_refused(tmp_path: Path, wrong: object, field: str) -> None:
    with pytest.raises(BundleError, match=rf"bundle\.json: field '{field}'"):
        read_bundle(make_bundle(tmp_path, UNSW, drift=wrong))


def test_of_benign_rows_alone_there_is_the_benign_part_alone(tmp_path: Path) -> None:
    content = reference_content(UNSW, attacks=0, novelty=True)
    content["scores"] = content["scores"][1:]
    assert not any("attack" in item for item in (*content["features"], *content["scores"]))
    bundle = make_bundle(tmp_path, UNSW, novelty=True, classifies=False, drift=content)
    drift = read_bundle(bundle).manifest.drift
    assert drift is not None and drift.rows == drift.score_rows == Rows(5000, 0)
    assert all(variable.shares.attack is None for variable in (*drift.features, *drift.scores))


def test_it_takes_little_room(tmp_path: Path) -> None:
    without, with_it = (
        (make_bundle(tmp_path / name, "cicids2017", drift=drift) / MANIFEST).stat().st_size
        for name, drift in (("without", None), ("with", reference_content("cicids2017")))
    )
    assert with_it - without < 150_000
