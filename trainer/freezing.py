"""What training hands on: whole graphs from raw values to probabilities or novelty, without any of our classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from trainer.model import FlowNetwork

__all__ = ["freeze", "without_fast_path"]

_EXAMPLE_ROWS = 7


def freeze(model: FlowNetwork, n_categories: int, path: Path) -> None:
    """Save `model.forward` of raw values f32[B, N] and codes i64[B, C], C = `n_categories`, as an exported program."""
    example = (
        torch.zeros(_EXAMPLE_ROWS, model.config.n_numeric),
        torch.zeros(_EXAMPLE_ROWS, n_categories, dtype=torch.long),
    )
    batch = torch.export.Dim("batch", min=1, max=1 << 20)
    with without_fast_path():
        program = torch.export.export(model.cpu().eval(), example, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, path)


@contextmanager
def without_fast_path() -> Iterator[None]:
    """Attention by its parts: torch's fused operator has no ONNX counterpart."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
