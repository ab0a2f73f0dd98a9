"""What a data set's features look like: counts, histograms and correlations, before and after preprocessing."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from schemas.flow import Kind
from trainer.dashboard.rows import Rows
from trainer.evaluation.metrics import Curve, area_under_roc
from trainer.preprocessing import fit

__all__ = ["by_separation", "classes", "correlations", "histogram", "normalized", "shares", "summary"]

_QUANTILES = 160


def classes(rows: Rows) -> pl.DataFrame:
    """`family`, `rows` and `kind` (benign or attack), the most frequent first; those that occur.

    Raises:
        ValueError: the rows have no labels.
    """
    if rows.family is None:
        raise ValueError("the rows have no labels")
    counts = np.bincount(rows.family, minlength=len(rows.schema.families))
    found = [
        {"family": family.name, "rows": int(count), "kind": "attack" if family.is_attack else "benign"}
        for family, count in zip(rows.schema.families, counts, strict=True)
        if count
    ]
    return pl.DataFrame(found, schema={"family": pl.String, "rows": pl.Int64, "kind": pl.String}).sort(
        "rows", descending=True
    )


def normalized(rows: Rows, seed: int = 0) -> np.ndarray:
    """Numeric features after preprocessing as `trainer prepare` would learn it from these rows: f32[N, n_numeric]."""
    is_attack = np.zeros(len(rows.x), dtype=bool) if rows.is_attack is None else rows.is_attack
    learnt = fit(rows.x, is_attack, rows.schema, dict(rows.vocabularies), n_quantiles=_QUANTILES, seed=seed)
    numeric = _numeric(rows)
    mapped = [
        np.interp(numeric[:, place], knots, heights)
        for place, (knots, heights) in enumerate(zip(learnt.knots, learnt.heights, strict=True))
    ]
    return np.stack(mapped, axis=1).astype(np.float32)


def histogram(values: np.ndarray, is_attack: np.ndarray | None, bins: int = 40) -> pl.DataFrame:
    """`low`, `high`, `class` and `share` of that class's rows; missing values (NaN) are in no bin.

    Args:
        values: f64[N].
        is_attack: bool[N], or None for one class of all.
    """
    present = values[~np.isnan(values)]
    edges = np.histogram_bin_edges(present, bins) if len(present) else np.array([0.0, 1.0])
    parts = (
        {"all": np.ones(len(values), dtype=bool)} if is_attack is None else {"benign": ~is_attack, "attack": is_attack}
    )
    frames = []
    for name, chosen in parts.items():
        counts, _ = np.histogram(values[chosen], edges)
        shares = counts / max(1, int(chosen.sum()))
        frames.append(
            pl.DataFrame({"low": edges[:-1], "high": edges[1:], "class": [name] * len(counts), "share": shares})
        )
    return pl.concat(frames)


def shares(categories: np.ndarray, is_attack: np.ndarray | None, most: int = 15) -> pl.DataFrame:
    """`category`, `class` and `share` of the `most` frequent categories object[N]; a missing one is “missing”."""
    named = np.array(["missing" if it is None else str(it) for it in categories], dtype=object)
    parts = (
        {"all": np.ones(len(named), dtype=bool)} if is_attack is None else {"benign": ~is_attack, "attack": is_attack}
    )
    names, counts = np.unique(named, return_counts=True)
    frequent = names[np.argsort(-counts, kind="stable")][:most].tolist()
    return pl.DataFrame(
        [
            {
                "category": category,
                "class": name,
                "share": float((named[chosen] == category).mean()) if chosen.any() else 0.0,
            }
            for name, chosen in parts.items()
            for category in frequent
        ],
        schema={"category": pl.String, "class": pl.String, "share": pl.Float64},
    )


def by_separation(rows: Rows) -> list[tuple[str, float | None]]:
    """Numeric features and how well each alone tells attacks from benign flows (area under the ROC curve, whichever way round:
    0.5 to 1), the best first; None where these rows cannot tell, and then in the schema's order."""
    found: list[tuple[str, float | None]] = []
    y = None if rows.is_attack is None else rows.is_attack.astype(np.int8)
    for place, feature in enumerate(rows.schema.numeric):
        values = _numeric(rows)[:, place]
        area = None
        if y is not None:
            present = ~np.isnan(values)
            curve = Curve.of(y[present], values[present])
            area = area_under_roc(curve.true_positives, curve.false_positives)
        found.append((feature.name, None if area is None else max(area, 1 - area)))
    return sorted(found, key=lambda item: -(item[1] or 0.0))


def correlations(matrix: np.ndarray, names: Sequence[str]) -> pl.DataFrame:
    """`first`, `second` and `r` (Pearson) of every pair of columns f[N, K]; missing values count as the column's mean, and a
    column that does not vary correlates with none (null)."""
    values = matrix.astype(np.float64)
    counts = np.maximum((~np.isnan(values)).sum(axis=0), 1)
    values = np.nan_to_num(values - np.nansum(values, axis=0) / counts)
    lengths = np.sqrt((values**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        table = (values.T @ values) / np.outer(lengths, lengths)
    pairs = [
        {"first": first, "second": second, "r": None if np.isnan(r) else round(float(r), 4)}
        for first, row in zip(names, table, strict=True)
        for second, r in zip(names, row, strict=True)
    ]
    return pl.DataFrame(pairs, schema={"first": pl.String, "second": pl.String, "r": pl.Float64})


def summary(rows: Rows) -> pl.DataFrame:
    """A line per feature: unit, share missing, least, median and greatest value, or how many categories; and its separation."""
    separation = dict(by_separation(rows))
    lines = []
    for place, feature in enumerate(rows.schema.features):
        column, numeric = rows.x[:, place].astype(np.float64), feature.kind is Kind.NUMERIC
        missing = np.isnan(column) if numeric else column == 0
        present = column[~missing]
        figures = [float(f(present)) for f in (np.min, np.median, np.max)] if numeric and len(present) else [None] * 3
        lines.append(
            {
                "feature": feature.name,
                "unit": feature.unit,
                "missing": float(missing.mean()) if len(missing) else None,
                **dict(zip(("least", "median", "greatest"), figures, strict=True)),
                "categories": None if numeric else len(rows.vocabularies[feature.name]),
                "separation": separation.get(feature.name),
            }
        )
    kinds = {"feature": pl.String, "unit": pl.String, "categories": pl.Int64}
    numbers = ("missing", "least", "median", "greatest", "separation")
    return pl.DataFrame(lines, schema_overrides={**kinds, **dict.fromkeys(numbers, pl.Float64)})


def _numeric(rows: Rows) -> np.ndarray:
    return rows.x[:, [rows.schema.names.index(feature.name) for feature in rows.schema.numeric]]
