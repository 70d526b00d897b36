"""The reference: asked once and remembered, kept for a continued run, named by a folder; and LoRA, where it is free."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ifguide.data.text.reader import TextReader
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.engine.arguments import TrainConfig
from ifguide.engine.checkpoint import export
from ifguide.engine.model import build_model
from ifguide.engine.pairs import reference as module
from ifguide.engine.pairs.reading import read_pairs
from ifguide.engine.pairs.reference import Frozen, reference_log_probs
from ifguide.engine.settings import resolve
from tests.engine.pairs.test_runs import keys, same
from tests.engine.test_run import paths
from tests.engine.tiny import MODEL, losses

Train = Callable[..., int]


def model(corpus: Path, seed: int) -> Any:
    settings = resolve(TrainConfig(**{**MODEL, **paths(corpus), "seed": seed}))
    tokenizer = build_tokenizer("CharLevelTokenizer", None)
    return build_model(settings, tokenizer.vocab_size, tokenizer.eod)


def test_log_probs_are_those_of_each_text_alone_and_are_remembered(
    corpus: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tokenizer = build_tokenizer("CharLevelTokenizer", None)
    read = read_pairs(str(pairs), TextReader(tokenizer), 16, 0)
    plain = model(corpus, 3)
    values = reference_log_probs(Frozen(plain), read, tokenizer, "cpu")
    with torch.no_grad():
        for number in range(len(read)):
            for column, text in enumerate((read.chosen[number], read.rejected[number])):
                tokens = torch.from_numpy(text.tokens)
                chances = plain(input_ids=tokens[None]).logits[0].double().log_softmax(-1)
                total = sum(chances[at - 1, tokens[at]].item() for at in text.counts.nonzero()[0])
                assert values[number, column].item() == pytest.approx(total, rel=1e-6)

    def again(*arguments: Any) -> None:
        raise AssertionError("the reference was asked again")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_compute", again)
        assert torch.equal(reference_log_probs(Frozen(plain), read, tokenizer, "cpu"), values)
        others = {
            "other weights": (Frozen(model(corpus, 4)), read),
            "other pairs": (Frozen(plain), read_pairs(_shorter(pairs, tmp_path), TextReader(tokenizer), 16, 0)),
        }
        for other in others.values():
            with pytest.raises(AssertionError, match="asked again"):
                reference_log_probs(*other, tokenizer, "cpu")


def _shorter(pairs: Path, folder: Path) -> str:
    path = folder / "shorter.jsonl"
    path.write_text("".join(pairs.read_text().splitlines(keepends=True)[:-1]))
    return str(path)


def test_a_named_reference_counts(train: Train, corpus: Path, pairs: Path, tmp_path: Path) -> None:
    tokenizer = build_tokenizer("CharLevelTokenizer", None)
    export(model(corpus, 3), tokenizer, tmp_path / "other")
    for name in ("dpo", "repo"):
        save = tmp_path / name
        assert train(**keys(corpus, pairs, name, reference=str(tmp_path / "other"), save=str(save))) == 0
        assert not (save / "reference").exists()
        number, at_itself = {"dpo": ("objective", math.log(2)), "repo": ("retain", 0.0)}[name]
        assert abs(losses(save, number)[0] - at_itself) > 1e-3


def test_a_reference_of_another_shape_is_refused(
    train: Train, corpus: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.support.tiny_models import tiny_neox

    tiny_neox().save_pretrained(tmp_path / "other")
    assert train(**keys(corpus, pairs, "dpo", reference=str(tmp_path / "other"))) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"train: reference: {tmp_path / 'other'} is of another architecture:")
    assert error.count("\n") == 1


def test_another_objective_does_not_continue(
    train: Train, corpus: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save = str(tmp_path / "out")
    assert train(**paths(corpus, save=save)) == 0
    assert train(**keys(corpus, pairs, "dpo", load=save, train_iters=9)) == 2
    assert "is of a run with objective lm, not dpo; set finetune: true to start from its weights" in (
        capsys.readouterr().err
    )
    assert train(**keys(corpus, pairs, "dpo", load=save, finetune=True, save=str(tmp_path / "dpo"))) == 0
    (tmp_path / "dpo" / "reference" / "config.json").unlink()
    capsys.readouterr()
    assert train(**keys(corpus, pairs, "dpo", load=str(tmp_path / "dpo"), train_iters=9)) == 2
    assert "holds no folder reference with the weights that its run started from" in capsys.readouterr().err


@pytest.fixture
def peft() -> None:
    pytest.importorskip("peft", reason="peft is not installed (extra lora)")


@pytest.mark.parametrize("name", ["dpo", "repo"])
def test_lora_trains_adapters_alone_and_resumes(
    peft: None, train: Train, corpus: Path, pairs: Path, tmp_path: Path, name: str
) -> None:
    from safetensors.torch import load_file

    start = tmp_path / "start"
    export(model(corpus, 3), build_tokenizer("CharLevelTokenizer", None), start)
    common = keys(corpus, pairs, name, lora_rank=2, lora_dropout=0.1)
    begins = {"load": str(start), "finetune": True}
    assert train(**common, **begins, save=str(tmp_path / "whole")) == 0
    parts = {"save": str(tmp_path / "parts")}
    assert train(**common, **begins, **parts, exit_interval=4) == 0
    assert train(**common, **parts, load=str(tmp_path / "parts")) == 0
    assert same(tmp_path / "parts", tmp_path / "whole")
    assert losses(tmp_path / "parts", "objective") == losses(tmp_path / "whole", "objective")
    assert not (tmp_path / "whole" / "reference").exists()
    if name == "dpo":
        assert losses(tmp_path / "whole", "objective")[0] == pytest.approx(math.log(2), abs=0.02)
    before, after = load_file(start / "model.safetensors"), load_file(tmp_path / "whole/hf/model.safetensors")
    assert before.keys() == after.keys()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    linear = {
        key for key in before if key.endswith(("query_key_value.weight", "dense.weight", "to_4h.weight", "to_h.weight"))
    }
    assert changed == linear


def test_the_merged_export_is_the_adapted_model(peft: None, corpus: Path) -> None:
    from ifguide.models.adapters import add_adapters, merged, unadapted_state

    plain = model(corpus, 3).eval()
    tokens = torch.arange(12)[None] + 97
    before, weights = plain(input_ids=tokens).logits, {k: v.clone() for k, v in plain.state_dict().items()}
    adapted = add_adapters(plain, 2, 16, 0.0, 0).eval()
    assert torch.equal(adapted(input_ids=tokens).logits, before)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    for name, parameter in adapted.named_parameters():
        if name in trained:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    after = adapted(input_ids=tokens).logits
    assert (after - before).abs().max() > 1e-2
    torch.testing.assert_close(merged(adapted)(input_ids=tokens).logits, after, rtol=1e-4, atol=1e-5)
    with adapted.disable_adapter():
        assert torch.equal(adapted(input_ids=tokens).logits, before)
    kept = unadapted_state(adapted)
    assert sorted(map(tuple, (v.shape for v in kept.values()))) == sorted(
        map(tuple, (v.shape for v in weights.values()))
    )


def test_lora_without_peft_says_what_to_install(
    train: Train, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    assert train(**paths(corpus, lora_rank=2)) == 2
    assert capsys.readouterr().err == (
        "train: LoRA needs the package peft, not installed here; install with: pip install 'gpt-neox-ifguide[lora]'\n"
    )
