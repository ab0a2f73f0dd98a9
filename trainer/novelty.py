"""How unlike benign flows a flow is: a masked feature model of benign rows alone, for attacks that nobody has shown us.

Every feature is one of some dozens of classes: a bin of its values, or a category. The network says how probable each
class of a feature is, given the features of the other groups. A feature's surprise is -log p of the class that it has, in
standard deviations above what is usual for a benign flow. A flow is novel by its largest surprises and by how far away the
nearest of some benign flows is (`trainer/neighbours.py`): the one sees what does not belong together, the other what is
a little unusual all over.

Shapes: B rows, N numeric features, C categorical ones, F = N + C features in the graph's order (numeric first), K classes at
most, G groups, D = d_hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform
from scipy.stats import rankdata
from torch import Tensor, nn

from schemas.params import TrainParams
from trainer.model import FlowNetwork, NetworkConfig
from trainer.neighbours import Neighbours
from trainer.prepare import Prepared
from trainer.stages import raw_inputs
from trainer.training import Draw, Inputs, Part, Stage

__all__ = [
    "NoveltyConfig",
    "NoveltyModel",
    "bin_edges",
    "feature_groups",
    "new_novelty_model",
    "novelty_inputs",
    "novelty_of",
    "novelty_stage",
    "raw_surprise_of",
    "standardize",
]

_LEAST_SPREAD = 0.05  # nats: a feature that never surprises must not outshout the others
_COMMON = 0.99  # of benign flows have less surprise, or distance, than its unit
N_BINS = 32
N_GROUPS = 8
N_NEIGHBOURS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class NoveltyConfig(NetworkConfig):
    """What else it takes to build the model again: classes of each feature, and the group that each belongs to."""

    n_edges: int
    n_classes: tuple[int, ...]
    groups: tuple[int, ...]
    n_neighbours: int
    distance_weight: float
    d_hidden: int = 256
    n_blocks: int = 2
    top: int = 5


class NoveltyModel(FlowNetwork):
    """Takes raw values (NaN = missing) and category codes (0 = missing, the last unknown); what is missing surprises
    nobody."""

    undecayed = ("embedding.", "mask", "bias")
    config: NoveltyConfig
    edges: Tensor
    groups: Tensor
    members: Tensor
    offsets: Tensor
    impossible: Tensor
    usual: Tensor
    spread: Tensor
    units: Tensor

    def __init__(self, config: NoveltyConfig) -> None:
        super().__init__(config)
        n_features, most, width = len(config.n_classes), max(config.n_classes), config.d_hidden
        n_classes = torch.tensor(config.n_classes)
        self.register_buffer("edges", torch.full((config.n_numeric, config.n_edges), torch.inf))
        self.register_buffer("groups", torch.tensor(config.groups))
        self.register_buffer("members", F.one_hot(self.groups).T.to(torch.float32).contiguous())
        self.register_buffer("offsets", n_classes.cumsum(0) - n_classes)
        self.register_buffer("usual", torch.zeros(n_features))
        self.register_buffer("spread", torch.ones(n_features))
        self.register_buffer("units", torch.ones(2))  # of surprise and of distance
        self.register_buffer("impossible", torch.arange(most) >= n_classes[:, None])
        self.embedding = nn.Embedding(sum(config.n_classes), width)
        nn.init.normal_(self.embedding.weight, std=n_features**-0.5)
        self.mask = nn.Parameter(torch.randn(n_features, width) * n_features**-0.5)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(config.n_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.neighbours = Neighbours(config.n_numeric, n_features - config.n_numeric, most, config.n_neighbours)
        self.weight = nn.Parameter(torch.zeros(n_features, most, width))
        self.bias = nn.Parameter(torch.zeros(n_features, most))

    def classes(self, numeric: Tensor, categories: Tensor) -> tuple[Tensor, Tensor]:
        """The class of each feature i64[B, F], and whether it has one bool[B, F]."""
        bins = (numeric.unsqueeze(-1) >= self.edges).sum(-1)
        present = torch.cat([~torch.isnan(numeric), categories != 0], dim=1)
        return torch.cat([bins, categories], dim=1), present

    def log_probabilities(self, contexts: Tensor, seen_by: Tensor) -> Tensor:
        """Contexts f32[B, G, D], and which of them each feature is judged by i64[F] → log p of its classes f32[B, F, K]."""
        for block in self.blocks:
            contexts = contexts + block(contexts)
        hidden = self.norm(contexts)[:, seen_by]
        # One product for each feature: [F, B, D] · [F, D, K].
        logits = (hidden.transpose(0, 1) @ self.weight.transpose(1, 2)).transpose(0, 1) + self.bias
        log_p: Tensor = logits.masked_fill(self.impossible, -torch.inf).log_softmax(-1)
        return log_p

    def parts(self, classes: Tensor, present: Tensor) -> Tensor:
        """What each feature adds to a context, f32[B, F, D]: its class's embedding, or its mask if it is missing."""
        return torch.where(present.unsqueeze(-1), self.embedding(classes + self.offsets), self.mask)

    def raw_surprise(self, numeric: Tensor, categories: Tensor) -> Tensor:
        """-log p of each feature given those of the other groups, in nats: f32[B, F]; 0 where it is missing."""
        classes, present = self.classes(numeric, categories)
        parts = self.parts(classes, present)
        # A group's context is the row's with the group's own features masked.
        contexts = parts.sum(1, keepdim=True) + self.members @ (self.mask - parts)
        log_p = self.log_probabilities(contexts, self.groups)
        of_class = log_p.gather(-1, classes.unsqueeze(-1))[..., 0]
        return torch.where(present, -of_class, torch.zeros_like(of_class))

    def surprise(self, numeric: Tensor, categories: Tensor) -> Tensor:
        """Each feature's surprise in standard deviations above the usual, f32[B, F], 0 or more."""
        return ((self.raw_surprise(numeric, categories) - self.usual) / self.spread).clamp(min=0)

    def evidence(self, numeric: Tensor, categories: Tensor) -> tuple[Tensor, Tensor]:
        """What makes a flow novel, and each feature's surprise: f32[B, 2], f32[B, F].

        The first is the mean of the roots of the `top` largest surprises, and the distance to the nearest neighbour.
        """
        surprise = self.surprise(numeric, categories)
        largest = surprise.topk(min(self.config.top, surprise.shape[1]), dim=1).values.sqrt().mean(1)
        return torch.stack([largest, self.neighbours(*self.classes(numeric, categories))], dim=1), surprise

    def forward(self, numeric: Tensor, categories: Tensor) -> tuple[Tensor, Tensor]:
        """Novelty f32[B], about 1 for one benign flow in a hundred, and each feature's surprise f32[B, F], 0 or more."""
        evidence, surprise = self.evidence(numeric, categories)
        surprising, far = (evidence / self.units).unbind(1)
        weight = self.config.distance_weight
        return (surprising + weight * far) / (1 + weight), surprise


def bin_edges(values: np.ndarray, n_bins: int = N_BINS) -> np.ndarray:
    """Where the classes of a numeric feature begin, f32[N] with NaN = missing → rising f32[K]; class 0 lies below the first.

    Bins hold about equally many values. A value that would fill a bin alone has one of its own, so that its neighbours,
    which nobody has, are another class; so is what lies beyond the largest.
    """
    present = values[~np.isnan(values)].astype(np.float32)
    if not len(present):
        return np.empty(0, dtype=np.float32)
    distinct = np.unique(present)
    if len(distinct) <= n_bins:
        points = frequent = distinct
    else:
        points, times = np.unique(
            np.quantile(present, np.linspace(0, 1, n_bins + 1), method="inverted_cdf"), return_counts=True
        )
        frequent = points[times > 1]
    after = np.nextafter(np.append(frequent, distinct[-1]), np.float32(np.inf))
    return np.union1d(points, after).astype(np.float32)


def feature_groups(classes: np.ndarray, n_groups: int = N_GROUPS) -> np.ndarray:
    """Features whose classes rise and fall together are of one group, so that none gives another away: i64[N, F] → i64[F].

    By average linkage of 1 - |rank correlation|; the tree's leaves, in order, are cut into groups of about equal size.
    """
    ranks = np.apply_along_axis(rankdata, 0, classes)
    ranks = ranks - ranks.mean(axis=0)
    deviation = np.sqrt((ranks**2).sum(axis=0))
    correlation = (ranks.T @ ranks) / np.maximum(np.outer(deviation, deviation), 1e-9)
    distance = 1 - np.abs(correlation).clip(0, 1)
    np.fill_diagonal(distance, 0.0)
    pairs = squareform(distance, checks=False)
    order = leaves_list(optimal_leaf_ordering(linkage(pairs, "average"), pairs))
    groups = np.empty(len(order), dtype=np.int64)
    groups[order] = np.arange(len(order)) * min(n_groups, len(order)) // len(order)
    return groups


def novelty_inputs(prepared: Prepared, rows: np.ndarray) -> Inputs:
    """Rows as this model takes them: raw."""
    numeric, categories = raw_inputs(prepared, rows)
    unused = torch.zeros(len(rows))
    return Inputs(numeric, categories, unused, unused)


def new_novelty_model(prepared: Prepared, benign: np.ndarray, params: TrainParams) -> NoveltyModel:
    """An untrained model for some benign rows i64[K]: classes, groups and neighbours are learnt from them."""
    numeric, categories = raw_inputs(prepared, benign)
    edges = [bin_edges(column) for column in numeric.numpy().T]
    sizes = [len(prepared.preprocessor.vocabularies[feature.name]) + 2 for feature in prepared.schema.categorical]
    bins = [
        np.searchsorted(points, column, side="right") for points, column in zip(edges, numeric.numpy().T, strict=True)
    ]
    classes = np.column_stack([*bins, categories.numpy()])
    config = NoveltyConfig(
        n_numeric=len(edges),
        n_knots=prepared.preprocessor.knots.shape[1],
        n_edges=max(map(len, edges), default=0),
        n_classes=(*(len(points) + 1 for points in edges), *sizes),
        groups=tuple(feature_groups(classes).tolist()),
        n_neighbours=min(N_NEIGHBOURS, len(benign)),
        distance_weight=params.novelty_distance_weight,
    )
    model = NoveltyModel(config)
    model.set_points(prepared.preprocessor.knots, prepared.preprocessor.heights)
    for row, points in enumerate(edges):
        model.edges[row, : len(points)] = torch.from_numpy(points)
    with torch.no_grad():
        model.neighbours.learn(*model.classes(numeric, categories), torch.tensor(config.n_classes))
    return model


def novelty_stage(params: TrainParams, validation: Inputs) -> Stage[NoveltyModel]:
    """Hide a group of each row's features and some others, and say what they were: cross-entropy. Benign rows alone."""

    def loss(model: NoveltyModel, batch: Inputs, draw: Draw) -> list[Part]:
        classes, present = model.classes(batch.numeric, batch.categories)
        group = (draw(1) * len(model.members)).long()
        # Others too, each row its own share of them: a flow may come with features missing.
        others = draw(classes.shape[1]) < draw(1) * 0.5
        hidden = ((model.groups.cpu() == group) | others).to(classes.device)
        contexts = model.parts(classes, present & ~hidden).sum(1, keepdim=True)
        log_p = model.log_probabilities(contexts, torch.zeros_like(model.groups))
        asked = hidden & present
        return [Part(-(log_p.gather(-1, classes.unsqueeze(-1))[..., 0] * asked).sum(), asked.sum())]

    def evaluate(model: NoveltyModel) -> dict[str, float]:
        return {"validation_score": -float(raw_surprise_of(model, validation).mean())}

    return Stage("novelty", params.epochs_novelty, loss, evaluate, "validation_score")


def novelty_of(model: NoveltyModel, inputs: Inputs) -> np.ndarray:
    """How novel each row is, f32[N]."""
    return _in_parts(lambda numeric, categories: model(numeric, categories)[0], model, inputs)


def standardize(model: NoveltyModel, benign: Inputs) -> None:
    """Learn from benign rows that the model was not trained on what surprise of each feature is usual, and the units in which
    surprise and distance are added."""
    surprises = raw_surprise_of(model, benign)
    model.usual.copy_(torch.from_numpy(surprises.mean(axis=0)))
    model.spread.copy_(torch.from_numpy(surprises.std(axis=0) + _LEAST_SPREAD))
    evidence = _in_parts(lambda numeric, categories: model.evidence(numeric, categories)[0], model, benign)
    model.units.copy_(torch.from_numpy(np.maximum(np.quantile(evidence, _COMMON, axis=0), 1e-3)))


def raw_surprise_of(model: NoveltyModel, inputs: Inputs) -> np.ndarray:
    """Each feature's surprise in nats, f32[N, F]."""
    return _in_parts(model.raw_surprise, model, inputs)


def _in_parts(ask: Callable[[Tensor, Tensor], Tensor], model: NoveltyModel, inputs: Inputs) -> np.ndarray:
    device = next(model.parameters()).device
    with torch.no_grad():
        parts = [
            ask(inputs.numeric[part].to(device), inputs.categories[part].to(device)).cpu().numpy()
            for part in torch.arange(len(inputs)).split(256)
        ]
    return np.concatenate(parts)
