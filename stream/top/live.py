"""`top`: look at every worker each second, and show it, until it is stopped."""

import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from schemas.errors import FlowsentryError
from stream.top.figures import Figures
from stream.top.scrape import Scrape, Unreachable, scrape
from stream.top.view import render, summary_line

__all__ = ["run_top"]

_EVERY_S = 1.0
_KEY_WITHIN_S = 0.2
_MOST_AT_ONCE = 32


def run_top(urls: Sequence[str], *, once: bool, console: Console, stop: threading.Event) -> int:
    """Show the service until `stop`, or one picture of it if `once`; the exit status.

    Raises:
        FlowsentryError: none of the URLs answers at the start. Later a worker that is away is shown as such.
    """
    figures = Figures()
    began = time.monotonic()
    with ThreadPoolExecutor(min(len(urls), _MOST_AT_ONCE), "scrape") as pool:

        def look() -> None:
            answers = dict(zip(urls, pool.map(_answer, urls), strict=True))
            figures.observe(time.monotonic() - began, answers)

        look()
        if not figures.scrapes:
            raise FlowsentryError(_nobody(figures))
        if once:
            stop.wait(_EVERY_S)  # of one moment there are no rates
            look()
            console.print(render(figures, console.width))
            return 0
        with _keys(stop), _screen(figures, console) as show:
            while not stop.wait(_EVERY_S):
                look()
                show()
    return 0


def _answer(url: str) -> Scrape | str:
    try:
        return scrape(url)
    except Unreachable as error:
        return str(error)


def _nobody(figures: Figures) -> str:
    lines = "; ".join(f"{url} {why}" for url, why in figures.silent.items())
    return (
        f"{lines}. Start the service with `python -m stream run --bundle bundles/cicids2017-improved`, or say with --url where "
        "one runs"
    )


@contextmanager
def _screen(figures: Figures, console: Console) -> Iterator[Callable[[], None]]:
    """What shows the figures anew: as the whole screen of a terminal, else as a line."""
    if not console.is_terminal:
        yield lambda: console.print(summary_line(figures), soft_wrap=True, highlight=False)
        return
    with Live(render(figures, *console.size), console=console, screen=True, auto_refresh=False) as live:
        yield lambda: live.update(render(figures, *console.size), refresh=True)
    console.print(summary_line(figures), highlight=False)


@contextmanager
def _keys(stop: threading.Event) -> Iterator[None]:
    """Stop at q, where there is a keyboard."""
    if not sys.stdin.isatty():
        yield
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def read() -> None:
        while not stop.is_set():
            if select.select([keyboard], [], [], _KEY_WITHIN_S)[0] and os.read(keyboard, 1) in (b"q", b"Q", b""):
                stop.set()

    reader = threading.Thread(target=read, name="keys")
    tty.setcbreak(keyboard)
    try:
        reader.start()
        yield
    finally:
        stop.set()
        reader.join()
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
