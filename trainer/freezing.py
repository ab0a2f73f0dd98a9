"""What training hands on: `model.pt2`, the whole graph from raw values to probabilities, without any of our classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from trainer.model import TabularExpert

__all__ = ["freeze", "without_fast_path"]

_EXAMPLE_ROWS = 7


def freeze(model: TabularExpert, path: Path) -> None:
    """Save `model.forward` (raw f32[B, N], codes i64[B, C] → see `TabularExpert.forward`) as an exported program."""
    config = model.config
    example = (
        torch.zeros(_EXAMPLE_ROWS, config.n_numeric),
        torch.zeros(_EXAMPLE_ROWS, len(config.cardinalities), dtype=torch.long),
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
