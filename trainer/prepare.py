"""`prepare`: a data set's CSVs → arrays to train on, and a record of all that was done to them."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import structlog

from export.reading import read_flows
from schemas.datasets import schema_named
from schemas.errors import FlowsentryError
from schemas.flow import FlowSchema, Kind
from schemas.params import DataParams
from trainer.cleaning import clean, vector_hashes
from trainer.preprocessing import Preprocessor, fit
from trainer.reading import Categories, read_all, vectors_of
from trainer.splitting import SPLITS, balance, split

__all__ = ["Prepared", "load_prepared", "prepare"]

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


def prepare(
    files: Iterable[Path],
    params: DataParams,
    out: Path,
    *,
    exclude: Iterable[Path] = (),
    schema: FlowSchema | None = None,
) -> Path:
    """Read, clean, split, optionally balance and fit; write everything to `out` and return it.

    With `benign_only` all flows are taken for benign, but those that a label calls attacks: they are left out.

    `exclude` are CSVs whose feature vectors must not be trained on (the demo's sample): they go to the test side. `schema` is
    one to take in place of the data set's own.

    Raises:
        FlowsentryError: no file is one of the data set's, a label is unknown, or attacks or benign flows are lacking.
    """
    schema = schema or schema_named(params.dataset)
    flows = read_all(files, schema, benign_only=params.benign_only)
    if not len(flows.x):
        raise FlowsentryError(f"none of the files has usable rows of {schema.name}: {json.dumps(flows.reports)}")
    is_attack = np.array([item.is_attack for item in schema.families])
    cleaned = clean(flows.x, flows.family, is_attack[flows.family], schema.names)
    kept = np.flatnonzero(cleaned.keep)
    if not params.benign_only:
        _require_both(is_attack[flows.family[kept]], "all rows after cleaning")
    if params.balanced_rows is not None:
        kept = kept[balance(is_attack[flows.family[kept]], rows=params.balanced_rows, seed=params.seed)]
    x, family, time = flows.x[kept], flows.family[kept], flows.time[kept]
    categories, reports = flows.categories, flows.reports
    del flows  # half of all memory

    side = split(x, family, validation_share=params.validation_share, test_share=params.test_share, seed=params.seed)
    held_out = _rows_among(x, schema, categories, exclude)
    side[held_out] = SPLITS.index("test")

    # Categories are learnt from training rows alone, like everything else.
    train = side == SPLITS.index("train")
    for name in () if params.benign_only else ("train", "validation"):
        _require_both(is_attack[family[side == SPLITS.index(name)]], f"the {name} rows")
    vocabularies: dict[str, tuple[str, ...]] = {}
    for feature in schema.categorical:
        column = schema.names.index(feature.name)
        vocabularies[feature.name], recoded = categories.of_codes(feature.name, x[train, column])
        x[:, column] = recoded[x[:, column].astype(np.int64)]
    learnt_from = x[train]
    y = is_attack[family].astype(np.int8)
    preprocessor = fit(
        learnt_from, y[train] == 1, schema, vocabularies, n_quantiles=params.n_quantiles, seed=params.seed
    )
    empty = [name for name, column in zip(schema.names, learnt_from.T, strict=True) if _is_empty(column, schema, name)]
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
        "features": [_transformation(schema, preprocessor, index, learnt_from) for index in range(len(schema.names))],
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


def load_prepared(directory: Path, *, labelled: bool = True, schema: FlowSchema | None = None) -> Prepared:
    """Read what `prepare` wrote, with the `schema` that it was given.

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
    schema = schema or schema_named(metadata["dataset"])
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


def _require_both(is_attack: np.ndarray, where: str) -> None:
    attacks, benign = int(is_attack.sum()), int((~is_attack).sum())
    if not (attacks and benign):
        raise FlowsentryError(f"{where}: {attacks} attacks and {benign} benign flows, but both are needed")


def _is_empty(column: np.ndarray, schema: FlowSchema, name: str) -> bool:
    numeric = schema.features[schema.names.index(name)].kind is Kind.NUMERIC
    return bool((np.isnan(column) if numeric else column == 0).all())


def _rows_among(x: np.ndarray, schema: FlowSchema, categories: Categories, files: Iterable[Path]) -> np.ndarray:
    """Which rows have a feature vector that stands in one of `files`: bool[N]."""
    found = np.zeros(len(x), dtype=bool)
    for path in files:
        parts = [vectors_of(batch, schema, categories) for batch in read_flows(path, schema, min_feature_coverage=0.0)]
        vectors = vector_hashes(np.concatenate([np.empty((0, x.shape[1]), dtype=np.float32), *parts]))
        found |= np.isin(vector_hashes(x), vectors)
    return found


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
