"""The linters of `make lint-deploy`: where they are, or why a test is skipped."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

__all__ = ["BIN", "absent", "linted", "package_directory", "tool"]

BIN = Path(sys.executable).parent
_INSTALL = "make lint-deploy"


def absent(name: str, install: str = _INSTALL) -> None:
    """Skip the test, or fail it where FLOWSENTRY_TEST_LINTERS=all wants everything that `make lint-deploy` installs."""
    text = f"{name} is not here: {install}"
    if install == _INSTALL and os.environ.get("FLOWSENTRY_TEST_LINTERS") == "all":
        pytest.fail(text)
    pytest.skip(text)


def tool(name: str, install: str = _INSTALL) -> str:
    """A program of the virtual environment's, or else of the machine's."""
    found = shutil.which(name, path=os.pathsep.join((str(BIN), os.environ["PATH"])))
    if found is None:
        absent(name, install)
    return str(found)


def package_directory(name: str) -> Path:
    """Where a package lies, without importing it."""
    found = importlib.util.find_spec(name)
    if found is None:
        absent(name)
    assert found is not None and found.origin is not None
    return Path(found.origin).parent


def linted(*words: str | Path, environment: Mapping[str, str] | None = None, both: bool = False) -> str:
    """Run a linter, which must find nothing; what it printed to stdout, or to stderr besides."""
    command = [str(word) for word in words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + (done.stderr if both else "")
