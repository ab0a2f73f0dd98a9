"""The live page: how fast flows come, alerts as they come, one of them opened."""

import time
from collections.abc import Sequence

import altair as alt
import polars as pl
import streamlit as st

from schemas.alert import Alert, FlowRef, Severity
from trainer.dashboard import reasons
from trainer.dashboard.look import SEVERITIES, colours, problem, show
from trainer.dashboard.service import Pace, Service, metrics_url
from trainer.dashboard.settings import given
from trainer.dashboard.subscriber import WINDOW_S, Seen, Subscriber

__all__ = ["endpoint", "page", "per_bin", "rows_of"]

_SHOWN = 100
_BIN_S = 5
_EVERY_S = 2.0
_HELD = "what is shown"  # a pause keeps it


@st.cache_resource(show_spinner=False)
def _subscriber() -> Subscriber:
    params = given().params
    return Subscriber(params.stream.bootstrap_servers, params.stream.alerts, params.kafka)


@st.cache_resource(show_spinner=False)
def _service() -> Service:
    return Service([metrics_url(url) for url in given().metrics_urls])


def page() -> None:
    """Draw it."""
    st.title("Live")
    left, middle, right = st.columns([2, 2, 1], vertical_alignment="bottom")
    least = left.selectbox("From severity", [it.value for it in Severity], key="least")
    verdicts = middle.segmented_control(
        "Verdict", ["known", "novel"], selection_mode="multi", default=["known", "novel"]
    )
    paused = right.toggle("Pause", key="paused")
    _stream(Severity(least), frozenset(verdicts), paused=paused)
    _opened()


def _stream(least: Severity, verdicts: frozenset[str], *, paused: bool) -> None:
    @st.fragment(run_every=None if paused else _EVERY_S)
    def draw() -> None:
        if not paused or _HELD not in st.session_state:
            st.session_state[_HELD] = (_subscriber().seen(), _service().pace(), int(time.time()))
        seen, (pace, silent), now = st.session_state[_HELD]
        with st.container():  # there even when it is empty, so that what follows keeps its place
            _state(seen, silent)
        _figures(seen, pace, now)
        _charts(seen, pace, now)
        chosen = [it for it in seen.alerts if it.severity.rank >= least.rank and it.verdict.value in verdicts][:_SHOWN]
        with st.container():
            _table(chosen, seen)

    draw()


def _state(seen: Seen, silent: Sequence[str]) -> None:
    for what in (seen.problem, *silent):
        if what:
            problem(what)


def _figures(seen: Seen, pace: Sequence[Pace], now: int) -> None:
    last_minute = sum(count for (second, _), count in seen.by_second.items() if second > now - 60)
    unknown = None if given().metrics_urls else "Start the dashboard with --metrics-url http://HOST:9108 to see it."
    cells = st.columns(5)
    cells[0].metric("flows/s", f"{pace[-1].flows_per_s:,.0f}" if pace else "–", help=unknown)
    cells[1].metric("flows that wait", f"{pace[-1].lag:,.0f}" if pace else "–", help=unknown)
    cells[2].metric("dead letters", f"{pace[-1].dead_letters:,.0f}" if pace else "–", help=unknown)
    cells[3].metric("alerts, last minute", f"{last_minute:,}")
    cells[4].metric("alerts seen", f"{seen.received:,}", help=f"Messages that were no alerts: {seen.invalid}.")


def per_bin(seen: Seen, now: int) -> pl.DataFrame:
    """How many `alerts` of each `severity` there were in steps of some seconds; `time` is minutes from `now` (unix seconds), to
    the middle of the step."""
    start = (now - WINDOW_S) // _BIN_S * _BIN_S
    counts: dict[tuple[int, str], int] = {}
    for (second, severity), count in seen.by_second.items():
        if second >= start:
            key = (second // _BIN_S * _BIN_S, severity)
            counts[key] = counts.get(key, 0) + count
    lines = [
        {"time": (at + _BIN_S / 2 - now) / 60, "severity": severity, "alerts": count}
        for (at, severity), count in sorted(counts.items())
    ]
    return pl.DataFrame(lines, schema={"time": pl.Float64, "severity": pl.String, "alerts": pl.Int64})


def _charts(seen: Seen, pace: Sequence[Pace], now: int) -> None:
    x = alt.X("time:Q", title="minutes from now", scale=alt.Scale(domain=[-WINDOW_S / 60, 0]))
    cells = st.columns(2 if given().metrics_urls else 1)
    severity = alt.Color(
        "severity:N", scale=alt.Scale(domain=list(SEVERITIES), range=list(SEVERITIES.values())), title=None,
        legend=alt.Legend(orient="right"),
    )  # fmt: skip
    with cells[-1]:
        counted = per_bin(seen, now)
        most = counted.group_by("time").agg(pl.col("alerts").sum())["alerts"].max()
        bars = alt.Chart(counted).mark_bar(width=6)
        axis = alt.Axis(tickMinStep=1, format="d")
        y = alt.Y("alerts:Q", title=f"alerts in {_BIN_S} s", axis=axis, scale=_from_zero(most, 4))
        show(bars.encode(x, y, severity, tooltip=["severity:N", "alerts:Q"]), height=220)
    if given().metrics_urls:
        lines = pl.DataFrame(
            {"time": [(it.time - now) / 60 for it in pace], "flows/s": [it.flows_per_s for it in pace]},
            schema={"time": pl.Float64, "flows/s": pl.Float64},
        )
        area = alt.Chart(lines).mark_area(color=colours().benign, opacity=0.35, line={"color": colours().benign})
        with cells[0]:
            show(
                area.encode(x, alt.Y("flows/s:Q", title="flows/s", scale=_from_zero(lines["flows/s"].max(), 10))),
                height=220,
            )


def _from_zero(most: object, least: float) -> alt.Scale:
    """Up to the most that there is, or to `least`: an axis of no data at all has an end too."""
    return alt.Scale(domain=[0, max(least, most * 1.05 if isinstance(most, int | float) else 0.0)])


def rows_of(alerts: Sequence[Alert]) -> pl.DataFrame:
    """A line per alert; without a column that is empty in all of them."""
    lines = [
        {
            "time (UTC)": f"{it.event_time:%Y-%m-%d %H:%M:%S}",
            "severity": [it.severity.value],
            "verdict": it.verdict.value,
            "family": it.family,
            "flow": endpoint(it.flow),
            "score": it.score,
            "novelty": it.novelty,
            "strongest reason": it.reasons[0].feature if it.reasons else "–",
        }
        for it in alerts
    ]
    frame = pl.DataFrame(lines, schema_overrides={"score": pl.Float64, "novelty": pl.Float64})
    return frame[[column.name for column in frame if column.null_count() < len(frame)]]


def endpoint(flow: FlowRef) -> str:
    """`10.0.0.1:80 → 10.0.0.2:443`, with `–` for what the record does not say."""
    return " → ".join(
        f"{f'[{ip}]' if ip and ':' in ip else ip or '–'}{'' if port is None else f':{port}'}"
        for ip, port in ((flow.src_ip, flow.src_port), (flow.dst_ip, flow.dst_port))
    )


def _table(alerts: Sequence[Alert], seen: Seen) -> None:
    if st.session_state.pop("just opened", False):
        st.rerun()  # what was opened is drawn outside of this fragment
    if not alerts:
        st.info("No alerts yet: they appear here as the service sends them." if not seen.alerts else
                "None of the alerts seen is of that severity and verdict.", icon=":material/info:")  # fmt: skip
        return
    st.caption(f"The newest {len(alerts)}. Tick one to open it below.")
    key = f"alerts {alerts[0].id} {len(alerts)}"  # another table whenever its lines are others

    def ticked() -> None:  # of the lines that were shown, though there are others by now
        if chosen := st.session_state[key].selection.rows:
            st.session_state["opened"], st.session_state["just opened"] = alerts[chosen[0]], True

    st.dataframe(
        rows_of(alerts), hide_index=True, height=320, key=key, on_select=ticked, selection_mode="single-row",
        column_config={
            "severity": st.column_config.MultiselectColumn(options=list(SEVERITIES), color=list(SEVERITIES.values())),
            "score": st.column_config.NumberColumn(format="%.3f"), "novelty": st.column_config.NumberColumn(format="%.2f")
        },
    )  # fmt: skip


def _opened() -> None:
    alert: Alert | None = st.session_state.get("opened")
    if alert is None:
        return
    with st.container(border=True):
        st.subheader("One alert")
        st.text(f"{alert.family}: {endpoint(alert.flow)}")
        cells = st.columns(5)
        cells[0].metric("severity", alert.severity.value)
        cells[1].metric("verdict", alert.verdict.value)
        cells[2].metric("score", _number(alert.score), help=f"threshold {_number(alert.threshold)}")
        cells[3].metric("novelty", _number(alert.novelty), help=f"threshold {_number(alert.novelty_threshold)}")
        cells[4].metric("family's probability", _number(alert.family_probability))
        st.markdown("**Why:** the features that spoke most for it, against the range of benign flows")
        reasons.draw(alert.reasons)
        st.text(
            f"seen {alert.event_time:%Y-%m-%d %H:%M:%S} UTC, judged {alert.detection_time:%H:%M:%S} by "
            f"{alert.bundle.name} {alert.bundle.version} ({alert.bundle.hash[:12]})\n"
            f"protocol {alert.flow.protocol or '–'}, ATT&CK {', '.join(alert.techniques) or '–'}, alert {alert.id}"
        )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
