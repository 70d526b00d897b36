"""A corpus of lines with two masks, an audit of it by the command, and the page of that."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide.data.indexed import TokenDataset
from tests.inspection.conftest import run
from tests.support.datasets import write_mask
from tests.support.folders import write_rows

RUDE, KIND = "you are a fool, all of you", "what a quiet garden this is"
HOSTILE = "</script><b>bold</b> \u202e women and \x1b[31m"


@dataclass(frozen=True)
class Audited:
    """A folder with ``corpus_text_document``, the masks ``one`` and ``two`` and the audit ``audit``.

    Attributes:
        abuse: the lines that are abuse, by document and line.
    """

    folder: Path
    abuse: set[tuple[int, int]]

    @property
    def data(self) -> str:
        return str(self.folder / "corpus_text_document")

    @property
    def audit(self) -> Path:
        return self.folder / "audit"

    def options(self) -> list[str]:
        masks = itertools.chain(*(["--mask", str(self.folder / name)] for name in ("one", "two")))
        return ["--data", self.data, *masks, "--sample", "40", "--seed", "3"]

    def record(self) -> dict[str, Any]:
        return json.loads((self.audit / "audit.json").read_text())

    def spans(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.audit / "spans.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="package")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    folder = tmp_path_factory.mktemp("audited")
    generator = np.random.default_rng(0)
    abuse, texts = set(), []
    for document in range(30):
        kinds = generator.random(6) < 0.2
        lines = [RUDE if kind else KIND for kind in kinds]
        if document == 3:
            lines[2] = HOSTILE
            kinds[2] = False
        abuse |= {(document, int(line)) for line in np.flatnonzero(kinds)}
        texts.append("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        write_rows(folder / "corpus.jsonl", [{"text": text} for text in texts])
        run("preprocess", "--input", folder / "corpus.jsonl", "--tokenizer-type", "CharLevelTokenizer",
            "--output-prefix", folder / "corpus", "--append-eod")  # fmt: skip
        tokens = TokenDataset.open(folder / "corpus_text_document")
        for name, wrong in (("one", 0.02), ("two", 0.3)):
            codes = np.zeros(tokens.num_tokens, np.uint8)
            for document, text in enumerate(texts):
                place = int(tokens.starts[document])
                for line, words in enumerate(text.split("\n")):
                    size = len(words.encode()) + 1
                    if ((document, line) in abuse) != (generator.random() < wrong):
                        codes[place : place + size - 1] = 1
                    place += size
            write_mask(folder / name, tokens, codes)
        found = Audited(folder, abuse)
        run("audit-mask", *found.options(), "--output", found.audit)
    return found
