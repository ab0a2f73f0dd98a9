"""What a detector leans on, and how it does with less or later: shortcuts, missing features, pretraining, time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from schemas.errors import FlowsentryError
from schemas.flow import Kind
from schemas.params import Params
from trainer.evaluation.metrics import Curve, area_under_roc, recall_at
from trainer.experiments.fitting import fit_expert, score_rows
from trainer.experiments.table import Table, between_seeds
from trainer.experiments.time import over_time
from trainer.model import TabularExpert
from trainer.prepare import Prepared
from trainer.stages import new_model
from trainer.subsets import resplit, thin
from trainer.training import build_model, load_checkpoint, same_preprocessing

__all__ = [
    "SHORTCUTS",
    "ZEEK_CONN",
    "ablate",
    "missing_features",
    "permutation_importance",
    "pretraining",
    "without_features",
]

# What a line of Zeek's conn.log says of a flow: duration, protocol, service, state, bytes and packets each way, and what
# follows from them.
_ZEEK_CIC = (
    "flow_duration", "total_fwd_packets", "total_bwd_packets", "total_length_of_fwd_packets",
    "total_length_of_bwd_packets", "flow_bytes_s", "flow_packets_s", "fwd_packets_s", "bwd_packets_s",
    "fwd_packet_length_mean", "bwd_packet_length_mean", "packet_length_mean", "down_up_ratio",
)  # fmt: skip
ZEEK_CONN: Mapping[str, tuple[str, ...]] = {
    "unsw-nb15": (
        "dur", "proto", "service", "state", "spkts", "dpkts", "sbytes", "dbytes", "rate", "sload", "dload", "smean", "dmean",
    ),
    "cicids2017": _ZEEK_CIC,
    "cicids2017-improved": ("protocol", *_ZEEK_CIC),
}  # fmt: skip
SHORTCUTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "unsw-nb15": ("the TTL features", ("sttl", "dttl", "ct_state_ttl")),
}
"""Features by which a detector may know the test bed rather than an attack."""
MISSING_SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)
LABEL_SHARES = (0.01, 0.1, 1.0)


def ablate(
    what: str, prepared: Prepared, params: Params, checkpoint: Path, seeds: Sequence[int], device: torch.device
) -> Table:
    """One of them by its name. `checkpoint` is the finetuned model of the run, which `importance` and `missing` look at.

    Raises:
        FlowsentryError: there is no such checkpoint, or the data set has no features of that kind.
    """
    if what == "pretraining":
        return pretraining(prepared, params, seeds, device)
    if what == "shortcuts":
        if prepared.schema.name not in SHORTCUTS:
            raise FlowsentryError(
                f"no feature of {prepared.schema.name} is known as a shortcut: try {', '.join(SHORTCUTS)}"
            )
        title, names = SHORTCUTS[prepared.schema.name]
        return without_features(prepared, params, names, title, seeds, device)
    if what == "time":
        return over_time(prepared, params, seeds, device)
    saved = load_checkpoint(checkpoint, schema_hash=prepared.schema.fingerprint())
    model = build_model(saved)
    if not same_preprocessing(model, new_model(prepared, params.train).state_dict()):
        raise FlowsentryError(
            f"{checkpoint} was trained on rows prepared otherwise: run `python -m trainer finetune` again"
        )
    return permutation_importance(model, prepared) if what == "importance" else missing_features(model, prepared)


def pretraining(prepared: Prepared, params: Params, seeds: Sequence[int], device: torch.device) -> Table:
    """AUC on test rows with and without masked pretraining, when a share of the training rows has labels.

    Pretraining sees all training rows, labels or not.
    """
    rows = []
    test = prepared.rows("test")
    total = len(prepared.rows("train"))
    for share in LABEL_SHARES:
        found: dict[bool, list[float]] = {True: [], False: []}
        for seed in seeds:
            labelled = thin(prepared.split, prepared.family, round(total * share), seed=seed)
            for with_it in found:
                settings = params.train.model_copy(update={} if with_it else {"epochs_pretrain": 0})
                model = fit_expert(prepared, settings, seed=seed, device=device, labelled=np.flatnonzero(labelled == 0))
                found[with_it].append(_auc(prepared.y[test], score_rows(model, prepared, test)))
        gain = float(np.mean(found[True]) - np.mean(found[False]))
        rows.append(
            (f"{share:.0%}", round(total * share), between_seeds(found[False]), between_seeds(found[True]), gain)
        )
    return Table(
        name="pretraining",
        title="Masked pretraining",
        note=f"AUC on {len(test):,} test rows; mean (least – most) of {len(seeds)} seeds.",
        columns=("labelled share", "labelled rows", "without", "with pretraining", "gain"),
        rows=tuple(rows),
    )


def without_features(
    prepared: Prepared, params: Params, names: Sequence[str], what: str, seeds: Sequence[int], device: torch.device
) -> Table:
    """Test figures of models that were trained with and without some features."""
    if unknown := set(names) - set(prepared.schema.names):
        raise ValueError(f"{sorted(unknown)[0]!r} is no feature of {prepared.schema.name}")
    test = prepared.rows("test")
    y = prepared.y[test]
    rows = []
    for title, gone in ((f"with {what}", ()), (f"without {what}", names)):
        part = _hidden(prepared, gone, params)
        figures: list[tuple[float, float, float]] = []
        for seed in seeds:
            scores = score_rows(fit_expert(part, params.train, seed=seed, device=device), part, test)
            curve = Curve.of(y, scores)
            counts = curve.true_positives, curve.false_positives
            figures.append((_auc(y, scores), recall_at(*counts, 0.001) or 0.0, recall_at(*counts, 0.01) or 0.0))
        rows.append((title, *(between_seeds(values) for values in zip(*figures, strict=True))))
    return Table(
        name="shortcuts",
        title=f"With and without {what}",
        note=f"{', '.join(names)}. {len(test):,} test rows, {len(seeds)} seeds.",
        columns=("features", "AUC", "recall at 0.1%", "recall at 1%"),
        rows=tuple(rows),
    )


def permutation_importance(
    model: TabularExpert, prepared: Prepared, *, top: int = 15, repeats: int = 3, most_rows: int = 4000, seed: int = 0
) -> Table:
    """By how much AUC falls when a feature's values are dealt out anew among the test rows (Breiman 2001)."""
    rng = np.random.default_rng(seed)
    test = prepared.rows("test")
    rows = np.sort(rng.choice(test, min(most_rows, len(test)), replace=False))
    y = prepared.y[rows]
    whole = _auc(y, score_rows(model, prepared, rows))
    falls = {}
    for column, name in enumerate(prepared.schema.names):
        measured = []
        for _ in range(repeats):
            x = prepared.x.copy()
            x[rows, column] = x[rng.permutation(rows), column]
            measured.append(whole - _auc(y, score_rows(model, _with(prepared, x), rows)))
        falls[name] = float(np.mean(measured))
    strongest = sorted(falls.items(), key=lambda item: -item[1])[:top]
    return Table(
        name="importance",
        title="Permutation importance",
        note=f"Fall of AUC (from {whole:.5f}) on {len(rows):,} test rows when a feature is shuffled, mean of {repeats}.",
        columns=("feature", "fall of AUC"),
        rows=tuple((name, f"{fall:.5f}") for name, fall in strongest),
    )


def missing_features(model: TabularExpert, prepared: Prepared, *, seed: int = 0) -> Table:
    """AUC on test rows of which features are missing: at random, and all but what a Zeek conn.log has."""
    test = prepared.rows("test")
    y = prepared.y[test]
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, float]] = []
    for share in MISSING_SHARES:
        gone = rng.random((len(test), len(prepared.schema.names))) < share
        rows.append((f"{share:.0%} at random", _auc_without(model, prepared, test, gone, y)))
    kept = np.isin(prepared.schema.names, ZEEK_CONN[prepared.schema.name])
    gone = np.broadcast_to(~kept, (len(test), len(kept)))
    rows.append((f"all but the {kept.sum()} of a Zeek conn.log", _auc_without(model, prepared, test, gone, y)))
    return Table(
        name="missing",
        title="Missing features",
        note=f"{len(test):,} test rows; the model is the same throughout.",
        columns=("missing", "AUC"),
        rows=tuple(rows),
    )


def _auc_without(model: TabularExpert, prepared: Prepared, rows: np.ndarray, gone: np.ndarray, y: np.ndarray) -> float:
    x = prepared.x.copy()
    x[rows] = np.where(gone, _absent(prepared), x[rows])
    return _auc(y, score_rows(model, _with(prepared, x), rows))


def _hidden(prepared: Prepared, names: Sequence[str], params: Params) -> Prepared:
    """The features missing in every row, as if no file had a column for them."""
    columns = np.isin(prepared.schema.names, names)
    part = _with(prepared, np.where(columns, _absent(prepared), prepared.x))
    return resplit(part, part.split, params.data)


def _absent(prepared: Prepared) -> np.ndarray:
    """What stands for a missing value, by column: f32[F]."""
    numeric = [feature.kind is Kind.NUMERIC for feature in prepared.schema.features]
    return np.where(numeric, np.float32(np.nan), np.float32(0))


def _with(prepared: Prepared, x: np.ndarray) -> Prepared:
    return replace(prepared, x=x)


def _auc(y: np.ndarray, scores: np.ndarray) -> float:
    curve = Curve.of(y, scores)
    auc = area_under_roc(curve.true_positives, curve.false_positives)
    assert auc is not None, "test rows are of both classes"
    return auc
