"""`prepare`: a data set's CSVs → arrays to train on, and a record of all that was done to them."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import structlog

from export.bundle import sha256_of
from export.progress import track
from export.reading import FlowBatch, read_flows
from schemas.datasets import schema_named
from schemas.errors import FlowsentryError, HeaderError, LabelError
from schemas.flow import FlowSchema, Kind
from schemas.params import DataParams
from schemas.times import parse_time
from trainer.cleaning import clean
from trainer.preprocessing import Preprocessor, encode, fit, vocabulary
from trainer.splitting import SPLITS, balance, split

__all__ = ["Prepared", "families_of", "load_prepared", "prepare"]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare` wrote. `x` f32[N, F] raw values in schema order (NaN = missing, categories as codes), `y` int8[N]
    (1 = attack), `family` int16[N] (index into the schema's families), `split` int8[N] (index into `SPLITS`), `time` f64[N]
    (unix seconds, NaN where the file does not tell)."""

    schema: FlowSchema
    x: np.ndarray
    y: np.ndarray
    family: np.ndarray
    split: np.ndarray
    time: np.ndarray
    preprocessor: Preprocessor
    metadata: dict[str, object]

    def rows(self, name: str) -> np.ndarray:
        """Row numbers of one split: int64[K]."""
        return np.flatnonzero(self.split == SPLITS.index(name))

    @property
    def benign_only(self) -> bool:
        """Whether there are no labels, and no attacks to be told."""
        return not self.y.any()


def prepare(files: Iterable[Path], params: DataParams, out: Path, *, exclude: Iterable[Path] = ()) -> Path:
    """Read, clean, split, optionally balance and fit; write everything to `out` and return it.

    With `benign_only` all flows are taken for benign, but those that a label calls attacks: they are left out.

    `exclude` are CSVs whose feature vectors must not be trained on (the demo's sample): they go to the test side.

    Raises:
        FlowsentryError: no file is one of the data set's, a label is unknown, or attacks or benign flows are lacking.
    """
    schema = schema_named(params.dataset)
    reports: list[dict[str, object]] = []
    matrices: list[dict[str, np.ndarray]] = []
    families: list[np.ndarray] = []
    times: list[np.ndarray] = []
    for path in track(list(files), "reading"):
        report, columns, labels, when = _read(path, schema, benign_only=params.benign_only)
        reports.append(report)
        if columns is not None:
            matrices.append(columns)
            families.append(labels)
            times.append(when)
    if not any(map(len, families)):
        raise FlowsentryError(f"none of the files has usable rows of {schema.name}: {json.dumps(reports)}")

    columns = {name: np.concatenate([part[name] for part in matrices]) for name in schema.names}
    family, time = np.concatenate(families), np.concatenate(times)
    raw, vocabularies = _matrix(columns, schema)
    is_attack = np.array([item.is_attack for item in schema.families])
    cleaned = clean(raw, family, is_attack[family], schema.names)
    kept = np.flatnonzero(cleaned.keep)
    if not params.benign_only:
        _require_both(is_attack[family[kept]], "all rows after cleaning")
    if params.balanced_rows is not None:
        kept = kept[balance(is_attack[family[kept]], rows=params.balanced_rows, seed=params.seed)]
    raw, family, time = raw[kept], family[kept], time[kept]
    columns = {name: values[kept] for name, values in columns.items()}

    side = split(raw, family, validation_share=params.validation_share, test_share=params.test_share, seed=params.seed)
    held_out = _rows_among(columns, raw, schema, vocabularies, exclude)
    side[held_out] = SPLITS.index("test")

    # Categories are learnt from training rows alone, like everything else.
    train = side == SPLITS.index("train")
    for name in () if params.benign_only else ("train", "validation"):
        _require_both(is_attack[family[side == SPLITS.index(name)]], f"the {name} rows")
    vocabularies = {feature.name: vocabulary(columns[feature.name][train]) for feature in schema.categorical}
    x = _encoded(columns, schema, vocabularies)
    y = is_attack[family].astype(np.int8)
    preprocessor = fit(x[train], y[train] == 1, schema, vocabularies, n_quantiles=params.n_quantiles, seed=params.seed)
    empty = [name for name, column in zip(schema.names, x[train].T, strict=True) if _is_empty(column, schema, name)]
    if empty:
        log.warning("features without a value in any training row", features=empty)
    metadata: dict[str, object] = {
        "dataset": schema.name,
        "schema": {"version": schema.version, "hash": schema.fingerprint(), "citation": schema.citation},
        "inputs": reports,
        "rows": {"read": len(cleaned.keep), **cleaned.counts, "kept": len(x)},
        "balanced_rows": params.balanced_rows,
        "held_out_as_sample": int(held_out.sum()),
        "splits": {name: _counts(family[side == index], schema) for index, name in enumerate(SPLITS)},
        "features": [_transformation(schema, preprocessor, index, x[train]) for index in range(len(schema.names))],
        "not_features": {
            **{column.name: "metadata: travels into the alert, never into the model" for column in schema.metadata},
            **dict.fromkeys(schema.label_columns, "label"),
            **{column.name: column.reason for column in schema.dropped},
        },
        "params": params.model_dump(mode="json"),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, array in (("X", x), ("y", y), ("family", family.astype(np.int16)), ("split", side), ("time", time)):
        np.save(out / f"{name}.npy", array)
    preprocessor.save(out / "preprocessor.joblib")
    (out / "metadata.json").write_text(json.dumps(metadata, indent=1, ensure_ascii=False) + "\n")
    log.info("prepared", out=str(out), **cleaned.counts, rows=len(x))
    return out


def load_prepared(directory: Path, *, labelled: bool = True) -> Prepared:
    """Read what `prepare` wrote.

    Raises:
        FlowsentryError: it is not there, or was made with another version of the schema; or it is of benign flows alone,
            and `labelled` ones are needed.
    """
    try:
        metadata = json.loads((directory / "metadata.json").read_text())
        arrays = {name: np.load(directory / f"{name}.npy") for name in ("X", "y", "family", "split", "time")}
        preprocessor = Preprocessor.load(directory / "preprocessor.joblib")
    except OSError as error:
        raise FlowsentryError(f"{error.filename}: {error.strerror}. Run `python -m trainer prepare` first") from None
    schema = schema_named(metadata["dataset"])
    if metadata["schema"]["hash"] != schema.fingerprint():
        raise FlowsentryError(f"{directory} was prepared with another {schema.name} schema: run `prepare` again")
    prepared = Prepared(
        schema,
        arrays["X"],
        arrays["y"],
        arrays["family"],
        arrays["split"],
        arrays["time"],
        preprocessor,
        metadata,
    )
    if labelled and prepared.benign_only:
        raise FlowsentryError(
            f"{directory} is of benign flows alone, which say nothing of attacks: `python -m trainer novelty`, then "
            "`python -m export build` make a bundle of them that tells what is novel"
        )
    return prepared


def _read(
    path: Path, schema: FlowSchema, *, benign_only: bool
) -> tuple[dict[str, object], dict[str, np.ndarray] | None, np.ndarray, np.ndarray]:
    """One file → what is reported of it, its columns, and the family number and the time of each row."""
    report: dict[str, object] = {"file": path.name, "sha256": sha256_of(path)}
    try:
        batches = list(read_flows(path, schema, min_feature_coverage=0.5))
    except HeaderError as error:
        log.warning("file skipped", file=path.name, why=str(error))
        why = str(error).replace(
            str(path), path.name
        )  # the report goes into the bundle, and paths are nobody's business
        return {**report, "skipped": why}, None, np.empty(0), np.empty(0)
    rejects = Counter(reject.reason.value for batch in batches for reject in batch.rejects)
    report |= {"rows": sum(len(batch.rows) for batch in batches), "rejected": dict(rejects)}
    if rejects:
        log.warning("rows refused", file=path.name, **rejects)
    if not batches:
        return report, None, np.empty(0), np.empty(0)
    if benign_only and not any(name in batches[0].labels for name in schema.label_columns):
        benign = next(number for number, family in enumerate(schema.families) if not family.is_attack)
        families = np.full(sum(len(batch.rows) for batch in batches), benign)
    else:
        families = np.concatenate([families_of(batch, schema, path) for batch in batches])
    columns = {
        feature.name: np.concatenate([_column(batch, feature.name, feature.kind) for batch in batches])
        for feature in schema.features
    }
    times = np.concatenate([_times(batch) for batch in batches])
    if benign_only:
        benign_rows = ~np.array([family.is_attack for family in schema.families])[families]
        report["attacks_left_out"] = int((~benign_rows).sum())
        columns = {name: values[benign_rows] for name, values in columns.items()}
        families, times = families[benign_rows], times[benign_rows]
    return report, columns, families, times


def _times(batch: FlowBatch) -> np.ndarray:
    """Unix seconds f64[B]; NaN where a row does not tell."""
    told = [parse_time(cell) for cell in batch.times] or [None] * len(batch.rows)
    return np.array([np.nan if time is None else time.timestamp() for time in told])


def _column(batch: FlowBatch, name: str, kind: Kind) -> np.ndarray:
    if name in batch.columns:
        return batch.columns[name]
    fill: object = np.nan if kind is Kind.NUMERIC else None
    return np.full(len(batch.rows), fill, dtype=np.float64 if kind is Kind.NUMERIC else object)


def families_of(batch: FlowBatch, schema: FlowSchema, path: Path) -> np.ndarray:
    """The family number of each row, from the first of the schema's label columns that is there: int64[B].

    Raises:
        FlowsentryError: no label column, an unknown label, or one that another label column contradicts.
    """
    present = [name for name in schema.label_columns if name in batch.labels]
    if not present:
        raise FlowsentryError(f"{path}: no label column: expected {' or '.join(schema.label_columns)}")
    name, *others = present
    numbers = {family.name: number for number, family in enumerate(schema.families)}
    try:
        known = {label: numbers[schema.family_of(label).name] for label in dict.fromkeys(batch.labels[name])}
    except LabelError as error:
        first = schema.label_columns[0]
        hint = "" if name == first else f". The family is read from {first}, a column that this file lacks"
        raise LabelError(f"{path}: {error}{hint}") from None
    families = np.array([known[label] for label in batch.labels[name]], dtype=np.int64)
    for other in (name for name in others if name == "label"):  # 0 or 1; further columns say other things
        said = np.array([cell.strip() for cell in batch.labels[other]], dtype=np.str_)
        is_attack = np.array([family.is_attack for family in schema.families])[families]
        for place in np.flatnonzero(np.where(is_attack, said == "0", said == "1"))[:1].tolist():
            raise LabelError(
                f"{path}: data row {batch.rows[place]}: {name} {batch.labels[name][place]!r} means "
                f"{schema.families[families[place]].name}, but {other} is {said[place]}"
            )
    return families


def _require_both(is_attack: np.ndarray, where: str) -> None:
    attacks, benign = int(is_attack.sum()), int((~is_attack).sum())
    if not (attacks and benign):
        raise FlowsentryError(f"{where}: {attacks} attacks and {benign} benign flows, but both are needed")


def _is_empty(column: np.ndarray, schema: FlowSchema, name: str) -> bool:
    numeric = schema.features[schema.names.index(name)].kind is Kind.NUMERIC
    return bool((np.isnan(column) if numeric else column == 0).all())


def _matrix(columns: dict[str, np.ndarray], schema: FlowSchema) -> tuple[np.ndarray, dict[str, tuple[str, ...]]]:
    """All rows as f32[N, F] with categories of the whole file set as codes: for telling vectors apart."""
    vocabularies = {feature.name: vocabulary(columns[feature.name]) for feature in schema.categorical}
    return _encoded(columns, schema, vocabularies), vocabularies


def _encoded(
    columns: dict[str, np.ndarray], schema: FlowSchema, vocabularies: dict[str, tuple[str, ...]]
) -> np.ndarray:
    return np.column_stack(
        [
            columns[feature.name].astype(np.float32)
            if feature.kind is Kind.NUMERIC
            else encode(columns[feature.name], vocabularies[feature.name])
            for feature in schema.features
        ]
    )


def _rows_among(
    columns: dict[str, np.ndarray],
    matrix: np.ndarray,
    schema: FlowSchema,
    vocabularies: dict[str, tuple[str, ...]],
    files: Iterable[Path],
) -> np.ndarray:
    """Which rows have a feature vector that stands in one of `files`: bool[N]."""
    vectors: set[bytes] = set()
    for path in files:
        for batch in read_flows(path, schema, min_feature_coverage=0.0):
            part = {feature.name: _column(batch, feature.name, feature.kind) for feature in schema.features}
            vectors.update(row.tobytes() for row in _encoded(part, schema, vocabularies) + np.float32(0.0))
    return np.array([row.tobytes() in vectors for row in matrix + np.float32(0.0)], dtype=bool)


def _counts(families: np.ndarray, schema: FlowSchema) -> dict[str, int]:
    counts = np.bincount(families, minlength=len(schema.families))
    return {family.name: int(count) for family, count in zip(schema.families, counts, strict=True)}


def _transformation(schema: FlowSchema, preprocessor: Preprocessor, index: int, train: np.ndarray) -> dict[str, object]:
    feature = schema.features[index]
    common: dict[str, object] = {"name": feature.name, "kind": feature.kind.value, "unit": feature.unit}
    if feature.kind is Kind.CATEGORICAL:
        return {
            **common,
            "transformation": "code per category seen in training; 0 = missing, the one after the last = unknown",
            "categories": len(preprocessor.vocabularies[feature.name]),
            "missing_share": float((train[:, index] == 0).mean()),
        }
    row = [item.name for item in schema.numeric].index(feature.name)
    return {
        **common,
        "transformation": "piecewise-linear map onto a standard normal",
        "points": len(np.unique(preprocessor.knots[row])),
        "missing_share": float(np.isnan(train[:, index]).mean()),
        "benign_range": asdict(preprocessor.benign[feature.name]),
    }
