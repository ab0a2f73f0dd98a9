"""Training by several processes, as `torchrun` starts them: each takes its part of every batch, and all keep the same weights.

    torchrun --nproc-per-node 2 -m trainer finetune --dataset unsw-nb15

Every process draws the random numbers of the whole batch and adds up sums and counts, not means, so that the gradients are those
of one process but for rounding. The first process alone writes and reports.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["is_first", "joined", "local_device", "ours", "sum_gradients", "summed"]


@contextmanager
def joined() -> Iterator[None]:
    """Take part, if `torchrun` has started this process with others; over NCCL where there are GPUs, else over Gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether it is this process that writes and reports."""
    return not dist.is_initialized() or dist.get_rank() == 0


def local_device(device: torch.device) -> torch.device:
    """Of several GPUs the one that is this process's."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if device.type == "cuda" else device


def ours(rows: Tensor) -> Tensor:
    """This process's part of a batch: every n-th row."""
    return rows[dist.get_rank() :: dist.get_world_size()] if dist.is_initialized() else rows


def summed(value: Tensor) -> Tensor:
    """The sum of what all processes have, with no gradient."""
    value = value.detach().clone()
    if dist.is_initialized():
        dist.all_reduce(value)
    return value


def sum_gradients(model: nn.Module) -> None:
    """Give every process the sum of all gradients."""
    if dist.is_initialized():
        for parameter in model.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
