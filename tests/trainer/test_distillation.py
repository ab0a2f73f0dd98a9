"""Soft targets: what trees say of rows that they were not shown."""

from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.conftest import TINY
from trainer import distillation
from trainer.baselines.trees import Trees
from trainer.distillation import softened, taught
from trainer.prepare import Prepared
from trainer.stages import model_inputs, new_model

PARAMS = TINY.model_copy(update={"teacher_weight": 0.25})


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "Trees", lambda prepared, **named: Trees(prepared, trees=30, **named))


def test_a_target_is_partly_what_the_trees_say(prepared: Prepared) -> None:
    rows = model_inputs(prepared, prepared.rows("train"), new_model(prepared, PARAMS))
    soft = softened(rows, prepared, PARAMS, seed=3)
    np.testing.assert_allclose(
        soft.y.numpy(), 0.75 * rows.y.numpy() + 0.25 * taught(prepared, seed=3, threads=1), atol=1e-6
    )
    assert soft.numeric is rows.numeric and soft.family is rows.family
    assert softened(rows, prepared, TINY, seed=3) is rows, "not wanted"


def test_no_row_is_judged_by_trees_that_have_seen_it_or_its_like(prepared: Prepared) -> None:
    train = prepared.rows("train")
    rng = np.random.default_rng(0)
    x, y = prepared.x.copy(), prepared.y.copy()
    x[train] = x[np.repeat(train[: len(train) // 4 + 1], 4)[: len(train)]]  # each vector four times
    y[train] = rng.integers(0, 2, len(train))  # labels that nothing tells
    blind = taught(replace(prepared, x=x, y=y), seed=0, threads=1)
    assert abs(np.corrcoef(blind, y[train])[0, 1]) < 0.2
    learnt_by_heart = Trees(replace(prepared, x=x, y=y), trees=30).score(x[train])
    assert np.corrcoef(learnt_by_heart, y[train])[0, 1] > 0.3
    for start in range(0, len(train) - 4, 4):
        assert len(set(blind[start : start + 4].tolist())) == 1


def test_trees_tell_attacks_of_other_folds(prepared: Prepared) -> None:
    labels = prepared.y[prepared.rows("train")]
    probability = taught(prepared, seed=0, threads=1)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert ((probability > 0.5) == labels).mean() > 0.8
