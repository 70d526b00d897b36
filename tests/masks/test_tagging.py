"""Tags before spans: where they stand, which of the two, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.data.sidecar import PENALTIES, SCORES
from ifguide.data.text.bpe import train_bpe
from ifguide.data.text.tokenizers import Tokenizer, build_tokenizer
from ifguide.errors import InputError, MismatchError
from ifguide.masks.tagging import TagOptions, build_tags
from ifguide.system.files import write_jsonl

TEXTS = ["a good line\nsome awful words\nlast", "\n", "one awful line", "fine\n"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenDataset, Tokenizer]:
    folder = tmp_path_factory.mktemp("tags")
    train_bpe(TEXTS * 5, 300, folder / "t.json", ["<|good|>", "<|bad|>"])
    write_jsonl(folder / "c.jsonl", [{"text": text} for text in TEXTS])
    preprocess([folder / "c.jsonl"], folder / "c", "HFTokenizer", folder / "t.json",
               options=PreprocessOptions(append_eod=True))  # fmt: skip
    return TokenDataset.open(folder / "c_text_document"), build_tokenizer("HFTokenizer", folder / "t.json")


@pytest.fixture(scope="module")
def scores(data: tuple[TokenDataset, Tokenizer]) -> str:
    """Each token of a line with "awful" has 0.75, all others 0.25: as a classifier of lines scores."""
    tokens, tokenizer = data
    values = np.full(tokens.num_tokens, 0.25, np.float32)
    for number, text in enumerate(TEXTS):
        at = int(tokens.starts[number])
        for line in text.splitlines(keepends=True):
            size = len(tokenizer.bare(line))
            values[at : at + size] = 0.75 if "awful" in line else 0.25
            at += size
    prefix = str(Path(tokens.prefix).with_name("scores"))
    write_aligned(prefix, tokens, values, np.float32, {"scorer": {"name": "test"}})
    return prefix


def tagged(tokens: TokenDataset, tokenizer: Tokenizer) -> list[str]:
    return [
        b"".join(tokenizer.token_bytes(int(one)) for one in tokens.document(number)).decode()
        for number in range(tokens.num_documents)
    ]


def test_every_line_has_its_tag(data: tuple[TokenDataset, Tokenizer], scores: str, tmp_path: Path) -> None:
    tokens, tokenizer = data
    found = build_tags(scores, tmp_path / "p", mask_output=tmp_path / "m")
    eod, good, bad = "<|endoftext|>", "<|good|>", "<|bad|>"
    assert tagged(TokenDataset.open(tmp_path / "p"), tokenizer) == [
        f"{good}a good line\n{bad}some awful words\n{good}last{eod}",
        f"{good}\n{eod}",
        f"{bad}one awful line{eod}",
        f"{good}fine\n{eod}",
    ]
    assert (found["spans"], found["bad"], found["threshold"]) == (6, 2, 0.5)
    whole = TokenDataset.open(tmp_path / "p")
    assert found["tokens"] == whole.num_tokens == tokens.num_tokens + 6
    mask = load_aligned(tmp_path / "m", whole, PENALTIES)
    ids = [tokenizer.token_id(name) for name in (good, bad)]
    assert np.array_equal(np.asarray(mask.values) == 1, np.isin(np.asarray(whole.tokens), ids))


def test_what_belongs_to_the_plain_tokens_is_refused_for_the_tagged(scores: str, tmp_path: Path) -> None:
    build_tags(scores, tmp_path / "p")
    with pytest.raises(MismatchError):
        load_aligned(scores, TokenDataset.open(tmp_path / "p"), SCORES)


def test_spare_ids_and_a_threshold(data: tuple[TokenDataset, Tokenizer], scores: str, tmp_path: Path) -> None:
    tokens, _ = data
    found = build_tags(scores, tmp_path / "p", TagOptions(threshold=0.9, good="350", bad="351"))
    assert found["bad"] == 0 and found["ids"] == {"good": 350, "bad": 351}
    plain = np.asarray(TokenDataset.open(tmp_path / "p").tokens)
    assert 351 not in plain and np.array_equal(plain[plain != 350], np.asarray(tokens.tokens))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (TagOptions(good="<|nice|>"), "has no such token"),
        (TagOptions(good="<|bad|>"), "could not tell them apart"),
        (TagOptions(bad="<|endoftext|>"), "ends documents"),
        (TagOptions(bad="70000"), "does not fit into uint16"),
    ],
)
def test_tags_that_cannot_be_meant(options: TagOptions, fault: str, scores: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=fault):
        build_tags(scores, tmp_path / "p", options)
    assert not list(tmp_path.iterdir())


def test_influence_has_no_threshold_of_its_own(data: tuple[TokenDataset, Tokenizer], tmp_path: Path) -> None:
    tokens, _ = data
    write_aligned(tmp_path / "s", tokens, np.zeros(tokens.num_tokens, np.float32), np.float32, {})
    with pytest.raises(InputError, match="give --threshold"):
        build_tags(tmp_path / "s", tmp_path / "p")


def test_the_command(scores: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build-tags", "--scores", scores, "--output", str(tmp_path / "p"), "--mask-output", str(tmp_path / "m")]
    assert main(command) == 0
    assert "2 of 6 spans are bad" in capsys.readouterr().out
    assert main(command) == 0 and "nothing to do" in capsys.readouterr().out
