"""The two stages: masked feature modelling without labels, then attack and family heads together."""

from functools import partial
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor

from schemas.flow import Kind
from schemas.params import TrainParams
from trainer.calibration import fit_calibration
from trainer.model import FlowClassifier, ModelConfig, TabularExpert
from trainer.prepare import Prepared
from trainer.training import Draw, Inputs, Part, Stage

__all__ = [
    "calibrate",
    "finetune_stage",
    "model_inputs",
    "new_model",
    "new_network",
    "predict",
    "pretrain_stage",
    "raw_inputs",
]

Network = TypeVar("Network", bound=FlowClassifier)

_NO_FAMILY = -100


def new_model(prepared: Prepared, params: TrainParams) -> TabularExpert:
    """An untrained FT-Transformer for some prepared rows."""
    return new_network(TabularExpert, prepared, params)


def new_network(kind: type[Network], prepared: Prepared, params: TrainParams) -> Network:
    """An untrained network whose widths all come from the schema and the fitted preprocessor."""
    preprocessor = prepared.preprocessor
    config = ModelConfig(
        n_numeric=len(prepared.schema.numeric),
        cardinalities=tuple(len(preprocessor.vocabularies[item.name]) for item in prepared.schema.categorical),
        n_families=len(prepared.schema.attack_families),
        n_knots=preprocessor.knots.shape[1],
        numeric_embedding=params.numeric_embedding,
        d_model=params.d_model,
        n_heads=params.n_heads,
        n_layers=params.n_layers,
        d_feedforward=params.d_feedforward,
    )
    model = kind(config)
    model.set_points(preprocessor.knots, preprocessor.heights)
    return model


def model_inputs(prepared: Prepared, rows: np.ndarray, model: FlowClassifier) -> Inputs:
    """Rows of a prepared set through the preprocessing that the model's graph will hold."""
    numeric, categories = raw_inputs(prepared, rows)
    with torch.no_grad():
        normalized = torch.cat([model.normalizer.cpu()(part) for part in numeric.split(1024)])
        categories = model.known(categories)
    attack_number = np.cumsum([family.is_attack for family in prepared.schema.families]) - 1
    family = prepared.family[rows].astype(np.int64)
    is_attack = prepared.y[rows] == 1
    return Inputs(
        numeric=normalized,
        categories=categories,
        y=torch.from_numpy(prepared.y[rows].astype(np.float32)),
        family=torch.from_numpy(np.where(is_attack, attack_number[family], _NO_FAMILY)),
    )


def raw_inputs(prepared: Prepared, rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """The graph's inputs: raw numeric f32[B, N] and category codes i64[B, C]."""
    kinds = np.array([feature.kind is Kind.NUMERIC for feature in prepared.schema.features])
    x = prepared.x[rows]
    return torch.from_numpy(x[:, kinds].copy()), torch.from_numpy(x[:, ~kinds].astype(np.int64))


def pretrain_stage(params: TrainParams, validation: Inputs, seed: int) -> Stage[FlowClassifier]:
    """Hide a share of each row's features, reconstruct them: squared error for numbers, cross-entropy for categories."""

    def loss(model: FlowClassifier, batch: Inputs, draw: Draw) -> list[Part]:
        assert isinstance(model, TabularExpert), "only it reconstructs"
        present = torch.cat([~torch.isnan(batch.numeric), batch.categories != 0], dim=1)
        hidden = present & (draw(present.shape[1]).to(present.device) < params.pretrain_mask_share)
        numeric, logits = model.reconstruct(batch.numeric, batch.categories, hidden)
        n_numeric = numeric.shape[1]
        wanted = hidden[:, :n_numeric]
        total = ((numeric - torch.nan_to_num(batch.numeric)) ** 2 * wanted).sum()
        for index, logit in enumerate(logits):
            asked = hidden[:, n_numeric + index]
            codes = torch.where(
                asked, batch.categories[:, index] - 1, torch.full_like(batch.categories[:, index], -100)
            )
            total = total + F.cross_entropy(logit, codes, ignore_index=-100, reduction="sum")
        return [Part(total, hidden.sum())]

    def evaluate(model: FlowClassifier) -> dict[str, float]:
        device = next(model.parameters()).device
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            parts = [
                part
                for rows in _parts(validation, device)
                for part in loss(model, rows, partial(_uniform, len(rows), generator))
            ]
        return {"validation_score": -float(np.mean([float(part.total / part.count) for part in parts]))}

    return Stage("pretrain", params.epochs_pretrain, loss, evaluate, "validation_score")


def finetune_stage(params: TrainParams, validation: Inputs, *, compiled: bool = False) -> Stage[FlowClassifier]:
    """Attack or not, by targets that may be soft, and which family, which counts for attacks alone."""
    classify = torch.compile(_classify, dynamic=False) if compiled else _classify

    def loss(model: FlowClassifier, batch: Inputs, draw: Draw) -> list[Part]:
        # Each row its own share, up to twice the mean, so that rows with nothing hidden stay common.
        share = draw(1) * 2 * params.finetune_mask_share
        hidden = (draw(batch.numeric.shape[1] + batch.categories.shape[1]) < share).to(batch.y.device)
        attack, family = classify(model, batch.numeric, batch.categories, hidden)
        of_family = F.cross_entropy(family, batch.family, ignore_index=_NO_FAMILY, reduction="sum")
        return [
            Part(F.binary_cross_entropy_with_logits(attack, batch.y, reduction="sum"), len(batch)),
            Part(of_family, (batch.family != _NO_FAMILY).sum(), params.family_loss_weight),
        ]

    def evaluate(model: FlowClassifier) -> dict[str, float]:
        scores, families = predict(model, validation)
        y, family = validation.y.numpy(), validation.family.numpy()
        attacks = y == 1
        return {
            "validation_auc": float(roc_auc_score(y, scores)),
            "validation_average_precision": float(average_precision_score(y, scores)),
            "validation_family_accuracy": float((families[attacks] == family[attacks]).mean()),
        }

    return Stage("finetune", params.epochs_finetune, loss, evaluate, "validation_auc")


def _classify(model: FlowClassifier, numeric: Tensor, categories: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    return model.classify(numeric, categories, hidden)


def predict(model: FlowClassifier, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """Model inputs → attack probability f32[N] and most probable attack family i64[N]."""
    device = next(model.parameters()).device
    scores, families = [], []
    with torch.no_grad():
        for part in _parts(inputs, device):
            attack, family = model.classify(part.numeric, part.categories)
            scores.append(model.probability(attack).cpu().numpy())
            families.append(family.argmax(-1).cpu().numpy())
    return np.concatenate(scores), np.concatenate(families)


def calibrate(model: FlowClassifier, validation: Inputs) -> None:
    """Set the model's calibration by validation rows."""
    device = next(model.parameters()).device
    with torch.no_grad():
        logits = torch.cat(
            [model.classify(part.numeric, part.categories)[0].cpu() for part in _parts(validation, device)]
        )
        scale, offset = fit_calibration(logits.numpy(), validation.y.numpy())
        model.calibration.copy_(torch.tensor([scale, offset]))


def _uniform(rows: int, generator: torch.Generator, count: int) -> Tensor:
    return torch.rand((rows, count), generator=generator)


def _parts(inputs: Inputs, device: torch.device, rows: int = 512) -> list[Inputs]:
    return [inputs.take(part, device) for part in torch.arange(len(inputs)).split(rows)]
