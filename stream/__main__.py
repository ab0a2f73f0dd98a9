"""`python -m stream`: flow records in from Kafka, alerts out to Kafka, and all that is needed to try it."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.alert import Severity
from schemas.cli import add_common, common_options, run_command
from schemas.datasets import SCHEMAS, schema_named
from schemas.errors import ParamsError
from schemas.params import Params
from schemas.settings import NULL, load_params
from stream.dead_letters import command as dead_letters
from stream.logs import configure_logging
from stream.supervisor import run_workers, stop_on_signals

if TYPE_CHECKING:
    from rich.console import Console

    from stream.demo import DemoResult

# What one command alone needs is imported there: each worker of `run` is a process that imports this module anew.

__all__ = ["main", "parser"]

_EXAMPLES = """examples:
  python -m stream broker --port 9092
  python -m stream run    --bundle bundles/cicids2017-improved --create-topics
  python -m stream replay flows.csv.gz --topic flows --rate 500 --create-topics
  python -m stream alerts --from-beginning --min-severity high
  python -m stream top    --url http://127.0.0.1:9108
  python -m stream dead-letters list --by hour
  python -m stream sample --out sample.parquet --size 10000 --seconds 3600
  python -m stream api    --bundle bundles/cicids2017-improved --port 8080
  python -m stream demo
"""


def parser() -> argparse.ArgumentParser:
    """The command line, whole."""
    top = argparse.ArgumentParser(
        prog="python -m stream",
        description="The streaming detector: flow records in on a Kafka topic, attack alerts out on another.",
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

    run = add("run", "detect: consume flow records, publish alerts; exactly once")
    _add_servers(run)
    _add_bundle(run)
    run.add_argument("--input", metavar="TOPIC", help="flow records (default: flows)")
    run.add_argument("--alerts", metavar="TOPIC", help="alerts (default: alerts)")
    run.add_argument("--dead-letters", metavar="TOPIC", help="records that cannot be used (default: flows.dead)")
    run.add_argument("--events", metavar="TOPIC", help="what the service tells of itself (default: flowsentry.events)")
    run.add_argument("--group", help="consumer group (default: flowsentry)")
    run.add_argument("--instance", help="name of this instance, stable over restarts (default: the host's name)")
    run.add_argument("--workers", type=int, metavar="N", help="worker processes (default: 1)")
    run.add_argument("--batch-size", type=int, metavar="N", help="most records of a batch")
    run.add_argument("--max-wait-ms", type=int, metavar="N", help="longest wait for a batch to fill")
    run.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="HTTP: /metrics, /health, /ready; default 9108, worker i has PORT + i",
    )
    run.add_argument("--delivery", choices=("exactly-once", "at-least-once"), help="default: exactly-once")
    run.add_argument("--on-poison", choices=("stop", "dead-letter"),
                     help="a record that a bug cannot process: stop there (default), or set it aside and go on")  # fmt: skip
    run.add_argument("--create-topics", action="store_true", default=None, help="make topics that do not exist")
    run.add_argument("--quiet", action="store_true", help="log warnings and errors only")

    again = add("replay", "produce the rows of CSV files as a stream of flow records")
    _add_servers(again)
    again.add_argument("files", nargs="+", type=Path, metavar="FILE", help="CSV of any supported data set, .gz or not")
    again.add_argument("--topic", default="flows", help="default: flows")
    again.add_argument("--dataset", choices=SCHEMAS, help="default: told from each file's columns")
    pace = again.add_mutually_exclusive_group()
    pace.add_argument("--rate", type=float, metavar="FLOWS_PER_S", help="evenly paced (default: as fast as it goes)")
    pace.add_argument("--speed", type=float, metavar="X", help="by the rows' own times, X times as fast")
    again.add_argument("--limit", type=int, metavar="N", help="stop after N records")
    again.add_argument("--loop", action="store_true", help="begin again at the end, until stopped")
    again.add_argument("--create-topics", action="store_true", help="make the topic if it does not exist")

    alerts = add("alerts", "subscribe to the alerts and print them")
    _add_servers(alerts)
    alerts.add_argument("--topic", default=None, help="default: alerts")
    alerts.add_argument("--from-beginning", action="store_true", help="all alerts, not only new ones")
    alerts.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    alerts.add_argument("--min-severity", type=Severity, choices=list(Severity), metavar="S",
                        help=f"one of {', '.join(Severity)}")  # fmt: skip
    alerts.add_argument("--limit", type=int, metavar="N", help="stop after N alerts")

    top_view = add("top", "a running service, live: flows, lag, alerts, dead letters, stage times, workers; q ends it")
    top_view.add_argument("--url", action="append", metavar="URL",
                          help="where a worker's metrics are; may be repeated (default: http://127.0.0.1:9108)")  # fmt: skip
    top_view.add_argument("--workers", type=int, metavar="N",
                          help="the service has N: look at the N - 1 ports after the URL's, too (default: 1)")  # fmt: skip
    top_view.add_argument("--once", action="store_true", help="print one picture and end")

    some = add(
        "sample", "keep a uniform sample of the flows that come, as Parquet: for `trainer drift`, and to train anew"
    )
    _add_servers(some)
    some.add_argument("--bundle", type=Path, metavar="DIR", help="bundle whose data set's flows they are")
    some.add_argument("--input", metavar="TOPIC", help="flow records (default: flows)")
    some.add_argument("--out", type=Path, required=True, metavar="FILE",
                      help="Parquet file: written anew every few seconds, and at the end (Ctrl-C)")  # fmt: skip
    some.add_argument("--size", type=int, default=10_000, metavar="N", help="most flows that are kept (default: 10000)")
    some.add_argument("--seconds", type=float, metavar="S", help="of the last S seconds (default: of all that come)")
    some.add_argument("--from-beginning", action="store_true", help="all flows on the topic, not only new ones")
    some.add_argument("--limit", type=int, metavar="N", help="stop after N flows")

    text = "records that could not be used: count, look at, put back, delete"
    letters = commands.add_parser(
        "dead-letters", help=text, description=text, epilog=dead_letters.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    dead_letters.add_commands(letters, _add_servers)

    api = add("api", "the detector over HTTP, for whoever has no Kafka: POST /predict; its page is at /docs")
    _add_bundle(api)
    api.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    api.add_argument("--port", type=int, help="port to listen on (default: 8080)")
    api.add_argument("--key-file", type=Path, metavar="FILE", help="requests must hold this file's text in X-API-Key")

    broker = add("broker", "a real Apache Kafka in the foreground, for trying things out; needs no Java")
    broker.add_argument("--port", type=int, default=9092, help="default: 9092; listens on 127.0.0.1 alone")
    broker.add_argument("--data", type=Path, metavar="DIR", help="keep the data there and find it again")

    broker.add_argument(
        "--fetch", action="store_true", help="only fetch Kafka into the cache, for a first start that is fast"
    )

    demo = add("demo", "Kafka, a replay of real labelled flows, the detector and a live view; ends by itself")
    demo.add_argument("--dataset", choices=SCHEMAS, help="whose bundle to use (default: cicids2017-improved)")
    demo.add_argument("--bundle", type=Path, metavar="DIR", help="default: bundles/DATASET")
    demo.add_argument("--input", type=Path, nargs="+", metavar="FILE", help="labelled CSVs (default: the sample)")
    demo.add_argument("--rate", type=float, default=100.0, metavar="FLOWS_PER_S", help="default: 100")
    demo.add_argument("--limit", type=int, metavar="N", help="stop after N flows")
    return top


def _add_bundle(command: argparse.ArgumentParser) -> None:
    command.add_argument("--bundle", type=Path, metavar="DIR", help="detector bundle")
    command.add_argument("--require-signature", action="store_true", default=None,
                         help="refuse a bundle that none of --trusted-keys has signed")  # fmt: skip
    command.add_argument("--trusted-keys", type=Path, metavar="FILE", help="PEM file of ed25519 public keys")
    limit = command.add_mutually_exclusive_group()
    limit.add_argument("--target-fpr", type=float, metavar="P", help="use the bundle's threshold for that rate")
    limit.add_argument("--threshold", type=float, metavar="P", help="a threshold of your own")


def _add_servers(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--bootstrap-servers", metavar="H:P",
        help="Kafka brokers (default: KAFKA_BOOTSTRAP_SERVERS, else params.yaml, else 127.0.0.1:9092)",
    )  # fmt: skip


_OF_BUNDLE = ("bundle", "require_signature", "trusted_keys", "target_fpr", "threshold")
_SETTINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "top": {"stream": ("workers",)},
    "sample": {"stream": ("bootstrap_servers", "bundle", "input")},
    "api": {"stream": _OF_BUNDLE, "api": ("host", "port", "key_file")},
    "run": {
        "stream": ("bootstrap_servers", *_OF_BUNDLE, "input", "alerts", "dead_letters", "events", "group", "instance", "workers",
                   "batch_size", "max_wait_ms", "metrics_port", "delivery", "on_poison", "create_topics"),
    },
}  # fmt: skip
"""Of which commands which options are settings, by section."""


def _params(arguments: argparse.Namespace) -> Params:
    options = common_options(arguments)
    if "FLOWSENTRY_STREAM__BOOTSTRAP_SERVERS" not in os.environ:
        options.setdefault("stream.bootstrap_servers", os.environ.get("KAFKA_BOOTSTRAP_SERVERS"))
    if getattr(arguments, "target_fpr", None) is not None:
        options["stream.threshold"] = NULL  # one in params.yaml would go before it
    for section, names in _SETTINGS.get(arguments.command, {"stream": ("bootstrap_servers",)}).items():
        for name in names:
            if (value := getattr(arguments, name)) is not None:  # else what --set says
                options[f"{section}.{name}"] = value
    return load_params(options, file=arguments.params)


def _replay(arguments: argparse.Namespace, params: Params) -> int:
    from stream.replay import replay, shown_progress

    stop = stop_on_signals()
    with shown_progress(arguments.limit) as progress:
        summary = replay(
            arguments.files,
            schema_named(arguments.dataset) if arguments.dataset else None,
            bootstrap_servers=params.stream.bootstrap_servers,
            topic=arguments.topic,
            kafka=params.kafka,
            rate=arguments.rate,
            speed=arguments.speed,
            limit=arguments.limit,
            loop=arguments.loop,
            create_topics=arguments.create_topics,
            on_progress=progress,
            stop=stop,
        )
    print(f"{summary.produced} flows produced to {arguments.topic!r} in {summary.seconds:.1f} s", file=sys.stderr)
    return 0


def _alerts(arguments: argparse.Namespace, params: Params) -> int:
    from stream.subscribe import run_subscriber

    return run_subscriber(
        params.stream.bootstrap_servers,
        arguments.topic or params.stream.alerts,
        kafka=params.kafka,
        from_beginning=arguments.from_beginning,
        min_severity=arguments.min_severity,
        format=arguments.format,
        limit=arguments.limit,
        stop=stop_on_signals(),
    )


def _sample(arguments: argparse.Namespace, params: Params) -> int:
    from export.bundle import read_bundle
    from stream.decode import Decoder
    from stream.record import limits_of
    from stream.replay import shown_progress
    from stream.sampling import run_sampling

    stream = params.stream
    schema = read_bundle(stream.bundle).manifest.schema
    with shown_progress(arguments.limit, what="sample") as progress:
        came, kept = run_sampling(
            stream.bootstrap_servers,
            stream.input,
            Decoder(schema, min_feature_coverage=stream.min_feature_coverage, limits=limits_of(stream)),
            schema,
            arguments.out,
            kafka=params.kafka,
            size=arguments.size,
            seconds=arguments.seconds,
            from_beginning=arguments.from_beginning,
            limit=arguments.limit,
            stop=stop_on_signals(),
            on_progress=progress,
        )
    print(f"{kept} of {came} flows in {arguments.out}" if kept else "no flow came: nothing is written", file=sys.stderr)
    return 0 if kept else 1


def _top(arguments: argparse.Namespace, params: Params) -> int:
    from rich.console import Console

    from stream.top.live import run_top
    from stream.top.scrape import metrics_url, neighbours

    given, workers = arguments.url, params.stream.workers
    if given is None:
        given = [f"http://127.0.0.1:{params.stream.metrics_port}"]
    elif arguments.workers is None:
        workers = 1
    urls = [url for each in given for url in neighbours(metrics_url(each), workers)]
    return run_top(list(dict.fromkeys(urls)), once=arguments.once, console=Console(), stop=stop_on_signals())


def _demo(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from stream.demo import SAMPLE, run_demo

    dataset = arguments.dataset or "cicids2017-improved"
    files = arguments.input
    if files is None:
        if dataset != "cicids2017-improved":
            raise ParamsError(f"--input: the sample is of cicids2017-improved; give a labelled {dataset} CSV")
        files = [SAMPLE]
    console = Console()
    bundle = arguments.bundle or Path("bundles") / dataset
    result = run_demo(bundle, files, schema_named(dataset), rate=arguments.rate, limit=arguments.limit, console=console)
    _summarize(result, bundle, files, console)
    return 0 if result.flows and result.alerted else 1


def _summarize(result: "DemoResult", bundle: Path, files: Sequence[Path], console: "Console") -> None:
    p50, p99 = result.picture.latency_ms
    attacks = sum(result.truth.values())
    families = ", ".join(
        f"{name} {count}" for name, count in sorted(result.families.items(), key=lambda item: -item[1])
    )
    lines = (
        "",
        f"flows in    {result.flows}, {attacks} of them attacks by their labels; {result.picture.dead_letters} dead letters",
        f"alerts out  {len(result.alerted)}: {families}",
        f"precision   {result.precision:.4f}   recall {result.recall:.4f}   (alerts against the labels, id by id)",
        f"latency     produce→alert p50 {p50:.0f} ms, p99 {p99:.0f} ms",
        "",
        "Try next, each in a terminal of its own:",
        "  .venv/bin/python -m stream broker",
        f"  .venv/bin/python -m stream run --bundle {bundle} --create-topics",
        f"  .venv/bin/python -m stream replay {os.path.relpath(files[0])} --rate 50 & .venv/bin/python -m stream alerts",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _run(arguments: argparse.Namespace) -> int:
    configure_logging(quiet=arguments.command == "demo" or getattr(arguments, "quiet", False))
    if arguments.command == "broker":
        from stream.broker import kafka_command, run_foreground

        if arguments.fetch:
            kafka_command()
            return 0
        return run_foreground(arguments.port, arguments.data)
    if arguments.command == "demo":
        return _demo(arguments)
    params = _params(arguments)
    if arguments.command == "run":
        return run_workers(params, quiet=arguments.quiet)
    if arguments.command == "api":
        from stream.api.server import serve

        return serve(params)
    if arguments.command == "sample":
        return _sample(arguments, params)
    if arguments.command == "top":
        return _top(arguments, params)
    if arguments.command == "dead-letters":
        return dead_letters.run(arguments, params)
    return _replay(arguments, params) if arguments.command == "replay" else _alerts(arguments, params)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    return run_command(lambda: _run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
