"""Dropping and hiding, against a literal loop in double precision over the plain text of the same samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ifguide.data.indexed import TokenDataset
from ifguide.data.text.tokenizers import build_tokenizer
from ifguide.engine.arguments import TrainConfig
from ifguide.engine.datasets import open_training_data, pack
from ifguide.engine.model import build_model, hidden_input
from ifguide.engine.packing import stack
from ifguide.engine.settings import resolve
from ifguide.errors import InputError
from ifguide.objectives.base import Batch, TokenBatch
from ifguide.objectives.registry import build_objective
from tests.engine.tiny import MODEL, read_log
from tests.support.datasets import write_mask, write_tokens

TOKENIZER = build_tokenizer("CharLevelTokenizer", None)
HIDDEN = 300  # a spare row: bytes end at 255, the vocabulary at 512
FROM = 200  # planted: exactly the tokens from here on are selected
DROP, HIDE = {"penalty_action": "drop"}, {"penalty_action": "hide", "penalty_hidden_token": HIDDEN}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Keys of a corpus whose mask can be read off its tokens; 0 ends each document, and is selected in some."""
    folder = tmp_path_factory.mktemp("planted")
    generator = np.random.default_rng(3)
    contents = [np.append(generator.integers(1, 256, generator.integers(1, 40)), 0) for _ in range(50)]
    tokens = write_tokens(folder / "data", contents, np.int32)
    write_mask(folder / "mask", tokens, tokens.tokens[:] >= FROM)
    return {"data_path": str(folder / "data"), "penalty_data_path": str(folder / "mask"), "split": "80,20,0"}


def samples(data: dict[str, Any], count: int, split: str = "train", **keys: Any) -> TokenBatch:
    settings = resolve(TrainConfig(**{**MODEL, **data, **keys}))
    opened = open_training_data(settings, TOKENIZER)
    packed = pack(settings, opened, TOKENIZER, count, 4, hidden_input(settings, TOKENIZER))
    return stack([getattr(packed, split)[index] for index in range(count)], 512)


def literal_loss(model: Any, texts: list[list[int]], hidden: int | None, eod_mask_loss: bool) -> torch.Tensor:
    """(M4) of dropped or hidden tokens: of every label that counts and is not selected -log p, over all that count."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for text in texts:
        read = [hidden if hidden is not None and token >= FROM else token for token in text[:-1]]
        logits = model(input_ids=torch.tensor([read])).logits[0]
        for place, label in enumerate(text[1:]):
            if eod_mask_loss and text[place] == 0:
                continue
            count += 1
            if label < FROM:
                total = total - logits[place].log_softmax(-1)[label]
    return total / count


@pytest.mark.parametrize("eod_mask_loss", [False, True])
@pytest.mark.parametrize("action", [DROP, HIDE], ids=["drop", "hide"])
def test_loss_and_gradient_are_the_literal_loops(data: dict[str, Any], action: dict, eod_mask_loss: bool) -> None:
    keys = {**data, **action, "eod_mask_loss": eod_mask_loss}
    batch = samples(keys, 6)
    plain = samples({**data, "penalty_data_path": None}, 6)
    texts = [[*tokens, labels[-1]] for tokens, labels in zip(plain.tokens.tolist(), plain.labels.tolist())]
    assert torch.equal(batch.labels, plain.labels)
    settings = resolve(TrainConfig(**{**MODEL, **keys, "init_method_std": 0.3}))
    model = build_model(settings, TOKENIZER.vocab_size, TOKENIZER.eod).double()
    loss, _ = build_objective(settings.keys, penalised=True).loss(model, Batch(batch), iteration=1)
    expected = literal_loss(model, texts, action.get("penalty_hidden_token"), eod_mask_loss)
    # the objective itself computes in float32
    assert loss.item() == pytest.approx(expected.item(), rel=2e-6)
    parameters = list(model.parameters())
    ours, theirs = torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-7)
    if action is HIDE:  # the loop would notice: reading the text as it is gives another loss
        assert abs(literal_loss(model, texts, None, eod_mask_loss).item() - expected.item()) > 1e-4


def test_a_hidden_token_is_replaced_in_training_alone(data: dict[str, Any]) -> None:
    batch, plain = samples({**data, **HIDE}, 8), samples(data, 8)
    selected = plain.tokens >= FROM
    assert selected[:, 0].any(), "also where the token's loss is in the sample before"
    assert torch.equal(batch.tokens, plain.tokens.masked_fill(selected, HIDDEN))
    for name in ("labels", "loss_mask", "codes"):
        assert torch.equal(getattr(batch, name), getattr(plain, name)), name
    held, known = (samples({**data, **keys}, 3, "valid") for keys in (HIDE, {}))
    assert (held.tokens >= FROM).any() and all(map(torch.equal, held, known))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "hf" / "model.safetensors")


@pytest.fixture
def run(train: Callable[..., int], data: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    def run(name: str, **keys: Any) -> Path:
        assert train(**{**data, "checkpoint_factor": 100, "save": str(tmp_path / name), **keys}) == 0
        return tmp_path / name

    return run


def test_dropping_is_a_penalty_of_zero_to_the_bit(run: Callable[..., Path]) -> None:
    dropped, zero, none = run("drop", **DROP), run("zero", penalty_lambda=0.0), run("none", penalty_data_path=None)
    timed = {"time", "tokens_per_second"}
    logs = [[{k: v for k, v in row.items() if k not in timed} for row in read_log(each)] for each in (dropped, zero)]
    assert logs[0] == logs[1] and all("penalty_ce" in row for row in logs[0] if "split" not in row)
    ours, theirs, plain = weights(dropped), weights(zero), weights(none)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not all(torch.equal(ours[name], plain[name]) for name in plain)


def test_a_hidden_token_is_never_generated_from_the_export(
    run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from ifguide.generation.draw import generate
    from ifguide.models.folder import tokenizer_files_fingerprint

    letter = ord("q")
    keys = {"penalty_action": "hide", "penalty_hidden_token": "q"}
    exported = run("hide", **keys) / "hf"
    assert json.loads((exported / "generation_config.json").read_text())["suppress_tokens"] == [letter]
    # a model that would say nothing else
    model = AutoModelForCausalLM.from_pretrained(exported)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
        model.gpt_neox.final_layer_norm.weight.zero_()
        model.gpt_neox.final_layer_norm.bias.fill_(1.0)
        model.get_output_embeddings().weight[letter] = 9.0
    model.save_pretrained(tmp_path / "loud")
    AutoTokenizer.from_pretrained(exported).save_pretrained(tmp_path / "loud")
    said = "".join(generate(tmp_path / "loud", ["abc"], samples=4, max_new_tokens=5, top_p=1.0)[0])
    assert said and "q" not in said
    drawn = model.generate(torch.tensor([[97, 98]]), max_new_tokens=5, do_sample=False)
    assert letter not in drawn[0].tolist()
    # it is the list that does it
    before = tokenizer_files_fingerprint(tmp_path / "loud")
    settings = json.loads((tmp_path / "loud" / "generation_config.json").read_text())
    (tmp_path / "loud" / "generation_config.json").write_text(json.dumps({**settings, "suppress_tokens": None}))
    assert set("".join(generate(tmp_path / "loud", ["abc"], samples=4, max_new_tokens=5, top_p=1.0)[0])) == {"q"}
    assert tokenizer_files_fingerprint(tmp_path / "loud") != before
    # training on from such a folder keeps it
    tuned = run("tuned", load=str(exported), finetune=True)
    assert json.loads((tuned / "hf" / "generation_config.json").read_text())["suppress_tokens"] == [letter]


def test_a_run_without_hiding_suppresses_nothing(run: Callable[..., Path]) -> None:
    described = json.loads((run("plain") / "hf" / "generation_config.json").read_text())
    assert not described.get("suppress_tokens")


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (512, "outside of the padded vocabulary of 512 rows"),
        (-1, "outside of the padded vocabulary"),
        (0, "is the end-of-document token"),
        ("<|endoftext|>", "is the end-of-document token"),
        ("<|hidden|>", "is not in the tokenizer's vocabulary"),
    ],
)
def test_a_worker_refuses_what_cannot_be_the_hidden_token(
    train: Callable[..., int], data: dict, token: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(**data, penalty_action="hide", penalty_hidden_token=token) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train: penalty_hidden_token: ") and words in line


def test_a_graded_mask_is_refused(data: dict[str, Any], tmp_path: Path) -> None:
    tokens = TokenDataset.open(data["data_path"])
    write_mask(tmp_path / "graded", tokens, np.full(tokens.num_tokens, 7, np.uint8), "graded")
    settings = resolve(TrainConfig(**{**MODEL, **data, "penalty_data_path": str(tmp_path / "graded"), **DROP}))
    with pytest.raises(InputError, match=r"graded is a graded mask.*penalty_action drop needs a binary one"):
        open_training_data(settings, TOKENIZER)
