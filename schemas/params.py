"""The one source of truth for every setting: option > environment (`FLOWSENTRY_…`) > params.yaml > default.

Environment names join section and field with two underscores: `FLOWSENTRY_TRAIN__LEARNING_RATE=0.001`;
`FLOWSENTRY_KAFKA='{"security.protocol": "SSL"}'` takes JSON.

A secret may stand in a file, as container platforms mount them: any name in the section kafka with `_file` behind it,
`FLOWSENTRY_KAFKA__SASL__PASSWORD_FILE=/run/secrets/kafka` for instance, takes that file's text for its value.
"""

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from schemas.errors import ParamsError

__all__ = [
    "NULL",
    "DataParams",
    "DatasetName",
    "DatasetParams",
    "ExportParams",
    "Params",
    "StreamParams",
    "TrackingParams",
    "TrainParams",
    "load_params",
    "parse_value",
]

ENV_PREFIX = "FLOWSENTRY_"
_FILE = "_file"
DEFAULT_FILE = Path("params.yaml")
NULL: Final = object()
"""An option whose value is null, such as `--set train.threads=null`; a `None` is an option that was not given."""


_GUARANTEED = "what is promised of alerts hangs on Flowsentry's own value; leave it out"
# Of librdkafka's properties; all others are the user's.
_NOT_FOR_USERS = {
    "bootstrap.servers": "set stream.bootstrap_servers instead",
    "metadata.broker.list": "set stream.bootstrap_servers instead",
    "group.id": "set stream.group instead",
    "group.instance.id": "set stream.instance instead",
    "transactional.id": "set stream.group and stream.instance instead, which it is made of",
    "enable.auto.commit": _GUARANTEED,
    "enable.auto.offset.store": _GUARANTEED,
    "isolation.level": _GUARANTEED,
    "enable.idempotence": _GUARANTEED,
    "acks": _GUARANTEED,
    "request.required.acks": _GUARANTEED,
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


DatasetName = Literal["cicids2017", "cicids2017-improved", "unsw-nb15"]


class DataParams(_Section):
    """What is learnt from."""

    dataset: DatasetName = Field(
        "cicids2017-improved", description="Which data set's columns and labels the files have."
    )
    validation_share: float = Field(
        0.1, gt=0, lt=0.5, description="Share of rows for early stopping, thresholds and calibration."
    )
    test_share: float = Field(0.2, ge=0, lt=0.8, description="Share of rows that nothing is chosen on.")
    balanced_rows: int | None = Field(
        None, ge=2, description="Keep this many rows, half benign, half attacks; null keeps all rows as they are."
    )
    n_quantiles: int = Field(128, ge=2, le=4096, description="Points of the map from raw values to a normal shape.")
    seed: int = Field(7, ge=0, description="Seed of splits, weights, order and masks.")

    @model_validator(mode="after")
    def _rows_are_left_to_train_on(self) -> "DataParams":
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share ({self.validation_share}) and test_share ({self.test_share}) must be less than 1 together"
            )
        return self


class TrainParams(_Section):
    """How the FT-Transformer is built and trained."""

    d_model: int = Field(128, ge=8, description="Width of a token.")
    n_heads: int = Field(8, ge=1, description="Attention heads; divides d_model.")
    n_layers: int = Field(4, ge=1, description="Transformer blocks.")
    d_feedforward: int = Field(512, ge=8, description="Width of a block's feed-forward part.")
    numeric_embedding: Literal["linear", "piecewise"] = Field(
        "linear", description="Numeric tokens: b + x·W, or with an encoding of the quantile bins of x besides."
    )
    batch_size: int = Field(256, ge=1, description="Rows of one optimizer step.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of the one-cycle schedule.")
    weight_decay: float = Field(0.03, ge=0, description="AdamW decay; biases, norms and tokens are spared.")
    epochs_pretrain: int = Field(1, ge=0, description="Passes over the training rows with masked features, no labels.")
    epochs_finetune: int = Field(6, ge=1, description="Passes over the training rows with labels.")
    epochs_novelty: int = Field(30, ge=0, description="Passes of the novelty model over the benign training rows.")
    novelty_distance_weight: float = Field(
        2.0,
        ge=0,
        description="What the distance to the nearest benign flow counts in novelty, where surprise counts 1.",
    )
    pretrain_mask_share: float = Field(0.3, gt=0, lt=1, description="Share of a row's tokens to hide and reconstruct.")
    finetune_mask_share: float = Field(
        0.1, ge=0, lt=1, description="Share of tokens hidden while finetuning, so that missing features do no harm."
    )
    family_loss_weight: float = Field(0.3, ge=0, description="Weight of the attack-family loss beside the attack loss.")
    average_decay: float = Field(0.99, ge=0, lt=1, description="Decay of the moving average of weights that is kept.")
    checkpoint_every_s: float = Field(60, gt=0, description="Seconds between checkpoints, besides one per epoch.")
    threads: int | None = Field(None, ge=1, description="Torch threads; null takes every core.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one.")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TrainParams":
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model ({self.d_model}) must be a multiple of n_heads ({self.n_heads})")
        return self


class ExportParams(_Section):
    """What a bundle carries besides the model."""

    target_fprs: tuple[float, ...] = Field(
        (0.0001, 0.001, 0.005, 0.01, 0.05),
        min_length=1,
        description="False-positive rates for which the bundle holds a threshold, chosen on validation rows.",
    )
    novelty_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Share of the false positives that flows may cause which are novel, not known attacks.",
    )
    version: str = Field("0.1.0", min_length=1, description="Version written into the bundle.")

    @model_validator(mode="after")
    def _rates_are_shares(self) -> "ExportParams":
        for rate in self.target_fprs:
            if not 0 < rate < 1:
                raise ValueError(f"target_fprs: {rate} is not between 0 and 1")
        return self


class StreamParams(_Section):
    """How the service consumes, scores and publishes."""

    bundle: Path = Field(Path("bundles/cicids2017-improved"), description="Directory of the detector bundle.")
    bootstrap_servers: str = Field("127.0.0.1:9092", min_length=1, description="Kafka brokers, host:port,…")
    input: str = Field("flows", min_length=1, description="Topic of flow records.")
    alerts: str = Field("alerts", min_length=1, description="Topic of alerts.")
    dead_letters: str = Field("flows.dead", min_length=1, description="Topic of records that could not be used.")
    group: str = Field("flowsentry", min_length=1, description="Consumer group; also the stem of the transactional id.")
    instance: str | None = Field(
        None,
        description="Name of this instance in transactional ids, stable over restarts; null takes the host's name.",
    )
    workers: int = Field(1, ge=1, le=64, description="Worker processes that share the partitions.")
    batch_size: int = Field(512, ge=1, le=16384, description="Most records of one batch, and of one transaction.")
    max_wait_ms: int = Field(20, ge=1, le=60_000, description="Longest wait for a batch to fill, in ms.")
    target_fpr: float = Field(0.01, gt=0, lt=1, description="Which of the bundle's thresholds decides.")
    threshold: float | None = Field(None, ge=0, le=1, description="A threshold of one's own; overrides target_fpr.")
    novel_alerts: bool = Field(
        True, description="Alert on novel flows too, where the bundle can tell, not on known attacks alone."
    )
    min_feature_coverage: float = Field(
        0.5, ge=0, le=1, description="Least share of features with a value; below it a record is a dead letter."
    )
    delivery: Literal["exactly-once", "at-least-once"] = Field("exactly-once", description="Delivery guarantee.")
    on_poison: Literal["stop", "dead-letter"] = Field(
        "stop", description="What to do at a record that a bug cannot process: stop, or set it aside and go on."
    )
    max_batch_bytes: int = Field(16 << 20, ge=1 << 10, description="Bytes of one batch from which it takes no more.")
    max_message_bytes: int = Field(1 << 20, ge=1, description="Longest record; a longer one is a dead letter.")
    max_depth: int = Field(64, ge=1, le=512, description="Deepest nesting of arrays and objects in a record.")
    max_fields: int = Field(1024, ge=1, description="Most fields of a record.")
    max_string_chars: int = Field(16_384, ge=1, description="Longest string in a record, keys included.")
    reload: bool = Field(True, description="Take over a new bundle that appears at the bundle's place.")
    require_signature: bool = Field(False, description="Refuse a bundle that no trusted key has signed.")
    trusted_keys: Path | None = Field(None, description="PEM file of the ed25519 public keys whose signatures count.")
    max_restarts: int = Field(5, ge=0, description="How often in a row a worker may die without getting anything done.")
    stop_timeout_s: float = Field(
        15.0, gt=0, le=600, description="How long workers may take to stop before they are killed."
    )
    create_topics: bool = Field(False, description="Make topics that do not exist instead of waiting for them.")
    metrics_host: str = Field("127.0.0.1", description="Address that /metrics listens on.")
    metrics_port: int = Field(9108, ge=0, le=65535, description="Port of /metrics; 0 takes a free one.")

    @model_validator(mode="after")
    def _topics_are_three(self) -> "StreamParams":
        names = [self.input, self.alerts, self.dead_letters]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"input, alerts and dead_letters must be three topics, and {name!r} is named twice: the service would "
                    "read what it writes"
                )
        return self


class TrackingParams(_Section):
    """Where experiments are recorded."""

    mlflow_uri: str = Field("sqlite:///mlflow.db", description="MLflow tracking URI; a local SQLite file by default.")


class DatasetParams(_Section):
    """What is different for a data set: settings of these sections, laid over them."""

    data: dict[str, Any] = Field(default_factory=dict, description="Settings of data, but for dataset itself.")
    train: dict[str, Any] = Field(default_factory=dict, description="Settings of train.")
    export: dict[str, Any] = Field(default_factory=dict, description="Settings of export.")

    @model_validator(mode="after")
    def _are_settings(self) -> "DatasetParams":
        for section, model in (("data", DataParams), ("train", TrainParams), ("export", ExportParams)):
            for name in getattr(self, section):
                if name not in model.model_fields or (section, name) == ("data", "dataset"):
                    raise ValueError(f"{section}.{name}: no such setting; {_allowed(section, name)}")
        return self


class Params(_Section):
    """params.yaml, whole."""

    data: DataParams = Field(default_factory=DataParams)
    train: TrainParams = Field(default_factory=TrainParams)
    export: ExportParams = Field(default_factory=ExportParams)
    stream: StreamParams = Field(default_factory=StreamParams)
    tracking: TrackingParams = Field(default_factory=TrackingParams)
    per_dataset: dict[DatasetName, DatasetParams] = Field(
        default_factory=dict,
        description="What is different for a data set: settings of data, train and export, laid over those of the file.",
    )
    kafka: dict[str, str | int | float | bool] = Field(
        default_factory=dict,
        repr=False,  # it may hold passwords
        description="librdkafka properties for every client, for example security.protocol; NAME_file reads NAME from a file.",
    )

    @field_validator("kafka")
    @classmethod
    def _guarantees_stand(cls, kafka: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
        for name in kafka:
            if (instead := _NOT_FOR_USERS.get(name.removesuffix(_FILE))) is not None:
                raise ValueError(f"kafka.{name}: {instead}")
        return kafka


def load_params(
    options: Mapping[str, object] | None = None,
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Params:
    """Read params.yaml (or `file`), lay the environment over it and `options` ({"train.d_model": 64, …}) on top.

    What the file holds for the data set that is chosen, by whichever of them, is laid over the file's other settings.

    A `None` among the options is one that was not given, `NULL` one that is null. params.yaml need not exist; a `file`
    that is named must.

    Raises:
        ParamsError: a wrong key or value, or the file of a secret cannot be read; the message names it, where it came from
            and what is allowed.
    """
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    path = file or DEFAULT_FILE
    if file is not None or path.exists():
        _overlay(merged, sources, _flat(_read_yaml(path)), str(path))
    found = _from_environment(os.environ if environment is None else environment)
    given = {key: None if value is NULL else value for key, value in (options or {}).items() if value is not None}
    named, own = _of_dataset(merged, found | given)
    _overlay(merged, sources, own, f"{path} per_dataset.{named}")
    _overlay(merged, sources, found, "environment")
    _overlay(merged, sources, given, "option")
    try:
        params = Params.model_validate(merged)
    except ValidationError as error:
        problems = dict.fromkeys(_explain(problem, sources) for problem in error.errors())
        raise ParamsError("\n".join(problems)) from None
    return params.model_copy(update={"kafka": _with_files_read(params.kafka, sources)})


def _of_dataset(content: Mapping[str, Any], over: Mapping[str, object]) -> tuple[object, dict[str, object]]:
    """The data set that a file and what is laid over it name, and the file's settings for it; mistakes are told later."""
    data, own = content.get("data"), content.get("per_dataset")
    default = data.get("dataset", DataParams().dataset) if isinstance(data, dict) else DataParams().dataset
    name = over.get("data.dataset", default)
    settings = own.get(name) if isinstance(own, dict) and isinstance(name, str) else None
    if not isinstance(settings, dict):
        return name, {}
    known = {section: settings[section] for section in DatasetParams.model_fields if section in settings}
    return name, {key: value for key, value in _flat(known).items() if "." in key}


def _with_files_read(
    kafka: Mapping[str, str | int | float | bool], sources: Mapping[str, str]
) -> dict[str, str | int | float | bool]:
    """Each NAME_file replaced by NAME with that file's text, less the line's end."""
    read = dict(kafka)
    for name in [name for name in kafka if name.endswith(_FILE)]:
        path, secret = str(read.pop(name)), name.removesuffix(_FILE)
        where = f"{_source_of(f'kafka.{name}', sources)}: kafka.{name}"
        if secret in read:
            raise ParamsError(f"{where}: kafka.{secret} is given too; leave one of them out")
        try:
            read[secret] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "not a path of a UTF-8 text"
            raise ParamsError(f"{where} = {path}: {why}") from None
        if not read[secret]:
            raise ParamsError(f"{where} = {path}: the file is empty")
    return read


def parse_value(key: str, text: str) -> object:
    """What a text from the environment or an option means: YAML, but a librdkafka property (`kafka.…`) is that text.

    So a password of digits stays as it is. What is no YAML is text too.
    """
    if key.startswith("kafka."):
        return text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # ValueError: the 31st of February
        return text


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParamsError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:  # whose own words quote the line, which may hold a password
        mark = getattr(error, "problem_mark", None)
        raise ParamsError(
            f"{path}: not YAML{f', line {mark.line + 1}, column {mark.column + 1}' if mark else ''}"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ParamsError(
            f"{path}: expected sections ({', '.join(Params.model_fields)}), got a {type(content).__name__}"
        )
    return content


def _flat(content: Mapping[str, Any]) -> dict[str, object]:
    """{"train": {"d_model": 1}} → {"train.d_model": 1}; what is no section stays as it is."""
    flat: dict[str, object] = {}
    for section, values in content.items():
        if isinstance(values, dict):
            flat.update({f"{section}.{key}": value for key, value in values.items()})
        elif not (values is None and section in Params.model_fields):
            flat[str(section)] = values
    return flat


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in sorted(environment.items()):  # a section before its settings, which are laid over it
        if not name.startswith(ENV_PREFIX) or name.startswith(ENV_PREFIX + "TEST_"):
            continue
        key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
        section = key.partition(".")[0]
        if section not in Params.model_fields:
            raise ParamsError(f"environment {name}: no such setting; {_allowed('', section)}")
        found |= _flat({key: parse_value(key, value)})
    return found


def _overlay(merged: dict[str, Any], sources: dict[str, str], values: Mapping[str, object], source: str) -> None:
    for key, value in values.items():
        sources.pop(key, None)
        sources[key] = source  # now the last one
        section, _, name = key.partition(".")
        if not name:
            merged[section] = value
        else:
            place = merged.setdefault(section, {})
            if not isinstance(place, dict):
                shown = "no section" if section == "kafka" else f"{place!r}, expected a section"  # it may be a password
                raise ParamsError(f"{source} {key}: {section} is {shown}")
            place[name] = value


def _explain(problem: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    place = [str(part) for part in problem["loc"]]
    if place[0] == "kafka" and problem["type"] == "value_error":
        told = str(problem["ctx"]["error"])
        return f"{_source_of(told.partition(':')[0], sources)}: {told}"
    if place[0] == "kafka":  # without the value, which may be a password
        key = ".".join(place[:2])
        return f"{_source_of(key, sources)}: {key}: expected {'a text, a number or a boolean' if place[1:] else 'a section'}"
    key = ".".join(place)
    source = _source_of(key, sources)
    if problem["type"] == "extra_forbidden":
        return f"{source}: {key}: no such setting; {_allowed('.'.join(place[:-1]), place[-1])}"
    if problem["type"] == "value_error":  # of several settings together; it shows the values that matter
        return f"{source}: {key}: {problem['ctx']['error']}"
    return f"{source}: {key} = {problem['input']!r}: {problem['msg']}"


def _source_of(key: str, sources: Mapping[str, str]) -> str:
    """Where a setting or a part of one comes from; of a section, where the strongest of its settings does."""
    section = key.partition(".")[0]
    for name in (key, ".".join(key.split(".")[:2]), section):
        if name in sources:
            return sources[name]
    return next(
        (source for name, source in reversed(list(sources.items())) if name.startswith(section + ".")), "default"
    )


def _allowed(section: str, wrong: str) -> str:
    names: Iterable[str] = Params.model_fields
    field = Params.model_fields.get(section)
    if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        names = field.annotation.model_fields
    close = difflib.get_close_matches(wrong, list(names), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(names)}"
