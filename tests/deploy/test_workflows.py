"""The workflows: actionlint finds nothing, and they do what a developer can do too."""

import re
import shlex
from typing import Any

import yaml

from tests.deploy.dockerfile import ROOT
from tests.deploy.tools import linted, tool

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def steps() -> list[dict[str, Any]]:
    loaded = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in WORKFLOWS]
    return [step for each in loaded for job in each["jobs"].values() for step in job.get("steps", [])]


def test_actionlint_finds_nothing() -> None:
    assert len(WORKFLOWS) >= 3
    linted(tool("actionlint"), *WORKFLOWS)


def test_they_run_make_targets_alone() -> None:
    commands = [step["run"] for step in steps() if "run" in step]
    assert len(commands) >= 6
    for command in commands:
        program, *words = shlex.split(command)
        targets = {word for word in words if "=" not in word}
        assert program == "make" and targets and targets <= TARGETS, command


def test_actions_are_pinned_by_a_version() -> None:
    actions = [step["uses"] for step in steps() if "uses" in step]
    assert actions and all(re.fullmatch(r"[\w-]+/[\w/-]+@v\d+(\.\d+)*", action) for action in actions)


def test_make_targets_that_the_documentation_names_are_there() -> None:
    text = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z-]+)", text))
    assert named and named <= TARGETS
