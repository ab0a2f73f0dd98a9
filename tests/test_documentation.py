"""What the documentation names is there."""

import re
from pathlib import Path

import pytest

from tests.faults import mutants
from tests.faults.mutations import MUTATIONS

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(?:(?P<folder>tests/[a-z_/]+)/)?(?P<file>test_\w+\.py)::(?P<test>test_\w+)`")


def named() -> list[tuple[str, str]]:
    """File and test of every promise that the README makes."""
    return [
        (f"{match['folder'] or 'tests/faults'}/{match['file']}", match["test"])
        for match in NAMED.finditer((ROOT / "README.md").read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("file", "test"), named())
def test_a_promise_names_a_test_that_there_is(file: str, test: str) -> None:
    assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8")


def test_every_line_of_the_guarantees_names_a_test() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Guarantees")[2].partition("\n\nThree limits")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(lines) > 10 and all(NAMED.search(line) for line in lines)


def test_every_promise_is_broken_by_a_mutant_that_can_still_be_made() -> None:
    assert mutants.main(["--list"]) == 0
    tests = {each.test for each in MUTATIONS}
    assert [place for place in named() if "::".join(place) not in tests] == []


def test_links_lead_to_files() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
