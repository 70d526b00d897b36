"""Spans and what masks select in them, against a plain loop over the tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ifguide.data.aligned import load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.text.reader import TextReader
from ifguide.data.text.tokenizers import CharLevelTokenizer
from ifguide.errors import InputError
from ifguide.inspection import spans as module
from ifguide.inspection.spans import SpanWalk, parse_span
from tests.support.datasets import write_mask, write_tokens

TEXTS = ["one\ntwo lines", "", "\n\nends with one\n", "Who? Me. No", "\n"]


def literal(tokens: TokenDataset, codes: list[np.ndarray], kind: str) -> list[tuple[int, int, int, int, list[int]]]:
    """(document, begin, end, tokens without EOD, selected ones of each mask) of every span that has a token."""
    found = []
    for document in range(tokens.num_documents):
        begin, last = int(tokens.starts[document]), int(tokens.starts[document + 1])
        first = begin
        for at in range(begin, last):
            token, after = int(tokens.tokens[at]), int(tokens.tokens[at + 1]) if at + 1 < last else 0
            is_end = at == last - 1 or token in (0, 10)
            if kind == "sentence":
                is_end |= chr(token) in ".?" and chr(after) in " \n\0"
            if kind == "window":
                is_end = at == last - 1 or (at - begin) % 4 == 3
            if not is_end:
                continue
            own = [place for place in range(first, at + 1) if tokens.tokens[place] != 0]
            if own:
                found.append((document, first, at + 1, len(own), [int((code[own] > 0).sum()) for code in codes]))
            first = at + 1
    return found


@pytest.mark.parametrize("span", ["line", "sentence", "window:4"])
@pytest.mark.parametrize("chunk", [1, 9, 1 << 18])
def test_spans_are_those_of_a_plain_loop(tmp_path: Path, monkeypatch, span: str, chunk: int) -> None:
    monkeypatch.setattr(module, "_CHUNK_TOKENS", chunk)
    tokenizer = {"type": "CharLevelTokenizer", "eod": 0, "fingerprint": CharLevelTokenizer().fingerprint}
    tokens = write_tokens(tmp_path / "d", [[*text.encode(), 0] for text in TEXTS], tokenizer=tokenizer)
    generator = np.random.default_rng(0)
    codes = [(generator.random(tokens.num_tokens) < share).astype(np.uint8) for share in (0.2, 0.6)]
    for name, code in zip("ab", codes):
        write_mask(tmp_path / name, tokens, code)
    masks = [load_aligned(tmp_path / name, tokens, "penalties") for name in "ab"]
    walk = SpanWalk(tokens, masks, parse_span(span), TextReader.of_data(tmp_path / "d"))
    found = []
    for piece, ids, begin in walk("try"):
        assert ids.tolist() == tokens.tokens[begin : begin + len(ids)].tolist()
        found += [
            (int(document), int(first), int(end), int(size), selected.tolist())
            for document, first, end, size, selected in zip(
                piece.documents, piece.begins, piece.ends, piece.sizes, piece.selected.T
            )
        ]
    assert found == literal(tokens, codes, span.partition(":")[0])


@pytest.mark.parametrize("text", ["token", "window", "window:0", "paragraph"])
def test_no_span(text: str) -> None:
    with pytest.raises(InputError, match="--span"):
        parse_span(text)
