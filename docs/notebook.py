"""docs/tutorial.ipynb from docs/tutorial.md, its one source: python docs/notebook.py

Text becomes Markdown cells, a file that the page shows whole a ``%%writefile`` cell, a block of commands a ``%%bash``
cell. Cells for a GPT-NeoX checkout do nothing where GPT_NEOX_PATH names none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE, NOTEBOOK = HERE / "tutorial.md", HERE / "tutorial.ipynb"
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```\n?", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_CHECKOUT = re.compile(r"gpt-neox|runs/neox")
_GUARD = 'test -n "$GPT_NEOX_PATH" || { echo "needs GPT_NEOX_PATH, a checkout of GPT-NeoX"; exit 0; }\n'


def notebook(page: str) -> dict[str, Any]:
    """The notebook of a page in Markdown (nbformat 4.4)."""
    return {
        "cells": list(_cells(page)),
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }


def text(page: str) -> str:
    """The file of `notebook`."""
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


def _cells(page: str) -> Iterator[dict[str, Any]]:
    prose = ""
    place = 0
    for block in _FENCE.finditer(page):
        prose += page[place : block.start()]
        place = block.end()
        code = _code(block[1].strip(), block[2])
        if code is None:
            prose += block[0]  # an example to read
            continue
        yield from _markdown(prose)
        prose = ""
        yield {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": _lines(code)}
    yield from _markdown(prose + page[place:])


def _code(info: str, content: str) -> str | None:
    title = _TITLE.search(info)
    if title:
        return f"%%writefile {title[1]}\n{content}"
    if info.split()[:1] != ["sh"]:
        return None
    if not _CHECKOUT.search(content):
        return f"%%bash\nset -e\n{content}"
    return f"%%bash\nset -e\n{_GUARD}{content.replace('~/gpt-neox', '$GPT_NEOX_PATH')}"


def _markdown(prose: str) -> Iterator[dict[str, Any]]:
    if prose.strip():
        yield {"cell_type": "markdown", "metadata": {}, "source": _lines(prose.strip())}


def _lines(content: str) -> list[str]:
    return content.rstrip("\n").splitlines(keepends=True)


if __name__ == "__main__":
    NOTEBOOK.write_text(text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
