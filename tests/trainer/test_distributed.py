"""Several processes, as `torchrun` starts them, do what one does: over Gloo on loopback."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from tests.trainer.conftest import TINY, Pipeline
from trainer import distributed
from trainer.novelty import new_novelty_model, novelty_inputs, novelty_stage
from trainer.prepare import Prepared, load_prepared
from trainer.stages import finetune_stage, model_inputs, new_model, pretrain_stage
from trainer.training import Inputs, Stage, drawing, load_checkpoint, mean_loss

ROOT = Path(__file__).parents[2]
STAGES = ("pretrain", "novelty", "finetune")
BATCH = 63  # which two processes cannot halve
CPU = torch.device("cpu")


def gradients(prepared: Prepared, name: str) -> dict[str, Tensor]:
    """Of the first batch of training rows, after all processes have added theirs up."""
    torch.manual_seed(5)
    rows = prepared.rows("train")
    if name == "novelty":
        model = new_novelty_model(prepared, rows[prepared.y[rows] == 0], TINY)
        inputs: Inputs = novelty_inputs(prepared, rows)
        stage: Stage = novelty_stage(TINY, inputs)  # type: ignore[type-arg]
    else:
        model = new_model(prepared, TINY)  # type: ignore[assignment]
        inputs = model_inputs(prepared, rows, model)  # type: ignore[arg-type]
        stage = pretrain_stage(TINY, inputs, 0) if name == "pretrain" else finetune_stage(TINY, inputs)
    batch = inputs.take(distributed.ours(torch.arange(BATCH)), CPU)
    draw = drawing(BATCH, torch.Generator().manual_seed(7))
    mean_loss(stage.loss(model, batch, draw), CPU).backward()
    distributed.sum_gradients(model)
    return {name: it.grad.clone() for name, it in model.named_parameters() if it.grad is not None}


def _work(rank: int, prepared: Path, out: Path, port: int) -> None:
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    torch.set_num_threads(1)
    with distributed.joined():
        assert distributed.is_first() == (rank == 0)
        torch.save({name: gradients(load_prepared(prepared), name) for name in STAGES}, out / f"{rank}.pt")


def test_two_processes_have_the_gradients_of_one(pipeline: Pipeline, tmp_path: Path, free_port: int) -> None:
    spawn(_work, (pipeline.run / "prepared", tmp_path, free_port), nprocs=2)
    expected = {name: gradients(load_prepared(pipeline.run / "prepared"), name) for name in STAGES}
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name in STAGES:
            assert got[name].keys() == expected[name].keys()
            for parameter, gradient in expected[name].items():
                torch.testing.assert_close(
                    got[name][parameter], gradient, atol=1e-6, rtol=1e-4, msg=f"{name} {parameter}"
                )
            assert any(gradient.abs().max() > 1e-4 for gradient in expected[name].values())


def test_torchrun_trains_and_the_first_process_alone_writes(pipeline: Pipeline, tmp_path: Path) -> None:
    runs = tmp_path / "runs" / "unsw-nb15"
    shutil.copytree(pipeline.run / "prepared", runs / "prepared")
    options = [word for word in pipeline.options() if word != str(pipeline.root / "runs")]
    options.insert(options.index("--runs") + 1, str(tmp_path / "runs"))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for command in ("pretrain", "finetune"):
        done = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--local-addr", "127.0.0.1",
             "-m", "trainer", command, *options, "--set", f"tracking.mlflow_uri={uri}"],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"},
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(f"{command}: epoch 1/") == 1
    schema_hash = load_prepared(runs / "prepared").schema.fingerprint()
    ours, alone = (load_checkpoint(folder / "finetune.pt", schema_hash=schema_hash) for folder in (runs, pipeline.run))
    assert ours["step"] == alone["step"] == alone["total_steps"]
    assert ours["best"]["validation_auc"] == pytest.approx(alone["best"]["validation_auc"], abs=0.02)
    for before, after in zip(alone["history"], ours["history"], strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=0.02)
