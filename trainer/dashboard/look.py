"""How the pages look: colours for dark and light, and what charts have in common."""

from dataclasses import dataclass

import altair as alt
import streamlit as st

__all__ = ["SEVERITIES", "THEMES", "Colours", "colours", "plain", "problem", "show", "wide_axis"]


@dataclass(frozen=True, slots=True)
class Colours:
    """Of the hues of `trainer evaluate`'s figures, the shades that can be told from a background."""

    benign: str
    attack: str
    guide: str
    several: tuple[str, ...]
    """To tell more things than two apart."""


_LIGHT = Colours("#2a6f97", "#c1440e", "#767676", ("#c1440e", "#2a6f97", "#5b7f2b", "#7d4e9e", "#a67c00", "#2f7f79"))
_DARK = Colours("#63aede", "#f0835a", "#9a9a9a", ("#f0835a", "#63aede", "#a3c76d", "#c39be0", "#e0b93f", "#6cc4bd"))
_MARKDOWN = frozenset("\\`*_{}[]<>()#+-.!|~$:&")
SEVERITIES = {"low": "#4c9bc4", "medium": "#d6a419", "high": "#e0703f", "critical": "#c72c48"}

THEMES = {
    "theme.light.primaryColor": _LIGHT.benign,
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f1f4f7",
    "theme.light.textColor": "#1c2430",
    "theme.dark.primaryColor": "#3585bd",
    "theme.dark.backgroundColor": "#10161d",
    "theme.dark.secondaryBackgroundColor": "#1b242e",
    "theme.dark.textColor": "#e8edf2",
}
"""Streamlit's options; which of the two is taken says the browser, or whoever looks."""


def colours() -> Colours:
    """Those of the theme that whoever looks has chosen."""
    return _DARK if st.context.theme.type == "dark" else _LIGHT


def wide_axis() -> alt.Axis:
    """An axis of `scale.compressed` values, which says what they were."""
    size = "(pow(10, abs(datum.value)) - 1)"
    text = f"({size} < 1000 ? format({size}, '.2~r') : format({size}, '.2~s'))"
    return alt.Axis(labelExpr=f"(datum.value < 0 ? '−' : '') + {text}", tickCount=8, labelOverlap=True)


def show(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: int | None = None) -> None:
    """Draw a chart, as wide as there is room."""
    st.altair_chart(chart if height is None else chart.properties(height=height), width="stretch")


def plain(text: str) -> str:
    """What others named, to be shown as it stands and not as Markdown."""
    return "".join(f"\\{char}" if char in _MARKDOWN else char for char in text)


def problem(what: Exception | str) -> None:
    """Say what is wrong; names of files and what others sent are shown as they stand."""
    st.error(plain(str(what)), icon=":material/error:")
