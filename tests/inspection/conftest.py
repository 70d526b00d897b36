"""A real pipeline, run by its commands: hostile text -> tokens -> factors -> scores -> mask."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ifguide import cli
from tests.influence.conftest import save_tiny_model
from tests.support.folders import write_rows

HOSTILE = [
    "a </script><script>alert(1)</script> <img src=x onerror=alert(2)> <!-- not a comment",
    "line separators \u2028 and \u2029, a null \x00, an escape \x1b[31mred\x1b[0m, a bell \x07",
    "right to left \u202etxet\u202c, isolates \u2067abc\u2069, zero\u200bwidth, \ufeffmark",
    "日本語の文書 and 😀 emoji, naïve café; שלום; العربية",
    "&amp; &lt;b&gt; {{ 7 * 7 }} ${1} `code` 'single' \"double\" \\ backslash",
    "]]> <style>body{display:none}</style> javascript:alert(3)",
    "",
    "\n\n  leading and trailing space  \n\tand a tab",
    "you are a buffoon and your code is rubbish",
]


def run(*words: Any) -> None:
    """A command that must succeed."""
    assert cli.main([str(word) for word in words]) == 0


@dataclass(frozen=True)
class Pipeline:
    """Where the pipeline's products are."""

    folder: Path

    @property
    def data(self) -> str:
        return str(self.folder / "corpus_text_document")

    @property
    def scores(self) -> str:
        return str(self.folder / "scores")

    @property
    def mask(self) -> str:
        return str(self.folder / "mask")

    @property
    def factors(self) -> str:
        return str(self.folder / "factors")


def build_pipeline(folder: Path) -> Pipeline:
    """The commands with relative paths and abbreviated options, as people type them."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        write_rows(folder / "corpus.jsonl", [{"text": text} for text in HOSTILE])
        save_tiny_model(folder / "model", "neox")
        write_rows(folder / "toxic.jsonl", [{"prompt": "you", "completion": " bad"}])
        write_rows(folder / "safe.jsonl", [{"prompt": "you", "completion": " dear"}])
        run("preprocess", "--input", "corpus.jsonl", "--tokenizer-type", "CharLevelTokenizer",
            "--output-prefix", "corpus", "--append-eod")  # fmt: skip
        run("fit-factors", "--model", "model", "--data=corpus_text_document", "--output", "factors", "--strat", "kfac")
        run("score", "--model", "./model", "--data", "corpus_text_document", "--factors", "factors",
            "--toxic-queries", "toxic.jsonl", "--safe-queries", "safe.jsonl", "--output", "scores")  # fmt: skip
        run("build-mask", "--scores", "scores", "--output", "mask", "--max-fraction", "0.2", "--threshold-q", "0.8")
    finally:
        os.chdir(before)
    return Pipeline(folder)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Read by every test and changed by none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "inspection-cache"))
        patch.setenv("OMP_NUM_THREADS", "1")
        return build_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "inspection-cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
