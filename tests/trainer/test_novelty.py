"""The novelty model: classes of features, what surprises it, and what it must not look at."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from schemas.flow import Kind
from tests.trainer.conftest import TINY
from trainer.experiments.fitting import fit_novelty
from trainer.novelty import (
    NoveltyConfig,
    NoveltyModel,
    bin_edges,
    feature_groups,
    new_novelty_model,
    novelty_inputs,
    novelty_of,
    raw_surprise_of,
    standardize,
)
from trainer.prepare import Prepared
from trainer.splitting import SPLITS
from trainer.training import Inputs

NAN = float("nan")


def classes_of(edges: np.ndarray, *values: float) -> list[int]:
    found: list[int] = np.searchsorted(edges, np.array(values, dtype=np.float32), side="right").tolist()
    return found


def test_a_feature_of_few_values_has_a_class_for_each_and_others_for_what_lies_between() -> None:
    edges = bin_edges(np.array([31, 254, 31, NAN, 62, 254], dtype=np.float32))
    of_values = classes_of(edges, 31, 62, 254)
    assert of_values == [1, 3, 5]
    assert classes_of(edges, 30.9, 40, 100, 255) == [0, 2, 4, 6]


def test_bins_hold_equally_many_values_and_a_frequent_value_is_alone_in_its_own() -> None:
    rng = np.random.default_rng(0)
    values = np.append(rng.uniform(1, 2, 6400), np.zeros(1600)).astype(np.float32)
    edges = bin_edges(values, 32)
    counts = np.bincount(classes_of(edges, *values), minlength=len(edges) + 1)
    assert counts[0] == counts[-1] == 0, "nothing lies below the smallest or beyond the largest"
    zero, above_zero = classes_of(edges, 0.0, 1e-30)
    assert counts[zero] == 1600
    assert above_zero != zero and counts[above_zero] < 300
    usual = counts[counts > 0][1:]
    assert usual.max() <= 300 and len(usual) >= 24


def test_a_feature_without_any_value_has_one_class() -> None:
    assert len(bin_edges(np.full(5, np.nan, dtype=np.float32))) == 0


def test_features_that_give_each_other_away_share_a_group() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 30, (2, 500))
    c = rng.integers(0, 30, 500)
    groups = feature_groups(np.column_stack([a, b, c, a * 2 + rng.integers(0, 2, 500), 29 - b, c]), 3)
    assert groups[0] == groups[3] and groups[1] == groups[4] and groups[2] == groups[5]
    assert sorted(groups.tolist()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("features", "sizes"), [(78, [10, 10, 10, 9] * 2), (5, [1] * 5)])
def test_groups_are_of_about_one_size(features: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(2)
    classes = rng.integers(0, 9, (200, 1)) + rng.integers(0, 2, (200, features))  # all of them go together
    assert sorted(np.bincount(feature_groups(classes, 8)).tolist()) == sorted(sizes)


@pytest.fixture(scope="module")
def model() -> NoveltyModel:
    """Untrained: three numbers with the edges 0, 1, 2, and a category of three; groups {0, 1} and {2, 3}."""
    torch.manual_seed(3)
    made = NoveltyModel(
        NoveltyConfig(
            n_numeric=3,
            n_knots=2,
            n_edges=3,
            n_classes=(4, 4, 4, 5),
            groups=(0, 0, 1, 1),
            n_neighbours=2,
            distance_weight=3.0,
            d_hidden=16,
            top=2,
        )
    )
    made.edges.copy_(torch.arange(3.0).expand(3, 3))
    with torch.no_grad():
        made.weight.normal_()
        made.neighbours.places.uniform_()
        made.neighbours.numeric.uniform_()
        made.neighbours.categories.fill_(1)
    return made.eval()


def surprises(model: NoveltyModel, numbers: list[float], category: int) -> list[float]:
    with torch.no_grad():
        found: list[float] = model.raw_surprise(torch.tensor([numbers]), torch.tensor([[category]]))[0].tolist()
    return found


def test_a_feature_is_judged_by_the_other_groups_alone(model: NoveltyModel) -> None:
    before = surprises(model, [0.5, 0.5, 0.5], 2)
    other = surprises(model, [1.5, 0.5, 0.5], 2)
    assert other[1] == pytest.approx(before[1], rel=1e-5), "a feature of its own group says nothing"
    assert other[0] != before[0] and other[2] != before[2] and other[3] != before[3]


def test_what_is_missing_surprises_nobody_and_an_unknown_category_is_a_class(model: NoveltyModel) -> None:
    assert surprises(model, [NAN, 0.5, 0.5], 0)[0] == 0.0
    assert surprises(model, [NAN, 0.5, 0.5], 0)[3] == 0.0
    assert surprises(model, [0.5, 0.5, 0.5], 4)[3] > 0.0


def test_probabilities_of_a_feature_s_classes_are_one_together(model: NoveltyModel) -> None:
    with torch.no_grad():
        log_p = model.log_probabilities(torch.randn(5, 2, 16), model.groups)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(5, 4))
    assert (log_p[:, :3, 4] == -torch.inf).all(), "a number has four classes here"


def test_novelty_is_by_the_largest_surprises_and_by_the_distance(model: NoveltyModel) -> None:
    numeric, categories = torch.rand(7, 3) * 3, torch.randint(1, 4, (7, 1))
    other = copy.deepcopy(model)
    other.units.copy_(torch.tensor([2.0, 5.0]))
    with torch.no_grad():
        novelty, surprise = other(numeric, categories)
        distance = other.neighbours(*other.classes(numeric, categories))
    largest = surprise.sort(dim=1).values[:, -2:].sqrt().mean(1)
    torch.testing.assert_close(novelty, (largest / 2 + 3 * distance / 5) / 4)


def test_units_are_what_one_benign_row_in_a_hundred_goes_beyond(model: NoveltyModel) -> None:
    inputs = Inputs(torch.rand(400, 3) * 3, torch.randint(1, 4, (400, 1)), torch.zeros(400), torch.zeros(400))
    other = copy.deepcopy(model)
    standardize(other, inputs)
    with torch.no_grad():
        evidence, _ = other.evidence(inputs.numeric, inputs.categories)
    assert ((evidence > other.units).sum(0) <= 4).all() and ((evidence >= other.units).sum(0) >= 4).all()
    assert (evidence.amin(0) < other.units).all()


def test_surprises_are_measured_by_what_is_usual_for_benign_rows(model: NoveltyModel) -> None:
    numeric, categories = torch.rand(50, 3) * 3, torch.randint(1, 4, (50, 1))
    other = copy.deepcopy(model)
    standardize(other, Inputs(numeric, categories, torch.zeros(50), torch.zeros(50)))
    with torch.no_grad():
        raw = other.raw_surprise(numeric, categories)
        _, surprise = other(numeric, categories)
    expected = (raw - raw.mean(0)) / (raw.std(0, correction=0) + 0.05)
    torch.testing.assert_close(surprise, expected.clamp(min=0), atol=1e-5, rtol=1e-4)
    assert (surprise == 0).any() and (surprise > 1).any()


def test_a_model_of_benign_rows_finds_rows_that_break_their_rule(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Benign rows whose second number follows from the first; attacks have the same values, each of another row."""
    monkeypatch.setattr("trainer.novelty.feature_groups", lambda classes: np.arange(classes.shape[1]) % 5)
    rng = np.random.default_rng(2)
    x, y, split = np.tile(prepared.x, (6, 1)), np.tile(prepared.y, 6), np.tile(prepared.split, 6)
    x[:] = [np.nan if feature.kind is Kind.NUMERIC else 0 for feature in prepared.schema.features]
    x[:, 4] = rng.integers(0, 8, len(x))
    rule = np.array([3, 0, 6, 2, 7, 1, 5, 4])
    x[:, 6] = (rule[x[:, 4].astype(int)] + np.where(y == 1, rng.integers(1, 8, len(x)), 0)) % 8
    part = replace(prepared, x=x, y=y, split=split, family=np.tile(prepared.family, 6))
    fitted = fit_novelty(part, TINY.model_copy(update={"epochs_novelty": 16}), seed=1, device=torch.device("cpu"))
    assert len(fitted.config.n_classes) == len(prepared.schema.names)
    rows = np.flatnonzero(part.split != SPLITS.index("train"))
    found = raw_surprise_of(fitted, novelty_inputs(part, rows))
    first, second = (
        [feature.name for feature in (*part.schema.numeric, *part.schema.categorical)].index(part.schema.names[column])
        for column in (4, 6)
    )
    assert fitted.config.groups[first] != fitted.config.groups[second]
    assert roc_auc_score(part.y[rows], found[:, second]) > 0.8
    assert novelty_of(fitted, novelty_inputs(part, rows)).shape == (len(rows),)


def test_classes_are_learnt_from_the_rows_that_are_given(prepared: Prepared) -> None:
    benign = np.flatnonzero((prepared.split == SPLITS.index("train")) & (prepared.y == 0))
    made = new_novelty_model(prepared, benign, TINY)
    numeric = novelty_inputs(prepared, benign).numeric.numpy()
    for column, edges in zip(numeric.T, made.edges.numpy(), strict=True):
        usable = edges[np.isfinite(edges)]
        assert usable[0] == np.nanmin(column)
        assert usable[-1] == np.nextafter(np.nanmax(column), np.float32(np.inf))
