"""Every setting: its name, type, default and what it means. `schemas.settings` reads them."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

__all__ = [
    "FILE_SUFFIX",
    "ApiParams",
    "DataParams",
    "DatasetName",
    "DatasetParams",
    "DriftParams",
    "ExperimentsParams",
    "ExportParams",
    "Params",
    "StreamParams",
    "TrackingParams",
    "TrainParams",
    "allowed_names",
]

FILE_SUFFIX = "_file"
"""Behind a name in the section kafka: its value is the text of that file."""

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
    source: Path | None = Field(
        None, description="Labelled CSV file, or directory of them, that `prepare` reads where it is not told."
    )
    held_out: Path | None = Field(
        None, description="CSV whose rows are not trained on, such as the demo's sample: they join the test rows."
    )
    validation_share: float = Field(
        0.1, gt=0, lt=0.5, description="Share of rows for early stopping, thresholds and calibration."
    )
    test_share: float = Field(0.2, ge=0, lt=0.8, description="Share of rows that nothing is chosen on.")
    balanced_rows: int | None = Field(
        None, ge=2, description="Keep this many rows, half benign, half attacks; null keeps all rows as they are."
    )
    n_quantiles: int = Field(160, ge=2, le=4096, description="Points of the map from raw values to a normal shape.")
    benign_only: bool = Field(
        False,
        description="All flows are benign, or are to be taken for it: only what is novel can be learnt from them.",
    )
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
        "piecewise", description="Numeric tokens: b + x·W, or with an encoding of the quantile bins of x besides."
    )
    batch_size: int = Field(128, ge=1, description="Rows of one optimizer step.")
    learning_rate: float = Field(2e-3, gt=0, description="Highest learning rate of the one-cycle schedule.")
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
        0.05, ge=0, lt=1, description="Share of tokens hidden while finetuning, so that missing features do no harm."
    )
    family_loss_weight: float = Field(
        0.15, ge=0, description="Weight of the attack-family loss beside the attack loss."
    )
    teacher_weight: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of a training label that trees decide which were not shown the row; 0: none.",
    )
    recombined_share: float = Field(
        0.0,
        ge=0,
        le=8,
        description="Flows that each epoch adds for each training row: of two rows' features, labelled by trees; 0: none.",
    )
    average_decay: float = Field(0.998, ge=0, lt=1, description="Decay of the moving average of weights that is kept.")
    checkpoint_every_s: float = Field(60, gt=0, description="Seconds between checkpoints, besides one per epoch.")
    threads: int | None = Field(None, ge=1, description="Torch threads; null takes every core.")
    precision: Literal["auto", "bf16", "float32"] = Field(
        "auto",
        description="Of matrix products; auto takes bf16 where the processor or GPU has it. Weights are float32.",
    )
    compile: bool | Literal["auto"] = Field(
        "auto", description="Compiled finetuning (torch.compile); auto: long runs, where there is a C++ compiler."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where there is one.")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "TrainParams":
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model ({self.d_model}) must be a multiple of n_heads ({self.n_heads})")
        return self


class ExperimentsParams(_Section):
    """How long experiments train (`trainer unseen | ablate | transfer`): short, and alike for all that they compare."""

    rows: int | None = Field(8000, ge=1, description="Training rows; null takes all.")
    epochs: int = Field(4, ge=1, description="Passes over them with labels, in place of train.epochs_finetune.")
    seeds: int = Field(3, ge=1, description="Repetitions, each with a seed of its own; from data.seed on.")


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
    events: str | None = Field(
        "flowsentry.events",
        min_length=1,
        description="Topic of what the service tells of itself; null: it tells nothing.",
    )
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
    def _topics_are_different(self) -> "StreamParams":
        names = [self.input, self.alerts, self.dead_letters, self.events]
        for name in names:
            if name is not None and names.count(name) > 1:
                raise ValueError(
                    f"input, alerts, dead_letters and events must be topics of their own, and {name!r} is named twice: the "
                    "service would read what it writes"
                )
        return self


class DriftParams(_Section):
    """How the service watches whether flows are still like those that the bundle was trained on."""

    enabled: bool = Field(True, description="Measure drift, where the bundle has histograms to measure it against.")
    window_s: float = Field(600.0, gt=0, le=604_800, description="Seconds of the sliding window.")
    panes: int = Field(
        10, ge=1, le=100, description="Steps in which the window slides; drift is measured once in each."
    )
    flows_per_s: float = Field(
        100.0, gt=0, le=100_000, description="Most flows that are counted in a second; of more, some evenly spaced."
    )
    min_flows: int = Field(1000, ge=1, description="Least flows of a window; of fewer nothing is said.")
    psi_bound: float = Field(
        0.2, gt=0, description="Population stability index from which a feature or a score is told to have drifted."
    )


class ApiParams(_Section):
    """The detector over HTTP; which bundle and which threshold says the section stream."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    key: SecretStr | None = Field(
        None, min_length=8, description="What the header X-API-Key must hold; null asks for none. Better: key_file."
    )
    key_file: Path | None = Field(None, description="File whose text is the key.")
    max_flows: int = Field(1000, ge=1, description="Most flows of one request.")
    max_body_bytes: int = Field(4 << 20, ge=1 << 10, description="Longest body of a request.")
    max_waiting: int = Field(4096, ge=1, description="Most flows that wait to be scored; beyond it is a 429.")
    batch_size: int = Field(256, ge=1, description="Most flows that are scored at once.")
    max_wait_ms: int = Field(2, ge=0, le=1000, description="How long a flow waits for others, in ms.")

    @model_validator(mode="after")
    def _a_request_can_wait(self) -> "ApiParams":
        if self.max_waiting < self.max_flows:
            raise ValueError(
                f"max_waiting ({self.max_waiting}) must be at least max_flows ({self.max_flows}), or a request of so many flows "
                "would never be taken"
            )
        if self.key is not None and self.key_file is not None:
            raise ValueError("key and key_file: give one of them")
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
                    raise ValueError(f"{section}.{name}: no such setting; {allowed_names(section, name)}")
        return self


class Params(_Section):
    """params.yaml, whole."""

    data: DataParams = Field(default_factory=DataParams)
    train: TrainParams = Field(default_factory=TrainParams)
    experiments: ExperimentsParams = Field(default_factory=ExperimentsParams)
    export: ExportParams = Field(default_factory=ExportParams)
    stream: StreamParams = Field(default_factory=StreamParams)
    drift: DriftParams = Field(default_factory=DriftParams)
    api: ApiParams = Field(default_factory=ApiParams)
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
            if (instead := _NOT_FOR_USERS.get(name.removesuffix(FILE_SUFFIX))) is not None:
                raise ValueError(f"kafka.{name}: {instead}")
        return kafka


def allowed_names(section: str, wrong: str) -> str:
    """Which settings a section has ('': which sections there are), and the one most like a wrong name."""
    names: Iterable[str] = Params.model_fields
    field = Params.model_fields.get(section)
    if field is not None and isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        names = field.annotation.model_fields
    close = difflib.get_close_matches(wrong, list(names), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(names)}"
