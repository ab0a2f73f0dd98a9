"""Scores of a classifier's embedding and family head, each against another way to it."""

import numpy as np
import pytest
import torch

from tests.trainer.conftest import TINY
from trainer.experiments.novelty_scores import NoveltyScores
from trainer.prepare import Prepared
from trainer.stages import model_inputs, new_model

ROWS = np.arange(40)


@pytest.fixture(scope="module")
def looked_at(prepared: Prepared) -> tuple[NoveltyScores, np.ndarray, np.ndarray]:
    """The scores, and embeddings and family logits of all rows."""
    torch.manual_seed(0)
    model = new_model(prepared, TINY).eval()
    inputs = model_inputs(prepared, np.arange(len(prepared.x)), model)
    with torch.no_grad():
        cls, _ = model.backbone.cls(model.tokenizer(inputs.numeric, inputs.categories))
        _, family = model.head(cls)
    return NoveltyScores(model, prepared, seed=0), cls.numpy().astype(np.float64), family.numpy().astype(np.float64)


def test_mahalanobis_is_to_the_nearest_class(
    prepared: Prepared, looked_at: tuple[NoveltyScores, np.ndarray, np.ndarray]
) -> None:
    scores, cls, _ = looked_at
    train = prepared.rows("train")
    means = {
        number: cls[train][prepared.family[train] == number].mean(0) for number in np.unique(prepared.family[train])
    }
    centred = cls[train] - np.array([means[number] for number in prepared.family[train]])
    covariance = centred.T @ centred / len(train)
    precision = np.linalg.inv(covariance + 1e-4 * np.diag(covariance).mean() * np.eye(len(covariance)))
    expected = [min((row - mean) @ precision @ (row - mean) for mean in means.values()) for row in cls[ROWS]]
    np.testing.assert_allclose(scores.of(ROWS)["Mahalanobis"], expected, rtol=1e-3)


def test_neighbours_are_benign_flows_and_the_tenth_counts(
    prepared: Prepared, looked_at: tuple[NoveltyScores, np.ndarray, np.ndarray]
) -> None:
    scores, cls, _ = looked_at
    unit = cls / np.linalg.norm(cls, axis=1, keepdims=True)
    train = prepared.rows("train")
    benign = unit[train][prepared.y[train] == 0]
    expected = [np.sort(np.linalg.norm(benign - row, axis=1))[9] for row in unit[ROWS]]
    np.testing.assert_allclose(scores.of(ROWS)["neighbours"], expected, atol=1e-3)


def test_entropy_and_energy_are_of_the_family_head(looked_at: tuple[NoveltyScores, np.ndarray, np.ndarray]) -> None:
    scores, _, logits = looked_at
    found, exponentials = scores.of(ROWS), np.exp(logits[ROWS])
    shares = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(found["entropy"], -(shares * np.log(shares)).sum(1), rtol=1e-4)
    np.testing.assert_allclose(found["energy"], -np.log(exponentials.sum(1)), rtol=1e-4)
