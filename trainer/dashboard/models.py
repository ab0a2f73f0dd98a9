"""The models page: bundles side by side."""

from collections.abc import Mapping
from pathlib import Path

import altair as alt
import numpy as np
import polars as pl
import streamlit as st

from export.detector import Detector
from schemas.errors import FlowsentryError
from trainer.dashboard import curves
from trainer.dashboard.look import colours, plain, problem, show
from trainer.dashboard.report_route import address
from trainer.dashboard.rows import Rows
from trainer.dashboard.settings import given
from trainer.dashboard.store import detectors, rows_of

__all__ = ["page"]


def page() -> None:
    """Draw it."""
    st.title("Models")
    opened = detectors(given().bundles)
    if not opened:
        st.info("No bundle to show: start the dashboard with `--bundle DIR`, one or several.", icon=":material/info:")
        return
    names = _names(opened)
    chosen = st.multiselect(
        "Bundles", list(opened), default=list(opened), format_func=names.__getitem__, key="compared"
    )
    if not chosen:
        st.info("Choose a bundle.", icon=":material/info:")
        return
    shown = {names[path]: (path, opened[path]) for path in chosen}
    _table(shown)
    _curves(shown)
    _reports(shown)


def _names(opened: Mapping[Path, Detector]) -> dict[Path, str]:
    """Each bundle's name, with its directory where two have one."""
    names = [detector.manifest.name for detector in opened.values()]
    return {
        path: detector.manifest.name
        if names.count(detector.manifest.name) == 1
        else f"{detector.manifest.name} ({path})"
        for path, detector in opened.items()
    }


def _table(shown: Mapping[str, tuple[Path, Detector]]) -> None:
    what = {name: curves.described(detector.manifest) for name, (_, detector) in shown.items()}
    lines = [{"": line, **{name: of[line] for name, of in what.items()}} for line in next(iter(what.values()))]
    st.dataframe(pl.DataFrame(lines), hide_index=True, height="content")
    st.subheader("Figures")
    measured = [detector.manifest.content["metrics"].get("test", {}) for _, detector in shown.values()]
    frame = curves.figures_table(list(shown), measured)
    if len(frame):
        number = st.column_config.NumberColumn(format="%.5f")
        st.dataframe(frame, hide_index=True, height="content", column_config=dict.fromkeys(shown, number))
        st.caption(
            "Measured on each bundle's own test rows when it was built: bundles of one data set can be compared."
        )
    else:
        st.info("These bundles hold no figures of test rows.", icon=":material/info:")


@st.cache_data(max_entries=32, show_spinner="scoring …")
def _scores(_detector: Detector, _rows: Rows, bundle_hash: str, x: np.ndarray) -> np.ndarray:
    return _detector.score(_rows.columns()).score


def _curves(shown: Mapping[str, tuple[Path, Detector]]) -> None:
    st.subheader("ROC and calibration")
    rows: dict[Path, Rows] = {}
    for path in given().data:
        try:
            rows[path] = rows_of(path)
        except FlowsentryError as error:
            problem(error)
    labelled = {
        path: of for path, of in rows.items() if of.is_attack is not None and 0 < of.is_attack.sum() < len(of.x)
    }
    if not labelled:
        st.info(
            "Curves are drawn from labelled rows, attacks and benign flows: start the dashboard with `--data FILE`.",
            icon=":material/info:",
        )
        return
    path = st.selectbox("Labelled rows", list(labelled), format_func=lambda it: it.name, key="measured on")
    of = labelled[path]
    fitting = {
        name: detector for name, (_, detector) in shown.items()
        if detector.schema is of.schema and detector.manifest.classifies
    }  # fmt: skip
    if not fitting:
        st.info(
            f"None of these bundles is made for flows of {of.schema.name}: choose other rows, or give some with `--data`.",
            icon=":material/info:",
        )
        return
    assert of.is_attack is not None
    y = of.is_attack.astype(np.int8)
    scores = {name: _scores(detector, of, detector.manifest.hash, of.x) for name, detector in fitting.items()}
    names = list(fitting)
    color = alt.Color(
        "bundle:N", scale=alt.Scale(domain=names, range=list(colours().several)), title=None,
        legend=alt.Legend(orient="bottom", labelLimit=300),
    )  # fmt: skip
    left, right = st.columns(2)
    with left:
        st.markdown("**ROC**")
        _roc({name: curves.roc(y, it) for name, it in scores.items()}, color)
    with right:
        st.markdown("**Calibration**")
        _calibration({name: curves.calibration(y, it) for name, it in scores.items()}, color)
    st.caption(
        f"{len(y):,} of {of.total:,} rows of {path.name}, {int(y.sum()):,} of them attacks. Rows that a bundle was trained on "
        "flatter it. Larger points have more rows; on the line, scores are probabilities."
    )


def _roc(found: Mapping[str, pl.DataFrame], color: alt.Color) -> None:
    frame = pl.concat([of.with_columns(bundle=pl.lit(name)) for name, of in found.items()])
    x = alt.X("false-positive rate:Q", scale=alt.Scale(type="log"), axis=alt.Axis(format="~%", tickCount=4))
    y = alt.Y("recall:Q", scale=alt.Scale(domain=[0, 1]))
    tooltip = ["bundle:N", alt.Tooltip("false-positive rate:Q", format=".3%"), alt.Tooltip("recall:Q", format=".3%")]
    line = (
        alt.Chart(frame)
        .mark_line(interpolate="step-after", point=alt.OverlayMarkDef(size=8))
        .encode(x, y, color, tooltip=tooltip)
    )
    show(line, height=400)


def _calibration(found: Mapping[str, pl.DataFrame], color: alt.Color) -> None:
    frame = pl.concat([of.with_columns(bundle=pl.lit(name)) for name, of in found.items()])
    scale = alt.Scale(domain=[0, 1])
    x, y = alt.X("mean score:Q", scale=scale), alt.Y("share of attacks:Q", scale=scale)
    ends = pl.DataFrame({"mean score": [0.0, 1.0], "share of attacks": [0.0, 1.0]})
    guide = alt.Chart(ends).mark_line(color=colours().guide, strokeWidth=1, strokeDash=[4, 4]).encode(x, y)
    base = alt.Chart(frame).encode(x, y, color)
    points = base.mark_circle(opacity=0.9).encode(
        size=alt.Size("rows:Q", legend=None, scale=alt.Scale(range=[25, 400])),
        tooltip=[
            "bundle:N",
            alt.Tooltip("mean score:Q", format=".3f"),
            alt.Tooltip("share of attacks:Q", format=".3f"),
            "rows:Q",
        ],
    )
    show(guide + base.mark_line(strokeWidth=1) + points, height=400)


def _reports(shown: Mapping[str, tuple[Path, Detector]]) -> None:
    st.subheader("Reports")
    found: dict[str, curves.Report] = {}
    for name, (path, detector) in shown.items():
        try:
            report = curves.find_report(path, detector.manifest, given().reports)
        except FlowsentryError as error:
            problem(error)
            continue
        if report is not None:
            found[name] = report
    for name, (bundle, _) in shown.items():
        if name not in found:
            command = f"python -m trainer evaluate --bundle {bundle} --data labelled.csv.gz --out {given().reports / bundle.name}"
            st.info(f"No report of {plain(name)}: `{command}` writes one.", icon=":material/info:")
    measured = {name: report.metrics for name, report in found.items() if report.metrics is not None}
    if measured:
        number = st.column_config.NumberColumn(format="%.5f")
        st.dataframe(
            curves.figures_table(list(measured), list(measured.values())), hide_index=True, height="content",
            column_config=dict.fromkeys(measured, number),
        )  # fmt: skip
    for name, report in found.items():
        left, middle, right = st.columns([3, 1, 1], vertical_alignment="center")
        left.text(f"Report of {name}" + (" (of a twin, made of fewer rows)" if report.is_own is False else ""))
        middle.link_button("Open", address(shown[name][0]), icon=":material/open_in_new:", width="stretch")
        right.download_button(
            "Download", report.page.read_bytes(), f"{name}.html", "text/html", icon=":material/download:",
            key=f"report {name}", width="stretch",
        )  # fmt: skip
