"""Every token that ends a text ends a continuation, wherever its id lies, and its text is in no continuation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import GPTNeoXForCausalLM

from ifguide import cli
from ifguide.evaluation.lm.model import EvaluationLM
from ifguide.generation.draw import Sampling, continuation_texts, generate, prompt_contexts, sample_continuations
from ifguide.generation.rad import Rad
from ifguide.models.language_model import LanguageModel, load_language_model
from tests.generation.literal_generation import literal_continuations
from tests.generation.test_rad import Vowels, causal, literal_reward
from tests.support.tiny_models import as_loaded, byte_tokenizer, favour, tiny_neox

# the tokenizer has 257 ids, EOD is 0; the model has 288 rows
BEYOND = 280
PROMPTS = ["The cat", "a", "nobody knows why", "the cat sat"]
SAMPLING = Sampling(samples=6, max_new_tokens=8, seed=2)


def model_of(*favoured: tuple[int, float]) -> GPTNeoXForCausalLM:
    model = tiny_neox()
    for token, nats in favoured:
        favour(model, token, nats)
    return model.double()


def id_of(letter: str) -> int:
    (token,) = byte_tokenizer().encode(letter)
    return token


def drawn_tokens(lm: LanguageModel) -> list[list[list[int]]]:
    return sample_continuations(lm, prompt_contexts(lm, PROMPTS, SAMPLING.max_new_tokens), SAMPLING)


def test_a_stop_beyond_the_tokenizer_is_drawn_and_padding_is_not() -> None:
    """As in a chat model whose end of turn lies among the rows that pad its embedding."""
    model = model_of((BEYOND, 5.0), (270, 9.0))
    lm = as_loaded(model, byte_tokenizer(), stops=[0, BEYOND])
    contexts = prompt_contexts(lm, PROMPTS, 8)
    drawn = drawn_tokens(lm)
    assert drawn == [literal_continuations(lm, context, SAMPLING) for context in contexts]
    lengths = [len(ids) for rows in drawn for ids in rows]
    assert min(lengths) < 8, "it stops"
    assert all(token < 257 for rows in drawn for ids in rows for token in ids)
    # without it nothing stops but EOD, and padding that a model favours is still no token
    without = drawn_tokens(as_loaded(model, byte_tokenizer()))
    assert all(token < 257 for rows in without for ids in rows for token in ids)
    assert sum(len(ids) for rows in without for ids in rows) > sum(lengths)


def test_broken_rows_of_padding_harm_nobody() -> None:
    model = model_of((BEYOND, 5.0))
    lm = as_loaded(model, byte_tokenizer(), stops=[0, BEYOND])
    expected = drawn_tokens(lm)
    model.lm_head.weight.data[260:270] = float("nan")
    assert drawn_tokens(lm) == expected


def test_every_stop_ends_a_text() -> None:
    stops = [0, id_of("e"), id_of("t")]
    lm = as_loaded(model_of((stops[1], 3.0), (stops[2], 3.0)), byte_tokenizer(), stops=stops)
    contexts = prompt_contexts(lm, PROMPTS, 8)
    drawn = drawn_tokens(lm)
    assert drawn == [literal_continuations(lm, context, SAMPLING) for context in contexts]
    texts = [text for context, ids in zip(contexts, drawn) for text in continuation_texts(lm, context, ids)]
    assert not any(letter in text for text in texts for letter in "et")
    alone = drawn_tokens(as_loaded(lm.model, byte_tokenizer()))
    # the same draws, cut at the first stop
    cut = [[[*_until(ids, stops)] for ids in rows] for rows in alone]
    assert drawn == cut and cut != alone


def _until(ids: Iterable[int], stops: list[int]) -> Iterable[int]:
    for token in ids:
        if token in stops:
            return
        yield token


@pytest.mark.parametrize("cached", [True, False])
def test_rad_takes_a_stop_for_the_text_before_it(tmp_path: Path, cached: bool) -> None:
    lm = as_loaded(model_of((BEYOND, 4.0)), byte_tokenizer(), stops=[0, BEYOND, id_of("t")])
    scorer: Any = causal(tmp_path, "gpt2") if cached else Vowels()
    rad = Rad(lm, scorer, 4.0, 6)
    assert rad.describe()["cached"] is cached
    reward = (
        (lambda tokens: literal_reward(scorer, tokens))
        if cached
        else (lambda tokens: 1.0 - float(scorer.score(lm.decode([tokens]))["toxicity"][0]))
    )
    contexts = prompt_contexts(lm, PROMPTS, 8)
    slow = [literal_continuations(lm, context, SAMPLING, rad=(6, 4.0, reward)) for context in contexts]
    assert sample_continuations(lm, contexts, SAMPLING, rad=rad) == slow
    assert any(len(ids) < 8 for rows in slow for ids in rows)


def save(folder: Path, model: GPTNeoXForCausalLM, **files: dict[str, Any]) -> Path:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    for name, changes in files.items():
        path = folder / f"{name}.json"
        content = {key: value for key, value in json.loads(path.read_text()).items() if key != "eos_token_id"}
        path.write_text(json.dumps(content | changes))
    return folder


@pytest.mark.parametrize(
    ("files", "stops"),
    [
        ({}, {0}),
        ({"generation_config": {"eos_token_id": [BEYOND, 66]}}, {0, BEYOND, 66}),
        ({"config": {"eos_token_id": 70}, "generation_config": {"eos_token_id": [BEYOND]}}, {0, 70, BEYOND}),
        ({"config": {"eos_token_id": [70, 71]}, "generation_config": {}}, {0, 70, 71}),
        ({"config": {}, "generation_config": {}}, {0}),
        # no row of the model, and no ids at all
        ({"generation_config": {"eos_token_id": [288, -1, None, True, "0"]}}, {0}),
    ],
)
def test_what_a_folder_names(tmp_path: Path, files: dict[str, dict[str, Any]], stops: set[int]) -> None:
    """Of both files, and nothing that a configuration class adds by itself."""
    folder = save(tmp_path, tiny_neox(), **files)
    assert load_language_model(folder).stops == stops


def test_a_folder_without_eod_stops_at_what_its_configuration_names(tmp_path: Path, no_eod_dir: Path) -> None:
    assert load_language_model(no_eod_dir).stops == frozenset()
    folder = save(tmp_path, tiny_neox(), generation_config={"eos_token_id": [id_of("e")]})
    assert all("e" not in text for texts in generate(folder, PROMPTS, 6, 8) for text in texts)


def test_decoding_of_lm_eval_ends_there_too(tmp_path: Path) -> None:
    """Greedy tasks run lm-eval's own loop: nothing of a stop, or of what comes after it, is in the answer."""
    settings = {"do_sample": False, "max_gen_toks": 8}
    request = Instance("generate_until", {}, ("The cat", settings), 0, metadata=("t", 0, 1))
    lm = load_language_model(save(tmp_path / "m", tiny_neox()))
    ids = lm.encode(["The cat"])[0]
    drawn: list[int] = []
    for _ in range(8):
        with torch.no_grad():
            drawn.append(int(lm.model(torch.tensor([ids + drawn])).logits[0, -1].argmax()))
    assert len({*drawn[:3]}) == 3 and 0 not in drawn, "a stop in the middle is the first of its kind"
    for stops, expected in (([0], drawn), ([0, drawn[2]], drawn[:2])):
        folder = save(tmp_path / "m", tiny_neox(), generation_config={"eos_token_id": stops})
        journals = tmp_path / f"journals-{len(stops)}"
        journals.mkdir()
        (answer,) = EvaluationLM(load_language_model(folder), journals).generate_until([request])
        assert answer == lm.reader.decode(expected)


def test_no_stop_at_all_fills_every_continuation(no_eod_dir: Path) -> None:
    lm = load_language_model(no_eod_dir, torch.float64)
    assert {len(ids) for rows in drawn_tokens(lm) for ids in rows} == {8}


def test_the_separator_can_be_named(tmp_path: Path, model_dir: Path) -> None:
    """It starts a prompt and ends a text; what was drawn with another is drawn anew."""
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "The cat"}\n')
    command = ["generate", "--model", str(model_dir), "--prompts", str(prompts), "--output", str(tmp_path / "g.jsonl")]
    command += ["--samples", "4", "--max-new-tokens", "4"]
    assert cli.main(command) == 0
    before = (tmp_path / "g.jsonl").read_bytes()
    named = [*command, "--eod-token", "e"]
    named[named.index("--output") + 1] = str(tmp_path / "named.jsonl")
    assert cli.main(named) == 0
    assert (tmp_path / "named.jsonl").read_bytes() != before
    sidecar = json.loads((tmp_path / "named.jsonl.json").read_text())
    assert sidecar["reader"]["eod_token"] == "e" and sidecar["reader"]["stops"] == sorted({0, id_of("e")})
    assert cli.main([*command, "--eod-token", "no such token"]) == 2
