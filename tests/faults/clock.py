"""A clock that can be set, for the processes that run with its environment; the machine's stays as it is."""

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

__all__ = ["Clock"]

_SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """Needs a C compiler: the time of day is the C library's, and librdkafka's threads ask it too."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        assert compiler is not None, "a clock that can be set needs a C compiler: install gcc or clang"
        library, file = folder / "clock.so", folder / "clock.offset"
        subprocess.run([compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._offset = mmap.mmap(opened.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(file)}

    def set(self, seconds: float) -> None:
        """So far ahead of the machine's clock from now on, all at once."""
        self._offset[:] = struct.pack("=q", round(seconds * 1e9))
