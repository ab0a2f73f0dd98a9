"""Networks that the FT-Transformer is compared with. They train by the same loop, on the same inputs."""

import torch
from torch import Tensor, nn

from trainer.model import FlowClassifier, ModelConfig

__all__ = ["MLP", "LogisticRegression", "TabTransformer"]


class LogisticRegression(FlowClassifier):
    """One weight for each number, for its absence, and for each category."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.numbers = nn.Linear(2 * config.n_numeric, 1 + config.n_families)
        self.embeddings = nn.ModuleList(nn.Embedding(size + 1, 1 + config.n_families) for size in config.cardinalities)

    def classify(self, numeric: Tensor, categories: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        numeric, categories = _hide(numeric, categories, hidden)
        logits = self.numbers(torch.cat(_numbers(numeric), dim=1))
        for index, embedding in enumerate(self.embeddings):
            logits = logits + embedding(categories[:, index])
        return logits[:, 0], logits[:, 1:]


class MLP(FlowClassifier):
    """Three hidden layers over all features: numbers, what is missing, and an embedding of each category."""

    def __init__(self, config: ModelConfig, *, widths: tuple[int, ...] = (512, 256, 128), d_category: int = 16) -> None:
        super().__init__(config)
        self.embeddings = nn.ModuleList(nn.Embedding(size + 1, d_category) for size in config.cardinalities)
        width = 2 * config.n_numeric + d_category * len(config.cardinalities)
        self.layers = _layers(width, widths)
        self.attack = nn.Linear(widths[-1], 1)
        self.family = nn.Linear(widths[-1], config.n_families)

    def classify(self, numeric: Tensor, categories: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        numeric, categories = _hide(numeric, categories, hidden)
        looked_up = [embedding(categories[:, index]) for index, embedding in enumerate(self.embeddings)]
        x = self.layers(torch.cat([*_numbers(numeric), *looked_up], dim=1))
        return self.attack(x)[:, 0], self.family(x)


class TabTransformer(FlowClassifier):
    """Attention among categorical features alone; numbers pass it by.

    X. Huang, A. Khetan, M. Cvitkovic, Z. Karnin: TabTransformer: Tabular Data Modeling Using Contextual Embeddings. 2020,
    https://arxiv.org/abs/2012.06678.
    """

    def __init__(self, config: ModelConfig, *, d_category: int = 32, n_heads: int = 8, n_layers: int = 6) -> None:
        super().__init__(config)
        self.embeddings = nn.ModuleList(nn.Embedding(size + 1, d_category) for size in config.cardinalities)
        self.columns = nn.Parameter(0.02 * torch.randn(len(config.cardinalities), d_category))
        layer = nn.TransformerEncoderLayer(
            d_category, n_heads, 4 * d_category, dropout=0.0, activation="gelu", batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.n_numeric)
        width = 2 * config.n_numeric + d_category * len(config.cardinalities)
        self.layers = _layers(width, (4 * width, 2 * width))
        self.attack = nn.Linear(2 * width, 1)
        self.family = nn.Linear(2 * width, config.n_families)

    def classify(self, numeric: Tensor, categories: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        numeric, categories = _hide(numeric, categories, hidden)
        values, missing = _numbers(numeric)
        parts = [self.norm(values), missing]
        if len(self.embeddings):
            looked_up = [embedding(categories[:, index]) for index, embedding in enumerate(self.embeddings)]
            parts.append(self.encoder(torch.stack(looked_up, dim=1) + self.columns).flatten(1))
        x = self.layers(torch.cat(parts, dim=1))
        return self.attack(x)[:, 0], self.family(x)


def _layers(width: int, widths: tuple[int, ...]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for inner, outer in zip((width, *widths), widths, strict=False):
        parts += [nn.Linear(inner, outer), nn.ReLU()]
    return nn.Sequential(*parts)


def _hide(numeric: Tensor, categories: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    if hidden is None:
        return numeric, categories
    n_numeric = numeric.shape[1]
    gone = torch.full_like(numeric, torch.nan)
    return torch.where(hidden[:, :n_numeric], gone, numeric), categories * ~hidden[:, n_numeric:]


def _numbers(numeric: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers with 0 for what is missing, and which are."""
    return torch.nan_to_num(numeric), torch.isnan(numeric).to(numeric.dtype)
