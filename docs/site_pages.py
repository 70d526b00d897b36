"""A hook of mkdocs: pages of the site that lie outside docs/, and links between all of them.

README.md is the first page. A link to a page of the site leads there; one to any other file of the repository becomes
plain text, because the site does not hold it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# file of the repository -> page of the site
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "configs/README.md": "configs.md",
    "configs/ifguide_arguments.md": "keys.md",
    "docker/README.md": "docker.md",
}
_PAGES = {page: file for file, page in OUTSIDE.items()}
_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside."""
    for file, page in OUTSIDE.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead the links to where their targets are in the site."""
    return led(markdown, _PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}"))


def led(markdown: str, file: str) -> str:
    """The text of ``file`` (from the repository's root) with its links as the site needs them; code stays."""
    parts = _FENCE.split(markdown)
    return "".join(
        part if number % 2 else _LINK.sub(lambda m: _one(m, file), part) for number, part in enumerate(parts)
    )


def _one(match: re.Match[str], file: str) -> str:
    mark, label, target, anchor = match.groups(default="")
    if "://" in target or target.startswith("mailto:"):
        return match[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
    if path in OUTSIDE:
        return f"{mark}[{label}]({OUTSIDE[path]}{anchor})"
    if path.startswith("docs/") and (ROOT / path).is_file():
        return f"{mark}[{label}]({path.removeprefix('docs/')}{anchor})"
    return label if (ROOT / path).exists() else match[0]
