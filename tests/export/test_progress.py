"""Progress is shown on a terminal, and nothing of it elsewhere."""

import io

import pytest
from rich.console import Console

from export import progress


def test_without_a_terminal_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, force_terminal=False))
    assert list(progress.track(["a", "b"], "reading")) == ["a", "b"]
    assert out.getvalue().strip() == ""


def test_on_a_terminal_the_bar_counts_and_shows_its_note(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, force_terminal=True, width=120))
    with progress.steps("scoring", total=4, done=1) as bar:
        bar.advance("7 attacks")
    assert all(part in out.getvalue() for part in ("scoring", "2/4", "7 attacks"))
