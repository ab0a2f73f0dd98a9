"""What a detector leans on, and how it does with less: pretraining, importance of features, missing features."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from schemas.params import Params
from trainer.experiments.fitting import area, fit_expert, score_rows, seeds_of, short_training, thinned, told_of
from trainer.experiments.table import Table, between_seeds
from trainer.model import TabularExpert
from trainer.prepare import Prepared
from trainer.subsets import absent, thin

__all__ = ["ZEEK_CONN", "missing_features", "permutation_importance", "pretraining"]

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
MISSING_SHARES = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8)
LABEL_SHARES = (0.01, 0.1, 1.0)


def pretraining(prepared: Prepared, params: Params, device: torch.device) -> Table:
    """AUC on test rows with and without masked pretraining, when a share of the training rows has labels.

    Pretraining sees all training rows, labels or not.
    """
    prepared, seeds, short = thinned(prepared, params), seeds_of(params), short_training(params)
    rows = []
    test = prepared.rows("test")
    total = len(prepared.rows("train"))
    for share in LABEL_SHARES:
        found: dict[bool, list[float]] = {True: [], False: []}
        for seed in seeds:
            labelled = thin(prepared.split, prepared.family, round(total * share), seed=seed)
            for with_it in found:
                settings = short.model_copy(update={} if with_it else {"epochs_pretrain": 0})
                model = fit_expert(prepared, settings, seed=seed, device=device, labelled=np.flatnonzero(labelled == 0))
                found[with_it].append(area(prepared.y[test], score_rows(model, prepared, test)))
        gain = float(np.mean(found[True]) - np.mean(found[False]))
        rows.append(
            (f"{share:.0%}", round(total * share), between_seeds(found[False]), between_seeds(found[True]), gain)
        )
    return Table(
        name="pretraining",
        title="Masked pretraining",
        note=f"AUC on {len(test):,} test rows; {told_of(params)}.",
        columns=("labelled share", "labelled rows", "without", "with pretraining", "gain"),
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
    whole = area(y, score_rows(model, prepared, rows))
    falls = {}
    for column, name in enumerate(prepared.schema.names):
        measured = []
        for _ in range(repeats):
            x = prepared.x.copy()
            x[rows, column] = x[rng.permutation(rows), column]
            measured.append(whole - area(y, score_rows(model, replace(prepared, x=x), rows)))
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
    x[rows] = np.where(gone, absent(prepared), x[rows])
    return area(y, score_rows(model, replace(prepared, x=x), rows))
