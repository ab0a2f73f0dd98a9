"""`python -m export`: build a detector bundle, verify one, score a CSV with one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from schemas.cli import add_common, common_options, run_command
from schemas.datasets import SCHEMAS
from schemas.params import NULL, Params, load_params

__all__ = ["main", "parser"]

_EXAMPLES = """examples:
  python -m export build  --dataset unsw-nb15
  python -m export verify bundles/unsw-nb15
  python -m export score  bundles/unsw-nb15 --input flows.csv.gz --output scores.csv --rejects rejects.csv
"""


def parser() -> argparse.ArgumentParser:
    """The command line, whole."""
    top = argparse.ArgumentParser(
        prog="python -m export",
        description="Detector bundles: a directory with the model as ONNX and all that the service needs to run it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        add_common(command)
        return command

    build = add("build", "training run → bundle (needs the trainer's packages)")
    build.add_argument("--dataset", choices=SCHEMAS, help="whose run to build from")
    build.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    build.add_argument("--out", type=Path, metavar="DIR", help="default: bundles/DATASET")
    build.add_argument("--name", help="name of the bundle (default: the data set's)")

    verify = add("verify", "hashes, opset, shapes, and parity of torch and ONNX Runtime")
    verify.add_argument("bundle", type=Path, metavar="DIR")
    verify.add_argument(
        "--run", type=Path, metavar="DIR",
        help="the training run it was built from: measures parity anew on held-out rows",
    )  # fmt: skip

    score = add("score", "score a CSV offline, by the code that the service uses")
    score.add_argument("bundle", type=Path, metavar="DIR")
    score.add_argument("--input", type=Path, required=True, metavar="FILE", help="flows, CSV, gzipped or not")
    score.add_argument(
        "--output", type=Path, required=True, metavar="FILE",
        help="CSV to write: row (0-based data row), score, verdict (1 attack, 0 not), family",
    )  # fmt: skip
    score.add_argument("--rejects", type=Path, metavar="FILE", help="CSV to write: rows that cannot be used, and why")
    limit = score.add_mutually_exclusive_group()
    limit.add_argument("--target-fpr", type=float, metavar="P", help="use the bundle's threshold for that rate")
    limit.add_argument("--threshold", type=float, metavar="P", help="a threshold of your own")
    return top


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "build":
        options = common_options(arguments, {"data.dataset": arguments.dataset})
        params = load_params(options, file=arguments.params)
        from export.build import build

        dataset = params.data.dataset
        out = build(
            arguments.runs / dataset, arguments.out or Path("bundles") / dataset, params.export, name=arguments.name
        )
        print(f"wrote {out}")
        return 0
    if arguments.command == "verify":
        load_params(common_options(arguments), file=arguments.params)
        from export.verify import verify

        for line in verify(arguments.bundle, arguments.run):
            print(line)
        return 0
    named = {"stream.target_fpr": arguments.target_fpr, "stream.threshold": arguments.threshold}
    if arguments.target_fpr is not None:
        named["stream.threshold"] = NULL  # one in params.yaml would go before it
    return _score(arguments, load_params(common_options(arguments, named), file=arguments.params))


def _score(arguments: argparse.Namespace, params: Params) -> int:
    from export.detector import load
    from export.scoring import score_file

    detector = load(arguments.bundle)
    stream = params.stream
    counts = score_file(
        arguments.input,
        arguments.output,
        detector,
        threshold=detector.manifest.threshold_for(stream.target_fpr) if stream.threshold is None else stream.threshold,
        min_feature_coverage=stream.min_feature_coverage,
        rejects=arguments.rejects,
    )
    print(f"{counts.scored} rows scored, {counts.attacks} attacks → {arguments.output}", file=sys.stderr)
    if counts.missing:
        print(f"no column for {', '.join(counts.missing)}: scored as missing", file=sys.stderr)
    if counts.rejected:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in counts.rejected.most_common())
        where = f" → {arguments.rejects}" if arguments.rejects else " (--rejects FILE lists them)"
        print(f"{counts.rejected.total()} rows refused ({reasons}){where}", file=sys.stderr)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    return run_command(lambda: _run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
