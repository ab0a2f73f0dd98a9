"""The command line: help that teaches, what the service imports, and the demo from end to end."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stream.__main__ import main, parser
from tests.bundles import make_bundle


@pytest.fixture(scope="module")
def improved_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the sample's data set."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "improved", "cicids2017-improved")


COMMANDS = ("run", "replay", "alerts", "dead-letters", "sample", "top", "api", "broker", "demo")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_of_the_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert re.search(rf"python -m stream {command}\b", capsys.readouterr().out)


def test_the_readme_names_every_command() -> None:
    commands = next(action.choices for action in parser()._actions if action.dest == "command")
    assert commands is not None
    assert set(commands) == set(COMMANDS)
    readme = Path("README.md").read_text()
    for command in COMMANDS:
        assert f"python -m stream {command}" in readme or f"make {command}" in readme, command


def test_the_service_imports_nothing_that_only_training_needs() -> None:
    heavy = "{'torch', 'mlflow', 'pandas', 'sklearn'}"
    check = f"import stream.__main__, sys; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


def test_the_demo_ends_by_itself_with_a_summary(
    bootstrap_servers: str, improved_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap_servers)
    assert main(["demo", "--bundle", str(improved_bundle), "--limit", "400", "--rate", "200"]) == 0
    shown = capsys.readouterr().out
    for line in (r"flows in +400\b", r"alerts out +[1-9]", r"precision +[01]\.\d+ +recall +[01]\.\d+", r"p50 \d+ ms"):
        assert re.search(line, shown), line
    assert shown.count("  .venv/bin/python -m stream") == 3
    assert re.search(r"flows \d+ \(\d+/s\)  lag \d+  alerts \d+", shown), "no plain lines without a terminal"


def test_a_demo_without_an_alert_fails(
    bootstrap_servers: str,
    improved_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap_servers)
    monkeypatch.setenv("FLOWSENTRY_STREAM__THRESHOLD", "1.0")
    assert main(["demo", "--bundle", str(improved_bundle), "--limit", "20", "--rate", "200"]) == 1


def test_a_demo_whose_detector_stops_says_so(
    bootstrap_servers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap_servers)
    assert main(["demo", "--bundle", str(tmp_path / "none"), "--limit", "20"]) == 2
    assert "the detector stopped with status 2" in capsys.readouterr().err
