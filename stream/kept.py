"""The bundle in use, kept for workers that are started again while a bad one is at its place."""

import os
import pickle
import tempfile
import weakref
from multiprocessing import reduction
from typing import Any

from export.bundle import Bundle

__all__ = ["KeptBundle"]

_STEP = 1 << 22


class KeptBundle:
    """A bundle in a file without a name, whose descriptor is handed to a process as that is spawned.

    Handed over as it is, its megabytes would go through a pipe of `multiprocessing`, of which the parent holds both ends
    while it writes: for a child that dies before it has read them it would wait for ever.
    """

    def __init__(self, bundle: Bundle) -> None:
        with tempfile.TemporaryFile() as file:
            pickle.dump(bundle, file)
            file.flush()
            self._hold(bundle.manifest.hash, os.dup(file.fileno()))

    def _hold(self, hash: str, descriptor: int) -> None:
        self.hash = hash
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {"hash": self.hash, "descriptor": reduction.DupFd(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._hold(state["hash"], state["descriptor"].detach())

    def bundle(self) -> Bundle:
        """Read it, from the beginning: where the file was read to last is one place for all who hold it."""
        content = bytearray()
        while part := os.pread(self._descriptor, _STEP, len(content)):
            content += part
        kept: Bundle = pickle.loads(content)
        return kept
