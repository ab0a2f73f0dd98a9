"""`python -m trainer`: CSV files → a trained FT-Transformer."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from schemas.cli import common_options, run_command
from schemas.errors import FlowsentryError, ParamsError
from schemas.params import Params
from schemas.settings import load_params
from trainer.options import parser

__all__ = ["main", "parser"]

_EXPERIMENTS = ("compare", "ablate", "unseen", "transfer")


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


def _servers(arguments: argparse.Namespace) -> str | None:
    """As for `python -m stream`, where tests and containers say which Kafka."""
    if arguments.bootstrap_servers is None and "FLOWSENTRY_STREAM__BOOTSTRAP_SERVERS" not in os.environ:
        return os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    given: str | None = arguments.bootstrap_servers
    return given


def _run(arguments: argparse.Namespace) -> int:
    named = {
        "data.dataset": getattr(arguments, "dataset", None),
        "data.benign_only": getattr(arguments, "benign_only", None),
        "stream.bootstrap_servers": _servers(arguments) if arguments.command == "dashboard" else None,
        "stream.alerts": getattr(arguments, "alerts", None),
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
        reference=_csv_files(arguments.reference), stream=params.stream,
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


def _dashboard(arguments: argparse.Namespace, params: Params) -> int:
    from trainer.dashboard.command import serve
    from trainer.dashboard.service import metrics_url
    from trainer.dashboard.settings import Settings

    there = [path.parent for path in Path("bundles").glob("*/bundle.json")]
    bundles = arguments.bundle or sorted(there, key=lambda path: (path != params.stream.bundle, path))
    settings = Settings(
        params,
        bundles=tuple(bundles or [params.stream.bundle]),
        data=tuple(_csv_files(arguments.data or sorted(Path("stream/sample").glob("*.csv.gz")))),
        reports=arguments.reports,
        metrics_urls=tuple(metrics_url(url) for url in arguments.metrics_url),
    )
    return serve(settings, arguments.host, arguments.port)


_OF_BUNDLES: Mapping[str, Callable[[argparse.Namespace, Params], int]] = {
    "evaluate": _evaluate,
    "drift": _drift,
    "card": _card,
    "register": _register,
    "promote": _promote,
    "dashboard": _dashboard,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    return run_command(lambda: _run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
