"""Attacks never seen: a family is left out of training and validation, and looked for in the test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from export.thresholds import threshold_at_fpr
from schemas.errors import FlowsentryError
from schemas.params import Params
from trainer.baselines.trees import Trees
from trainer.experiments.fitting import fit_expert, fit_novelty, score_rows, seeds_of, short_training, told_of
from trainer.experiments.novelty_scores import NoveltyScores
from trainer.experiments.table import Table, between_seeds
from trainer.novelty import novelty_inputs, novelty_of
from trainer.prepare import Prepared
from trainer.subsets import LEFT_OUT, leave_out, resplit, thin

__all__ = ["UNSEEN", "unseen"]

FPR = 0.01
UNSEEN: Mapping[str, tuple[str, ...]] = {
    "unsw-nb15": ("Reconnaissance", "DoS", "Shellcode", "Fuzzers", "Generic"),
    "cicids2017": ("Bot", "DDoS", "DoS Hulk", "DoS Slowloris", "FTP-Patator", "SSH-Patator"),
    "cicids2017-improved": ("Botnet", "DoS Hulk", "Portscan", "SSH-Patator", "DoS Slowloris", "DDoS"),
}
"""Which families are left out, where nobody says which."""

Recalls = dict[str, list[float]]
"""Of each family, one for each seed."""


def unseen(prepared: Prepared, params: Params, *, families: Sequence[str] | None, device: torch.device) -> list[Table]:
    """Recall of families that training never saw, at 1% false positives on benign test rows; of every family by the novelty
    score alone, which is shown all benign training rows and no attack; and of what else could tell novelty.

    Where they are compared, all detectors learn from the same training rows. An alert of both together is one of the
    classifier or of the novelty score; the latter is given `export.novelty_share` of the false positives.

    Args:
        families: which are left out, one at a time; None: those of `UNSEEN` that there are.

    Raises:
        FlowsentryError: there is no row of such a family.
    """
    present = [item.name for number, item in enumerate(prepared.schema.families)
               if item.is_attack and (prepared.family == number).any()]  # fmt: skip
    if families is None:
        families = [name for name in UNSEEN[prepared.schema.name] if name in present]
        if not families:
            usual = ", ".join(UNSEEN[prepared.schema.name])
            raise FlowsentryError(f"no row of {usual}: name others with --families, of {', '.join(present)}")
    for name in families:
        if name not in present:
            raise FlowsentryError(f"no row of the attack family {name!r}: there are {', '.join(present)}")
    found: dict[str, Recalls] = {what: {} for what in ("trees", "classifier", "novelty", "either")}
    alone: Recalls = {}
    others: dict[str, Recalls] = {}
    false_positives: list[float] = []
    test = prepared.rows("test")
    benign = test[prepared.y[test] == 0]
    rows = params.experiments.rows
    for seed in seeds_of(params):
        of_all = _novelty(prepared, params, None, seed, device)
        surprise = of_all if rows is None else _novelty(prepared, params, rows, seed, device)
        for name in present:
            of_family = _Pair(of_all[benign], of_all[_of(prepared, name)])
            alone.setdefault(name, []).append(float(of_family.hits(FPR)[1].mean()))
        for name in families:
            attacks = _of(prepared, name)
            split = leave_out(prepared, attacks)
            if rows is not None:
                split = thin(split, prepared.family, rows, seed=seed)
            part = resplit(prepared, split, params.data)
            trees = Trees(part, seed=seed)
            model = fit_expert(part, short_training(params), seed=seed, device=device)
            scores = {
                "trees": _Pair(trees.score(part.x[benign]), trees.score(part.x[attacks])),
                "classifier": _Pair(score_rows(model, part, benign), score_rows(model, part, attacks)),
                "novelty": _Pair(surprise[benign], surprise[attacks]),
            }
            for what, pair in scores.items():
                found[what].setdefault(name, []).append(float(pair.hits(FPR)[1].mean()))
            of_classifier = NoveltyScores(model, part, seed)
            of_benign, of_attacks = of_classifier.of(benign), of_classifier.of(attacks)
            for what, values in of_benign.items():
                recall = float(_Pair(values, of_attacks[what]).hits(FPR)[1].mean())
                others.setdefault(what, {}).setdefault(name, []).append(recall)
            share = params.export.novelty_share
            known, novel = scores["classifier"].hits(FPR * (1 - share)), scores["novelty"].hits(FPR * share)
            found["either"].setdefault(name, []).append(float((known[1] | novel[1]).mean()))
            false_positives.append(float((known[0] | novel[0]).mean()))
    note = (
        f"Recall at {FPR:.0%} false positives of {len(benign):,} benign test rows; of the other families "
        f"{told_of(params)}."
    )
    others = {"novelty": found["novelty"], **others}
    note_alone = (
        f"Recall at {FPR:.0%} false positives of {len(benign):,} benign test rows; {params.experiments.seeds} seeds: "
        "mean (least – most). It is shown all benign training rows and nothing else."
    )
    return [_left_out(found, families, max(false_positives), note), _alone(alone, note_alone), _compared(others, note)]


def _left_out(found: Mapping[str, Recalls], families: Sequence[str], false_positives: float, note: str) -> Table:
    detectors = ("trees", "classifier", "novelty", "either")
    with_mean = [{**found[what], "mean": _mean({name: found[what][name] for name in families})} for what in detectors]
    rows = [(name, [recalls[name] for recalls in with_mean]) for name in (*families, "mean")]
    return Table(
        name="unseen",
        title="A family that training never saw",
        note=f"{note} Known or novel: at most {false_positives:.2%} of the benign test rows are either.",
        columns=("left out", "LightGBM", "classifier", "novelty", "known or novel", "gain"),
        rows=tuple(
            (name, *map(between_seeds, values), float(np.mean(values[-1]) - np.mean(values[0])))
            for name, values in rows
        ),
    )


def _alone(recalls: Recalls, note: str) -> Table:
    return Table(
        name="novelty",
        title="The novelty score alone, which is shown no attack",
        note=note,
        columns=("family", "recall"),
        rows=tuple((name, between_seeds(values)) for name, values in {**recalls, "mean": _mean(recalls)}.items()),
    )


def _compared(recalls: Mapping[str, Recalls], note: str) -> Table:
    families = list(next(iter(recalls.values())))
    with_mean = [{**of_score, "mean": _mean(of_score)} for of_score in recalls.values()]
    return Table(
        name="novelty_scores",
        title="Ways to tell what is novel",
        note=f"{note} All but the first are of the classifier that was not shown the family.",
        columns=("left out", *recalls),
        rows=tuple((name, *(between_seeds(of_score[name]) for of_score in with_mean)) for name in (*families, "mean")),
    )


def _novelty(prepared: Prepared, params: Params, rows: int | None, seed: int, device: torch.device) -> np.ndarray:
    """The novelty of every row, f32[N], of a model that knows the benign training rows alone."""
    split = prepared.split if rows is None else thin(prepared.split, prepared.family, rows, seed=seed)
    part = resplit(prepared, np.where(prepared.y == 0, split, LEFT_OUT), params.data)
    model = fit_novelty(part, params.train, seed=seed, device=device)
    return novelty_of(model, novelty_inputs(part, np.arange(len(part.x))))


def _of(prepared: Prepared, name: str) -> np.ndarray:
    """All rows of a family, of every side: int64[K]. Those that were to be learnt from are learnt from no more."""
    return np.flatnonzero(prepared.family == [item.name for item in prepared.schema.families].index(name))


def _mean(recalls: Recalls) -> list[float]:
    """Over families, one for each seed."""
    means: list[float] = np.mean(list(recalls.values()), axis=0).tolist()
    return means


@dataclass(frozen=True, slots=True)
class _Pair:
    """Scores f32 of benign rows and of attacks."""

    benign: np.ndarray
    attacks: np.ndarray

    def hits(self, rate: float) -> tuple[np.ndarray, np.ndarray]:
        """Which of either lie above the threshold at which so many benign rows do."""
        limit = np.float32(threshold_at_fpr(self.benign, rate))
        return self.benign >= limit, self.attacks >= limit
