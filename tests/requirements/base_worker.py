"""Everything that needs no torch, in an environment of numpy and PyYAML: run by `test_pythons`, in the current folder.

Prints one line of JSON: what each command answered, and the digests of what was written.
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np

import ifguide_patch
import ifguide_patch.check
from ifguide.cli import main
from ifguide.data.aligned import write_aligned
from ifguide.data.indexed import TokenDataset, write_index
from ifguide.data.passages.boundaries import write_boundaries
from ifguide.data.text.reader import TextReader
from ifguide.data.text.tokenizers import CharLevelTokenizer

TEXTS = ["you are a fool", "the quiet garden", "", "rubbish, all of it", "naïve café; 日本語"]


def answer(*words: str) -> dict:
    """What a command that must succeed prints under ``--json``."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main([*words, "--json"])
    if code:
        raise SystemExit(f"{words[0]}: exit code {code}")
    return json.loads(printed.getvalue())


def told(*words: str) -> str:
    """What a command that must succeed prints for a person."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(list(words))
    if code:
        raise SystemExit(f"{words[0]}: exit code {code}")
    return printed.getvalue()


def tokenise(name: str, texts: list[str]) -> TokenDataset:
    """Characters as bytes, each text ended by token 0 (`preprocess` needs more than the base install)."""
    documents = [[*text.encode(), 0] for text in texts]
    lengths = np.array([len(document) for document in documents])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    np.concatenate(documents).astype(np.uint16).tofile(f"{name}.bin")
    write_index(Path(f"{name}.idx"), np.uint16, lengths, starts, np.arange(len(lengths) + 1))
    return TokenDataset.open(name)


def work() -> dict:
    found = {}
    for name, texts in (("a", TEXTS[:3]), ("b", TEXTS[3:])):
        tokens = tokenise(name, texts)
        # exact in float32 under every numpy
        values = ((np.arange(tokens.num_tokens) * 37 % 101 - 50) / 64).astype(np.float32)
        write_aligned(f"{name}_scores", tokens, values, np.float32, {"eod": 0})
    tokenise("ab", TEXTS)
    found["build-mask"] = answer(
        "build-mask", "--scores", "a_scores", "b_scores", "--output", "a_mask", "b_mask",
        "--max-fraction", "0.2", "--threshold-quantile", "0.8", "--unit-tokens", "16", "--include-eod",
    )["selected"]  # fmt: skip
    # boundaries are made with a tokenizer, once; from then on numpy suffices
    write_boundaries(TokenDataset.open("a"), TextReader(CharLevelTokenizer()))
    for span in ("line", "sentence"):
        found[span] = answer(
            "build-mask", "--scores", "a_scores", "--output", f"a_{span}", "--span", span, "--max-fraction", "1"
        )["selected"]  # fmt: skip
    # a mask made elsewhere: the same codes without our sidecar
    for suffix in ("bin", "idx"):
        Path(f"foreign.{suffix}").write_bytes(Path(f"a_mask.{suffix}").read_bytes())
    answer("import-mask", "--data", "a", "--mask", "foreign", "--encoding", "binary")
    for option, kind in (("--masks", "mask"), ("--scores", "scores")):
        answer("merge-masks", option, f"a_{kind}", f"b_{kind}", "--data", "ab", "--output", f"ab_{kind}")
    found["verify"] = answer(
        "verify", "--data", "ab", "--mask", "ab_mask", "--scores", "ab_scores", "--vocab-size", "256"
    )["sound"]
    found["provenance"] = bool(answer("provenance", "ab_mask"))
    files = ["--data", "ab", "--mask", "ab_mask", "--scores", "ab_scores", "--tokenizer-type", "CharLevelTokenizer"]
    found["inspect"] = told("inspect", *files, "--top", "5")
    told("inspect", *files, "--top", "5", "--html", "page.html")
    found["mask-stats"] = told("mask-stats", "--mask", "ab_mask", "--data", "ab")
    # the doctor finds the base install sound for what it can do, and says what it cannot
    doctor = answer("doctor", "--verb", "doctor")
    found["doctor"] = doctor["faults"]
    found["written"] = {
        name: hashlib.sha256(Path(name).read_bytes()).hexdigest()
        for name in (
            "ab.bin",
            "ab_mask.bin",
            "ab_mask.idx",
            "ab_scores.bin",
            "foreign.bin",
            "a.spans.bin",
            "a_line.bin",
        )
    }
    return found


if __name__ == "__main__":
    result = work()
    heavy = [name for name in ("torch", "transformers", "matplotlib") if importlib.util.find_spec(name)]
    print(json.dumps({"python": sys.version_info[:2], "patch": ifguide_patch.__name__, "heavy": heavy, **result}))
