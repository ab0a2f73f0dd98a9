"""A headless Chromium, and the dashboard as its users start it."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

__all__ = ["Viewer", "chromium", "running", "viewing"]

ROOT = Path(__file__).parents[3]
PATIENCE_MS = 90_000
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """The program; without one the test is skipped, or fails where FLOWSENTRY_TEST_BROWSER=all wants it."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        text = "no Chromium here: apt-get install chromium"
        if os.environ.get("FLOWSENTRY_TEST_BROWSER") == "all":
            pytest.fail(text)
        pytest.skip(text)
    return found


@contextmanager
def running(*options: str, folder: Path = ROOT) -> Iterator[str]:
    """`python -m trainer dashboard` on a free port; its address. SIGTERM must end it with status 0."""
    command = [sys.executable, "-m", "trainer", "dashboard", "--port", "0", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("the dashboard is at http://127.0.0.1:"), first
        yield first.split()[-1]
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        status = process.wait(60)
        assert status == 0, status
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Viewer:
    """A page of a browser, what its console told, and whom it asked besides the dashboard."""

    def __init__(self, browser: Browser, url: str, theme: str) -> None:
        context = browser.new_context(
            color_scheme="dark" if theme == "dark" else "light", viewport={"width": 1400, "height": 2200}
        )
        context.set_default_timeout(PATIENCE_MS)
        self.url, self.theme, self.page = url, theme, context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.wrong.append(f"exception: {error}"))
        self.page.on("request", self._asked)

    def open(self, name: str) -> Page:
        """Open a page by its own address and wait until it is drawn."""
        self.page.goto(f"{self.url}/{name}")
        self.page.get_by_role("heading", name=name.capitalize(), exact=True).wait_for()
        return self.page

    def settle(self) -> Page:
        """Wait until nothing is being worked out."""
        self.page.wait_for_timeout(500)
        self.page.wait_for_function(
            "() => !document.querySelector('[data-testid=stSkeleton], [data-testid=stSpinner], [data-stale=true]') &&"
            " document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning'"
        )
        return self.page

    def assert_clean(self) -> None:
        """No error in the console, none on the page, and nobody was asked but the dashboard."""
        assert self.wrong == [], self.wrong
        assert self.page.get_by_test_id("stException").count() == 0
        assert self.page.get_by_text("does not seem to exist").count() == 0

    def shot(self, name: str) -> None:
        """A picture, where FLOWSENTRY_TEST_SHOTS names a folder for them."""
        if folder := os.environ.get("FLOWSENTRY_TEST_SHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}-{self.theme}.png")

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.wrong.append(f"asked {request.url}")


@contextmanager
def viewing(url: str, theme: str = "light") -> Iterator[Viewer]:
    """The dashboard at that address in a browser that prefers a dark or light theme."""
    program = chromium()
    words = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=words)
        try:
            yield Viewer(browser, url, theme)
        finally:
            browser.close()
