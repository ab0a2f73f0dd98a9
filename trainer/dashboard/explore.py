"""The explore page: what a data set's rows look like, before and after preprocessing."""

import altair as alt
import numpy as np
import polars as pl
import streamlit as st

from schemas.errors import FlowsentryError
from schemas.flow import Kind
from trainer.dashboard import features
from trainer.dashboard.look import colours, problem, show, wide_axis
from trainer.dashboard.rows import Rows
from trainer.dashboard.scale import compressed
from trainer.dashboard.store import file_picked, rows_of

__all__ = ["page"]

_STRONGEST = 16


def page() -> None:
    """Draw it."""
    st.title("Explore")
    path = file_picked("Data", "explored")
    if path is None:
        return
    try:
        rows = rows_of(path)
    except FlowsentryError as error:
        problem(error)
        return
    refused = ", ".join(f"{count:,} {reason}" for reason, count in rows.refused.items())
    st.caption(
        f"{rows.schema.title}. {len(rows.x):,} of {rows.total:,} rows, drawn at random"
        + (f"; refused: {refused}." if refused else ".")
    )
    if not len(rows.x):
        st.info("No row of this file can be used: see what was refused.", icon=":material/info:")
        return
    distributions, classes, correlations, table = st.tabs(["Distributions", "Classes", "Correlations", "Features"])
    with distributions:
        _distributions(rows)
    with classes:
        _classes(rows)
    with correlations:
        _correlations(rows)
    with table:
        _table(rows)


@st.cache_data(max_entries=8, show_spinner="preprocessing …")
def _normalized(_rows: Rows, x: np.ndarray) -> np.ndarray:
    return features.normalized(_rows)


def _color() -> alt.Color:
    shades = colours()
    scale = alt.Scale(domain=["benign", "attack", "all"], range=[shades.benign, shades.attack, shades.guide])
    return alt.Color("class:N", scale=scale, title=None, legend=alt.Legend(orient="top", values=["benign", "attack"]))


def _distributions(rows: Rows) -> None:
    order = [name for name, _ in features.by_separation(rows)] + [it.name for it in rows.schema.categorical]
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    name = left.selectbox(
        "Feature", order, help="First those that alone tell attacks from benign flows best.", key="feature"
    )
    feature = next(it for it in rows.schema.features if it.name == name)
    if feature.kind is Kind.CATEGORICAL:
        frame = features.shares(rows.column(name), rows.is_attack)
        x = alt.X("category:N", sort=None, title=name)
        bars = alt.Chart(frame).mark_bar().encode(
            x, alt.Y("share:Q", axis=alt.Axis(format="%")), _color(), alt.XOffset("class:N"),
            tooltip=["category:N", "class:N", alt.Tooltip("share:Q", format=".2%")],
        )  # fmt: skip
        show(bars, height=320)
        st.caption("Preprocessing gives each category of the training rows a code, which the model embeds.")
        return
    logarithmic = right.toggle("Logarithmic axis", value=True, help="By ±log₁₀(1 + |value|).", key="logarithmic")
    values = rows.column(name)
    unit = f" ({feature.unit})" if feature.unit else ""
    before, after = st.columns(2)
    with before:
        st.markdown("**Before**")
        drawn = compressed(values) if logarithmic else values
        _histogram(drawn, rows, f"{name}{unit}", wide_axis() if logarithmic else alt.Axis(format="~s"))
    with after:
        st.markdown("**After preprocessing**")
        place = [it.name for it in rows.schema.numeric].index(name)
        _histogram(
            _normalized(rows, rows.x)[:, place].astype(np.float64), rows, f"{name}, as the model sees it", alt.Axis()
        )
    st.caption(
        "Preprocessing maps a feature's quantiles onto those of a standard normal; here it is learnt from the rows shown. "
        f"Missing: {np.isnan(values).mean():.1%}. Bars are shares of their class."
    )


def _histogram(values: np.ndarray, rows: Rows, title: str, axis: alt.Axis) -> None:
    frame = features.histogram(values, rows.is_attack)
    x = alt.X("low:Q", bin="binned", title=title, axis=axis, scale=alt.Scale(zero=False))
    bars = alt.Chart(frame).mark_bar(opacity=0.6, binSpacing=0).encode(
        x, alt.X2("high:Q"), alt.Y("share:Q", stack=None, title="share", axis=alt.Axis(format="%")), _color(),
        tooltip=["class:N", alt.Tooltip("low:Q", format=".4~g"), alt.Tooltip("high:Q", format=".4~g"),
                 alt.Tooltip("share:Q", format=".2%")],
    )  # fmt: skip
    show(bars, height=320)


def _classes(rows: Rows) -> None:
    if rows.family is None:
        st.info("This file has no label column.", icon=":material/info:")
        return
    shades = colours()
    frame = features.classes(rows)
    scale = alt.Scale(domain=["benign", "attack"], range=[shades.benign, shades.attack])
    y = alt.Y("family:N", sort=None, title=None, axis=alt.Axis(labelLimit=220, labelOverlap=False))
    color = alt.Color("kind:N", scale=scale, title=None, legend=alt.Legend(orient="top"))
    bars = alt.Chart(frame).encode(y, alt.X("rows:Q", title="rows"), tooltip=["family:N", "rows:Q"])
    labels = bars.mark_text(align="left", dx=4, color=shades.guide).encode(text=alt.Text("rows:Q", format=","))
    show(bars.mark_bar().encode(color) + labels, height=120 + 26 * len(frame))


def _correlations(rows: Rows) -> None:
    ordered = [name for name, _ in features.by_separation(rows)]
    numeric = [it.name for it in rows.schema.numeric]
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    chosen = left.multiselect("Features", ordered, default=ordered[:_STRONGEST], key="correlated")
    stage = right.segmented_control(
        "Values", ["before", "after preprocessing"], default="after preprocessing", key="stage"
    )
    if len(chosen) < 2:
        st.info("Choose two features or more.", icon=":material/info:")
        return
    if stage == "before":
        matrix = np.stack([rows.column(name) for name in chosen], axis=1)
    else:
        matrix = _normalized(rows, rows.x)[:, [numeric.index(name) for name in chosen]]
    frame = features.correlations(matrix, chosen)
    axis = alt.Axis(labelLimit=200, labelOverlap=False)
    shades = colours()
    r = alt.Color("r:Q", scale=alt.Scale(domain=[-1, 0, 1], range=[shades.benign, "#f5f5f5", shades.attack]), title="r")
    cells = alt.Chart(frame).mark_rect().encode(
        alt.X("second:N", sort=None, title=None, axis=axis), alt.Y("first:N", sort=None, title=None, axis=axis), r,
        tooltip=["first:N", "second:N", alt.Tooltip("r:Q", format=".3f")],
    )  # fmt: skip
    show(cells, height=160 + 24 * len(chosen))
    st.caption("Pearson's r. Before, a few very large values decide it; after, it is near Spearman's.")


def _table(rows: Rows) -> None:
    frame = features.summary(rows)
    if rows.family is None:
        frame = frame.drop("separation")
    number = st.column_config.NumberColumn(format="%.5g")
    st.dataframe(
        frame.with_columns(pl.col("missing").round(4)), hide_index=True, height=520,
        column_config={
            "missing": st.column_config.NumberColumn(format="percent"),
            **dict.fromkeys(("least", "median", "greatest"), number),
            "separation": st.column_config.ProgressColumn(
                min_value=0.5, max_value=1.0, format="%.3f",
                help="Area under the ROC curve of this feature alone, whichever way round: 0.5 tells nothing, 1 all.",
            ),
        },
    )  # fmt: skip
