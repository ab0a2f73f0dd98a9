"""Whether training runs compiled code: once the compiler is done, an epoch takes a fifth to a third less time on a CPU."""

import os
import shutil
import sysconfig
from pathlib import Path

from schemas.errors import FlowsentryError
from schemas.params import TrainParams

__all__ = ["is_compiled", "lacking"]

# A minute of compiling is made good after about so many steps.
_LONG = 3000


def is_compiled(params: TrainParams, steps: int) -> bool:
    """Whether a stage of so many steps is to be compiled (`train.compile`).

    Raises:
        FlowsentryError: it must be, and nothing here compiles.
    """
    if params.compile is False or (params.compile == "auto" and steps < _LONG):
        return False
    missing = lacking()
    if missing and params.compile is True:
        raise FlowsentryError(
            f"train.compile is true, but there is no {missing}: install it, or set train.compile to auto"
        )
    return not missing


def lacking() -> str | None:
    """What torch.compile needs on a CPU and is not here."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"C++ compiler ({compiler})"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return None if header.exists() else f"{header} (Debian: python3-dev)"
