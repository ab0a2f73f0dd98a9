"""Experiments in MLflow: one experiment per data set, a named run per stage, metrics per epoch, artefacts at the end."""

import logging
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow

from schemas.params import Params
from trainer.distributed import is_first
from trainer.prepare import Prepared

__all__ = ["Run", "Untracked", "tracked_run", "tracked_stage"]


class Run:
    """The MLflow run in progress."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        mlflow.log_metrics(dict(metrics), step=step)

    def log_artifact(self, path: Path) -> None:
        """A file, or a directory with its name."""
        if path.is_dir():
            mlflow.log_artifacts(str(path), path.name)
        else:
            mlflow.log_artifact(str(path))


class Untracked(Run):
    """A run of which nothing is kept."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        pass

    def log_artifact(self, path: Path) -> None:
        pass


@contextmanager
def tracked_run(
    params: Params, stage: str, dataset: str, schema_hash: str, inputs: Sequence[Mapping[str, Any]]
) -> Iterator[Run]:
    """Open a run named `stage-time` in the data set's experiment, with every parameter, and as tags the git commit and what
    was read: the `file` and `sha256` of each of `inputs`."""
    if not is_first():
        yield Untracked()
        return
    logging.getLogger("alembic").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(params.tracking.mlflow_uri)
    mlflow.set_experiment(f"flowsentry-{dataset}")
    with mlflow.start_run(run_name=f"{stage}-{datetime.now(UTC):%Y%m%d-%H%M%S}"):
        mlflow.log_params({f"data.{name}": value for name, value in params.data.model_dump(mode="json").items()})
        mlflow.log_params({f"train.{name}": value for name, value in params.train.model_dump(mode="json").items()})
        mlflow.set_tags(
            {
                "stage": stage,
                "schema": schema_hash,
                "git_commit": _git_commit(),
                # Numbered: MLflow refuses many characters of file names in a tag's name, and two may be the same.
                **{f"input.{n}": f"{it['sha256']}  {it['file']}" for n, it in enumerate(inputs, start=1)},
            }
        )
        yield Run()


def tracked_stage(params: Params, stage: str, prepared: Prepared) -> AbstractContextManager[Run]:
    """The run of a stage that learns from prepared rows."""
    inputs: Any = prepared.metadata["inputs"]
    return tracked_run(params, stage, prepared.schema.name, prepared.schema.fingerprint(), inputs)


def _git_commit() -> str:
    """The commit of the code, with `+` behind it if files differ; `unknown` where it is no repository."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
