from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ifguide import cli
from ifguide.data.sources.sampling import is_drawn
from ifguide.data.text.reader import TextReader, folder_tokenizer
from ifguide.data.tokenizer_training import TokenizerOptions, tokenizer_paths, train_tokenizer
from ifguide.errors import InputError

pytest.importorskip("tokenizers")

WORDS = ["fox", "jumps", "over", "Grüße", "世界", "😀", "don't", "  spaces", "\ttab"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    drawn = random.Random(0)
    path = tmp_path / "corpus.jsonl"
    texts = (" ".join(drawn.choices(WORDS, k=drawn.randint(1, 30))) for _ in range(300))
    path.write_text("".join(json.dumps({"text": text, "meta": {"text": "inner"}}) + "\n" for text in texts))
    return path


def command(corpus: Path, output: Path, *more: str) -> list[str]:
    return ["train-tokenizer", "--input", str(corpus), "--vocab-size", "300", "--output", str(output), *more]


def test_the_folder_is_a_tokenizer_of_neox_and_of_hugging_face(corpus: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "made" / "t"
    assert cli.main(command(corpus, out, "--special-tokens", "<|user|>")) == 0
    shown = capsys.readouterr()
    assert f'"vocab_file": "{out}/tokenizer.json",' in shown.out and "300 tokens, trained on 300 texts" in shown.out
    assert "read: 100%" in shown.err and "bytes/s" in shown.err
    assert sorted(path.name for path in out.iterdir()) == ["run.json", "tokenizer.json", "tokenizer_config.json"]
    tokenizer = folder_tokenizer(out)
    assert tokenizer is not None and tokenizer.vocab_size == 300
    names = ["<|endoftext|>", "<|padding|>", "<|user|>"]
    assert [tokenizer.token_id(name) for name in names] == [0, 1, 2] and tokenizer.eod == 0
    for text in (" ".join(WORDS), "never seen: ж\r\n\0 \u2028", ""):
        assert tokenizer.decode(tokenizer.bare(text)) == text
    assert len(tokenizer.bare("jumps over")) < len("jumps over")
    record = json.loads((out / "run.json").read_text())
    assert record["command"][:2] == ["ifguide", "train-tokenizer"]
    assert record["inputs"][0]["path"] == str(corpus) and record["parameters"]["min_frequency"] == 2
    assert record["trained"]["fingerprint"] == tokenizer.fingerprint and record["result"]["texts"] == 300


def test_transformers_reads_the_folder(corpus: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    train_tokenizer([corpus], tmp_path / "t", TokenizerOptions(vocab_size=300))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "t")
    ours = TextReader.from_files("HFTokenizer", tmp_path / "t")
    assert theirs("Grüße over 世界").input_ids == ours.encode("Grüße over 世界") and theirs.eos_token == "<|endoftext|>"


def test_the_same_texts_give_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    """In other processes, on other numbers of threads, in another order, and from parts."""
    lines = corpus.read_text().splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    (tmp_path / "parts").mkdir()
    for part in range(3):
        (tmp_path / "parts" / f"{part}.jsonl").write_text("".join(lines[part::3]))
    found = set()
    for number, (given, threads) in enumerate(((corpus, "1"), (corpus, "3"), (tmp_path / "parts", "2"))):
        words = command(given, tmp_path / f"{number}.json")
        variables = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": str(number)}
        subprocess.run([sys.executable, "-m", "ifguide.cli", *words], env=variables, check=True, capture_output=True)
        found.add((tmp_path / f"{number}.json").read_bytes())
    assert len(found) == 1
    assert tokenizer_paths(tmp_path / "0.json")[1].is_file() and (tmp_path / "0.run.json").is_file()


def test_what_is_read(corpus: Path, tmp_path: Path) -> None:
    options = TokenizerOptions(vocab_size=280, sample=0.5, json_keys=["text", "meta.text"])
    result = train_tokenizer([corpus], tmp_path / "t", options)
    drawn = sum(is_drawn(number, 0.5) for number in range(300))
    assert (result["texts"], result["left_out"]) == (drawn, 300 - drawn) and 100 < drawn < 200
    none = train_tokenizer([corpus], tmp_path / "u.json", TokenizerOptions(vocab_size=100_000, min_frequency=10_000))
    more = train_tokenizer([corpus], tmp_path / "v.json", TokenizerOptions(vocab_size=100_000))
    assert none["vocab_size"] == 258 < more["vocab_size"] < 100_000


FAULTS = {
    "too small": (["--vocab-size", "257"], "--vocab-size 257: at least 258, the 256 bytes and 2 special tokens"),
    "twice": (["--special-tokens", "<|padding|>"], "--special-tokens <|padding|>: is one already"),
    "no share": (["--sample", "0"], "--sample 0.0: must be above 0"),
    "no count": (["--min-frequency", "0"], "--min-frequency 0: must be at least 1"),
    "other key": (["--jsonl-keys", "body"], "no text in"),
    "absent": (["--input", "absent.jsonl"], "input absent.jsonl does not exist"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["t", "t.json", "made/t"])
def test_bad_input_is_one_line_and_nothing_written(corpus: Path, tmp_path: Path, capsys, fault: str, name: str) -> None:
    more, says = FAULTS[fault]
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(command(corpus, tmp_path / name, *more)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ifguide train-tokenizer: ") and says in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bad_line_after_good_ones(corpus: Path, tmp_path: Path) -> None:
    with corpus.open("a") as stream:
        stream.write("nonsense\n")
    more = tmp_path / "more.jsonl"
    more.write_text("nonsense\n")
    with pytest.raises(InputError, match=f"input {more} line 1: not valid JSON .*; mend it, or use --skip-bad-lines"):
        train_tokenizer([corpus.parent / "corpus.jsonl", more][1:], tmp_path / "t", TokenizerOptions(vocab_size=300))
    with pytest.raises(InputError, match=f"input {corpus} line 301: not valid JSON"):
        train_tokenizer([corpus], tmp_path / "t", TokenizerOptions(vocab_size=300))
    assert not (tmp_path / "t" / "tokenizer.json").exists()
    options = TokenizerOptions(vocab_size=300, skip_bad_lines=True)
    assert train_tokenizer([corpus, more], tmp_path / "t", options)["bad_lines"] == 2
