"""What a page prints: commands as they stand there, and files that it shows whole; and running them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ifguide.cli import main

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')
_COMMAND = re.compile(r"^(?:ifguide|ifguide-train|python|make|pip|\.venv/bin/ifguide)(?! [\w-]+:)(?:\s|$)")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: of the page where it begins, from 1.
        title: the name of the file that it shows whole; "" of another block.
    """

    line: int
    info: str
    text: str

    @property
    def title(self) -> str:
        found = _TITLE.search(self.info)
        return found[1] if found else ""

    @property
    def commands(self) -> list[str]:
        """Each on one line, without comments; [] of a block that holds something else, output for example."""
        lines = self.text.replace("\\\n", " ").splitlines()
        said = [" ".join(shlex.split(line, comments=True, posix=False)) for line in lines if line.strip()]
        plain = self.info.split()[:1] in ([], ["sh"])
        return said if plain and not self.title and said and all(map(_COMMAND.match, said)) else []


def blocks(page: str) -> list[Block]:
    """All of a Markdown page, in order."""
    return [
        Block(page[: found.start()].count("\n") + 1, found["info"].strip(), found["text"])
        for found in _FENCE.finditer(page)
    ]


def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Go into ``folder``, a user's home with a cache of its own; the environment of the commands to `run` there."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder)}


def run(command: str, folder: Path, environment: Mapping[str, str], allowed: Sequence[int] = (0,)) -> None:
    """Run ``command`` as printed, in ``folder``, which must be the current one; verbs of ``ifguide`` in this process.

    ``~`` is the folder too. Fails where the exit code is none of ``allowed``.
    """
    words = [re.sub(r"^~(?=/)", str(folder), word) for word in shlex.split(command)]
    if words[0] == "ifguide":
        code, said = main(words[1:]), ""
    else:
        start = {"python": [sys.executable], "ifguide-train": [sys.executable, "-c", _TRAIN]}
        whole = [*start.get(words[0], words[:1]), *words[1:]]
        done = subprocess.run(whole, cwd=folder, env=dict(environment), capture_output=True, text=True)
        code, said = done.returncode, done.stdout[-2000:] + done.stderr[-3000:]
        print(done.stdout)
    assert code in allowed, f"{command}: exit {code}\n{said}"


_TRAIN = "import sys; sys.argv[0] = 'ifguide-train'; from ifguide.launch import installed; sys.exit(installed())"
