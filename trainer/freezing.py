"""What training hands on: `model.pt2`, the whole graph from raw values to probabilities, without any of our classes."""

from pathlib import Path

import torch

from trainer.model import TabularExpert

__all__ = ["freeze"]

_EXAMPLE_ROWS = 7


def freeze(model: TabularExpert, path: Path) -> None:
    """Save `model.forward` (raw f32[B, N], codes i64[B, C] → see `TabularExpert.forward`) as an exported program."""
    config = model.config
    example = (
        torch.zeros(_EXAMPLE_ROWS, config.n_numeric),
        torch.zeros(_EXAMPLE_ROWS, len(config.cardinalities), dtype=torch.long),
    )
    batch = torch.export.Dim("batch", min=1, max=1 << 20)
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused operator has no ONNX counterpart
    try:
        program = torch.export.export(model.cpu().eval(), example, dynamic_shapes=({0: batch}, {0: batch}))
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    torch.export.save(program, path)
