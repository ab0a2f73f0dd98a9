"""The training loop: it learns, it can be killed at any moment, and it never takes up what is not its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from schemas.errors import FlowsentryError
from schemas.params import TrainParams
from tests.trainer.conftest import TINY
from trainer.model import FlowClassifier, TabularExpert
from trainer.prepare import Prepared
from trainer.stages import finetune_stage, model_inputs, new_model, predict, pretrain_stage
from trainer.training import Draw, Inputs, Part, Stage, build_model, drawing, load_checkpoint, mean_loss, train

SCHEMA = "hash of a schema"
OFTEN, NEVER = 1e-9, 1e9
"""Seconds between checkpoints, besides one per epoch."""
STAGES = ("pretrain", "finetune")


class Log:
    """A tracker that remembers, and can fail."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self._fail_at = fail_at

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if step == self._fail_at:
            raise ConnectionError("the tracking server is gone")
        self.metrics.append((step, dict(metrics)))


class Bench:
    """Runs of one stage over the same rows, each from the same fresh model."""

    def __init__(self, prepared: Prepared, path: Path, stage: str, params: TrainParams = TINY) -> None:
        self.prepared = prepared
        self.path = path
        self.name = stage
        self.params = params
        self.log = Log()
        self.history: list[dict[str, Any]] = []

    def model(self) -> TabularExpert:
        torch.manual_seed(3)
        return new_model(self.prepared, self.params)

    def stage(self) -> Stage[Any]:
        validation = model_inputs(self.prepared, self.prepared.rows("validation"), self.model())
        if self.name == "pretrain":
            return replace(pretrain_stage(self.params, validation, seed=3), epochs=3)
        return finetune_stage(self.params, validation)

    def run(
        self,
        *,
        stage: Stage[Any] | None = None,
        checkpoint_every_s: float = NEVER,
        log: Log | None = None,
        model: TabularExpert | None = None,
        schema_hash: str = SCHEMA,
    ) -> tuple[TabularExpert, dict[str, float]]:
        model = model or self.model()
        self.log = log or Log()
        outcome = train(
            model,
            model_inputs(self.prepared, self.prepared.rows("train"), self.model()),
            stage or self.stage(),
            self.params.model_copy(update={"checkpoint_every_s": checkpoint_every_s}),
            path=self.path,
            schema_hash=schema_hash,
            seed=3,
            device=torch.device("cpu"),
            tracker=self.log,
        )
        self.history = outcome.history
        return model, outcome.best

    def checkpoint(self) -> dict[str, Any]:
        return load_checkpoint(self.path, schema_hash=SCHEMA)


def stopping(stage: Stage[Any], *, at_step: int, error: BaseException) -> Stage[Any]:
    """The stage, whose loss raises instead of being worked out for the `at_step`th time."""
    calls = 0

    def loss(model: FlowClassifier, batch: Inputs, draw: Draw) -> Sequence[Part]:
        nonlocal calls
        calls += 1
        if calls > at_step:
            raise error
        return stage.loss(model, batch, draw)

    return replace(stage, loss=loss)


def same(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Bit for bit, down to the optimizer's moments."""
    return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, Mapping):
        return same(left, right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


WORK = (
    "step",
    "total_steps",
    "best",
    "history",
    "weights",
    "running_loss",
    "model",
    "optimizer",
    "schedule",
    "average",
)


def assert_same_work(left: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    for name in WORK:
        assert same({name: left[name]}, {name: right[name]}), name


@pytest.fixture(params=STAGES)
def bench(request: pytest.FixtureRequest, prepared: Prepared, tmp_path: Path) -> Bench:
    return Bench(prepared, tmp_path / f"{request.param}.pt", request.param)


@pytest.fixture
def finetuning(prepared: Prepared, tmp_path: Path) -> Bench:
    return Bench(prepared, tmp_path / "finetune.pt", "finetune")


@pytest.fixture(scope="module")
def _undisturbed(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    left: dict[str, dict[str, Any]] = {}
    for name in STAGES:
        bench = Bench(prepared, tmp_path_factory.mktemp("undisturbed") / f"{name}.pt", name)
        bench.run()
        left[name] = bench.checkpoint()
    return left


@pytest.fixture
def uninterrupted(bench: Bench, _undisturbed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a run of the bench's stage leaves behind that nothing disturbs."""
    return _undisturbed[bench.name]


# It learns.


def test_loss_falls_and_the_best_epoch_is_returned(bench: Bench) -> None:
    stage = replace(bench.stage(), epochs=10)
    model, best = bench.run(stage=stage)
    assert [step for step, _ in bench.log.metrics] == [*range(1, 11)], "metrics once per epoch"
    losses = [metrics["loss"] for _, metrics in bench.log.metrics]
    marks = [metrics[stage.criterion] for _, metrics in bench.log.metrics]
    assert losses[-1] < losses[0] and max(marks) > marks[0] + 0.1
    assert best[stage.criterion] == max(marks)
    assert stage.evaluate(model.eval()) == best, "and so are the weights"


def test_the_history_says_what_each_epoch_came_to(bench: Bench) -> None:
    bench.run()
    criterion = bench.stage().criterion
    expected = [
        {"stage": bench.name, "epoch": epoch, "criterion": criterion, **metrics} for epoch, metrics in bench.log.metrics
    ]
    assert bench.history == expected and len(expected) == 3
    bench.run()
    assert bench.log.metrics == [] and bench.history == expected, "of a run that was over before, too"


def test_finetuning_tells_easy_attacks_apart(prepared: Prepared, tmp_path: Path) -> None:
    params = TINY.model_copy(update={"epochs_finetune": 16})
    bench = Bench(prepared, tmp_path / "finetune.pt", "finetune", params)
    model, best = bench.run()
    assert best["validation_auc"] > 0.95
    assert best["validation_family_accuracy"] > 0.7
    inputs = model_inputs(prepared, prepared.rows("test"), model)
    scores, families = predict(model, inputs)
    assert scores.dtype == np.float32 and scores.shape == families.shape == (len(inputs),)
    assert scores[inputs.y.numpy() == 1].mean() > 0.7 > 0.3 > scores[inputs.y.numpy() == 0].mean()


def test_the_best_epochs_averaged_weights_are_kept_even_if_later_ones_are_worse(bench: Bench) -> None:
    marks = iter([0.2, 0.9, 0.4])
    seen: list[dict[str, Tensor]] = []

    def evaluate(model: FlowClassifier) -> dict[str, float]:
        assert not model.training
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"mark": next(marks)}

    model, best = bench.run(stage=replace(bench.stage(), evaluate=evaluate, criterion="mark"))
    assert best == {"mark": 0.9}
    assert same(model.state_dict(), seen[1])
    assert not same(seen[1], seen[2])
    assert same(bench.checkpoint()["weights"], seen[1])
    assert same(build_model(bench.checkpoint()).state_dict(), seen[1])


def test_a_stage_of_no_epochs_leaves_the_model_as_it_was_and_a_checkpoint(finetuning: Bench) -> None:
    model, _ = finetuning.run(stage=replace(finetuning.stage(), epochs=0))
    assert same(model.state_dict(), finetuning.model().state_dict())
    assert finetuning.checkpoint()["step"] == finetuning.checkpoint()["total_steps"] == 0


def test_a_batch_larger_than_the_training_rows_is_all_of_them(prepared: Prepared, tmp_path: Path) -> None:
    bench = Bench(prepared, tmp_path / "finetune.pt", "finetune", TINY.model_copy(update={"batch_size": 10_000}))
    bench.run()
    assert bench.checkpoint()["total_steps"] == 3


def test_batches_without_attacks_have_a_loss_too(prepared: Prepared, tmp_path: Path) -> None:
    bench = Bench(prepared, tmp_path / "finetune.pt", "finetune")
    model = bench.model()
    inputs = model_inputs(prepared, prepared.rows("train"), model)
    benign = inputs.take((inputs.y == 0).nonzero()[:, 0], torch.device("cpu"))
    assert len(benign)
    draw = drawing(len(benign), torch.Generator().manual_seed(0))
    loss = mean_loss(bench.stage().loss(model, benign, draw), torch.device("cpu"))
    assert bool(torch.isfinite(loss)) and bool(loss > 0)


# It can be killed and resumed.


@pytest.mark.parametrize("at_step", [2, 4, 7])
def test_killed_and_resumed_is_uninterrupted_bit_for_bit(
    bench: Bench, uninterrupted: dict[str, Any], at_step: int
) -> None:
    assert uninterrupted["total_steps"] == 12, "four steps an epoch"
    with pytest.raises(ConnectionError):
        bench.run(stage=stopping(bench.stage(), at_step=at_step, error=ConnectionError()), checkpoint_every_s=OFTEN)
    assert bench.checkpoint()["step"] == at_step
    model, best = bench.run()
    assert_same_work(bench.checkpoint(), uninterrupted)
    assert same(model.state_dict(), uninterrupted["weights"]) and best == uninterrupted["best"]


def test_killed_while_an_epochs_metrics_are_logged_is_resumed_before_its_last_step(
    bench: Bench, uninterrupted: dict[str, Any]
) -> None:
    with pytest.raises(ConnectionError):
        bench.run(log=Log(fail_at=2), checkpoint_every_s=OFTEN)
    assert bench.checkpoint()["step"] == 7
    bench.run()
    assert_same_work(bench.checkpoint(), uninterrupted)


def test_ctrl_c_keeps_every_whole_step_whenever_the_last_checkpoint_was(
    bench: Bench, uninterrupted: dict[str, Any]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.run(stage=stopping(bench.stage(), at_step=6, error=KeyboardInterrupt()), checkpoint_every_s=NEVER)
    assert bench.checkpoint()["step"] == 6
    bench.run()
    assert_same_work(bench.checkpoint(), uninterrupted)


def test_ctrl_c_amid_an_update_leaves_the_checkpoint_before_it(bench: Bench, uninterrupted: dict[str, Any]) -> None:
    stage, epochs = bench.stage(), 0

    def evaluate(model: FlowClassifier) -> dict[str, float]:
        nonlocal epochs
        epochs += 1
        if epochs == 2:  # the step is counted, but its epoch not yet judged
            raise KeyboardInterrupt
        return stage.evaluate(model)

    with pytest.raises(KeyboardInterrupt):
        bench.run(stage=replace(stage, evaluate=evaluate), checkpoint_every_s=NEVER)
    assert bench.checkpoint()["step"] == 4
    bench.run()
    assert_same_work(bench.checkpoint(), uninterrupted)


def test_ctrl_c_before_the_first_step_writes_over_nothing(finetuning: Bench) -> None:
    finetuning.run()
    before = finetuning.path.read_bytes()
    finetuning.params = finetuning.params.model_copy(update={"learning_rate": 1e-4})
    with pytest.raises(KeyboardInterrupt):
        finetuning.run(stage=stopping(finetuning.stage(), at_step=0, error=KeyboardInterrupt()))
    assert finetuning.path.read_bytes() == before


def test_a_finished_run_is_not_run_again(bench: Bench) -> None:
    first, best = bench.run()
    again, same_best = bench.run()
    assert bench.log.metrics == [] and same_best == best
    assert same(again.state_dict(), first.state_dict())


def test_no_half_written_checkpoint_takes_the_place_of_a_whole_one(
    finetuning: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    finetuning.run(stage=replace(finetuning.stage(), epochs=1))
    before = finetuning.path.read_bytes()

    def full(checkpoint: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        finetuning.run()
    assert finetuning.path.read_bytes() == before


# It takes up nothing that is not its own.


@pytest.mark.parametrize(
    ("setting", "value"), [("learning_rate", 1e-3), ("weight_decay", 0.5), ("d_feedforward", 16), ("batch_size", 32)]
)
def test_a_run_with_other_settings_starts_anew(
    setting: str, value: float, finetuning: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    finetuning.run()
    before = finetuning.checkpoint()
    finetuning.params = finetuning.params.model_copy(update={setting: value})
    finetuning.run()
    assert len(finetuning.log.metrics) == 3
    assert not same(finetuning.checkpoint()["weights"], before["weights"])
    assert f"train.{setting} {getattr(TINY, setting)}, now {value}" in capsys.readouterr().err


def test_a_run_of_other_code_starts_anew(
    finetuning: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finetuning.run()
    monkeypatch.setattr("trainer.training._DECIDING", ("model.py",))
    finetuning.run()
    assert len(finetuning.log.metrics) == 3
    assert "is of another run (other code): starting anew" in capsys.readouterr().err


def test_a_setting_that_only_changes_the_speed_does_not_start_anew(finetuning: Bench) -> None:
    finetuning.run()
    finetuning.params = finetuning.params.model_copy(update={"threads": 2, "device": "auto"})
    finetuning.run()
    assert finetuning.log.metrics == []


def test_what_comes_after_pretraining_does_not_pretrain_anew(prepared: Prepared, tmp_path: Path) -> None:
    bench = Bench(prepared, tmp_path / "pretrain.pt", "pretrain")
    bench.run()
    bench.params = bench.params.model_copy(update={"epochs_finetune": 9, "family_loss_weight": 0.0})
    bench.run()
    assert bench.log.metrics == []


def test_a_run_on_other_prepared_rows_starts_anew(finetuning: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    finetuning.run()
    other = finetuning.model()
    other.normalizer.knots.edges += 1
    finetuning.run(model=other)
    assert len(finetuning.log.metrics) == 3
    assert "other prepared data" in capsys.readouterr().err


def test_another_schemas_checkpoint_is_refused_and_named(finetuning: Bench) -> None:
    finetuning.run(schema_hash="hash of another")
    with pytest.raises(FlowsentryError, match=rf"{finetuning.path} was trained with another schema: remove it and run"):
        finetuning.run()


def test_a_missing_checkpoint_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FlowsentryError, match=r"pretrain\.pt: run `python -m trainer pretrain` first"):
        load_checkpoint(tmp_path / "pretrain.pt", schema_hash=SCHEMA)


class _Code:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return print, ("code ran",)


def test_a_checkpoint_that_carries_code_is_refused_and_the_code_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pretrain.pt"
    torch.save({"schema_hash": SCHEMA, "weights": _Code()}, path)
    with pytest.raises(FlowsentryError, match=r"pretrain\.pt is no checkpoint of ours"):
        load_checkpoint(path, schema_hash=SCHEMA)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_file_that_is_no_checkpoint_is_refused_and_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "finetune.pt"
    path.write_bytes(content)
    with pytest.raises(FlowsentryError, match=r"finetune\.pt is no checkpoint of ours: .*`python -m trainer finetune`"):
        load_checkpoint(path, schema_hash=SCHEMA)


@pytest.mark.parametrize("stage", STAGES)
def test_bf16_learns_about_the_same_and_leaves_weights_whole(stage: str, prepared: Prepared, tmp_path: Path) -> None:
    weights, losses = {}, {}
    for precision in ("float32", "bf16"):
        params = TINY.model_copy(update={"precision": precision})
        bench = Bench(prepared, tmp_path / f"{precision}.pt", stage, params)
        weights[precision] = bench.run()[0].state_dict()
        losses[precision] = bench.history[-1]["loss"]
    assert not same(weights["float32"], weights["bf16"]), "it was asked for"
    assert losses["bf16"] == pytest.approx(losses["float32"], rel=0.05)
    for name, value in weights["bf16"].items():
        assert value.dtype == weights["float32"][name].dtype
