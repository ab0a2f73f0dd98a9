"""The live picture of a running detector: figures above, newest alerts below; plain lines without a terminal."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from schemas.alert import Alert
from stream.wording import COLOURS, endpoint, printable, reason_in_words

__all__ = ["Picture", "render", "strip", "summary_line"]

_WINDOW_S = 5.0
_WIDE = 100  # from how many characters on there is room for reasons


@dataclass(slots=True)
class Picture:
    """What is known of the stream at one moment. Latencies are ms from the record's Kafka timestamp to the alert seen."""

    title: str
    flows: int = 0
    lag: int = 0
    alerts: int = 0
    dead_letters: int = 0
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    newest: deque[Alert] = field(default_factory=lambda: deque(maxlen=200))
    _seen: deque[tuple[float, int, int]] = field(default_factory=deque)

    def observe(self, seconds: float, flows: int, lag: int, dead_letters: int) -> None:
        """Take in the counters of this moment; rates are over the last 5 s."""
        self.seconds, self.flows, self.lag, self.dead_letters = seconds, flows, lag, dead_letters
        self._seen.append((seconds, flows, self.alerts))
        while self._seen[0][0] < seconds - _WINDOW_S:
            self._seen.popleft()

    def add(self, alert: Alert, latency_ms: float) -> None:
        """One more alert."""
        self.alerts += 1
        self.newest.appendleft(alert)
        self.latencies_ms.append(latency_ms)

    @property
    def rates(self) -> tuple[float, float]:
        """Flows/s and alerts/s."""
        if len(self._seen) < 2:
            return 0.0, 0.0
        (began, flows, alerts), (ended, flows_now, alerts_now) = self._seen[0], self._seen[-1]
        span = max(ended - began, 1e-9)
        return (flows_now - flows) / span, (alerts_now - alerts) / span

    @property
    def latency_ms(self) -> tuple[float, float]:
        """p50 and p99; NaN before the first alert."""
        if not self.latencies_ms:
            return float("nan"), float("nan")
        p50, p99 = np.percentile(self.latencies_ms, (50, 99))
        return float(p50), float(p99)


def summary_line(picture: Picture) -> str:
    """The figures on one plain line."""
    flows_s, alerts_s = picture.rates
    p50, p99 = picture.latency_ms
    return (
        f"{picture.seconds:6.1f} s  flows {picture.flows} ({flows_s:.0f}/s)  lag {picture.lag}  "
        f"alerts {picture.alerts} ({alerts_s:.0f}/s)  dead letters {picture.dead_letters}  "
        f"produce→alert p50 {_ms(p50)} p99 {_ms(p99)}"
    )


def render(picture: Picture, console: Console) -> RenderableType:
    """The picture for a live terminal, as high as it is."""
    flows_s, alerts_s = picture.rates
    p50, p99 = picture.latency_ms
    figures = (
        ("flows/s", f"{flows_s:.0f}", f"{picture.flows} in all"),
        ("lag", f"{picture.lag}", "waiting"),
        ("alerts/s", f"{alerts_s:.0f}", f"{picture.alerts} in all"),
        ("p50", _ms(p50), "produce→alert"),
        ("p99", _ms(p99), "produce→alert"),
        ("dead letters", f"{picture.dead_letters}", ""),
    )
    rows = max(3, console.size.height - 10)
    return Group(
        strip(f"{picture.title} · {picture.seconds:.0f} s", figures),
        Panel(
            alert_table(list(picture.newest)[:rows], console.size.width - 4), title="newest alerts", border_style="red"
        ),
    )


def strip(title: str, figures: Sequence[tuple[str, str, str]]) -> Panel:
    """Figures side by side: each its name, its value and a note, below each other."""
    grid = Table.grid(expand=True, padding=(0, 1))
    for _ in figures:
        grid.add_column(justify="center", no_wrap=True)
    for style, cells in zip(("dim", "bold", "dim"), zip(*figures, strict=True), strict=True):
        grid.add_row(*(Text(cell, style=style) for cell in cells))
    return Panel(grid, title=Text(title), border_style="blue")


def alert_table(alerts: Sequence[Alert], width: int) -> Table:
    """Alerts as a table: time, severity, source → destination, family, score, and why where there is room for it.

    Every column has its width whatever the alerts hold: a long address may not push the others off the screen.
    """
    wide = width >= _WIDE
    room = width - len("hh:mm:ss") - len("critical") - len("0.000") - (5 if wide else 4)
    addresses = min(45, max(1, int(room * (0.42 if wide else 0.72))))
    family = min(26, int(room * 0.22)) if wide else max(1, room - addresses)
    columns = {"time": 8, "severity": 8, "source → destination": addresses, "family": family, "score": 5}
    if wide:
        columns["why"] = room - addresses - family
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim")
    for name, characters in columns.items():
        table.add_column(name, no_wrap=True, width=characters, overflow="ellipsis")
    for alert in alerts:
        cells = (
            f"{alert.event_time:%H:%M:%S}",
            Text(alert.severity.value, style=COLOURS[alert.severity]),
            Text(endpoint(alert.flow)),  # a plain string would be read as markup
            Text(printable(alert.family)),
            "–" if alert.score is None else f"{alert.score:.3f}",
            Text("; ".join(reason_in_words(reason) for reason in alert.reasons[:2]), style="dim"),
        )
        table.add_row(*cells[: len(columns)])
    return table


def _ms(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.0f} ms"
