"""Trained on one data set, tested on another: by the features that both can be brought to.

Sarhan et al. 2021, "NetFlow Datasets for Machine Learning-Based Network Intrusion Detection Systems", argue for features that
all data sets share; these are fewer, as they come from flows that are finished already.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch

from schemas.errors import FlowsentryError
from schemas.flow import BENIGN, Family, Feature, FlowSchema, Kind
from schemas.params import Params
from trainer.baselines.trees import Trees
from trainer.evaluation.metrics import Curve, area_under_roc, recall_at
from trainer.experiments.fitting import fit_expert, score_rows, seeds_of, short_training, thinned, told_of
from trainer.experiments.table import Table, between_seeds
from trainer.prepare import Prepared
from trainer.preprocessing import Preprocessor, encode
from trainer.splitting import SPLITS
from trainer.subsets import LEFT_OUT, resplit, thin

__all__ = ["COMMON", "in_common", "transfer"]

LABEL_SHARES = (0.01, 0.05)
_PROTOCOLS = {"6": "tcp", "17": "udp", "1": "icmp"}
_IP_HEADER_BYTES = 20.0

COMMON = FlowSchema(
    name="common",
    version="1",
    title="What flows of UNSW-NB15 and of CICIDS2017 both tell",
    citation="",
    features=(
        Feature(name="duration", unit="s"),
        Feature(name="fwd_packets", unit="packets"),
        Feature(name="bwd_packets", unit="packets"),
        Feature(name="fwd_bytes", unit="bytes"),
        Feature(name="bwd_bytes", unit="bytes"),
        Feature(name="fwd_mean_bytes", unit="bytes"),
        Feature(name="bwd_mean_bytes", unit="bytes"),
        Feature(name="packets_per_s", unit="packets/s"),
        Feature(name="bytes_per_s", unit="bytes/s"),
        Feature(name="protocol", kind=Kind.CATEGORICAL, unit="name"),
    ),
    metadata=(),
    dropped=(),
    label_columns=(),
    families=(Family(name=BENIGN, labels=()), Family(name="Attack", labels=())),
)
_VOCABULARY = ("icmp", "other", "tcp", "udp")

Columns = Mapping[str, np.ndarray]


def _cicflowmeter(of: Columns) -> dict[str, np.ndarray]:
    """CICFlowMeter counts payload, and headers of the transport apart; bytes here are those of IP packets, as in UNSW-NB15."""
    return {
        "duration": of["flow_duration"] / 1e6,
        "fwd_packets": of["total_fwd_packets"],
        "bwd_packets": of["total_bwd_packets"],
        **{
            f"{way}_bytes": of[f"total_length_of_{way}_packets"]
            + of[f"{way}_header_length"]
            + _IP_HEADER_BYTES * of[f"total_{way}_packets"]
            for way in ("fwd", "bwd")
        },
    }


_COUNTS: Mapping[str, Callable[[Columns], dict[str, np.ndarray]]] = {
    "unsw-nb15": lambda of: {
        "duration": of["dur"],
        "fwd_packets": of["spkts"],
        "bwd_packets": of["dpkts"],
        "fwd_bytes": of["sbytes"],
        "bwd_bytes": of["dbytes"],
    },
    "cicids2017": _cicflowmeter,
    "cicids2017-improved": _cicflowmeter,
}


def in_common(prepared: Prepared) -> np.ndarray:
    """The features of `COMMON` of all rows: f32[N, 10]."""
    schema = prepared.schema
    of = {name: prepared.x[:, index].astype(np.float64) for index, name in enumerate(schema.names)}
    counts = _COUNTS[schema.name](of)
    packets, bytes_ = (counts[f"fwd_{what}"] + counts[f"bwd_{what}"] for what in ("packets", "bytes"))
    columns = {
        **counts,
        "fwd_mean_bytes": _ratio(counts["fwd_bytes"], counts["fwd_packets"]),
        "bwd_mean_bytes": _ratio(counts["bwd_bytes"], counts["bwd_packets"]),
        "packets_per_s": _ratio(packets, counts["duration"]),
        "bytes_per_s": _ratio(bytes_, counts["duration"]),
        "protocol": encode(_protocols(prepared), _VOCABULARY),
    }
    return np.column_stack([columns[name] for name in COMMON.names]).astype(np.float32)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 where the whole is 0."""
    ratio: np.ndarray = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return ratio


def _protocols(prepared: Prepared) -> np.ndarray:
    """tcp, udp, icmp or other: object[N]; None where it is not known."""
    name = next((feature.name for feature in prepared.schema.categorical if feature.name.startswith("proto")), None)
    if name is None:
        return np.full(len(prepared.x), None, dtype=object)
    told = prepared.preprocessor.vocabularies[name]
    short = [_PROTOCOLS.get(category, category) for category in told]
    names = np.array([None, *(each if each in _VOCABULARY else "other" for each in short), "other"], dtype=object)
    protocols: np.ndarray = names[prepared.x[:, prepared.schema.names.index(name)].astype(np.int64)]
    return protocols


def transfer(source: Prepared, target: Prepared, params: Params, *, device: torch.device) -> Table:
    """Test figures on the target's test rows, of detectors that learnt from the source, from some of the target, or both.

    Raises:
        FlowsentryError: both are the same data set.
    """
    if source.schema.name == target.schema.name:
        raise FlowsentryError(f"--to {target.schema.name}: is the data set that is trained on: name another")
    seeds = seeds_of(params)
    both, of_target = _joined(source, target), np.arange(len(source.x) + len(target.x)) >= len(source.x)
    train, validation = (both.split == SPLITS.index(name) for name in ("train", "validation"))
    test = np.flatnonzero((both.split == SPLITS.index("test")) & of_target)
    names = source.schema.name, target.schema.name
    rows: list[tuple[str | float | int | None, ...]] = []
    for told, use_source, share in _plans(*names):
        figures: dict[str, list[tuple[float, float]]] = {"trees": [], "expert": []}
        count = 0
        for seed in seeds:
            split = np.where((train | validation) & ~of_target & use_source, both.split, LEFT_OUT).astype(np.int8)
            if share:
                few = np.where((train | validation) & of_target, both.split, LEFT_OUT).astype(np.int8)
                for side in ("train", "validation"):
                    size = round(share * int((few == SPLITS.index(side)).sum()))
                    few = thin(few, both.family, size, name=side, seed=seed)
                split = np.where(few == LEFT_OUT, split, few)
            part = thinned(resplit(both, split, params.data), params)
            count = len(part.rows("train"))
            figures["trees"].append(_figures(part, test, Trees(part, seed=seed).score(part.x[test])))
            expert = fit_expert(part, short_training(params), seed=seed, device=device)
            figures["expert"].append(_figures(part, test, score_rows(expert, part, test)))
        cells = [between_seeds(values) for what in ("expert", "trees") for values in zip(*figures[what], strict=True)]
        rows.append((told, count, *cells))
    return Table(
        name=f"transfer-{names[1]}",
        title=f"From {names[0]} to {names[1]}",
        note=f"{len(COMMON.features)} features that both have: {', '.join(COMMON.names)}. {len(test):,} test rows of {names[1]}; "
        f"{told_of(params)}. Recall is at 1% false positives.",
        columns=(
            "trained on", "training rows", "FT-Transformer AUC", "FT-Transformer recall", "LightGBM AUC", "LightGBM recall",
        ),
        rows=tuple(rows),
    )  # fmt: skip


def _plans(source: str, target: str) -> list[tuple[str, bool, float]]:
    """What is trained on: in words, whether the source is, and which share of the target."""
    with_source = [(f"{source} and {share:.0%} of {target}", True, share) for share in LABEL_SHARES]
    without = [(f"{share:.0%} of {target}", False, share) for share in (*LABEL_SHARES, 1.0)]
    return [(source, True, 0.0), *with_source, *without]


def _joined(source: Prepared, target: Prepared) -> Prepared:
    """The rows of both with the features of `COMMON`; its preprocessor only holds the vocabulary, to be fitted anew."""
    y = np.concatenate([source.y, target.y])
    nothing = np.zeros((len(COMMON.numeric), 2), dtype=np.float32)
    return Prepared(
        schema=COMMON,
        x=np.concatenate([in_common(source), in_common(target)]),
        y=y,
        family=y.astype(np.int16),
        split=np.concatenate([source.split, target.split]),
        time=np.concatenate([source.time, target.time]),
        preprocessor=Preprocessor(COMMON.name, nothing, nothing, {"protocol": _VOCABULARY}, {}, {}),
        metadata={},
    )


def _figures(part: Prepared, rows: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    curve = Curve.of(part.y[rows], scores)
    auc = area_under_roc(curve.true_positives, curve.false_positives)
    recall = recall_at(curve.true_positives, curve.false_positives, 0.01)
    assert auc is not None and recall is not None, "both classes are there"
    return auc, recall
