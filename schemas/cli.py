"""What the command lines of the packages have in common: `--params`, `--set`, and how an error ends a command."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TextIO

from schemas.errors import FlowsentryError, ParamsError
from schemas.settings import NULL, parse_value

__all__ = ["add_common", "common_options", "leave_unread", "run_command"]

_EXTRAS = {
    "trainer": ("evidently", "jinja2", "joblib", "lightgbm", "matplotlib", "mlflow", "onnx", "onnxmltools", "onnxscript",
                "optuna", "sklearn", "torch"),
    "dashboard": ("altair", "streamlit"),
}  # fmt: skip
_EXTRA_OF_PACKAGE = {package: extra for extra, packages in _EXTRAS.items() for package in packages}


def add_common(command: argparse.ArgumentParser) -> None:
    """Add the options that every command has."""
    command.add_argument(
        "--params", type=Path, metavar="FILE", help="settings file (default: params.yaml, where there is one)"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="override one setting, e.g. --set train.batch_size=128; may be repeated. No secrets: every user of the machine "
        "sees a command's arguments",
    )  # fmt: skip


def common_options(
    arguments: argparse.Namespace, named: Mapping[str, object] = MappingProxyType({})
) -> dict[str, object]:
    """The options as {"section.key": value}: those of `--set`, and over them the command's `named` ones that were given.

    Raises:
        ParamsError: a `--set` is not KEY=VALUE.
    """
    options: dict[str, object] = {}
    for item in arguments.set:
        key, equals, value = item.partition("=")
        if not equals:
            shown = "kafka.…" if item.startswith("kafka") else item  # it may be a password
            raise ParamsError(f"--set {shown}: expected KEY=VALUE, e.g. train.batch_size=128")
        parsed = parse_value(key, value)
        options[key] = NULL if parsed is None else parsed
    return options | {key: value for key, value in named.items() if value is not None}


def leave_unread(stream: TextIO) -> None:
    """After a BrokenPipeError: nothing more can be written, not even what is buffered at exit."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def run_command(command: Callable[[], int]) -> int:
    """Run it; an error that the user can mend is printed without a traceback, exit status 2; Ctrl-C is 130."""
    try:
        return command()
    except FlowsentryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        leave_unread(sys.stdout)
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF_PACKAGE.get(error.name or "")
        if extra is None:
            raise
        print(f"error: this needs the package {error.name}: pip install 'flowsentry[{extra}]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
