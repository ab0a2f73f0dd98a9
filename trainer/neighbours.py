"""How far away the nearest of some benign flows is.

Flows are compared by the places of their values among those of benign flows: 0 is the smallest, 1 the largest, .5 the
median or a missing one; what lies beyond all of them is half their range away. Shapes: B rows, N numeric features, C
categorical ones, F = N + C, K classes at most, P neighbours.
"""

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Neighbours", "farthest_first"]

_MIDDLE, _BEYOND = 0.5, 0.5
_OTHER_CATEGORY = 3.0  # as far as three numbers whose values are at opposite ends


class Neighbours(nn.Module):
    """Distance to the nearest of P benign flows: the sum of the features' differences."""

    places: Tensor
    numeric: Tensor
    categories: Tensor

    def __init__(self, n_numeric: int, n_categorical: int, n_classes: int, n_neighbours: int) -> None:
        super().__init__()
        self.register_buffer("places", torch.full((n_numeric, n_classes), _MIDDLE))
        self.register_buffer("numeric", torch.full((n_neighbours, n_numeric), _MIDDLE))
        self.register_buffer("categories", torch.zeros((n_neighbours, n_categorical), dtype=torch.long))

    def learn(self, classes: Tensor, present: Tensor, n_classes: Tensor) -> None:
        """Take places and neighbours from benign flows: classes i64[B, F], bool[B, F] and how many a feature has i64[F].

        The neighbours are flows of theirs that are far from each other, so that rare ones are among them.
        """
        for row, places in enumerate(self.places):
            here = classes[present[:, row], row]
            size = int(n_classes[row])
            share = torch.bincount(here, minlength=size) / max(1, len(here))
            places[:size] = share.cumsum(0) - share / 2
            places[size - 1] = 1 + _BEYOND
            if share[0] == 0 and size > 1:
                places[0] = -_BEYOND
        numeric, categories = self._located(classes, present)
        chosen = farthest_first(numeric, categories, len(self.numeric))
        self.numeric.copy_(numeric[chosen])
        self.categories.copy_(categories[chosen])

    def forward(self, classes: Tensor, present: Tensor) -> Tensor:
        """Classes i64[B, F] and whether a feature has one bool[B, F] → f32[B]."""
        numeric, categories = self._located(classes, present)
        return _distances(numeric, categories, self.numeric, self.categories).amin(1)

    def _located(self, classes: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Places f32[B, N] and codes i64[B, C], 0 = missing."""
        n_numeric = len(self.places)
        places = self.places[torch.arange(n_numeric, device=classes.device), classes[:, :n_numeric]]
        return torch.where(present[:, :n_numeric], places, _MIDDLE), classes[:, n_numeric:]


def farthest_first(numeric: Tensor, categories: Tensor, count: int) -> np.ndarray:
    """Choose `count` of the rows f32[B, N], i64[B, C], each the farthest from those before it: i64[count].

    Gonzalez 1985, "Clustering to minimize the maximum intercluster distance": no row is farther from the nearest chosen one
    than twice the least that is possible.
    """
    chosen = [0]
    nearest = torch.full((len(numeric),), torch.inf)
    while len(chosen) < count:
        last = slice(chosen[-1], chosen[-1] + 1)
        nearest = torch.minimum(nearest, _distances(numeric, categories, numeric[last], categories[last]).squeeze(1))
        chosen.append(int(nearest.argmax()))
    return np.array(chosen)


def _distances(numeric: Tensor, categories: Tensor, others: Tensor, other_categories: Tensor) -> Tensor:
    """Between all rows and all others: f32[B, P]."""
    differing = (categories[:, None] != other_categories).to(numeric.dtype).sum(-1)
    return (numeric[:, None] - others).abs().sum(-1) + _OTHER_CATEGORY * differing
