"""Gradient-boosted trees: what the FT-Transformer has to beat.

G. Ke et al.: LightGBM: A Highly Efficient Gradient Boosting Decision Tree. NeurIPS 2017.
"""

import lightgbm
import numpy as np
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from schemas.flow import Kind
from trainer.prepare import Prepared

__all__ = ["Trees"]

_SETTINGS = {"objective": "binary", "learning_rate": 0.05, "num_leaves": 63, "verbosity": -1, "deterministic": True}
_SAMPLED = {"feature_fraction": 0.5, "bagging_fraction": 0.8, "bagging_freq": 1}
_TREES = 600


class Trees:
    """LightGBM with 600 trees of 63 leaves at a rate of .05, on the same rows and features, missing values as they are."""

    name = "LightGBM"

    def __init__(
        self, prepared: Prepared, *, threads: int = 0, trees: int = _TREES, seed: int = 0, sampled: bool = False
    ) -> None:
        """With `sampled`, each tree sees half of the features and four rows of five."""
        self._categorical = [
            index for index, feature in enumerate(prepared.schema.features) if feature.kind is Kind.CATEGORICAL
        ]
        rows = prepared.rows("train")
        data = lightgbm.Dataset(
            prepared.x[rows], prepared.y[rows], categorical_feature=self._categorical, params={"verbosity": -1}
        )
        settings = _SETTINGS | {"num_threads": threads, "seed": seed} | (_SAMPLED if sampled else {})
        self.booster = lightgbm.train(settings, data, num_boost_round=trees)

    @property
    def leaves(self) -> int:
        """How many leaves all trees have together."""
        return sum(tree["num_leaves"] for tree in self.booster.dump_model()["tree_info"])

    def onnx(self) -> bytes:
        """The trees as an ONNX graph: `features` f32[B, F] → label i64[B], probabilities f32[B, 2]."""
        converted = convert_lightgbm(
            self.booster,
            initial_types=[("features", FloatTensorType([None, self.booster.num_feature()]))],
            zipmap=False,
        )
        content: bytes = converted.SerializeToString()
        return content

    def score(self, x: np.ndarray) -> np.ndarray:
        """Attack probability: f32[B, F] as in `Prepared.x` → f32[B]."""
        return np.asarray(self.booster.predict(x), dtype=np.float32)
