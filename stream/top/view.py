"""How a running service looks in a terminal, and on one plain line."""

import math
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from schemas.alert import Severity
from stream.metrics import STAGES
from stream.top.figures import Figures
from stream.view import strip
from stream.wording import COLOURS, UNKNOWN, printable

__all__ = ["render", "summary_line"]

_LATENCY = "flowsentry_alert_latency_seconds"
_ALERTS, _LETTERS, _FLOWS = "flowsentry_alerts_total", "flowsentry_dead_letters_total", "flowsentry_flows_total"
_LONGEST_S = 10.0  # the last bound of the latency's histogram
_LAG_WIDTH, _LETTERS_WIDTH = 15, 24
_SHORT = {Severity.CRITICAL: "crit", Severity.MEDIUM: "med"}
_FIXED_LINES = 5 + 5 + 3  # figures, stages, and the borders and header of the workers
_FEWEST_ROWS = 3


def summary_line(figures: Figures) -> str:
    """The figures on one plain line."""
    ready = sum(not scrape.problems for scrape in figures.scrapes.values())
    return (
        f"flows {figures.total(_FLOWS):.0f} ({figures.per_second(_FLOWS):.0f}/s)  lag {figures.total('flowsentry_lag'):.0f}  "
        f"alerts {figures.total(_ALERTS):.0f} ({figures.per_second(_ALERTS):.0f}/s)  "
        f"dead letters {figures.total(_LETTERS):.0f}  flow→alert p50 {_latency(figures, 0.5)} p99 {_latency(figures, 0.99)}  "
        f"ready {ready} of {len(figures.scrapes) + len(figures.silent)}"
    )


def render(figures: Figures, width: int, height: int | None = None) -> RenderableType:
    """All of it; within `height` lines, if it is given, for which tables are cut."""
    workers = _workers(figures, width)
    rows = None
    if height is not None:
        rows = max(_FEWEST_ROWS, height - _FIXED_LINES - workers.row_count - 3)
    middle = Table.grid(padding=0)
    alerts = width - _LAG_WIDTH - _LETTERS_WIDTH
    tables = (
        (_alerts(figures, rows), "alerts by family", "red", alerts),
        (_dead_letters(figures, rows), "dead letters", "yellow", _LETTERS_WIDTH),
        (_lag(figures, rows), "lag", "blue", _LAG_WIDTH),
    )
    lines = 2 + max(table.row_count + 1 for table, *_ in tables)
    for *_, room in tables:
        middle.add_column(width=room)
    middle.add_row(
        *(Panel(table, title=title, border_style=colour, height=lines) for table, title, colour, _ in tables)
    )
    return Group(_strip(figures), middle, _stages(figures), Panel(workers, title="workers", border_style="blue"))


def _strip(figures: Figures) -> Panel:
    answering = len(figures.scrapes)
    flows, letters = figures.growth(_FLOWS), figures.growth(_LETTERS)
    share = f"{letters / flows:.1%} now" if flows else ""
    partitions = figures.total("flowsentry_assigned_partitions")
    return strip(
        f"flowsentry · {answering} of {answering + len(figures.silent)} workers answer",
        (
            ("flows/s", f"{figures.per_second(_FLOWS):.0f}", f"{figures.total(_FLOWS):.0f} in all"),
            ("lag", f"{figures.total('flowsentry_lag'):.0f}", f"{partitions:.0f} partitions"),
            ("alerts/s", f"{figures.per_second(_ALERTS):.0f}", f"{figures.total(_ALERTS):.0f} in all"),
            ("p50", _latency(figures, 0.5), "flow→alert"),
            ("p99", _latency(figures, 0.99), "flow→alert"),
            ("dead letters", f"{figures.total(_LETTERS):.0f}", share),
        ),
    )


def _alerts(figures: Figures, rows: int | None) -> Table:
    counts = figures.by(_ALERTS, "family", "severity")
    families = figures.by(_ALERTS, "family")
    severities = sorted(Severity, key=lambda severity: -severity.rank)
    table = _table(("family", None), *((_SHORT.get(severity, severity.value), None) for severity in severities))
    for (family,) in _first(families, rows):
        cells = [
            Text(f"{counts.get((family, severity.value), 0.0):.0f}", style=COLOURS[severity])
            if counts.get((family, severity.value))
            else Text("")
            for severity in severities
        ]
        table.add_row(Text(printable(family)), *cells)
    return _cut(table, families, rows)


def _dead_letters(figures: Figures, rows: int | None) -> Table:
    reasons = figures.by(_LETTERS, "reason")
    table = _table(("reason", None), ("", None))
    for (reason,) in _first(reasons, rows):
        table.add_row(Text(printable(reason)), f"{reasons[(reason,)]:.0f}")
    return _cut(table, reasons, rows)


def _lag(figures: Figures, rows: int | None) -> Table:
    lags = figures.by("flowsentry_lag", "partition")
    table = _table(("part", None), ("", None))
    for (partition,) in _first(lags, rows):
        table.add_row(Text(printable(partition)), f"{lags[(partition,)]:.0f}")
    return _cut(table, lags, rows)


def _stages(figures: Figures) -> Panel:
    stages = "flowsentry_stage_seconds"
    cells = []
    for stage in STAGES:
        share = figures.busy_share(stages, stage=stage)
        cells.append((stage, _milliseconds(figures.mean(stages, stage=stage)), f"{share:.0%} of time"))
    return strip("stages: a batch", cells)


def _workers(figures: Figures, width: int) -> Table:
    room = width - 4
    places = {url: urlsplit(url).netloc for url in (*figures.scrapes, *figures.silent)}
    at = min(24, max(map(len, places.values())))
    columns = {"worker": at, "flows/s": 7, "parts": 5, "restarts": 8, "retries": 7}
    state = room - sum(columns.values()) - len(columns)
    bundle = state * 2 // 5
    table = _table(*columns.items(), ("bundle", bundle), ("state", state - bundle - 1), right=range(1, 5))
    for url in sorted(places):
        if url not in figures.scrapes:
            why = Text(printable(figures.silent[url]), style="red")
            table.add_row(Text(places[url]), *[UNKNOWN] * 4, UNKNOWN, why)
            continue
        scrape = figures.scrapes[url]
        described = [
            f"{labels.get('name', '')} {labels.get('version', '')} {labels.get('hash', '')[:8]}"
            for labels, _ in scrape.of("flowsentry_bundle_info")
        ]
        problems = "; ".join(scrape.problems)
        table.add_row(
            Text(places[url]),
            f"{figures.per_second(_FLOWS, url):.0f}",
            f"{scrape.total('flowsentry_assigned_partitions'):.0f}",
            f"{scrape.total('flowsentry_worker_restarts'):.0f}",
            f"{scrape.total('flowsentry_batch_retries_total'):.0f}",
            Text(printable(", ".join(described)) or UNKNOWN),
            Text(printable(problems), style="yellow") if problems else Text("ready", style="green"),
        )
    return table


def _table(*columns: tuple[str, int | None], right: Iterable[int] | None = None) -> Table:
    """Without a frame; what is not the first column is a number, or what `right` says."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim", expand=True)
    numbers = range(1, len(columns)) if right is None else right
    for place, (name, width) in enumerate(columns):
        justify = "right" if place in numbers else "left"
        ratio = 1 if place == 0 and width is None else None
        table.add_column(name, width=width, ratio=ratio, no_wrap=True, overflow="ellipsis", justify=justify)  # type: ignore[arg-type]
    return table


def _first(keys: Iterable[tuple[str, ...]], rows: int | None) -> Sequence[tuple[str, ...]]:
    """As many as there is room for, with a line left to say how many there are besides."""
    found = list(keys)
    return found if rows is None or len(found) <= rows else found[: rows - 1]


def _cut(table: Table, keys: Iterable[tuple[str, ...]], rows: int | None) -> Table:
    left = len(list(keys)) - table.row_count
    if left:
        table.add_row(Text(f"and {left} more", style="dim"))
    elif not table.row_count:
        table.add_row(Text("none", style="dim"))
    return table


def _latency(figures: Figures, share: float) -> str:
    seconds = figures.quantile(share, _LATENCY)
    return f"> {_LONGEST_S:.0f} s" if math.isinf(seconds) else _milliseconds(seconds)


def _milliseconds(seconds: float) -> str:
    if math.isnan(seconds):
        return UNKNOWN
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
