"""The trainer's commands, each a function of params and paths."""

import json
from pathlib import Path

import torch

from export.metrics import summarize
from export.progress import console
from schemas.errors import FlowsentryError
from schemas.params import Params
from trainer.compiling import is_compiled
from trainer.distillation import training_rows
from trainer.distributed import is_first, local_device
from trainer.freezing import freeze
from trainer.model import TabularExpert
from trainer.novelty import new_novelty_model, novelty_inputs, novelty_stage, standardize
from trainer.prepare import Prepared, load_prepared
from trainer.stages import calibrate, finetune_stage, model_inputs, new_model, predict, pretrain_stage
from trainer.tracking import tracked_stage
from trainer.training import Outcome, load_checkpoint, replace_weights, same_preprocessing, train

__all__ = ["device_of", "finetune", "novelty", "pretrain"]


def device_of(params: Params) -> torch.device:
    """Where to train."""
    if params.train.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if params.train.device == "cuda" and not torch.cuda.is_available():
        raise FlowsentryError("train.device = 'cuda', but torch sees no such GPU: auto or cpu will do")
    return torch.device(params.train.device)


def _start(params: Params, directory: Path, *, labelled: bool = True) -> tuple[Prepared, torch.device]:
    if params.train.threads is not None:
        torch.set_num_threads(params.train.threads)
    torch.manual_seed(params.data.seed)
    return load_prepared(directory / "prepared", labelled=labelled), local_device(device_of(params))


def _take_over(model: TabularExpert, path: Path, schema_hash: str) -> list[dict[str, object]]:
    """Start from pretrained weights; the history of how they came about.

    Raises:
        FlowsentryError: there are none, or they are of an unfinished run, another model or other prepared data.
    """
    saved = load_checkpoint(path, schema_hash=schema_hash)
    command = "`python -m trainer pretrain`"
    if saved["step"] < saved["total_steps"]:
        raise FlowsentryError(
            f"{path} stands at step {saved['step']} of {saved['total_steps']}: run {command} to its end"
        )
    config = model.config.to_dict()
    if differing := [
        f"{name} {value}, now {config[name]}" for name, value in saved["model_config"].items() if value != config[name]
    ]:
        raise FlowsentryError(f"{path} is of another model ({', '.join(differing)}): run {command} again")
    if not same_preprocessing(model, saved["weights"]):
        raise FlowsentryError(f"{path} was trained on rows prepared otherwise: run {command} again")
    model.load_state_dict(saved["weights"])
    history: list[dict[str, object]] = saved["history"]
    return history


def _training(
    params: Params, model: TabularExpert, outcome: Outcome, before: list[dict[str, object]]
) -> dict[str, object]:
    """What the bundle will say of how it was trained; `before` is the history of pretraining."""
    return {
        "params": params.train.model_dump(mode="json"),
        "seed": params.data.seed,
        "best_epoch": outcome.best,
        "calibration": model.calibration.tolist(),
        "history": [*before, *outcome.history],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "parameters_backbone": sum(parameter.numel() for parameter in model.backbone.parameters()),
    }


def pretrain(params: Params, directory: Path) -> Path:
    """Masked feature modelling on the training rows; writes `pretrain.pt`."""
    prepared, device = _start(params, directory)
    model = new_model(prepared, params.train)
    rows = model_inputs(prepared, prepared.rows("train"), model)
    validation = model_inputs(prepared, prepared.rows("validation"), model)
    path = directory / "pretrain.pt"
    with tracked_stage(params, "pretrain", prepared) as run:
        train(
            model,
            rows,
            pretrain_stage(params.train, validation, params.data.seed),
            params.train,
            path=path,
            schema_hash=prepared.schema.fingerprint(),
            seed=params.data.seed,
            device=device,
            tracker=run,
        )
    return path


def novelty(params: Params, directory: Path) -> Path:
    """The masked feature model of the benign training rows; writes `novelty.pt2`, which `export build` takes in."""
    prepared, device = _start(params, directory, labelled=False)
    train_rows, validation_rows = (
        rows[prepared.y[rows] == 0] for rows in (prepared.rows("train"), prepared.rows("validation"))
    )
    model = new_novelty_model(prepared, train_rows, params.train)
    validation = novelty_inputs(prepared, validation_rows)
    path, frozen = directory / "novelty.pt", directory / "novelty.pt2"
    with tracked_stage(params, "novelty", prepared) as run:
        train(
            model,
            novelty_inputs(prepared, train_rows),
            novelty_stage(params.train, validation),
            params.train,
            path=path,
            schema_hash=prepared.schema.fingerprint(),
            seed=params.data.seed,
            device=device,
            tracker=run,
        )
        if not is_first():
            return frozen
        standardize(model.eval(), validation)
        replace_weights(path, model)
        freeze(model, len(prepared.schema.categorical), frozen)
        run.log_artifact(frozen)
    console.print(f"wrote {frozen}", soft_wrap=True)
    return frozen


def finetune(params: Params, directory: Path) -> Path:
    """Both heads on the training rows, from `pretrain.pt` if the params ask for pretraining; writes `finetune.pt`."""
    prepared, device = _start(params, directory)
    model = new_model(prepared, params.train)
    schema_hash = prepared.schema.fingerprint()
    before = _take_over(model, directory / "pretrain.pt", schema_hash) if params.train.epochs_pretrain else []
    rows = training_rows(prepared, model, params.train, seed=params.data.seed)
    validation = model_inputs(prepared, prepared.rows("validation"), model)
    path = directory / "finetune.pt"
    compiled = is_compiled(params.train, params.train.epochs_finetune * len(rows) // params.train.batch_size)
    with tracked_stage(params, "finetune", prepared) as run:
        outcome = train(
            model,
            rows,
            finetune_stage(params.train, validation, compiled=compiled),
            params.train,
            path=path,
            schema_hash=schema_hash,
            seed=params.data.seed,
            device=device,
            tracker=run,
        )
        if not is_first():
            return path
        calibrate(model.eval(), validation)
        replace_weights(path, model)
        metrics = {}
        for name in ("validation", "test"):
            chosen = prepared.rows(name)
            if len(chosen):
                inputs = model_inputs(prepared, chosen, model)
                scores, families = predict(model, inputs)
                metrics[name] = summarize(inputs.y.numpy(), scores, families, inputs.family.numpy())
                run.log_metrics({f"{name}.{key}".replace("%", "pct"): value for key, value in metrics[name].items()}, 0)
        report = directory / "metrics.json"
        report.write_text(json.dumps(metrics, indent=1) + "\n")
        frozen, training, curve = (directory / name for name in ("model.pt2", "training.json", "learning_curve.json"))
        freeze(model, len(prepared.schema.categorical), frozen)
        training.write_text(json.dumps(_training(params, model, outcome, before), indent=1) + "\n")
        curve.write_text(json.dumps(outcome.history, indent=1) + "\n")
        for artifact in (report, frozen, training, path):
            run.log_artifact(artifact)
    console.print(f"wrote {frozen} and {report}", soft_wrap=True)
    console.print_json(data=metrics)
    return path
