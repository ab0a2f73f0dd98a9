"""docs/ as a site: it builds without a warning, and no link of it leads nowhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = "https://example.org/flowsentry/blob/main"


def built(site: Path, docs: Path | None = None) -> "subprocess.CompletedProcess[str]":
    config = ROOT / "deploy" / "docs" / "mkdocs.yml"
    if docs is not None:
        text = (
            config.read_text().replace("../../docs", str(docs)).replace("sources.py", str(config.parent / "sources.py"))
        )
        config = site.parent / "mkdocs.yml"
        config.write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(site)],
        env={**os.environ, "SOURCE_URL": SOURCE, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_page_is_built_without_a_warning(tmp_path: Path) -> None:
    done = built(tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages == {path.stem for path in (tmp_path / "site").glob("*.html")} - {"404"}
    assert f'href="{SOURCE}/README.md#guarantees"' in (tmp_path / "site" / "reliability.html").read_text()


@pytest.mark.parametrize(
    ("link", "told"),
    [("[there](nowhere.md)", "nowhere.md"), ("[there](../nowhere.py)", "docs/index.md: nowhere.py: no such file")],
)
def test_a_link_that_leads_nowhere_fails(tmp_path: Path, link: str, told: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    for page in (ROOT / "docs").glob("*.md"):
        (docs / page.name).write_text(page.read_text())
    (docs / "index.md").write_text(f"# Flowsentry\n\n{link}\n")
    done = built(tmp_path / "site", docs)
    assert done.returncode != 0
    assert told in done.stderr
