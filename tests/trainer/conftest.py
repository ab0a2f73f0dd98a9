"""What the trainer's tests share: tiny settings, prepared invented flows, and one run of the whole pipeline."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from export.__main__ import main as export_main
from schemas.params import DataParams, TrainParams
from tests.flows import flows
from trainer.__main__ import main as trainer_main
from trainer.prepare import Prepared, load_prepared, prepare

DATASET = "unsw-nb15"
TINY = TrainParams(
    d_model=16, n_heads=2, n_layers=1, d_feedforward=32, batch_size=64, learning_rate=1e-2, epochs_pretrain=1,
    epochs_novelty=3, epochs_finetune=3, average_decay=0.9, threads=1, device="cpu",
    precision="float32",
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> Iterator[None]:
    """One thread, so that sums have one order, and no word to MLflow's makers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """400 invented UNSW-NB15 flows, prepared; not to be changed."""
    folder = tmp_path_factory.mktemp("prepared")
    path = flows("unsw-partition", rows=400, seed=11).write(folder / "flows.csv")
    return load_prepared(prepare([path], DataParams(dataset=DATASET, n_quantiles=24), folder / "out"))


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Where one run of every command, from CSVs to a verified bundle, left its work."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "runs" / DATASET

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def tracking(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    def options(self) -> list[str]:
        """What every command of this pipeline is given."""
        settings = {**{f"train.{key}": value for key, value in TINY.model_dump(mode="json").items()},
                    "data.n_quantiles": 24, "tracking.mlflow_uri": self.tracking}  # fmt: skip
        return ["--dataset", DATASET, "--runs", str(self.root / "runs"), *_set(settings)]

    def trainer(self, command: str, *more: str) -> int:
        return trainer_main([command, *self.options(), *more])


def _set(settings: dict[str, object]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """prepare → pretrain → novelty → finetune → export build, once, through the command lines; not to be changed."""
    made = Pipeline(tmp_path_factory.mktemp("pipeline"))
    flows("unsw-partition", rows=260, seed=1).write(made.data / "flows (1).csv")
    flows("unsw-raw", rows=140, seed=2).write(made.data / "raw.csv.gz")
    before = Path.cwd()
    os.chdir(made.root)  # MLflow keeps artefacts of a SQLite store in the working directory
    try:
        assert made.trainer("prepare", "--data", str(made.data)) == 0
        assert made.trainer("pretrain") == 0
        assert made.trainer("novelty") == 0
        assert made.trainer("finetune") == 0
        built = export_main(
            ["build", "--dataset", DATASET, "--runs", str(made.root / "runs"), "--out", str(made.bundle)]
        )
        assert built == 0
        yield made
    finally:
        os.chdir(before)
