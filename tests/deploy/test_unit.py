"""The systemd unit: systemd knows every line, it is closed up, and it fits the service."""

import shlex
import shutil
from pathlib import Path

from schemas.params import StreamParams
from stream.__main__ import parser
from tests.deploy.dockerfile import ROOT
from tests.deploy.tools import linted, tool

UNIT = ROOT / "deploy/systemd/flowsentry.service"
EXPOSURE = 15  # of 100, which is no protection at all; the network must be open


def setting(name: str) -> str:
    found = [
        line.partition("=")[2] for line in UNIT.read_text(encoding="utf-8").splitlines() if line.startswith(f"{name}=")
    ]
    assert len(found) == 1, f"{name}: {found}"
    return found[0]


def test_systemd_knows_every_line(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", "apt-get install systemd")
    units = tmp_path / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for target in Path("/lib/systemd/system").glob("*.target"):
        shutil.copy(target, units)
    shutil.copy(UNIT, units)
    program = tmp_path / shlex.split(setting("ExecStart"))[0].lstrip("/")
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    assert linted(analyze, "verify", "--root", tmp_path, UNIT.name, both=True) == ""


def test_it_is_closed_up() -> None:
    analyze = tool("systemd-analyze", "apt-get install systemd")
    linted(analyze, "security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", UNIT)


def test_it_runs_the_service_and_leaves_it_time_to_stop() -> None:
    program, *words = shlex.split(setting("ExecStart"))
    assert program.startswith(f"{setting('WorkingDirectory')}/") and words[:2] == ["-m", "stream"]
    assert parser().parse_args(words[2:]).command == "run"
    assert float(setting("TimeoutStopSec")) > StreamParams().stop_timeout_s
    assert setting("KillMode") == "mixed"
