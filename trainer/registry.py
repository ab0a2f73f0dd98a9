"""`register` and `promote`: bundles in the MLflow Model Registry, and which of them is to be served.

A bundle becomes a version of `flowsentry-DATASET` with the alias `challenger`. It becomes `champion`, which
`python -m export pull models:/NAME@champion` serves, only by beating the one that is.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from export.bundle import FILES, read_bundle
from export.detector import Detector, load
from export.pull import RegistrySource
from schemas.errors import FlowsentryError
from trainer.evaluation.comparison import Difference, compare_scores
from trainer.evaluation.scored import score_files

__all__ = ["CHALLENGER", "CHAMPION", "RULE", "Decision", "decide", "model_name", "promote", "register"]

CHALLENGER, CHAMPION = "challenger", "champion"
SURE = 0.95
TIE = 0.001
RULE = (
    f"on the same test rows, in {SURE:.0%} of 1,000 paired bootstrap samples, its recall at the wanted false-positive rate is "
    f"higher; or that recall is within {TIE:g} of the champion's and in {SURE:.0%} its AUC is higher"
)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a challenger is promoted, why in words, and the differences that this rests on (none without a champion)."""

    promoted: bool
    why: str
    differences: list[Difference]


def model_name(dataset: str) -> str:
    """The registered model of a data set."""
    return f"flowsentry-{dataset}"


def register(bundle: Path, tracking_uri: str, name: str | None = None) -> tuple[str, str]:
    """Put a bundle into the registry and make it the challenger; (model, version). One that is there is not put twice.

    Raises:
        BundleError: it is no bundle.
        FlowsentryError: the registry refuses or does not answer.
    """
    checked = read_bundle(bundle)
    manifest = checked.manifest
    name = name or model_name(manifest.schema.name)
    client = _client(tracking_uri)
    try:
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name, description=f"Flowsentry detector bundles for {manifest.schema.name}")
        known = [
            version
            for version in client.search_model_versions(f"name = '{name}'")
            if version.tags.get("bundle") == manifest.hash
        ]
        version = (
            str(known[0].version) if known else _new_version(client, name, bundle, manifest.hash, manifest.version)
        )
        client.set_registered_model_alias(name, CHALLENGER, version)
    except MlflowException as error:
        raise FlowsentryError(f"{tracking_uri}: {error}") from error
    return name, version


def _new_version(client: MlflowClient, name: str, bundle: Path, digest: str, version: str) -> str:
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    run = client.create_run(
        experiment_id, run_name=f"register-{digest[:12]}", tags={"stage": "register", "bundle": digest}
    )
    # The bundle alone: what else lies in the directory (a report, a model card) goes beside it.
    for path in sorted(bundle.iterdir()):
        folder = "model/bundle" if path.name in FILES else "model"
        (client.log_artifacts if path.is_dir() else client.log_artifact)(
            run.info.run_id, str(path), f"{folder}/{path.name}" if path.is_dir() else folder
        )
    client.set_terminated(run.info.run_id)
    made = client.create_model_version(
        name, f"{run.info.artifact_uri}/model", run.info.run_id, tags={"bundle": digest, "bundle_version": version}
    )
    return str(made.version)


def promote(
    name: str, files: Sequence[Path], tracking_uri: str, *, rate: float, min_feature_coverage: float
) -> Decision:
    """Hold the challenger against the champion on labelled test rows, and make it champion if it wins.

    Args:
        rate: the false-positive rate at which recalls are compared.

    Raises:
        FlowsentryError: there is no challenger, a file does not fit, or the registry does not answer.
    """
    client = _client(tracking_uri)
    challenger = _version_of(client, name, CHALLENGER)
    if challenger is None:
        raise FlowsentryError(f"{name} has no {CHALLENGER}: `python -m trainer register --bundle DIR` makes one")
    champion = _version_of(client, name, CHAMPION)
    if champion is not None and champion.version == challenger.version:
        return Decision(False, f"version {champion.version} is the champion already", [])
    with tempfile.TemporaryDirectory() as folder:
        ours = _fetched(name, challenger, Path(folder) / CHALLENGER, tracking_uri)
        theirs = None if champion is None else _fetched(name, champion, Path(folder) / CHAMPION, tracking_uri)
        decision = decide(ours, theirs, files, rate=rate, min_feature_coverage=min_feature_coverage)
    try:
        if decision.promoted:
            client.set_registered_model_alias(name, CHAMPION, challenger.version)
        client.set_model_version_tag(name, challenger.version, "decision", decision.why)
        for difference in decision.differences:
            for key, value in asdict(difference).items():
                if key != "figure":
                    metric = f"promote.{difference.figure.replace('%', 'pct')}.{key}"
                    client.log_metric(challenger.run_id, metric, value)
    except MlflowException as error:
        raise FlowsentryError(f"{tracking_uri}: {error}") from error
    return decision


def decide(
    challenger: Detector, champion: Detector | None, files: Sequence[Path], *, rate: float, min_feature_coverage: float
) -> Decision:
    """Apply `RULE` to two detectors.

    Raises:
        FlowsentryError: they are of different data sets, or the rows are of one class alone.
    """
    if champion is None:
        return Decision(True, "there was no champion", [])
    if champion.schema.name != challenger.schema.name:
        raise FlowsentryError(
            f"the champion is for {champion.schema.name}, the challenger for {challenger.schema.name}"
        )
    rows = score_files(files, challenger, min_feature_coverage)
    theirs = score_files(files, champion, min_feature_coverage)
    try:
        auc, recall = compare_scores(rows.y, theirs.score, rows.score, rate)
    except ValueError as error:
        raise FlowsentryError(f"{', '.join(path.name for path in files)}: {error}") from None
    shown = (
        f"recall at {rate * 100:g}% false positives {recall.second:.4f}, champion {recall.first:.4f} "
        f"(difference {recall.low:+.4f} to {recall.high:+.4f}, better in {recall.better_share:.0%} of samples); "
        f"AUC {auc.second:.5f}, champion {auc.first:.5f} ({auc.low:+.5f} to {auc.high:+.5f}, {auc.better_share:.0%})"
    )
    if recall.gain > 0 and recall.better_share >= SURE:
        return Decision(True, f"its recall is higher: {shown}", [auc, recall])
    if abs(recall.gain) <= TIE and auc.better_share >= SURE:
        return Decision(True, f"its recall is as high and its AUC higher: {shown}", [auc, recall])
    return Decision(False, f"it does not beat the champion: {shown}", [auc, recall])


def _client(tracking_uri: str) -> MlflowClient:
    mlflow.set_tracking_uri(tracking_uri)
    return MlflowClient(tracking_uri, tracking_uri)


def _version_of(client: MlflowClient, name: str, alias: str) -> Any | None:
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise FlowsentryError(f"{name}@{alias}: {error}") from error


def _fetched(name: str, version: Any, directory: Path, tracking_uri: str) -> Detector:
    directory.mkdir()
    RegistrySource(name, f"/{version.version}", tracking_uri).fetch(directory)
    return load(directory)
