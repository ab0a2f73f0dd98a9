"""Links from docs/ to files outside of it: on the site they lead to the repository, where it is known, else the path is shown.

`SOURCE_URL=https://github.com/owner/flowsentry/blob/main make docs` says where.
"""

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_LINK = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """A page's text with those links changed. mkdocs calls it for every page.

    Raises:
        ValueError: a link leads to a file that is not there.
    """
    return _LINK.sub(lambda link: _changed(link, page.file.src_uri), markdown)


def _changed(link: re.Match[str], page: str) -> str:
    text, path, anchor = link[1], link[2], link[3] or ""
    if not (ROOT / path).exists():
        raise ValueError(f"docs/{page}: {path}: no such file")
    url = os.environ.get("SOURCE_URL")
    return f"[{text}]({url.rstrip('/')}/{path}{anchor})" if url else f"{text} (`{path}`)"
