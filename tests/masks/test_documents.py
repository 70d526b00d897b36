"""Filters of whole documents by build-mask: what each removes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import read_sidecar
from ifguide.data.text.bpe import train_bpe
from ifguide.errors import InputError
from ifguide.masks import MaskOptions, build_mask
from ifguide.selection import SelectionSettings
from ifguide.system.files import write_jsonl

TEXTS = [f"document {n} says {'trash ' * (n % 4)}and no more of it{' at all' * n}" for n in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens of twelve documents, scores, and the tokenizer."""
    folder = tmp_path_factory.mktemp("documents")
    train_bpe(TEXTS * 3, 300, folder / "t.json")
    write_jsonl(folder / "c.jsonl", [{"text": text} for text in TEXTS])
    command = ["preprocess", "--input", str(folder / "c.jsonl"), "--tokenizer-type", "HFTokenizer", "--vocab-file",
               str(folder / "t.json"), "--output-prefix", str(folder / "c"), "--append-eod"]  # fmt: skip
    assert main(command) == 0
    tokens = TokenDataset.open(folder / "c_text_document")
    values = np.random.default_rng(4).normal(size=tokens.num_tokens).astype(np.float32)
    write_aligned(folder / "s", tokens, values, np.float32, {"run": {"toxic_queries": "a", "safe_queries": "b"}})
    write_aligned(folder / "toxic", tokens, values, np.float32, {"run": {"toxic_queries": "a"}})
    (folder / "words.txt").write_text("trash\n")
    return folder


@pytest.mark.parametrize("rank_by", ["sum", "mean", "scorer", "toxic", "words"])
def test_all_remove_as_much_as_the_budget_holds(folder: Path, tmp_path: Path, rank_by: str) -> None:
    command = ["build-mask", "--method", "document", "--rank-by", rank_by, "--max-fraction", "0.3"]
    command += ["--scores", str(folder / ("toxic" if rank_by == "toxic" else "s"))]
    if rank_by == "words":
        command += ["--wordlist", str(folder / "words.txt"), "--tokenizer-type", "HFTokenizer", "--vocab-file",
                    str(folder / "t.json")]  # fmt: skip
    assert main([*command, "--filtered-output", str(tmp_path / "left")]) == 0
    tokens, left = TokenDataset.open(folder / "c_text_document"), TokenDataset.open(tmp_path / "left")
    removed, budget = tokens.num_tokens - left.num_tokens, int(0.3 * tokens.num_tokens)
    kept = {bytes(np.asarray(left.document(number))) for number in range(left.num_documents)}
    gone = [n for n in range(12) if bytes(np.asarray(tokens.document(n))) not in kept]
    assert removed == sum(int(tokens.lengths[n]) for n in gone) and 0 < removed <= budget
    sidecar = read_sidecar(tmp_path / "left")
    assert sidecar["parameters"]["rank_by"] == rank_by
    if rank_by == "words":
        share = [text.count("trash") / int(tokens.lengths[n] - 1) for n, text in enumerate(TEXTS)]
        assert set(gone) == set(sorted(range(12), key=lambda n: -share[n])[: len(gone)])
    else:
        values = np.fromfile(f"{folder / 's'}.bin", np.float32)
        parts = [values[a : b - 1].astype(float) for a, b in zip(tokens.starts, tokens.starts[1:])]
        value = {"mean": np.mean, "scorer": np.max}.get(rank_by, np.sum)
        order = sorted(range(12), key=lambda n: -value(parts[n]))
        assert set(gone) == set(order[: len(gone)])
        assert budget < removed + int(tokens.lengths[order[len(gone)]])


def test_r_is_as_it_was(folder: Path, tmp_path: Path) -> None:
    settings = SelectionSettings(threshold_quantile=0.8, max_fraction=0.3)
    build_mask(folder / "s", tmp_path / "m", settings, MaskOptions(method="document"))
    assert "rank_by" not in read_sidecar(tmp_path / "m")["parameters"]


@pytest.mark.parametrize(
    ("options", "scores", "fault"),
    [
        (MaskOptions(method="document", rank_by="toxic"), "s", "was not scored along toxic queries alone"),
        (MaskOptions(rank_by="sum"), "s", "give --method document"),
        (MaskOptions(method="document", rank_by="words"), "s", "word list go together"),
    ],
)
def test_what_is_refused(options: MaskOptions, scores: str, fault: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=fault):
        build_mask(folder / scores, tmp_path / "m", SelectionSettings(), options)
    assert not list(tmp_path.iterdir())
