"""The reasons of a verdict against the benign range: as a chart, and in figures."""

from collections.abc import Sequence

import altair as alt
import polars as pl
import streamlit as st

from schemas.alert import Reason
from trainer.dashboard.look import colours, show, wide_axis
from trainer.dashboard.scale import compressed

__all__ = ["draw", "positions", "table"]


def positions(reasons: Sequence[Reason]) -> pl.DataFrame:
    """`feature`, `value`, `low`, `high` and `position` of numeric reasons: 0 is the low end of the benign range, 1 the high."""
    lines = [
        {"feature": it.feature, "value": float(it.value), "low": it.benign_low, "high": it.benign_high,
         "position": _position(float(it.value), it.benign_low, it.benign_high)}
        for it in reasons
        if isinstance(it.value, int | float) and it.benign_low is not None and it.benign_high is not None
    ]  # fmt: skip
    numbers = ("value", "low", "high", "position")
    return pl.DataFrame(lines, schema={"feature": pl.String, **dict.fromkeys(numbers, pl.Float64)})


def _position(value: float, low: float, high: float) -> float:
    span = high - low
    if span <= 0:  # benign flows have one value: how far from it, by its size
        span = max(abs(low), 1.0)
        return 0.5 if value == low else (value - low) / span + (1.0 if value > low else 0.0)
    return (value - low) / span


def table(reasons: Sequence[Reason]) -> pl.DataFrame:
    """A line per reason, in words where it is a category or missing."""
    lines = [
        {
            "feature": it.feature,
            "value": "missing" if it.value is None else it.value if isinstance(it.value, str) else f"{it.value:.6g}",
            "unit": it.unit,
            "benign 1%": it.benign_low,
            "benign 99%": it.benign_high,
            "share of benign": it.benign_share,
            "weight": it.weight,
        }
        for it in reasons
    ]
    texts = ("feature", "value", "unit")
    return pl.DataFrame(lines, schema_overrides={
        **dict.fromkeys(texts, pl.String), **dict.fromkeys(("benign 1%", "benign 99%", "share of benign"), pl.Float64)
    })  # fmt: skip


def draw(reasons: Sequence[Reason]) -> None:
    """The chart and the table."""
    found = positions(reasons)
    if len(found):
        shades = colours()
        y = alt.Y(
            "feature:N", sort=found["feature"].to_list(), title=None, axis=alt.Axis(labelLimit=260, labelOverlap=False)
        )
        found = found.with_columns(place=compressed(found["position"].to_numpy()))
        title = "where the value lies: 0 to 1 is the range of benign flows"
        x = alt.X("place:Q", title=title, axis=wide_axis())
        tooltip = [
            alt.Tooltip("feature:N"),
            *(alt.Tooltip(f"{name}:Q", format=".5~g") for name in ("value", "low", "high")),
        ]
        band = (
            alt.Chart(found)
            .mark_bar(color=shades.benign, opacity=0.35, height=14)
            .transform_calculate(start="0", end="log(2) / log(10)")
        )
        value = alt.Chart(found).mark_tick(thickness=5, size=24).encode(
            y, x, tooltip=tooltip,
            color=alt.condition("datum.position < 0 || datum.position > 1", alt.value(shades.attack), alt.value(shades.benign)),
        )  # fmt: skip
        show(band.encode(y, alt.X("start:Q"), alt.X2("end:Q"), tooltip=tooltip) + value, height=90 + 32 * len(found))
    frame = table(reasons)
    st.dataframe(
        frame[[column.name for column in frame if column.null_count() < len(frame)]],
        hide_index=True,
        column_config={
            "weight": st.column_config.ProgressColumn(min_value=0.0, max_value=1.0, format="%.3f"),
            "share of benign": st.column_config.NumberColumn(format="percent"),
            "benign 1%": st.column_config.NumberColumn(format="%.5g"),
            "benign 99%": st.column_config.NumberColumn(format="%.5g"),
        },
    )
