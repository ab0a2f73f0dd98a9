"""The trees that the detector is compared with."""

import numpy as np
from sklearn.metrics import roc_auc_score

from export.runtime import ort
from trainer.baselines.trees import Trees
from trainer.prepare import Prepared


def test_they_learn_from_training_rows_alone_and_take_missing_values(prepared: Prepared) -> None:
    trees = Trees(prepared, threads=1, trees=50)
    rows = prepared.rows("test")
    scores = trees.score(prepared.x[rows])
    assert scores.dtype == np.float32 and scores.shape == (len(rows),)
    assert roc_auc_score(prepared.y[rows], scores) > 0.95
    missing = np.full_like(prepared.x[:3], np.nan)
    assert np.isfinite(trees.score(missing)).all()


def test_the_same_seed_gives_the_same_trees(prepared: Prepared) -> None:
    x = prepared.x[prepared.rows("test")]
    first, second = (Trees(prepared, threads=1, trees=20, seed=3).score(x) for _ in range(2))
    assert np.array_equal(first, second)


def test_their_onnx_graph_answers_as_they_do(prepared: Prepared) -> None:
    trees = Trees(prepared, threads=1, trees=20)
    x = prepared.x[prepared.rows("test")]
    options = ort.SessionOptions()
    options.log_severity_level = 4  # the converter states the label's shape wrongly
    session = ort.InferenceSession(trees.onnx(), options, providers=["CPUExecutionProvider"])
    _, probabilities = session.run(None, {"features": x})
    np.testing.assert_allclose(probabilities[:, 1], trees.score(x), atol=1e-5)
    assert 20 < trees.leaves < 20 * 63
