"""Scores moved between tokenizations, against a loop over single bytes; and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ifguide.cli import main
from ifguide.data import transfer
from ifguide.data.aligned import load_aligned, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.data.sidecar import SCORES, read_sidecar
from ifguide.data.text.bpe import train_bpe
from ifguide.data.text.spans import Speller, TextDiffers, align, move
from ifguide.data.text.tokenizers import Tokenizer, build_tokenizer
from ifguide.errors import ConfigError
from ifguide.inspection.lineage import trace

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Schöne Grüße, 世界 and 😀! 😀",
    " a space before,  two inside, one after ",
    "lines\n\tand\r\ntabs; 'quotes' don't stop",
    "x",
]
NAMES = ("bpe", "bpe_nfc", "gpt2_prefix", "char", "spm_bytes", "llama", "llama_old", "words")


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, str, Path | None]]:
    """name -> tokenizer, its NeoX type and its file: everything that spells text in a way of its own."""
    import sentencepiece
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    folder = tmp_path_factory.mktemp("tokenizers")
    train_bpe(TEXTS * 10, 300, folder / "bpe.json")
    for name, change in (
        ("bpe_nfc", lambda backend: setattr(backend, "normalizer", normalizers.NFC())),  # as Pythia's
        ("gpt2_prefix", lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.ByteLevel())),
    ):
        backend = Backend.from_file(str(folder / "bpe.json"))
        change(backend)
        backend.save(str(folder / f"{name}.json"))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 10), model_prefix=str(folder / "spm_bytes"), vocab_size=320, model_type="bpe",
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    # Llama's: byte fallback, a space before the text (the old form: before every stretch), <s> before each document
    for name in ("llama", "llama_old"):
        backend = Backend(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        if name == "llama":
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        backend.decoder = decoders.Sequence(pieces)
        special = ["<unk>", "<s>", "</s>"]
        trainer = trainers.BpeTrainer(
            vocab_size=340, special_tokens=special, show_progress=False, limit_alphabet=40,
            initial_alphabet=["▁"],
        )  # fmt: skip
        backend.train_from_iterator(TEXTS * 10, trainer)
        described = json.loads(backend.to_str())
        vocab = described["model"]["vocab"]
        vocab |= {f"<0x{byte:02X}>": len(vocab) + byte for byte in range(256)}
        (folder / f"{name}.json").write_text(json.dumps(described))
        backend = Backend.from_file(str(folder / f"{name}.json"))
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
        backend.save(str(folder / f"{name}.json"))
    # loses how many blanks there are, and where
    words = Backend(models.WordPiece({"<unk>": 0, "<|endoftext|>": 1, **_letters()}, unk_token="<unk>"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece(cleanup=False)
    words.add_special_tokens(["<|endoftext|>"])
    words.save(str(folder / "words.json"))
    found: dict[str, tuple[Tokenizer, str, Path | None]] = {
        "char": (build_tokenizer("CharLevelTokenizer", None), "CharLevelTokenizer", None),
        "spm_bytes": (
            build_tokenizer("SPMTokenizer", folder / "spm_bytes.model"), "SPMTokenizer", folder / "spm_bytes.model",
        ),
    }  # fmt: skip
    for path in folder.glob("*.json"):
        found[path.stem] = build_tokenizer("HFTokenizer", path), "HFTokenizer", path
    assert found.keys() == set(NAMES)
    return found


def _letters() -> dict[str, int]:
    letters = sorted({letter for text in TEXTS for letter in text if not letter.isspace()})
    return {piece: 2 + index for index, piece in enumerate(letters + [f"##{letter}" for letter in letters])}


def _moved(sides: list[tuple[Tokenizer, list[list[int]]]], scores: np.ndarray) -> tuple[np.ndarray, float]:
    """All documents at once."""
    spelled = [
        Speller(tokenizer).spell(np.array([i for ids in docs for i in ids]), _starts(docs)) for tokenizer, docs in sides
    ]
    source, target, _ = align(*spelled)
    return move(scores, source, target)


def _starts(documents: list[list[int]]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum([len(ids) for ids in documents])]).astype(np.int64)


def _literal(sides: list[tuple[Tokenizer, list[int]]], scores: list[float]) -> list[float]:
    """One document whose bytes agree but for spaces before it: each byte gets its share, each token takes its bytes'.
    A token without bytes gives to the byte that follows."""
    holders, frames = [], []
    for tokenizer, ids in sides:
        lead, tail = _frame(tokenizer, ids)
        frames.append((lead, tail))
        # (token, byte) of all bytes, in order
        holders.append(
            [(n, byte) for n, i in enumerate(ids) if n not in lead + tail for byte in tokenizer.token_bytes(i)]
        )
    while any(h and h[0][1] == 32 for h in holders) and [b for _, b in holders[0]] != [b for _, b in holders[1]]:
        longer = max(holders, key=len)
        assert longer[0][1] == 32
        del longer[0]
    assert [byte for _, byte in holders[0]] == [byte for _, byte in holders[1]]
    per_byte = [0.0] * len(holders[0])
    for n, score in enumerate(scores):
        own = [place for place, (token, _) in enumerate(holders[0]) if token == n]
        for place in own:
            per_byte[place] += score / len(own)
        if not own and n not in frames[0][0] + frames[0][1]:
            assert all(token > n for token, _ in holders[0]), "only spaces before the text are without bytes"
            per_byte[0] += score
    result = [0.0] * len(sides[1][1])
    for value, (token, _) in zip(per_byte, holders[1]):
        result[token] += value
    for ours, theirs in zip(*frames):
        if ours and theirs:
            result[theirs[0]] += scores[ours[0]]
    return result


texts = st.text(st.characters(codec="utf-8", exclude_characters="▁\x00"), min_size=1, max_size=30)
pieces = st.sampled_from([*TEXTS, " ", "  ", "\n", "é", "e\u0301", "ﬁ", "한", "😀", "a", "</s>", "<|endoftext|>", "½"])
documents = st.lists(texts | st.lists(pieces, min_size=1, max_size=5).map("".join), min_size=1, max_size=4)
lossless = st.sampled_from([name for name in NAMES if name != "words"])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents, lossless, lossless, st.booleans(), st.randoms(use_true_random=False))
def test_every_document_keeps_its_sum(tokenizers, written, first, second, with_eod, random) -> None:
    """There and back again, whatever the text; only BOS and EOD that the other side lacks are left out."""
    # a tokenizer that knows </s> or <|endoftext|> takes one at the end of a text for the document's end
    assume(not any(text.endswith(("</s>", "<|endoftext|>")) for text in written))
    sides = [(tokenizers[name][0], _encoded(tokenizers[name][0], written, with_eod)) for name in (first, second)]
    together, starts = [], [_starts(docs) for _, docs in sides]
    scores = np.array([random.uniform(-1, 1) for ids in sides[0][1] for _ in ids])
    for n in range(len(written)):
        alone = [(tokenizer, [docs[n]]) for tokenizer, docs in sides]
        own = scores[starts[0][n] : starts[0][n + 1]]
        there, lost = _moved(alone, own)
        (heads, tails), (other_heads, other_tails) = (_frame(tokenizer, ids) for tokenizer, (ids,) in alone)
        missing = [own[heads].sum() * (not other_heads), own[tails].sum() * (not other_tails)]
        assert lost == pytest.approx(sum(missing), abs=1e-9)
        assert there.sum() + lost == pytest.approx(own.sum(), abs=1e-9)
        back, lost = _moved(alone[::-1], there)
        assert lost == 0 and back.sum() == pytest.approx(there.sum(), abs=1e-9)
        together.append(there)
    np.testing.assert_allclose(_moved(sides, scores)[0], np.concatenate(together), rtol=0, atol=1e-9)


def _encoded(tokenizer: Tokenizer, written: list[str], with_eod: bool) -> list[list[int]]:
    end = [tokenizer.eod] if with_eod and tokenizer.eod is not None else []
    return [[*tokenizer.encode(text), *end] for text in written]


def _frame(tokenizer: Tokenizer, ids: list[int]) -> tuple[list[int], list[int]]:
    """Places of BOS and of EOD."""
    return [0] * (ids[:1] in ([i] for i in tokenizer.encode(""))), [len(ids) - 1] * (ids[-1:] == [tokenizer.eod])


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents, st.sampled_from(NAMES[:1] + NAMES[2:6]), st.sampled_from(NAMES[:1] + NAMES[2:6]), st.booleans())
def test_it_is_the_loop_over_bytes(tokenizers, written, first, second, with_eod) -> None:
    assume(not any(mark in text for text in written for mark in ("</s>", "<|endoftext|>", "<s>", "<unk>")))
    sides = [(tokenizers[name][0], _encoded(tokenizers[name][0], written, with_eod)) for name in (first, second)]
    scores = np.random.default_rng(0).normal(size=sum(map(len, sides[0][1])))
    found, _ = _moved(sides, scores)
    starts = _starts(sides[0][1])
    expected: list[float] = []
    for n in range(len(written)):
        own = scores[starts[n] : starts[n + 1]].tolist()
        expected += _literal([(tokenizer, docs[n]) for tokenizer, docs in sides], own)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents, st.sampled_from(NAMES))
def test_the_same_tokens_keep_their_scores_to_the_bit(tokenizers, written, name) -> None:
    tokenizer = tokenizers[name][0]
    docs = [tokenizer.encode(text) for text in written]
    scores = np.random.default_rng(1).normal(size=sum(map(len, docs)))
    found, lost = _moved([(tokenizer, docs)] * 2, scores)
    assert lost == 0 and np.array_equal(found, scores)


def test_normalizers_and_lost_blanks_are_seen_through(tokenizers) -> None:
    """Decomposed accents against composed ones, and a tokenizer that forgets every blank."""
    text = "cafe\u0301  noir"
    sides = [(tokenizers[name][0], [tokenizers[name][0].encode(text)]) for name in ("char", "bpe_nfc")]
    source, target, reduced = align(*(Speller(t).spell(np.array(d[0]), _starts(d)) for t, d in sides))
    assert reduced == 1
    ids = sides[1][1][0]
    found, lost = move(np.arange(1.0, len(text.encode()) + 1), source, target)
    # the e has score 4, the bytes of its accent 5 and 6
    assert found.sum() == pytest.approx(sum(range(1, 13))) and lost == 0
    composed = [n for n, index in enumerate(ids) if not sides[1][0].token_bytes(index).isascii()]
    assert found[composed].sum() == pytest.approx(4 + 5 + 6)
    for written in TEXTS:
        sides = [(tokenizers[name][0], [tokenizers[name][0].encode(written)]) for name in ("char", "words")]
        found, lost = _moved(sides, np.ones(len(sides[0][1][0])))
        assert lost == 0 and found.sum() == pytest.approx(len(written.encode()))


def test_another_text_is_told_with_its_place(tokenizers) -> None:
    tokenizer = tokenizers["char"][0]

    def compare(*pair: str) -> str:
        with pytest.raises(TextDiffers) as caught:
            align(*(Speller(tokenizer).spell(np.array(ids), _starts([ids])) for ids in map(tokenizer.encode, pair)))
        return caught.value.place

    assert compare("a cafe\u0301 is open", "a caf\u00e9  is shut") == "after 'a cafe\u0301 is ' come 'open' and 'shut'"
    assert compare("yes", "no") == "they begin with 'yes' and 'no'"
    assert compare("one two", "one") == "after 'one ' come 'two' and its end"


@pytest.fixture
def corpora(tmp_path, tokenizers) -> Callable[[str], Path]:
    """name of a tokenizer -> prefix of the corpus tokenized by it."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS * 3))

    def make(name: str, source: Path = corpus) -> Path:
        tokenizer, kind, path = tokenizers[name]
        prefix = tmp_path / f"{source.stem}_{name}"
        preprocess(
            [source],
            prefix,
            kind,
            path,
            options=PreprocessOptions(append_eod=tokenizer.eod is not None),
            progress=False,
        )
        return Path(f"{prefix}_text_document")

    return make


def _scored(prefix: Path, seed: int = 0) -> tuple[Path, np.ndarray]:
    tokens = TokenDataset.open(prefix)
    values = np.random.default_rng(seed).normal(size=tokens.num_tokens).astype(np.float32)
    output = prefix.with_name(f"{prefix.name}_scores")
    write_aligned(output, tokens, values, np.float32, {})
    return output, values


def test_the_command_makes_scores_that_masks_are_built_from(tmp_path, corpora, capsys, monkeypatch) -> None:
    """A proxy with a byte-level tokenizer and EOD, a model with Llama's tokenizer."""
    source, target = corpora("bpe"), corpora("llama")
    scores, values = _scored(source)
    output = tmp_path / "moved"
    command = ["transfer-scores", "--scores", scores, "--data", source, "--to-data", target, "--output", output]
    assert main([*map(str, command), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    tokens = [TokenDataset.open(prefix) for prefix in (source, target)]
    moved = load_aligned(output, tokens[1], SCORES)
    starts = [data.starts for data in tokens]
    lost = 0.0
    for n in range(tokens[0].num_documents):
        own = values[starts[0][n] : starts[0][n + 1]].astype(np.float64)
        lost += own[-1]  # of EOD, which the target lacks
        there = moved.values[starts[1][n] : starts[1][n + 1]]
        assert there[0] == 0, "<s> has no counterpart"
        assert there.sum(dtype=np.float64) == pytest.approx(own[:-1].sum(), abs=1e-5)
    assert result["left_out"] == pytest.approx(lost) and read_sidecar(output)["counts"]["left_out"] == pytest.approx(
        lost
    )
    assert result["moved"] + result["left_out"] == pytest.approx(values.sum(dtype=np.float64), abs=1e-5)
    assert result["tokens"] == [data.num_tokens for data in tokens]
    assert main(["build-mask", "--scores", str(output), "--output", str(tmp_path / "mask")]) == 0
    behind = {node.path for node in trace(tmp_path / "mask").walk()}
    assert {str(path) for path in (scores, source, target, tmp_path / "corpus.jsonl")} <= behind
    monkeypatch.setattr(transfer, "_CHUNK_TOKENS", 7)
    command[-1] = tmp_path / "by_document"
    assert main([*map(str, command)]) == 0
    np.testing.assert_allclose(load_aligned(command[-1], tokens[1], SCORES).values, moved.values, rtol=1e-6, atol=1e-6)


def test_moved_scores_keep_the_plan_of_a_cascade_and_not_its_units(tmp_path, corpora) -> None:
    source, target = corpora("bpe"), corpora("llama")
    tokens = TokenDataset.open(source)
    record = {"exact_units": "of other tokens", "unit_tokens": 32, "report": {"settings": {"keep": 0.1}}}
    write_aligned(tmp_path / "s", tokens, np.ones(tokens.num_tokens, np.float32), np.float32, {"cascade": record})
    transfer.transfer_scores(tmp_path / "s", source, target, tmp_path / "moved")
    assert read_sidecar(tmp_path / "moved")["cascade"] == {key: record[key] for key in ("unit_tokens", "report")}
    write_aligned(tmp_path / "s", tokens, np.ones(tokens.num_tokens, np.float32), np.float32, {})
    transfer.transfer_scores(tmp_path / "s", source, target, tmp_path / "moved")
    assert "cascade" not in read_sidecar(tmp_path / "moved")


def test_the_command_names_the_document_that_differs(tmp_path, corpora, capsys) -> None:
    other = tmp_path / "other.jsonl"
    rows = [{"text": text} for text in TEXTS * 3]
    rows[6]["text"] = rows[6]["text"].replace("世界", "world")
    other.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source, target = corpora("bpe"), corpora("spm_bytes", other)
    scores, _ = _scored(source)
    before = sorted(path.name for path in tmp_path.iterdir())
    command = ["transfer-scores", "--scores", scores, "--data", source, "--to-data", target, "--output", tmp_path / "x"]
    assert main([*map(str, command)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "document 6" in line]
    assert "come '世界 and 😀! 😀' and 'world and 😀! 😀'" in line and "the same documents" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_all_faults_of_the_arguments_at_once(tmp_path, corpora, tokenizers) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "one"}\n')
    source, short = corpora("bpe"), corpora("char", other)
    scores, _ = _scored(source)
    with pytest.raises(ConfigError) as caught:
        transfer.transfer_scores(
            scores, source, short, tmp_path / "absent/x",
            transfer.TokenizerChoice("SPMTokenizer"), transfer.TokenizerChoice("HFTokenizer", tokenizers["bpe"][2]),
        )  # fmt: skip
    assert [fault.split("; ")[0] for fault in caught.value.faults] == [
        "SPMTokenizer needs a vocab file (--from-vocab-file)",
        next(fault for fault in caught.value.faults if "was made with another tokenizer" in fault),
        f"--output {tmp_path / 'absent/x'}: folder {tmp_path / 'absent'} does not exist",
        f"{short} has 1 documents, {source} 15",
    ]
    with pytest.raises(ConfigError, match="made for other data than") as caught:
        transfer.transfer_scores(scores, short, short, short)
    assert "is the name of an input" in caught.value.faults[-1]
    with pytest.raises(ConfigError, match="--to-tokenizer-type and --to-vocab-file"):
        short.with_name(f"{short.name}.json").unlink()
        transfer.transfer_scores(scores, source, short, tmp_path / "x")
