"""Other ways to tell what is novel, all from a classifier that was never shown it: what the novelty model is compared with."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from trainer.model import TabularExpert
from trainer.prepare import Prepared
from trainer.stages import model_inputs

__all__ = ["NoveltyScores"]

_NEIGHBOURS = 5000
_K = 10
_RIDGE = 1e-4  # of the mean variance: in some directions embeddings hardly vary
_ROWS = 512


class NoveltyScores:
    """Scores of flows by a classifier's embedding and its family head; the larger, the more novel.

    - `Mahalanobis`: squared distance of the CLS embedding to the nearest class's mean, with the covariance that all classes
      share (Lee et al., NeurIPS 2018).
    - `neighbours`: distance of the CLS embedding, scaled to length 1, to the tenth nearest of 5,000 benign training flows
      (Sun et al., ICML 2022).
    - `entropy`: of the family head's probabilities.
    - `energy`: minus the log of the sum of the exponentials of the family head's logits (Liu et al., NeurIPS 2020).
    """

    def __init__(self, model: TabularExpert, prepared: Prepared, seed: int) -> None:
        self._model, self._prepared = model, prepared
        train = prepared.rows("train")
        embeddings, _ = self._looked_at(train)
        families = prepared.family[train]
        classes = np.unique(families)
        self._means = torch.stack([embeddings[torch.from_numpy(families == each)].mean(0) for each in classes])
        centred = embeddings - self._means[torch.from_numpy(np.searchsorted(classes, families))]
        centred = centred.double()
        covariance = centred.T @ centred / len(centred)
        self._precision = torch.linalg.inv(
            covariance + _RIDGE * covariance.trace() / len(covariance) * torch.eye(len(covariance))
        )
        benign = embeddings[torch.from_numpy(prepared.y[train] == 0)]
        chosen = torch.randperm(len(benign), generator=torch.Generator().manual_seed(seed))[:_NEIGHBOURS]
        self._benign = torch.nn.functional.normalize(benign[chosen])

    def of(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Each score of some rows: int64[K] → f32[K]."""
        embeddings, logits = self._looked_at(rows)
        log_probabilities = logits.log_softmax(-1)
        scores = {
            "Mahalanobis": _in_parts(self._mahalanobis, embeddings),
            "neighbours": _in_parts(self._neighbours, embeddings),
            "entropy": -(log_probabilities.exp() * log_probabilities).sum(-1),
            "energy": -logits.logsumexp(-1),
        }
        return {name: values.numpy().astype(np.float32) for name, values in scores.items()}

    def _looked_at(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """CLS embeddings f32[K, D] and family logits f32[K, n_families]."""
        inputs, device = model_inputs(self._prepared, rows, self._model), next(self._model.parameters()).device
        embeddings, logits = [], []
        with torch.no_grad():
            for part in torch.arange(len(inputs)).split(_ROWS):
                batch = inputs.take(part, device)
                cls, _ = self._model.backbone.cls(self._model.tokenizer(batch.numeric, batch.categories))
                embeddings.append(cls.cpu())
                logits.append(self._model.head(cls)[1].cpu())
        return torch.cat(embeddings), torch.cat(logits)

    def _mahalanobis(self, embeddings: Tensor) -> Tensor:
        away = (embeddings[:, None] - self._means).double()
        return torch.einsum("bkd,de,bke->bk", away, self._precision, away).amin(1)

    def _neighbours(self, embeddings: Tensor) -> Tensor:
        distances = torch.cdist(torch.nn.functional.normalize(embeddings), self._benign)
        return distances.kthvalue(min(_K, distances.shape[1]), dim=1).values


def _in_parts(score: Callable[[Tensor], Tensor], embeddings: Tensor) -> Tensor:
    return torch.cat([score(part) for part in embeddings.split(_ROWS)])
