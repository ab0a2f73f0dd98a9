"""The FT-Transformer: every feature a token, a CLS token that judges them.

Y. Gorishniy, I. Rubachev, V. Khrulkov, A. Babenko: Revisiting Deep Learning Models for Tabular Data. NeurIPS 2021,
https://arxiv.org/abs/2106.11959. Deviations are tagged `NOTE[deviation]`.

Shapes: B rows, N numeric features, C categorical features, T = 1 + N + C tokens (CLS first), D = d_model.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn

__all__ = [
    "ClassificationHead",
    "FTFeatureTokenizer",
    "FlowClassifier",
    "FlowNetwork",
    "MaskedFeatureHead",
    "ModelConfig",
    "NetworkConfig",
    "PiecewiseLinearEncoding",
    "QuantileNormalizer",
    "TabularExpert",
    "TransformerBackbone",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """All that is needed to build a network again, besides its weights: the part that every network has."""

    n_numeric: int
    n_knots: int

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(NetworkConfig):
    """The rest of a classifier's."""

    cardinalities: tuple[int, ...]
    n_families: int
    numeric_embedding: str = "linear"
    d_model: int = 128
    n_heads: int = 8
    n_layers: int = 4
    d_feedforward: int = 512


class PiecewiseLinearEncoding(nn.Module):
    """How far each value has come through each of its feature's bins: f32[B, N] → f32[B, N, K-1], each from 0 to 1.

    Yu. Gorishniy, I. Rubachev, A. Babenko: On Embeddings for Numerical Features in Tabular Deep Learning. NeurIPS 2022,
    https://arxiv.org/abs/2203.05556.

    NOTE[deviation]: the first bin begins and the last one ends with the training rows' values, and what is beyond stays
    0 or 1, so that no value, however large, drowns the others.
    """

    edges: Tensor

    def __init__(self, *, n_numeric: int, n_edges: int) -> None:
        super().__init__()
        self.register_buffer("edges", torch.zeros(n_numeric, n_edges))

    def forward(self, x: Tensor) -> Tensor:
        widths = self.edges[:, 1:] - self.edges[:, :-1]
        # A padding edge repeats the last one: its bin has no width and stays 0.
        slopes = torch.where(widths > 0, 1 / widths.clamp(min=1e-30), torch.zeros_like(widths))
        return ((x.unsqueeze(-1) - self.edges[:, :-1]) * slopes).clamp(0.0, 1.0)


class QuantileNormalizer(nn.Module):
    """The preprocessor's piecewise-linear map as part of the graph: raw f32[B, N] → about normal f32[B, N].

    y = h_0 + Σ_k (h_{k+1} - h_k) · clip((x - t_k) / (t_{k+1} - t_k), 0, 1), so that a value beyond the last knot keeps
    the last height. NaN stays NaN.
    """

    heights: Tensor

    def __init__(self, *, n_numeric: int, n_knots: int) -> None:
        super().__init__()
        self.knots = PiecewiseLinearEncoding(n_numeric=n_numeric, n_edges=n_knots)
        self.register_buffer("heights", torch.zeros(n_numeric, n_knots))

    def set_points(self, knots: np.ndarray, heights: np.ndarray) -> None:
        """Take over the fitted map: f32[n_numeric, n_knots] each."""
        self.knots.edges.copy_(torch.from_numpy(knots))
        self.heights.copy_(torch.from_numpy(heights))

    def forward(self, x: Tensor) -> Tensor:
        rises = self.heights[:, 1:] - self.heights[:, :-1]
        return torch.where(torch.isnan(x), x, self.heights[:, 0] + (self.knots(x) * rises).sum(-1))


class FTFeatureTokenizer(nn.Module):
    """Feature values → tokens: numeric `b_j + x_j · W_j`, categorical an embedding, and a learned mask token per model.

    With the numeric embedding `piecewise` a numeric token is `b_j + x_j · W_j + e(x_j) · V_j`, e the encoding of
    `PiecewiseLinearEncoding` and V_j 0 at first: a feature can mean other things in other ranges.

    The mask token stands for a missing value (NaN, code 0) and, while training, for a hidden one.

    Shape:
        numeric f32[B, N], categories i64[B, C], hidden bool[B, N + C] or None → f32[B, 1 + N + C, D], CLS first.
    """

    def __init__(self, *, n_numeric: int, cardinalities: Sequence[int], d_model: int, n_edges: int = 0) -> None:
        super().__init__()
        if n_numeric + len(cardinalities) == 0:
            raise ValueError(f"a tokenizer needs features: n_numeric={n_numeric}, cardinalities={list(cardinalities)}")
        bound = 1 / math.sqrt(d_model)
        n_features = n_numeric + len(cardinalities)
        self.weight = nn.Parameter(torch.empty(n_numeric, d_model).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_features, d_model).uniform_(-bound, bound))
        self.cls = nn.Parameter(torch.empty(1, d_model).uniform_(-bound, bound))
        self.mask = nn.Parameter(torch.empty(1, d_model).uniform_(-bound, bound))
        # Row 0 of each embedding is code 0, never looked at: the mask token takes its place.
        self.embeddings = nn.ModuleList(nn.Embedding(cardinality + 1, d_model) for cardinality in cardinalities)
        for embedding in self.embeddings:
            assert isinstance(embedding, nn.Embedding)
            nn.init.uniform_(embedding.weight, -bound, bound)
        self.bins: PiecewiseLinearEncoding | None = None
        if n_edges:
            self.bins = PiecewiseLinearEncoding(n_numeric=n_numeric, n_edges=n_edges)
            self.bin_weight = nn.Parameter(torch.zeros(n_numeric, n_edges - 1, d_model))

    def forward(self, numeric: Tensor, categories: Tensor, hidden: Tensor | None = None) -> Tensor:
        missing = torch.cat([torch.isnan(numeric), categories == 0], dim=1)
        if hidden is not None:
            missing = missing | hidden
        known = torch.nan_to_num(numeric)
        values = known.unsqueeze(-1) * self.weight  # [B, N, D]
        if self.bins is not None:
            # One product for each feature: [N, B, K-1] · [N, K-1, D].
            values = values + (self.bins(known).transpose(0, 1) @ self.bin_weight).transpose(0, 1)
        looked_up = [embedding(categories[:, [index]]) for index, embedding in enumerate(self.embeddings)]
        tokens = torch.cat([values, *looked_up], dim=1)
        # The mask token keeps the feature's bias, so that the model knows which feature is missing.
        tokens = torch.where(missing.unsqueeze(-1), self.mask, tokens) + self.bias
        return torch.cat([self.cls.expand(tokens.shape[0], 1, -1), tokens], dim=1)


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward, each with a residual. f32[B, T, D] → f32[B, T, D] (or [B, 1, D]).

    NOTE[deviation]: GELU with width 4·D in place of ReGLU with 4/3·D; no elementwise dropout, whole tokens are masked
    instead, which regularises as well and costs nothing on a CPU.
    """

    def __init__(self, *, d_model: int, n_heads: int, d_feedforward: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(d_model)
        self.attention = nn.MultiheadAttention(d_model, n_heads, batch_first=True)
        self.feedforward_norm = nn.LayerNorm(d_model)
        self.feedforward = nn.Sequential(
            nn.Linear(d_model, d_feedforward), nn.GELU(), nn.Linear(d_feedforward, d_model)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.attention_norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        mixed: Tensor = tokens + self.feedforward(self.feedforward_norm(tokens))
        return mixed

    def cls(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The CLS token's output alone, f32[B, D], and how it attended to each token, f32[B, T] (mean over heads)."""
        normed = self.attention_norm(tokens)
        attended, weights = self.attention(normed[:, :1], normed, normed, need_weights=True)
        cls = tokens[:, :1] + attended
        return (cls + self.feedforward(self.feedforward_norm(cls)))[:, 0], weights[:, 0]


class TransformerBackbone(nn.Module):
    """`n_layers` blocks. All tokens f32[B, T, D] for reconstruction, or the CLS token f32[B, D] for a verdict."""

    def __init__(self, *, d_model: int, n_heads: int, n_layers: int, d_feedforward: int) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"train.d_model ({d_model}) must be a multiple of train.n_heads ({n_heads})")
        self.blocks = nn.ModuleList(
            TransformerBlock(d_model=d_model, n_heads=n_heads, d_feedforward=d_feedforward) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(self, tokens: Tensor) -> Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        normed: Tensor = self.norm(tokens)
        return normed

    def cls(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """f32[B, T, D] → CLS f32[B, D] and the last layer's attention f32[B, T]. Only CLS asks in the last layer."""
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        last = self.blocks[-1]
        assert isinstance(last, TransformerBlock)
        cls, attention = last.cls(tokens)
        return self.norm(cls), attention


class MaskedFeatureHead(nn.Module):
    """Tokens → what the hidden features were: f32[B, T-1, D] → numeric f32[B, N] and per category logits f32[B, K_c]."""

    def __init__(self, *, n_numeric: int, cardinalities: Sequence[int], d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_numeric, d_model))
        self.bias = nn.Parameter(torch.zeros(n_numeric))
        self.categories = nn.ModuleList(nn.Linear(d_model, max(1, cardinality)) for cardinality in cardinalities)

    def forward(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        n_numeric = len(self.bias)
        numeric = (tokens[:, :n_numeric] * self.weight).sum(-1) + self.bias
        logits = [head(tokens[:, n_numeric + index]) for index, head in enumerate(self.categories)]
        return numeric, logits


class ClassificationHead(nn.Module):
    """CLS → attack logit f32[B] and attack-family logits f32[B, n_families] (attack families only, no benign)."""

    def __init__(self, *, d_model: int, n_families: int) -> None:
        super().__init__()
        self.attack = nn.Linear(d_model, 1)
        self.family = nn.Linear(d_model, n_families)

    def forward(self, cls: Tensor) -> tuple[Tensor, Tensor]:
        return self.attack(cls)[:, 0], self.family(cls)


class FlowNetwork(nn.Module):
    """What every network here has around its own part: the map of raw values, and groups for the optimizer.

    `undecayed` are the beginnings of the names of parameters that weight decay leaves alone, besides vectors.
    """

    undecayed: tuple[str, ...] = ()
    config: NetworkConfig

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.normalizer = QuantileNormalizer(n_numeric=config.n_numeric, n_knots=config.n_knots)

    def set_points(self, knots: np.ndarray, heights: np.ndarray) -> None:
        """Take over the preprocessor's map: f32[n_numeric, n_knots] each."""
        self.normalizer.set_points(knots, heights)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, object]]:
        """For the optimizer: no decay on biases, norms, embeddings and tokens."""
        decayed: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            is_decayed = parameter.ndim > 1 and not name.startswith(self.undecayed)
            (decayed if is_decayed else others).append(parameter)
        return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


class FlowClassifier(FlowNetwork):
    """A network that tells attacks from benign flows.

    `calibration` f32[2] are scale and offset of the attack logit: sigmoid(scale · logit + offset) is the probability.
    """

    undecayed = ("tokenizer.", "masked_head.")
    config: ModelConfig
    calibration: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))

    def classify(self, numeric: Tensor, categories: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Model inputs, `hidden` bool[B, N + C] of them as if missing → attack logit f32[B], family logits
        f32[B, n_families]."""
        raise NotImplementedError

    def known(self, categories: Tensor) -> Tensor:
        """Category codes i64[B, C] as model inputs: one that training has not seen is as if missing (0)."""
        return torch.where(categories > torch.tensor(self.config.cardinalities), 0, categories)

    def probability(self, attack_logit: Tensor) -> Tensor:
        """Calibrated attack probability f32[B]."""
        return (self.calibration[0] * attack_logit + self.calibration[1]).sigmoid()


class TabularExpert(FlowClassifier):
    """Tokenizer, backbone and both heads. Takes model inputs, or raw values through `normalizer`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tokenizer = FTFeatureTokenizer(
            n_numeric=config.n_numeric,
            cardinalities=config.cardinalities,
            d_model=config.d_model,
            n_edges=config.n_knots if config.numeric_embedding == "piecewise" else 0,
        )
        self.backbone = TransformerBackbone(
            d_model=config.d_model,
            n_heads=config.n_heads,
            n_layers=config.n_layers,
            d_feedforward=config.d_feedforward,
        )
        self.masked_head = MaskedFeatureHead(
            n_numeric=config.n_numeric, cardinalities=config.cardinalities, d_model=config.d_model
        )
        self.head = ClassificationHead(d_model=config.d_model, n_families=config.n_families)

    def set_points(self, knots: np.ndarray, heights: np.ndarray) -> None:
        """Take over the preprocessor's map (f32[n_numeric, n_knots] each); bins are those between its points."""
        super().set_points(knots, heights)
        if self.tokenizer.bins is not None:
            self.tokenizer.bins.edges.copy_(torch.from_numpy(heights))

    def reconstruct(self, numeric: Tensor, categories: Tensor, hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Model inputs with `hidden` bool[B, N + C] masked → what they were (see `MaskedFeatureHead`)."""
        tokens = self.backbone(self.tokenizer(numeric, categories, hidden))
        return self.masked_head(tokens[:, 1:])  # type: ignore[no-any-return]

    def classify(self, numeric: Tensor, categories: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        cls, _ = self.backbone.cls(self.tokenizer(numeric, categories, hidden))
        return self.head(cls)  # type: ignore[no-any-return]

    def forward(self, numeric: Tensor, categories: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """RAW values f32[B, N] (NaN = missing) and codes i64[B, C] (0 = missing, K + 1 = unknown) →
        attack probability f32[B], family probabilities f32[B, n_families], attention to each feature f32[B, N + C]."""
        tokens = self.tokenizer(self.normalizer(numeric), self.known(categories))
        cls, attention = self.backbone.cls(tokens)
        attack, family = self.head(cls)
        return self.probability(attack), family.softmax(-1), attention[:, 1:]
