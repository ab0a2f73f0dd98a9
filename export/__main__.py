"""`python -m export`: build a detector bundle, verify, sign and fetch one, score a CSV with one."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from export.bundle import MANIFEST, read_bundle, write_signature
from export.signing import PRIVATE_KEY, PUBLIC_KEY, Trust, make_keys, sign
from schemas.cli import add_common, common_options, run_command
from schemas.datasets import SCHEMAS
from schemas.errors import ParamsError
from schemas.params import Params
from schemas.settings import NULL, load_params

__all__ = ["main", "parser"]

_EXAMPLES = """examples:
  python -m export build  --dataset unsw-nb15
  python -m export verify bundles/unsw-nb15
  python -m export score  bundles/unsw-nb15 --input flows.csv.gz --output scores.csv --rejects rejects.csv
  python -m export keygen --out keys
  python -m export sign   bundles/unsw-nb15 --key keys/signing.key
  python -m export verify bundles/unsw-nb15 --trusted-keys keys/signing.pub --require-signature
  python -m export pull   bundles/unsw-nb15 --to bundles/live
  python -m export pull   models:/flowsentry-unsw-nb15@champion --to bundles/live --watch
"""

# MLflow's own settings, where a user has none: a pull that is to stop does not wait for long for an answer.
_MLFLOW = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


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
            name,
            help=text,
            description=text,
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # a password given as --password is not taken for --password-file, and repeated
        )
        add_common(command)
        return command

    def add_trust(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--trusted-keys", type=Path, metavar="FILE", help="public keys whose signatures count, PEM"
        )
        command.add_argument(
            "--require-signature",
            action="store_true",
            default=None,
            help="refuse a bundle that none of them has signed",
        )

    def add_password(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--password-file", type=Path, metavar="FILE", help="its first line is the private key's password"
        )

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

    add_trust(verify)

    score = add("score", "score a CSV offline, by the code that the service uses")
    score.add_argument("bundle", type=Path, metavar="DIR")
    score.add_argument("--input", type=Path, required=True, metavar="FILE", help="flows, CSV, gzipped or not")
    score.add_argument(
        "--output", type=Path, required=True, metavar="FILE",
        help="CSV to write: row (0-based data row), score, verdict (1 alert, 0 none), family, novelty",
    )  # fmt: skip
    score.add_argument("--rejects", type=Path, metavar="FILE", help="CSV to write: rows that cannot be used, and why")
    limit = score.add_mutually_exclusive_group()
    limit.add_argument("--target-fpr", type=float, metavar="P", help="use the bundle's threshold for that rate")
    limit.add_argument("--threshold", type=float, metavar="P", help="a threshold of your own")

    keygen = add("keygen", "make a pair of ed25519 keys for signing bundles")
    keygen.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="writes signing.key and signing.pub there"
    )
    add_password(keygen)

    sign = add("sign", "sign a bundle: writes bundle.json.sig into it")
    sign.add_argument("bundle", type=Path, metavar="DIR")
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key, PEM")
    add_password(sign)

    pull = add("pull", "fetch a bundle, check it whole and switch a symbolic link to it, while a service runs on it")
    pull.add_argument("source", metavar="SOURCE", help="models:/NAME@ALIAS, models:/NAME/VERSION or a directory")
    pull.add_argument(
        "--to", type=Path, required=True, metavar="LINK", help="the versions lie beside it, in LINK.versions"
    )
    pull.add_argument("--watch", action="store_true", help="go on, and fetch whatever the source has next")
    pull.add_argument("--every", type=float, default=30.0, metavar="S", help="seconds between looks (default: 30)")
    add_trust(pull)
    return top


def _params(arguments: argparse.Namespace) -> Params:
    given = vars(arguments)
    named = {
        "data.dataset": given.get("dataset"),
        "stream.target_fpr": given.get("target_fpr"),
        "stream.threshold": given.get("threshold"),
        "stream.trusted_keys": given.get("trusted_keys"),
        "stream.require_signature": given.get("require_signature"),
    }
    if given.get("target_fpr") is not None:
        named["stream.threshold"] = NULL  # one in params.yaml would go before it
    return load_params(common_options(arguments, named), file=arguments.params)


def _run(arguments: argparse.Namespace) -> int:
    params = _params(arguments)
    trust = Trust(params.stream.trusted_keys, params.stream.require_signature)
    if arguments.command == "build":
        from export.build import build

        dataset = params.data.dataset
        out = build(
            arguments.runs / dataset, arguments.out or Path("bundles") / dataset, params.export, name=arguments.name
        )
        print(f"wrote {out}")
    elif arguments.command == "verify":
        from export.verify import verify

        for line in verify(arguments.bundle, arguments.run, trust):
            print(line)
    elif arguments.command == "keygen":
        key = make_keys(arguments.out, _password(arguments))
        print(
            f"key {key}: {arguments.out / PRIVATE_KEY} signs, keep it to yourself; {arguments.out / PUBLIC_KEY} checks"
        )
    elif arguments.command == "sign":
        bundle = read_bundle(arguments.bundle)
        path = write_signature(bundle, sign(bundle.files[MANIFEST], arguments.key, _password(arguments)))
        print(f"wrote {path}")
    elif arguments.command == "pull":
        _pull(arguments, params, trust)
    else:
        _score(arguments, params, trust)
    return 0


def _password(arguments: argparse.Namespace) -> bytes | None:
    if arguments.password_file is None:
        return None
    password: bytes = arguments.password_file.read_bytes().partition(b"\n")[0].rstrip(b"\r")
    if not password:
        raise ParamsError(f"--password-file {arguments.password_file}: its first line is empty")
    return password


def _pull(arguments: argparse.Namespace, params: Params, trust: Trust) -> None:
    from export.pull import described, pull, source_of, watch

    if not arguments.every > 0:
        raise ParamsError(f"--every {arguments.every}: expected a number of seconds above 0")
    for name, value in _MLFLOW.items():
        os.environ.setdefault(name, value)
    source = source_of(arguments.source, params.tracking.mlflow_uri)
    if arguments.watch:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

        def say(line: str) -> None:
            print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {arguments.to}: {line}", file=sys.stderr, flush=True)

        watch(source, arguments.to, trust, every_s=arguments.every, say=say)
    pulled = pull(source, arguments.to, trust)
    print(f"{arguments.to}: {'switched to' if pulled.switched else 'has already'} {described(pulled.manifest)}")


def _score(arguments: argparse.Namespace, params: Params, trust: Trust) -> None:
    from export.detector import load
    from export.scoring import score_file

    detector = load(arguments.bundle, trust=trust)
    stream = params.stream
    counts = score_file(
        arguments.input,
        arguments.output,
        detector,
        policy=detector.manifest.policy_of(stream.target_fpr, stream.threshold, novel=stream.novel_alerts),
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status."""
    return run_command(lambda: _run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
