"""Compiled finetuning computes what training as written does, and begins only where it pays and can."""

import sysconfig
from pathlib import Path

import pytest
import torch
from torch import Tensor

from schemas.errors import FlowsentryError
from tests.trainer.conftest import TINY
from trainer.compiling import is_compiled, lacking
from trainer.prepare import Prepared
from trainer.stages import finetune_stage, model_inputs, new_model
from trainer.training import drawing, mean_loss

LONG, SHORT = 100_000, 10
NEEDED = pytest.mark.skipif(lacking() is not None, reason=f"there is no {lacking()}")


def asked(compile_: object) -> bool:
    return is_compiled(TINY.model_copy(update={"compile": compile_}), LONG)


@NEEDED
def test_by_itself_it_compiles_long_runs_alone() -> None:
    params = TINY.model_copy(update={"compile": "auto"})
    assert is_compiled(params, LONG)
    assert not is_compiled(params, SHORT)
    assert is_compiled(TINY.model_copy(update={"compile": True}), SHORT)
    assert not asked(False)


@pytest.mark.parametrize("absent", ["compiler", "header"])
def test_where_nothing_compiles_it_goes_on_as_written_unless_it_must(
    absent: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if absent == "compiler":
        monkeypatch.setenv("CXX", "no-such-compiler")
    else:
        monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert not asked("auto")
    with pytest.raises(FlowsentryError, match=r"train.compile is true, but there is no .*set train.compile to auto"):
        asked(True)


@NEEDED
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_loss_and_gradients_are_those_of_training_as_written(prepared: Prepared) -> None:
    found: list[tuple[float, list[Tensor]]] = []
    for compiled in (False, True):
        torch.manual_seed(3)
        model = new_model(prepared, TINY)
        rows = model_inputs(prepared, prepared.rows("train")[:64], model)
        stage = finetune_stage(TINY, rows, compiled=compiled)
        loss = mean_loss(stage.loss(model, rows, drawing(64, torch.Generator().manual_seed(5))), torch.device("cpu"))
        loss.backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        found.append((float(loss.detach()), gradients))
    (plain, gradients), (compiled_loss, others) = found
    assert compiled_loss == pytest.approx(plain, rel=1e-5)
    assert len(gradients) == len(others) > 10
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-5)
