"""`python -m trainer`: CSV files → a trained FT-Transformer."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from schemas.cli import add_common, common_options, run_command
from schemas.datasets import SCHEMAS
from schemas.errors import FlowsentryError
from schemas.params import load_params

__all__ = ["main", "parser"]

_EXAMPLES = """examples:
  python -m trainer prepare  --dataset unsw-nb15 --data flows/
  python -m trainer pretrain --dataset unsw-nb15
  python -m trainer finetune --dataset unsw-nb15 --set train.epochs_finetune=12
  python -m trainer sample   --dataset unsw-nb15 --data flows/ --out sample.csv.gz --rows 500
  python -m export  build    --dataset unsw-nb15
"""


def parser() -> argparse.ArgumentParser:
    """The command line, whole."""
    top = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Turn labelled flow CSVs into a trained FT-Transformer: prepare, then pretrain, then finetune.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("prepare", "read, clean and split a data set's CSVs; fit the preprocessor on the training rows"),
        ("pretrain", "masked feature modelling: hide features, reconstruct them; no labels"),
        ("finetune", "train the attack head and the attack-family head, and report validation and test figures"),
        ("sample", "write a small labelled CSV out of the test rows, for the demo"),
    ):
        command = commands.add_parser(name, help=text, description=text, epilog=_EXAMPLES,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
        add_common(command)
        command.add_argument("--dataset", choices=SCHEMAS, help="data set whose columns the files have")
        command.add_argument(
            "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where artefacts go (default: runs)"
        )
        if name in ("prepare", "sample"):
            command.add_argument(
                "--data", type=Path, required=True, nargs="+", metavar="PATH",
                help="CSV files, gzipped or not, or directories of them",
            )  # fmt: skip
        if name == "sample":
            command.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV to write, gzipped")
            command.add_argument("--rows", type=int, default=3000, metavar="N", help="default: 3000")
            command.add_argument(
                "--attack-share", type=float, default=0.65, metavar="P", help="share of attacks (default: 0.65)"
            )
        if name == "prepare":
            command.add_argument("--out", type=Path, metavar="DIR", help="write here instead of RUNS/DATASET/prepared")
            command.add_argument(
                "--exclude", type=Path, nargs="*", default=[], metavar="FILE",
                help="CSVs whose rows must not be trained on, such as the demo's sample: they join the test rows",
            )  # fmt: skip
    return top


def _csv_files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.csv")) + sorted(path.glob("*.csv.gz")) if path.is_dir() else [path]
        if not inside:
            raise FlowsentryError(f"{path}: no .csv or .csv.gz file in this directory")
        found += inside
    return found


def _run(arguments: argparse.Namespace) -> int:
    params = load_params(common_options(arguments, {"data.dataset": arguments.dataset}), file=arguments.params)
    directory = arguments.runs / params.data.dataset
    # Heavy imports where they are needed, so that --help and mistakes answer at once and prepare does without torch.
    if arguments.command == "prepare":
        from trainer.prepare import prepare

        out = arguments.out or directory / "prepared"
        prepare(_csv_files(arguments.data), params.data, out, exclude=arguments.exclude)
    elif arguments.command == "sample":
        from trainer.prepare import load_prepared
        from trainer.sample import sample

        prepared = load_prepared(directory / "prepared")
        count = sample(
            prepared, _csv_files(arguments.data), arguments.out,
            rows=arguments.rows, attack_share=arguments.attack_share, seed=params.data.seed,
        )  # fmt: skip
        print(f"wrote {count} rows to {arguments.out}")
    else:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported: it would phone home
        from trainer import commands

        run = commands.pretrain if arguments.command == "pretrain" else commands.finetune
        run(params, directory)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    return run_command(lambda: _run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
