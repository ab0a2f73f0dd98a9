"""Progress on a terminal, plain lines elsewhere: one place decides how long work shows itself."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["console", "steps", "track"]

Item = TypeVar("Item")
console = Console(stderr=True)


def _columns() -> tuple[object, ...]:
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )


@contextmanager
def steps(description: str, total: int, done: int = 0, *, shown: bool = True) -> Iterator["Steps"]:
    """A bar of `total` steps, `done` of them already, whose note can change as it advances."""
    with Progress(*_columns(), console=console, disable=not (shown and console.is_terminal)) as progress:  # type: ignore[arg-type]
        yield Steps(progress, progress.add_task(description, total=total, completed=done, note=""))


class Steps:
    """Handle of one bar."""

    def __init__(self, progress: Progress, task: object) -> None:
        self._progress = progress
        self._task = task

    def advance(self, note: str) -> None:
        self._progress.update(self._task, advance=1, note=note)  # type: ignore[arg-type]


def track(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Iterate with a bar."""
    with steps(description, len(items)) as bar:
        for item in items:
            yield item
            bar.advance(str(item)[-40:])
