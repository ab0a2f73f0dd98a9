"""`python -m tests.faults.mutants`: break each guarantee in a copy of the tree; its test must fail.

First every test runs on the copy as it is, and must pass. Then one mutation after the other is made and taken back. The
exit status is 1 if a test fails on the unbroken tree, a mutant survives, or one cannot be made or run any more because the
code has moved: then adapt it in `mutations.py`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.mutations import MUTATIONS, Change, Mutation

__all__ = ["main"]

_ROOT = Path(__file__).parents[2]
_LEFT_OUT = (
    ".git",
    ".venv",
    ".*_cache",
    "__pycache__",
    ".hypothesis",
    ".coverage*",
    "runs",
    "mlruns",
    "mlartifacts",
    "*.db",
)
_RUN_S = 1800.0
_PASSED, _FAILED = 0, 1  # pytest's exit statuses


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutants", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="WORD", help="mutations with one of these words in their names")
    parser.add_argument("--list", action="store_true", help="name them, make none")
    arguments = parser.parse_args(argv)
    chosen = [each for each in MUTATIONS if not arguments.only or any(word in each.name for word in arguments.only)]
    for mutation in chosen:
        for change in mutation.changes:
            _check(_ROOT, change, mutation.name)
    if arguments.list:
        print(*(f"{each.name}\n    {each.test}" for each in chosen), sep="\n")
        return 0
    with TemporaryDirectory(prefix="flowsentry-mutants-") as folder:
        copy = Path(folder) / "tree"
        shutil.copytree(_ROOT, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        tests = list(dict.fromkeys(each.test for each in chosen))
        if (status := _pytest(copy, tests)) != _PASSED:
            print(f"the unbroken tree does not pass (pytest's status {status}): mend that first")
            return 1
        print(f"the unbroken tree passes {len(tests)} tests", flush=True)
        survived = [each.name for each in chosen if not _is_killed(copy, each)]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} mutants killed")
    if survived:
        print("survived:", *survived, sep="\n  ")
    return 1 if survived else 0


def _is_killed(copy: Path, mutation: Mutation) -> bool:
    began_s = time.monotonic()
    files = {change.file: (copy / change.file).read_text(encoding="utf-8") for change in mutation.changes}
    try:
        for change in mutation.changes:
            path = copy / change.file
            path.write_text(path.read_text(encoding="utf-8").replace(change.old, change.new), encoding="utf-8")
        status = _pytest(copy, [mutation.test])
    finally:
        for name, text in files.items():
            (copy / name).write_text(text, encoding="utf-8")
    if status not in (_PASSED, _FAILED):
        raise SystemExit(f"{mutation.name}: the test cannot be run (pytest's status {status}): adapt the mutant")
    verdict = "killed  " if status == _FAILED else "SURVIVED"
    print(f"{verdict} {mutation.name}\n         by {mutation.test}, {time.monotonic() - began_s:.0f} s", flush=True)
    return status == _FAILED


def _check(tree: Path, change: Change, name: str) -> None:
    found = (tree / change.file).read_text(encoding="utf-8").count(change.old)
    if found != 1:
        raise SystemExit(
            f"{name}: {change.old!r} is {found} times in {change.file}, not once; the code moved, adapt the mutant"
        )


def _pytest(tree: Path, tests: Sequence[str]) -> int:
    """pytest's exit status; what it says is shown only when that is neither passed nor failed."""
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=tree, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_RUN_S, check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    if done.returncode not in (_PASSED, _FAILED) or (done.returncode == _FAILED and len(tests) > 1):
        print(done.stdout[-4000:], done.stderr[-2000:])
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
