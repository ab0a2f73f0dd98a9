"""Distance to the nearest benign flow, and which flows stand for all of them."""

import numpy as np
import pytest
import torch

from trainer.neighbours import Neighbours, farthest_first

N_CLASSES = torch.tensor([4, 3])  # of a number, and of a category


def learnt(classes: list[list[int]], count: int) -> Neighbours:
    neighbours = Neighbours(1, 1, int(N_CLASSES.max()), count)
    rows = torch.tensor(classes)
    neighbours.learn(rows, rows != -1, N_CLASSES)
    return neighbours


def distances(neighbours: Neighbours, classes: list[list[int]], *, present: bool = True) -> list[float]:
    rows = torch.tensor(classes)
    found: list[float] = neighbours(rows, torch.full(rows.shape, present)).tolist()
    return found


def test_a_value_s_place_is_the_share_of_benign_flows_below_it() -> None:
    # Nobody has the classes below the smallest and beyond the largest.
    neighbours = learnt([[1, 1]] * 3 + [[2, 1]], 2)
    assert neighbours.places[0].tolist() == [-0.5, 0.375, 0.875, 1.5]
    assert distances(neighbours, [[1, 1], [2, 1], [3, 1], [0, 1]]) == [0, 0, 0.625, 0.875]


def test_another_category_is_far_and_a_missing_number_is_in_the_middle() -> None:
    neighbours = learnt([[1, 1]] * 3 + [[2, 1]], 2)
    assert distances(neighbours, [[1, 2], [2, 0]]) == [3, 3]
    assert distances(neighbours, [[1, 1]], present=False) == [0.125]


def test_each_chosen_flow_is_the_farthest_from_those_before_it() -> None:
    numeric = torch.tensor([[0.0], [0.1], [1.0], [0.45], [0.95]])
    assert farthest_first(numeric, torch.zeros((5, 0), dtype=torch.long), 4).tolist() == [0, 2, 3, 1]


def test_rare_flows_are_among_the_neighbours() -> None:
    rng = np.random.default_rng(0)
    usual = [[int(number), 1] for number in rng.integers(1, 3, 500)]
    neighbours = learnt([*usual, [1, 2]], 3)
    assert distances(neighbours, [[1, 2], [1, 1], [2, 1]]) == pytest.approx([0, 0, 0], abs=1e-6)
