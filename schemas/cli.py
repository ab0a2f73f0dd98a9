"""What the command lines of the packages have in common: `--params`, `--set`, and how an error ends a command."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from schemas.errors import FlowsentryError, ParamsError

__all__ = ["add_common", "common_options", "run_command"]


def add_common(command: argparse.ArgumentParser) -> None:
    """Add the options that every command has."""
    command.add_argument(
        "--params", type=Path, metavar="FILE", help="settings file (default: params.yaml, where there is one)"
    )
    command.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="override one setting, e.g. --set train.batch_size=128; may be repeated",
    )  # fmt: skip


def common_options(arguments: argparse.Namespace) -> dict[str, object]:
    """The `--set` options as {"section.key": value}.

    Raises:
        ParamsError: one is not KEY=VALUE.
    """
    options: dict[str, object] = {}
    for item in arguments.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise ParamsError(f"--set {item}: expected KEY=VALUE, e.g. train.batch_size=128")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ParamsError(f"--set {item}: {error}") from None
    return options


def run_command(command: Callable[[], int]) -> int:
    """Run it; an error that the user can mend is printed without a traceback, exit status 2; Ctrl-C is 130."""
    try:
        return command()
    except FlowsentryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
