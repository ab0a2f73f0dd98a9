"""The try page: change a flow and see score and reasons move; judge the flows of a CSV."""

import math

import altair as alt
import numpy as np
import polars as pl
import streamlit as st

from export.bundle import FeatureInfo
from export.detector import Detector
from export.thresholds import Policy
from schemas.errors import FlowsentryError
from schemas.flow import BENIGN, Kind
from trainer.dashboard import reasons
from trainer.dashboard.judging import Judgement, judge, sweep, usual_flow
from trainer.dashboard.look import colours, plain, problem, show, wide_axis
from trainer.dashboard.scale import compressed
from trainer.dashboard.scoring import Verdicts, verdicts
from trainer.dashboard.settings import given
from trainer.dashboard.store import detectors, policy_of, rows_of

__all__ = ["page"]

_EDITED = 6
_REASONS = 8
_USUAL = "a usual benign flow"


def page() -> None:
    """Draw it."""
    st.title("Try")
    opened = detectors(given().bundles)
    if not opened:
        st.info("No bundle to try: start the dashboard with `--bundle DIR`.", icon=":material/info:")
        return
    path = st.selectbox(
        "Bundle", list(opened), format_func=lambda it: f"{opened[it].manifest.name} ({it})", key="tried"
    )
    detector = opened[path]
    try:
        policy = policy_of(detector)
    except FlowsentryError as error:
        problem(f"{error}: choose one with --set stream.target_fpr=P")
        return
    one, many = st.tabs(["One flow", "A CSV"])
    with one:
        _one(detector, policy)
    with many:
        _many(detector, policy)


def _starts(detector: Detector) -> dict[str, dict[str, float | str | None]]:
    """Flows to begin with: a usual one, and one of each family that the data has."""
    found = {_USUAL: usual_flow(detector.manifest)}
    for path in given().data:
        try:
            rows = rows_of(path)
        except FlowsentryError as error:
            problem(error)
            continue
        if rows.schema is not detector.schema or not len(rows.x):
            continue
        families = [0] * len(rows.x) if rows.family is None else rows.family.tolist()
        for number in sorted(set(families)):
            name = "a flow" if rows.family is None else rows.schema.families[number].name
            found[f"{name}, of {path.name}"] = rows.flow(families.index(number))
    return found


def _one(detector: Detector, policy: Policy) -> None:
    starts = _starts(detector)
    attack = next((place for place, name in enumerate(starts) if not name.startswith((_USUAL, BENIGN))), 0)
    label = st.selectbox("Begin with", list(starts), index=attack, key=f"start {detector.manifest.hash}")
    start = starts[label]
    before = judge(detector, policy, start)
    names = [it.feature for it in before.reasons]
    place = f"{detector.manifest.hash} {label}"
    edited = st.multiselect(
        "Features to change", names, default=names[:_EDITED], key=f"edited {place}",
        help="In the order of the reasons of the flow that you begin with.",
    )  # fmt: skip
    infos = {info.name: info for info in detector.manifest.features}
    flow, cells = dict(start), st.columns(3)
    for number, name in enumerate(edited):
        with cells[number % 3]:
            flow[name] = _edit(infos[name], start[name], f"{place} {name}")
    after = judge(detector, policy, flow)
    _verdict(detector, policy, before, after)
    left, right = st.columns(2)
    with left:
        _weights(before, after)
    with right:
        _sweep(detector, policy, flow, [name for name in edited if infos[name].kind == Kind.NUMERIC], place)
    st.markdown("**Reasons** against the range of benign flows")
    reasons.draw(after.reasons[:_REASONS])


def _edit(info: FeatureInfo, value: float | str | None, key: str) -> float | str | None:
    if info.kind == Kind.CATEGORICAL:
        options = [*info.vocabulary, *([value] if isinstance(value, str) and value not in info.vocabulary else [])]
        place = options.index(value) if isinstance(value, str) else None
        return st.selectbox(info.name, options, index=place, placeholder="missing", key=key)
    usual = f"benign: {_short(info.benign_low)} to {_short(info.benign_high)} {info.unit}. Empty is missing."
    given_value = value if isinstance(value, float) else None
    unit = f" ({info.unit})" if info.unit else ""
    return st.number_input(
        f"{info.name}{unit}",
        value=given_value,
        step=_step(info),
        format="%.6g",
        placeholder="missing",
        help=usual,
        key=key,
    )


def _step(info: FeatureInfo) -> float:
    """About a hundredth of the benign range, as a power of ten."""
    span = (info.benign_high or 0.0) - (info.benign_low or 0.0)
    return 10.0 ** math.floor(math.log10(span / 30)) if span > 0 else 1.0


def _verdict(detector: Detector, policy: Policy, before: Judgement, after: Judgement) -> None:
    cells = st.columns(4)
    cells[0].metric("verdict", after.verdict, None if after.verdict == before.verdict else f"was {before.verdict}",
                    delta_color="off", delta_arrow="off")  # fmt: skip
    if after.score is not None and before.score is not None:
        change = after.score - before.score
        cells[1].metric("score", f"{after.score:.4f}", f"{change:+.4f}" if change else None, delta_color="inverse",
                        help=f"An alert from {policy.threshold:.4f} on.")  # fmt: skip
    if after.novelty is not None and before.novelty is not None:
        change = after.novelty - before.novelty
        limit = "No alert by novelty." if policy.novelty is None else f"An alert from {policy.novelty:.3g} on."
        cells[2].metric(
            "novelty", f"{after.novelty:.3f}", f"{change:+.3f}" if change else None, delta_color="inverse", help=limit
        )
    cells[3].metric("family", after.family, after.severity, delta_color="off", delta_arrow="off")
    st.caption(f"As the service with bundle {plain(detector.manifest.name)} would judge it.")


def _weights(before: Judgement, after: Judgement) -> None:
    st.markdown("**What spoke for it**, before (tick) and now (bar)")
    old = {it.feature: it.weight for it in before.reasons}
    frame = pl.DataFrame(
        [{"feature": it.feature, "now": it.weight, "before": old[it.feature]} for it in after.reasons[:_REASONS]]
    )
    shades = colours()
    base = alt.Chart(frame).encode(
        alt.Y("feature:N", sort=frame["feature"].to_list(), title=None, axis=alt.Axis(labelLimit=220)),
        tooltip=["feature:N", alt.Tooltip("before:Q", format=".3f"), alt.Tooltip("now:Q", format=".3f")],
    )
    bars = base.mark_bar(color=shades.attack).encode(alt.X("now:Q", title="weight among the reasons"))
    show(bars + base.mark_tick(color=shades.guide, thickness=3).encode(alt.X("before:Q")), height=300)


def _sweep(
    detector: Detector, policy: Policy, flow: dict[str, float | str | None], names: list[str], place: str
) -> None:
    if not names:
        st.info("Choose a number among the features to see what the score does as it changes.", icon=":material/info:")
        return
    name = st.selectbox("What if it were otherwise?", names, key=f"swept {place}")
    frame = sweep(detector, flow, name)
    told, limit = ("score", policy.threshold) if "score" in frame.columns else ("novelty", policy.novelty)
    shades = colours()
    frame = frame.with_columns(place=compressed(frame["value"].to_numpy()))
    x = alt.X("place:Q", title=name, axis=wide_axis(), scale=alt.Scale(zero=False, nice=False))
    scale = alt.Scale(domain=[0, 1]) if told == "score" else alt.Undefined
    line = alt.Chart(frame).mark_line(color=shades.attack).encode(
        x, alt.Y(f"{told}:Q", scale=scale),
        tooltip=[alt.Tooltip("value:Q", format=".5~g"), alt.Tooltip(f"{told}:Q", format=".4f")],
    )  # fmt: skip
    layers: list[alt.Chart] = [line]
    if limit is not None and (told != "score" or limit <= 1):
        rule = alt.Chart(pl.DataFrame({told: [limit]})).mark_rule(color=shades.guide, strokeDash=[4, 4])
        layers.append(rule.encode(alt.Y(f"{told}:Q")))
    if isinstance(flow[name], float):
        here = alt.Chart(pl.DataFrame({"place": compressed(np.array([flow[name]]))}))
        layers.append(here.mark_rule(color=shades.benign, strokeWidth=2).encode(alt.X("place:Q")))
    show(alt.layer(*layers), height=260)
    st.caption("Blue: the flow's value. Dashed: from there on it is an alert.")


@st.cache_data(max_entries=8, show_spinner="judging …")
def _judged(_detector: Detector, _policy: Policy, key: tuple[str, str], content: bytes) -> Verdicts:
    return verdicts(content, _detector, _policy, given().params.stream.min_feature_coverage)


def _many(detector: Detector, policy: Policy) -> None:
    st.markdown(f"A CSV of flows as {detector.schema.title} has them, gzipped or not; labels are not needed.")
    uploaded = st.file_uploader("CSV", type=["csv", "gz"], key=f"csv {detector.manifest.hash}")
    if uploaded is None:
        return
    try:
        found = _judged(detector, policy, (detector.manifest.hash, f"{policy}"), uploaded.getvalue())
    except FlowsentryError as error:
        problem(f"{uploaded.name}{error}")
        return
    cells = st.columns(3)
    cells[0].metric("scored", f"{found.scored:,}")
    cells[1].metric("attacks", f"{found.attacks:,}")
    cells[2].metric("refused", f"{sum(found.rejected.values()):,}")
    if found.missing:
        st.warning("Features without a column: " + ", ".join(found.missing), icon=":material/warning:")
    stem = uploaded.name.removesuffix(".gz").removesuffix(".csv")
    left, right = st.columns(2)
    left.download_button(
        "Download the verdicts", found.verdicts, f"{stem}.verdicts.csv", "text/csv", icon=":material/download:"
    )
    if found.rejected:
        right.download_button(
            "Download the refused rows", found.rejects, f"{stem}.rejects.csv", "text/csv", icon=":material/download:"
        )
    st.dataframe(found.first(200), hide_index=True)


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
