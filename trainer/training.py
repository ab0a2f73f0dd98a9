"""The one training loop. A stage hands it its loss; it reads top to bottom and can be killed and resumed."""

import hashlib
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from export.progress import console, steps
from schemas.errors import FlowsentryError
from schemas.params import TrainParams
from trainer import distributed
from trainer.model import FlowNetwork, ModelConfig, TabularExpert

__all__ = [
    "Draw",
    "Inputs",
    "Outcome",
    "Part",
    "Rows",
    "Stage",
    "Tracker",
    "Trained",
    "build_model",
    "drawing",
    "load_checkpoint",
    "mean_loss",
    "replace_weights",
    "report",
    "same_preprocessing",
    "train",
]

# Settings that decide how fast a run is, not what comes of it; and those that a stage does not use.
_ONLY_SPEED = frozenset({"threads", "device", "checkpoint_every_s"})
_FINETUNING = frozenset(
    {"epochs_finetune", "finetune_mask_share", "family_loss_weight", "teacher_weight", "recombined_share"}
)
_TRANSFORMER = frozenset({"d_model", "n_heads", "n_layers", "d_feedforward", "numeric_embedding"})
_NOVELTY = frozenset({"epochs_novelty", "novelty_distance_weight"})
_UNUSED = {
    "pretrain": _FINETUNING | _NOVELTY,
    "finetune": _NOVELTY,
    "novelty": _FINETUNING | _TRANSFORMER | {"epochs_pretrain", "pretrain_mask_share"},
}

_DECIDING = (
    "baselines/trees.py",
    "distillation.py",
    "distributed.py",
    "model.py",
    "neighbours.py",
    "novelty.py",
    "stages.py",
    "training.py",
)

Trained = TypeVar("Trained", bound=FlowNetwork)


class Tracker(Protocol):
    """Where metrics go."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs of some rows as a network wants them: numeric f32[N, n] (normalized or raw, NaN = missing), categories
    i64[N, c], y f32[N], family i64[N] (index among attack families, -100 for benign)."""

    numeric: Tensor
    categories: Tensor
    y: Tensor
    family: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def of_epoch(self, epoch: int) -> "Inputs":
        return self

    def take(self, rows: Tensor, device: torch.device) -> "Inputs":
        return Inputs(*(part[rows].to(device) for part in (self.numeric, self.categories, self.y, self.family)))


class Rows(Protocol):
    """What a stage is trained on: so many rows an epoch, which may be others in each."""

    def __len__(self) -> int: ...

    def of_epoch(self, epoch: int) -> Inputs: ...


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a loss: the mean of `count` values whose sum is `total`, with a weight. Of several processes the sums and the
    counts are added up."""

    total: Tensor
    count: Tensor | int
    weight: float = 1.0


Draw = Callable[[int], Tensor]
"""So many random numbers from 0 to 1 for each row of the batch: n → f32[B, n]."""


@dataclass(frozen=True, slots=True)
class Stage(Generic[Trained]):
    """One stage: its name, epochs, loss of a batch, and how good a model is on validation rows (higher is better)."""

    name: str
    epochs: int
    loss: Callable[[Trained, Inputs, Draw], Sequence[Part]]
    evaluate: Callable[[Trained], dict[str, float]]
    criterion: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a stage: the figures of its best epoch, and per epoch stage, epoch, criterion, loss and figures."""

    best: dict[str, float]
    history: list[dict[str, Any]]


def build_model(checkpoint: Mapping[str, Any]) -> TabularExpert:
    """The model that a checkpoint holds, with its best averaged weights."""
    model = TabularExpert(ModelConfig(**checkpoint["model_config"]))
    model.load_state_dict(checkpoint["weights"])
    return model.eval()


def load_checkpoint(path: Path, *, schema_hash: str) -> dict[str, Any]:
    """Read a checkpoint (tensors and plain values only, no code).

    Raises:
        FlowsentryError: it is not there, cannot be read, or belongs to another schema.
    """
    command = f"`python -m trainer {path.stem}`"
    if not path.exists():
        raise FlowsentryError(f"no checkpoint at {path}: run {command} first")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise FlowsentryError(f"{path} is no checkpoint of ours: remove it and run {command} again") from error
    if checkpoint["schema_hash"] != schema_hash:
        raise FlowsentryError(f"{path} was trained with another schema: remove it and run {command} again")
    return checkpoint


def replace_weights(path: Path, model: FlowNetwork) -> None:
    """Put a model's weights into a checkpoint in place of those of its best epoch, of which they were made."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    _save({**checkpoint, "weights": {name: value.cpu() for name, value in model.state_dict().items()}}, path)


def same_preprocessing(model: FlowNetwork, weights: Mapping[str, Tensor]) -> bool:
    """Whether `weights` were trained on the prepared rows that `model` was made for: no other rows give its map."""
    return all(
        torch.equal(value.cpu(), weights[f"normalizer.{name}"]) for name, value in model.normalizer.named_buffers()
    )


def train(
    model: Trained,
    rows: Rows,
    stage: Stage[Trained],
    params: TrainParams,
    *,
    path: Path,
    schema_hash: str,
    seed: int,
    device: torch.device,
    tracker: Tracker,
    resume: bool = True,
) -> Outcome:
    """Run a stage to its end and leave `path` (a checkpoint) behind; the model has the averaged weights of its best epoch.

    A checkpoint of such a run at `path` is taken up where it stood: same batches, same masks, same result. One of a run
    with other settings, other prepared data or other code is written over. Ctrl-C leaves a checkpoint of the last whole step.
    """
    model.to(device)
    per_epoch = len(rows) // params.batch_size or 1
    total = per_epoch * stage.epochs
    optimizer = torch.optim.AdamW(model.parameter_groups(params.weight_decay), lr=params.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=params.learning_rate, total_steps=max(total, 2), pct_start=0.15
    )
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(params.average_decay), use_buffers=False)
    step, best, best_weights, running = 0, {stage.criterion: -np.inf}, _weights(average), 0.0
    history: list[dict[str, Any]] = []

    if resume and path.exists():
        saved = load_checkpoint(path, schema_hash=schema_hash)
        if differences := _differences(saved, model, stage, total, params):
            report(f"{stage.name}: {path} is of another run ({', '.join(differences)}): starting anew")
        else:
            step, best, best_weights, running = saved["step"], saved["best"], saved["weights"], saved["running_loss"]
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            schedule.load_state_dict(saved["schedule"])
            average.load_state_dict(saved["average"])
            history = saved["history"]
            report(f"{stage.name}: resumed at step {step} of {total}")

    def save() -> None:
        if not distributed.is_first():
            return
        checkpoint = {
            "stage": stage.name,
            "step": step,
            "total_steps": total,
            "best": best,
            "weights": best_weights,
            "running_loss": running,
            "history": history,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "average": average.state_dict(),
            "model_config": model.config.to_dict(),
            "schema_hash": schema_hash,
            "params": params.model_dump(mode="json"),
            "code": _code(),
        }
        _save(checkpoint, path)

    saved_at = started = time.monotonic()
    first, between_steps = step, True
    with (
        _saved_on_interrupt(lambda: save() if between_steps and step > first else None),
        steps(stage.name, total, step, shown=distributed.is_first()) as bar,
    ):
        while step < total:
            epoch, place = divmod(step, per_epoch)
            # Seeded by place, not by history, so that a resumed run draws what an uninterrupted one would have.
            if step == first or place == 0:
                inputs = rows.of_epoch(epoch)
                order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
            chosen = order[place * params.batch_size : (place + 1) * params.batch_size]
            batch = inputs.take(distributed.ours(chosen), device)
            draw = drawing(len(chosen), torch.Generator().manual_seed(seed * 7_000_003 + step))

            model.train()
            with _arithmetic(params, device):
                loss = mean_loss(stage.loss(model, batch, draw), device)
            optimizer.zero_grad()
            loss.backward()
            distributed.sum_gradients(model)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            between_steps = False
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            step += 1
            value = float(distributed.summed(loss))
            running = value if step == 1 else 0.98 * running + 0.02 * value
            shown = best.get(stage.criterion, -np.inf)
            bar.advance(f"loss {running:.4f}" + (f", {stage.criterion} {shown:.5f}" if np.isfinite(shown) else ""))

            if step % per_epoch == 0:
                scores = stage.evaluate(_averaged(average, type(model)))
                if scores[stage.criterion] > best[stage.criterion]:
                    best, best_weights = scores, _weights(average)
                if distributed.is_first():
                    tracker.log_metrics({"loss": running, **scores}, step // per_epoch)
                told = {"stage": stage.name, "epoch": step // per_epoch, "criterion": stage.criterion}
                history.append({**told, "loss": running, **scores})
                rate = (step - first) * params.batch_size / (time.monotonic() - started)
                shown_scores = ", ".join(f"{name} {score:.5f}" for name, score in scores.items())
                report(
                    f"{stage.name}: epoch {step // per_epoch}/{stage.epochs}, loss {running:.4f}, {shown_scores}, "
                    f"{rate:.0f} rows/s, {(total - step) * params.batch_size / rate / 60:.0f} min left → {path}"
                )
            if step == total or step % per_epoch == 0 or time.monotonic() - saved_at > params.checkpoint_every_s:
                save()
                saved_at = time.monotonic()
            between_steps = True
    if total == 0:
        save()
    model.load_state_dict(best_weights)
    return Outcome(dict(best), history)


def _code() -> str:
    """Of the code that decides what comes of a run: one of other code would go on as neither."""
    texts = [(Path(__file__).parent / name).read_bytes() for name in _DECIDING]
    return hashlib.sha256(b"".join(texts)).hexdigest()


@contextmanager
def _arithmetic(params: TrainParams, device: torch.device) -> Iterator[None]:
    """Of a forward pass. On a CPU attention is written out: the fused one's backward pass is slow there, above all in bf16."""
    on_cpu = device.type == "cpu"
    if params.precision == "auto":
        able = torch.cpu.get_capabilities()
        half = not on_cpu or bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    else:
        half = params.precision == "bf16"
    with (
        torch.autocast(device.type, torch.bfloat16, enabled=half),
        sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext(),
    ):
        yield


def drawing(rows: int, generator: torch.Generator) -> Draw:
    """Random numbers for the rows of a batch that are this process's, the same whoever else there is."""
    return lambda count: distributed.ours(torch.rand((rows, count), generator=generator))


def mean_loss(parts: Sequence[Part], device: torch.device) -> Tensor:
    """This process's share of the loss of the whole batch."""
    counts = distributed.summed(torch.stack([torch.as_tensor(part.count, device=device).float() for part in parts]))
    shares = [part.weight * part.total / count.clamp(min=1) for part, count in zip(parts, counts, strict=True)]
    return torch.stack(shares).sum()


def report(line: str) -> None:
    """Say how it goes, once."""
    if distributed.is_first():
        console.print(line, soft_wrap=True)


def _save(checkpoint: Mapping[str, Any], path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(checkpoint, partial)
    partial.replace(path)


def _differences(
    saved: Mapping[str, Any], model: FlowNetwork, stage: Stage[Trained], total: int, params: TrainParams
) -> list[str]:
    """In what the run of a checkpoint differs from the one at hand; nothing: it can be taken up."""
    here = params.model_dump(mode="json")
    ignored = _ONLY_SPEED | _UNUSED[stage.name]
    found = [
        f"train.{name} {value}, now {here[name]}"
        for name, value in saved["params"].items()
        if name in here and name not in ignored and here[name] != value
    ]
    if not found and (saved["model_config"] != model.config.to_dict() or not same_preprocessing(model, saved["model"])):
        found.append("other prepared data")
    if not found and saved.get("code") != _code():
        found.append("other code")
    if saved["stage"] != stage.name or saved["total_steps"] != total:
        found.append(f"{saved['stage']} of {saved['total_steps']} steps, now {stage.name} of {total}")
    return found


@contextmanager
def _saved_on_interrupt(save: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        save()
        raise


def _averaged(average: AveragedModel, kind: type[Trained]) -> Trained:
    module = average.module.eval()
    assert isinstance(module, kind)
    return module


def _weights(average: AveragedModel) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in average.module.state_dict().items()}
