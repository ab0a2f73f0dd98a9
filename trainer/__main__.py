"""`python -m trainer`: CSV files → a trained FT-Transformer."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from schemas.cli import add_common, common_options, run_command
from schemas.datasets import SCHEMAS
from schemas.errors import FlowsentryError, ParamsError
from schemas.params import Params
from schemas.settings import load_params

__all__ = ["main", "parser"]

ABLATIONS = ("pretraining", "shortcuts", "importance", "missing", "time", "all")
_EXPERIMENTS = ("compare", "ablate", "unseen", "transfer")

_EXAMPLES = """examples:
  python -m trainer prepare  --dataset unsw-nb15 --data flows/
  python -m trainer pretrain --dataset unsw-nb15
  python -m trainer novelty  --dataset unsw-nb15
  python -m trainer finetune --dataset unsw-nb15 --set train.epochs_finetune=12
  python -m trainer tune     --dataset unsw-nb15 --trials 30
  python -m trainer compare  --dataset unsw-nb15
  python -m trainer ablate   --dataset unsw-nb15 --what missing
  python -m trainer unseen   --dataset unsw-nb15 --rows 20000 --epochs 8
  python -m trainer transfer --dataset unsw-nb15 --to cicids2017-improved
  python -m trainer evaluate --bundle bundles/unsw-nb15 --data labelled.csv.gz --out reports/unsw-nb15
  python -m trainer drift    --bundle bundles/unsw-nb15 --data sample.parquet --out drift.html
  python -m trainer card     --bundle bundles/unsw-nb15 --report reports/unsw-nb15
  python -m trainer register --bundle bundles/unsw-nb15
  python -m trainer promote  --dataset unsw-nb15 --data labelled.csv.gz
  python -m trainer sample   --dataset unsw-nb15 --data flows/ --out sample.csv.gz --rows 500
  python -m export  build    --dataset unsw-nb15
"""


def parser() -> argparse.ArgumentParser:
    """The command line, whole."""
    top = argparse.ArgumentParser(
        prog="python -m trainer",
        description="Labelled flow CSVs → a trained FT-Transformer (prepare, pretrain, finetune), and its worth (evaluate).",
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

    def add_run(command: argparse.ArgumentParser) -> None:
        command.add_argument("--dataset", choices=SCHEMAS, help="data set whose columns the files have")
        command.add_argument(
            "--runs", type=Path, default=Path("runs"), metavar="DIR", help="where artefacts go (default: runs)"
        )

    def add_data(command: argparse.ArgumentParser, *, required: bool = True) -> None:
        command.add_argument(
            "--data", type=Path, required=required, nargs="+", metavar="PATH",
            help="labelled CSV files, gzipped or not, or directories of them"
            + ("" if required else " (default: data.source of params.yaml)"),
        )  # fmt: skip

    prepare = add("prepare", "read, clean and split a data set's CSVs; fit the preprocessor on the training rows")
    add_run(prepare)
    add_data(prepare, required=False)
    prepare.add_argument("--out", type=Path, metavar="DIR", help="write here instead of RUNS/DATASET/prepared")
    prepare.add_argument(
        "--exclude", type=Path, nargs="*", metavar="FILE",
        help="CSVs whose rows must not be trained on, such as the demo's sample: they join the test rows "
        "(default: data.held_out)",
    )  # fmt: skip
    prepare.add_argument(
        "--benign-only", action="store_true", default=None,
        help="flows without labels, all taken for benign: `novelty` and `export build` make a detector of what is novel",
    )  # fmt: skip

    add_run(add("pretrain", "masked feature modelling: hide features, reconstruct them; no labels"))
    add_run(
        add(
            "novelty",
            "learn how the features of benign flows hang together, so that novel ones can be told; no attacks",
        )
    )
    add_run(add("finetune", "train the attack head and the attack-family head, and report validation and test figures"))

    tune = add(
        "tune", "search the hyper-parameters of finetuning on a part of the rows; killed and started again, it goes on"
    )
    add_run(tune)
    tune.add_argument("--trials", type=int, required=True, metavar="N", help="go on until the study has so many")
    tune.add_argument("--rows", type=int, default=10_000, metavar="N", help="training rows of a trial (default: 10000)")
    tune.add_argument("--epochs", type=int, default=3, metavar="N", help="epochs of a trial (default: 3)")

    compare = add(
        "compare",
        "the FT-Transformer and what one would use instead, on the same rows: quality, size, time, speed",
    )
    ablate = add("ablate", "what the detector leans on, and how it does with less")
    unseen = add(
        "unseen",
        "leave one attack family out of training, look for it in the test: classifier, novelty score, both, and LightGBM",
    )
    unseen.add_argument(
        "--families", nargs="+", metavar="NAME", help="which ones, one at a time (default: those of the README's table)"
    )
    transfer = add(
        "transfer",
        "train on one data set, test on another, by the features that both have: alone, and with a few of its labels",
    )
    transfer.add_argument("--to", choices=SCHEMAS, required=True, help="data set to test on; it must be prepared too")
    for experiment in (ablate, unseen, transfer):
        for name, what in (("rows", "training rows"), ("epochs", "passes over them"), ("seeds", "repetitions")):
            experiment.add_argument(
                f"--{name}", type=int, metavar="N", help=f"{what} (default: experiments.{name} of params.yaml)"
            )
    for experiment in (compare, ablate, unseen, transfer):
        add_run(experiment)
        experiment.add_argument(
            "--out", type=Path, metavar="DIR",
            help="writes a table there, for the report of `evaluate --out DIR` (default: reports/DATASET)",
        )  # fmt: skip
    ablate.add_argument(
        "--what", required=True, choices=ABLATIONS,
        help="pretraining: with and without, by share of labels; shortcuts: without features that know the test bed; "
        "importance: of each feature of the finetuned model; missing: that model as features go missing; time: trained on the "
        "first days, tested on later ones; all: all of them that the data set allows",
    )  # fmt: skip
    add_data(ablate, required=False)

    evaluate = add("evaluate", "score labelled CSVs with a bundle: figures with intervals, plots, a report in HTML")
    evaluate.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle to evaluate")
    add_data(evaluate)
    evaluate.add_argument(
        "--out", type=Path, default=Path("reports"), metavar="DIR",
        help="writes metrics.json, figures/ and report.html there (default: reports)",
    )  # fmt: skip
    evaluate.add_argument(
        "--track", action="store_true", help="record figures, report and bundle in MLflow (tracking.mlflow_uri) too"
    )
    limit = evaluate.add_mutually_exclusive_group()
    limit.add_argument(
        "--threshold", type=float, metavar="P", help="score from which a flow counts as an attack (default: 0.5)"
    )
    limit.add_argument("--target-fpr", type=float, metavar="P", help="use the bundle's threshold for that rate")

    drift = add(
        "drift", "a window of flows against what the bundle was trained on: figures, and Evidently's report in HTML"
    )
    drift.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="whose reference it is held against")
    drift.add_argument(
        "--data", type=Path, required=True, nargs="+", metavar="FILE",
        help="CSV or Parquet, with labels or without; `python -m stream sample` writes such a file",
    )  # fmt: skip
    drift.add_argument("--out", type=Path, default=Path("drift.html"), metavar="FILE", help="default: drift.html")
    drift.add_argument(
        "--reference", type=Path, nargs="+", default=[], metavar="FILE",
        help="flows to hold it against (default: the bundle's own reference)",
    )  # fmt: skip

    card = add("card", "write a bundle's MODEL_CARD.md, and put the report of an evaluation beside it")
    card.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle to describe")
    card.add_argument("--report", type=Path, required=True, metavar="DIR", help="what `evaluate --out DIR` wrote")

    register = add("register", "put a bundle into the MLflow Model Registry as a version with the alias challenger")
    register.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle to register")
    register.add_argument("--name", help="registered model (default: flowsentry-DATASET)")

    promote = add("promote", "make the challenger the champion, if it beats the present one on labelled test rows")
    promote.add_argument("--dataset", choices=SCHEMAS, help="whose model: flowsentry-DATASET")
    promote.add_argument("--name", help="registered model, instead of --dataset")
    add_data(promote)
    promote.add_argument(
        "--target-fpr", type=float, metavar="P",
        help="false-positive rate at which recalls are compared (default: stream.target_fpr)",
    )  # fmt: skip

    sample = add("sample", "write a labelled CSV out of the test rows: a small one for the demo, or all of them")
    add_run(sample)
    add_data(sample, required=False)
    sample.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV to write, gzipped")
    size = sample.add_mutually_exclusive_group()
    size.add_argument("--rows", type=int, default=3000, metavar="N", help="default: 3000")
    size.add_argument("--whole", action="store_true", help="every test row, whatever its label")
    sample.add_argument(
        "--attack-share", type=float, default=0.65, metavar="P", help="share of attacks (default: 0.65)"
    )
    return top


def _csv_files(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.csv")) + sorted(path.glob("*.csv.gz")) if path.is_dir() else [path]
        if not inside:
            raise FlowsentryError(f"{path}: no .csv or .csv.gz file in this directory")
        found += inside
    return found


def _sources(arguments: argparse.Namespace, params: Params) -> list[Path]:
    if arguments.data is None and params.data.source is None:
        raise ParamsError("no data: give --data PATH, or set data.source in params.yaml")
    return _csv_files(arguments.data or [params.data.source])


def _run(arguments: argparse.Namespace) -> int:
    named = {
        "data.dataset": getattr(arguments, "dataset", None),
        "data.benign_only": getattr(arguments, "benign_only", None),
    }
    if arguments.command in _EXPERIMENTS:
        named |= {f"experiments.{name}": getattr(arguments, name, None) for name in ("rows", "epochs", "seeds")}
    params = load_params(common_options(arguments, named), file=arguments.params)
    if arguments.command in _OF_BUNDLES:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        return _OF_BUNDLES[arguments.command](arguments, params)
    directory = arguments.runs / params.data.dataset
    # Heavy imports where they are needed, so that --help and mistakes answer at once and prepare does without torch.
    if arguments.command == "prepare":
        from trainer.prepare import prepare

        out = arguments.out or directory / "prepared"
        held_out = [] if params.data.held_out is None else [params.data.held_out]
        exclude = held_out if arguments.exclude is None else arguments.exclude
        prepare(_sources(arguments, params), params.data, out, exclude=exclude)
    elif arguments.command == "sample":
        from trainer.prepare import load_prepared
        from trainer.sample import sample

        prepared = load_prepared(directory / "prepared", labelled=False)
        count = sample(
            prepared, _sources(arguments, params), arguments.out,
            rows=None if arguments.whole else arguments.rows, attack_share=arguments.attack_share, seed=params.data.seed,
        )  # fmt: skip
        print(f"wrote {count} rows to {arguments.out}")
    else:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported: it would phone home
        from trainer import commands

        if arguments.command == "tune":
            _tune(arguments, params, directory)
            return 0
        if arguments.command in _EXPERIMENTS:
            _experiment(arguments, params, directory)
            return 0
        from trainer.distributed import joined

        stages = {"pretrain": commands.pretrain, "novelty": commands.novelty, "finetune": commands.finetune}
        with joined():
            stages[arguments.command](params, directory)
    return 0


def _tune(arguments: argparse.Namespace, params: Params, directory: Path) -> None:
    from trainer.commands import device_of
    from trainer.tuning import tune

    for name in ("trials", "rows", "epochs"):
        if getattr(arguments, name) < 1:
            raise ParamsError(f"--{name} {getattr(arguments, name)}: expected a number of 1 or more")
    best = tune(
        params,
        directory,
        trials=arguments.trials,
        rows=arguments.rows,
        epochs=arguments.epochs,
        device=device_of(params),
    )
    print("best: " + " ".join(f"--set train.{name}={value}" for name, value in best.items()))


def _experiment(arguments: argparse.Namespace, params: Params, directory: Path) -> None:
    from rich.console import Console

    from trainer.commands import device_of
    from trainer.experiments.ablate import ablate
    from trainer.experiments.compare import compare
    from trainer.experiments.transfer import transfer
    from trainer.experiments.unseen import unseen
    from trainer.prepare import load_prepared

    prepared, device = load_prepared(directory / "prepared"), device_of(params)
    if arguments.command == "compare":
        tables = [compare(prepared, params, seed=params.data.seed, device=device)]
    elif arguments.command == "unseen":
        tables = unseen(prepared, params, families=arguments.families, device=device)
    elif arguments.command == "transfer":
        target = load_prepared(arguments.runs / arguments.to / "prepared")
        tables = [transfer(prepared, target, params, device=device)]
    else:
        files = partial(_sources, arguments, params)
        tables = ablate(arguments.what, prepared, params, directory / "finetune.pt", files, device)
    for table in tables:
        table.show(Console())
        print(f"wrote {table.write(arguments.out or Path('reports') / params.data.dataset)}")


def _evaluate(arguments: argparse.Namespace, params: Params) -> int:
    from rich.console import Console

    from trainer.evaluation.evaluate import evaluate
    from trainer.evaluation.report import print_tables

    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise ParamsError(f"--threshold {arguments.threshold}: expected a score from 0 to 1")
    metrics = evaluate(
        arguments.bundle, _csv_files(arguments.data), arguments.out, params.stream,
        threshold=arguments.threshold, target_fpr=arguments.target_fpr,
    )  # fmt: skip
    print_tables(metrics, Console())
    if arguments.track:
        from trainer.evaluation.evaluate import track

        track(params, metrics, arguments.bundle, arguments.out)
    print(f"wrote metrics.json, figures/ and report.html to {arguments.out}")
    return 0


def _drift(arguments: argparse.Namespace, params: Params) -> int:
    from rich.console import Console

    from trainer.drift import drift
    from trainer.drift_table import drift_table

    distances = drift(
        arguments.bundle, _csv_files(arguments.data), arguments.out,
        reference=_csv_files(arguments.reference), min_feature_coverage=params.stream.min_feature_coverage,
        psi_bound=params.drift.psi_bound, seed=params.data.seed,
    )  # fmt: skip
    Console().print(drift_table(distances, params.drift.psi_bound))
    print(f"wrote {arguments.out}")
    return 0


def _card(arguments: argparse.Namespace, _: Params) -> int:
    from trainer.evaluation.card import write_card

    print(f"wrote {write_card(arguments.bundle, arguments.report)}")
    return 0


def _register(arguments: argparse.Namespace, params: Params) -> int:
    from trainer.registry import CHALLENGER, register

    name, version = register(arguments.bundle, params.tracking.mlflow_uri, arguments.name)
    print(f"{name}: version {version} is the {CHALLENGER}")
    return 0


def _promote(arguments: argparse.Namespace, params: Params) -> int:
    """Exit status 1: the challenger was not promoted."""
    from trainer.registry import CHALLENGER, RULE, model_name, promote

    name = arguments.name or model_name(params.data.dataset)
    decision = promote(
        name, _csv_files(arguments.data), params.tracking.mlflow_uri,
        rate=arguments.target_fpr or params.stream.target_fpr,
        min_feature_coverage=params.stream.min_feature_coverage,
    )  # fmt: skip
    print(f"{name}: the {CHALLENGER} is {'promoted' if decision.promoted else 'not promoted'}: {decision.why}")
    if decision.differences:
        print(f"rule: {RULE}")
    return 0 if decision.promoted else 1


_OF_BUNDLES: Mapping[str, Callable[[argparse.Namespace, Params], int]] = {
    "evaluate": _evaluate,
    "drift": _drift,
    "card": _card,
    "register": _register,
    "promote": _promote,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    return run_command(lambda: _run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
