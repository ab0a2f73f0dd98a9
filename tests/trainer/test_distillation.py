"""What trees teach: soft targets, and flows made of rows, judged by trees that were not shown them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainer.conftest import TINY
from trainer import distillation
from trainer.baselines.trees import Trees
from trainer.distillation import Teacher, training_rows
from trainer.prepare import Prepared
from trainer.stages import model_inputs, new_model

SOFT = TINY.model_copy(update={"teacher_weight": 0.25, "threads": 1})


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "Trees", lambda prepared, **named: Trees(prepared, **named | {"trees": 30}))


@pytest.fixture
def teacher(prepared: Prepared) -> Teacher:
    return Teacher(prepared, seed=3, threads=1)


def test_a_target_is_partly_what_the_trees_say(prepared: Prepared, teacher: Teacher) -> None:
    model = new_model(prepared, SOFT)
    rows = model_inputs(prepared, prepared.rows("train"), model)
    soft = training_rows(prepared, model, SOFT, seed=3).of_epoch(0)
    np.testing.assert_allclose(soft.y.numpy(), 0.75 * rows.y.numpy() + 0.25 * teacher.probabilities(), atol=1e-6)
    assert torch.equal(soft.family, rows.family)
    hard = training_rows(prepared, model, TINY, seed=3).of_epoch(0)
    assert torch.equal(hard.y, rows.y), "no teacher was asked for"


def test_an_epoch_has_flows_of_its_own_besides_the_rows(prepared: Prepared, teacher: Teacher) -> None:
    params = SOFT.model_copy(update={"recombined_share": 1.5})
    model = new_model(prepared, params)
    rows = training_rows(prepared, model, params, seed=3, teacher=teacher)
    plain = training_rows(prepared, model, SOFT, seed=3, teacher=teacher).of_epoch(0)
    first, again, second = rows.of_epoch(0), rows.of_epoch(0), rows.of_epoch(1)
    assert len(rows) == len(first) == len(second) == len(plain) + round(1.5 * len(plain))
    for name in ("numeric", "categories", "y", "family"):
        torch.testing.assert_close(getattr(first, name), getattr(again, name), rtol=0, atol=0, equal_nan=True)
        torch.testing.assert_close(
            getattr(first, name)[: len(plain)], getattr(plain, name), rtol=0, atol=0, equal_nan=True
        )
    assert not torch.equal(first.y[len(plain) :], second.y[len(plain) :])
    assert (first.family[len(plain) :] == -100).all(), "their family is nobody's"


def test_a_made_flow_has_each_feature_of_one_of_two_rows(prepared: Prepared, teacher: Teacher) -> None:
    x = np.nan_to_num(prepared.x[prepared.rows("train")], nan=-1e9)
    flows, probabilities = teacher.recombined(40, np.random.default_rng(0))
    flows = np.nan_to_num(flows, nan=-1e9)
    assert flows.shape == (40, x.shape[1]) and ((probabilities >= 0) & (probabilities <= 1)).all()
    changed = 0
    for flow in flows:
        nearest = (x != flow).sum(axis=1).argmin()
        rest = np.flatnonzero(x[nearest] != flow)
        changed += len(rest) > 0
        assert (x[:, rest] == flow[rest]).all(axis=1).any()
    assert changed > 20


def test_flows_of_which_the_trees_are_in_doubt_are_made_more_often(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_in_ten_is_doubtful(_: Teacher, x: np.ndarray, __: np.ndarray) -> np.ndarray:
        return np.where(np.arange(len(x)) % 10 == 0, 0.5, 1.0)

    monkeypatch.setattr(Teacher, "_judged", one_in_ten_is_doubtful)
    _, probability = teacher.recombined(400, np.random.default_rng(0))
    assert (probability == 0.5).mean() > 0.3
    assert (probability == 1.0).mean() > 0.3, "nor are the others left out"


def test_nothing_is_judged_by_trees_that_have_seen_it_or_its_like(prepared: Prepared) -> None:
    train = prepared.rows("train")
    rng = np.random.default_rng(0)
    x, y = prepared.x.copy(), prepared.y.copy()
    x[train] = x[np.repeat(train[: len(train) // 4 + 1], 4)[: len(train)]]  # each vector four times
    y[train] = rng.integers(0, 2, len(train))  # labels that nothing tells
    unlearnable = replace(prepared, x=x, y=y)
    blind = Teacher(unlearnable, seed=0, threads=1)
    probability = blind.probabilities()
    assert abs(np.corrcoef(probability, y[train])[0, 1]) < 0.2
    learnt_by_heart = Trees(unlearnable, trees=30).score(x[train])
    assert np.corrcoef(learnt_by_heart, y[train])[0, 1] > 0.3
    for start in range(0, len(train) - 4, 4):
        assert len(set(probability[start : start + 4].tolist())) == 1

    flows, of_flows = blind.recombined(3000, rng)
    told = {row.tobytes(): label for row, label in zip(x[train], y[train], strict=True)}
    unchanged = [
        (told[flow.tobytes()], judged) for flow, judged in zip(flows, of_flows, strict=True) if flow.tobytes() in told
    ]
    assert len(unchanged) > 20
    labels, judged = np.array(unchanged).T
    assert abs(np.corrcoef(labels, judged)[0, 1]) < 0.3


def test_trees_tell_attacks_of_other_folds(prepared: Prepared, teacher: Teacher) -> None:
    labels = prepared.y[prepared.rows("train")]
    assert ((teacher.probabilities() > 0.5) == labels).mean() > 0.8
