"""`python -m schemas`: write the contracts as JSON Schema, or check that the files are current."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from schemas.cli import run_command
from schemas.errors import FlowsentryError
from schemas.json_schemas import documents

__all__ = ["DIRECTORY", "main", "parser"]

DIRECTORY = Path(__file__).parent / "json"

_EPILOG = """files:
  flow-DATASET.json   a record on the input topic, one file per data set: names, units and spellings of its features
  alert.json          a message on the alerts topic
  event.json          a message on the events topic
  dead-letter.json    the headers of a record that could not be used
  params.json         params.yaml; an editor that knows JSON Schema completes and checks it

examples:
  python -m schemas              write them anew after a contract has changed (the same as `make json`)
  python -m schemas --check      change nothing; name the files that are not current, exit status 2 if there are any
"""


def parser() -> argparse.ArgumentParser:
    """The command line, whole."""
    top = argparse.ArgumentParser(
        prog="python -m schemas",
        description="The contracts of Flowsentry as JSON Schema (draft 2020-12), generated from the code.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--check", action="store_true", help="write nothing, only say whether the files are current")
    top.add_argument(
        "--directory", type=Path, default=DIRECTORY, metavar="DIR", help="where the files are (default: schemas/json)"
    )
    return top


def _run(arguments: argparse.Namespace) -> int:
    wanted = documents()
    directory: Path = arguments.directory
    if arguments.check:
        stale = sorted(name for name, text in wanted.items() if _text(directory / name) != text)
        if stale:
            raise FlowsentryError(f"{directory}: not current: {', '.join(stale)}. Run `make json`")
        print(f"{directory}: {len(wanted)} files, all current")
        return 0
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in wanted.items():
        (directory / name).write_text(text, encoding="utf-8")
        print(directory / name)
    return 0


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check; the exit status."""
    return run_command(lambda: _run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
