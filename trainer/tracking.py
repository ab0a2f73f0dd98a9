"""Experiments in MLflow: one experiment per data set, a named run per stage, metrics per epoch, artefacts at the end."""

import json
import logging
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import mlflow

from schemas.params import Params

__all__ = ["Run", "tracked_run"]


class Run:
    """The MLflow run in progress."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        mlflow.log_metrics(dict(metrics), step=step)

    def log_artifact(self, path: Path) -> None:
        mlflow.log_artifact(str(path))


@contextmanager
def tracked_run(params: Params, stage: str, inputs: Path) -> Iterator[Run]:
    """Open a run named `stage-time`, with every parameter, and the git commit and the hashes of the input files as tags."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(params.tracking.mlflow_uri)
    mlflow.set_experiment(f"flowsentry-{params.data.dataset}")
    metadata = json.loads((inputs / "metadata.json").read_text())
    with mlflow.start_run(run_name=f"{stage}-{datetime.now(UTC):%Y%m%d-%H%M%S}"):
        mlflow.log_params({f"data.{name}": value for name, value in params.data.model_dump(mode="json").items()})
        mlflow.log_params({f"train.{name}": value for name, value in params.train.model_dump(mode="json").items()})
        mlflow.set_tags(
            {
                "stage": stage,
                "schema": metadata["schema"]["hash"],
                "git_commit": _git_commit(),
                # Numbered: MLflow refuses many characters of file names in a tag's name, and two may be the same.
                **{f"input.{n}": f"{it['sha256']}  {it['file']}" for n, it in enumerate(metadata["inputs"], start=1)},
            }
        )
        yield Run()


def _git_commit() -> str:
    """The commit of the code, with `+` behind it if files differ; `unknown` where it is no repository."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
