"""What `python -m trainer` can be told."""

import argparse
from pathlib import Path

from schemas.cli import add_common
from schemas.datasets import SCHEMAS

__all__ = ["parser"]

_ABLATIONS = ("pretraining", "shortcuts", "importance", "missing", "time", "all")

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
  python -m trainer dashboard --bundle bundles/cicids2017-improved bundles/unsw-nb15 --port 8501
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
        "--what", required=True, choices=_ABLATIONS,
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
        help="flows to hold it against, as they are (default: the bundle's own reference)",
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

    dashboard = add("dashboard", "pages in a browser: alerts live, data sets, bundles side by side, a flow to try")
    dashboard.add_argument(
        "--bundle", type=Path, nargs="+", metavar="DIR", help="bundles to show (default: those in bundles/)"
    )
    dashboard.add_argument(
        "--data", type=Path, nargs="+", metavar="PATH",
        help="CSVs of flows, or directories of them, to explore and measure on (default: those in stream/sample/)",
    )  # fmt: skip
    dashboard.add_argument(
        "--reports", type=Path, default=Path("reports"), metavar="DIR",
        help="what `evaluate --out DIR/NAME` wrote (default: reports)",
    )  # fmt: skip
    dashboard.add_argument(
        "--bootstrap-servers", metavar="H:P",
        help="Kafka of the alerts (default: KAFKA_BOOTSTRAP_SERVERS, else params.yaml, else 127.0.0.1:9092)",
    )  # fmt: skip
    dashboard.add_argument("--alerts", metavar="TOPIC", help="topic of the alerts (default: alerts)")
    dashboard.add_argument(
        "--metrics-url", nargs="+", default=[], metavar="URL",
        help="the service's workers, to see how fast flows come: http://127.0.0.1:9108",
    )  # fmt: skip
    dashboard.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (default: 127.0.0.1)")
    dashboard.add_argument("--port", type=int, default=8501, metavar="N", help="0 takes a free one (default: 8501)")

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
