"""Networks that the FT-Transformer is compared with: they take what it takes, and learn."""

from pathlib import Path

import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.trainer.conftest import TINY
from trainer.baselines.networks import MLP, LogisticRegression, TabTransformer
from trainer.experiments.fitting import Untracked
from trainer.model import FlowClassifier, ModelConfig
from trainer.prepare import Prepared
from trainer.stages import finetune_stage, model_inputs, new_model, predict
from trainer.training import train

KINDS = [MLP, LogisticRegression, TabTransformer]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> type[FlowClassifier]:
    made: type[FlowClassifier] = request.param
    return made


def test_shapes_with_and_without_categories(kind: type[FlowClassifier]) -> None:
    for cardinalities in ((), (3, 2)):
        torch.manual_seed(0)
        model = kind(ModelConfig(n_numeric=4, cardinalities=cardinalities, n_families=6, n_knots=3))
        numeric = torch.tensor([[1.0, torch.nan, 0.0, 2.0]] * 5)
        attack, family = model.classify(numeric, torch.ones(5, len(cardinalities), dtype=torch.long))
        assert attack.shape == (5,) and family.shape == (5, 6)
        assert bool(torch.isfinite(attack).all() and torch.isfinite(family).all())


def test_a_hidden_feature_is_as_good_as_a_missing_one(kind: type[FlowClassifier]) -> None:
    torch.manual_seed(0)
    model = kind(ModelConfig(n_numeric=2, cardinalities=(3,), n_families=2, n_knots=3)).eval()
    numeric, codes = torch.tensor([[1.0, 2.0]]), torch.tensor([[2]])
    hidden = torch.tensor([[True, False, True]])
    missing = model.classify(torch.tensor([[torch.nan, 2.0]]), torch.tensor([[0]]))
    for ours, theirs in zip(model.classify(numeric, codes, hidden), missing, strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(model.classify(numeric, codes)[0], missing[0])


def test_it_learns_by_the_same_loop(kind: type[FlowClassifier], prepared: Prepared, tmp_path: Path) -> None:
    params = TINY.model_copy(update={"epochs_finetune": 25})
    torch.manual_seed(0)
    model = kind(new_model(prepared, params).config)
    model.set_points(prepared.preprocessor.knots, prepared.preprocessor.heights)
    validation = model_inputs(prepared, prepared.rows("validation"), model)
    train(
        model, model_inputs(prepared, prepared.rows("train"), model), finetune_stage(params, validation), params,
        path=tmp_path / "model.pt", schema_hash="", seed=0, device=torch.device("cpu"), tracker=Untracked(),
    )  # fmt: skip
    test = model_inputs(prepared, prepared.rows("test"), model)
    assert roc_auc_score(test.y, predict(model.eval(), test)[0]) > 0.9
