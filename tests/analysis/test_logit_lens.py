"""The logit lens, against models that are cut after each block, and a token that a planted neuron writes."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from ifguide.analysis import logit_lens
from ifguide.analysis.hooks import passages
from ifguide.analysis.logit_lens import Place, find_places, lens, listed_tokens, probabilities, scored_tokens, summary
from ifguide.errors import InputError
from ifguide.scorers.lexicon import LexiconScorer
from tests.support.insides import (
    FAMILIES,
    CountsZ,
    free_direction,
    make_bench,
    plain_neox,
    plant,
    small_neox,
    subject,
    token,
)
from tests.support.tiny_models import as_loaded, byte_tokenizer

TEXTS = [[0, 5, 9, 200], [0, 7], [0, 1, 2, 3, 4, 5, 6, 7, 8]]
TOXIC = [40, 100, 255]


def cut(model, blocks):
    """The model that ends after ``blocks`` blocks."""
    short = copy.deepcopy(model)
    inside = short.base_model
    name = next(name for name in ("layers", "h") if hasattr(inside, name))
    setattr(inside, name, getattr(inside, name)[:blocks])
    short.config.num_hidden_layers = blocks
    return short


@pytest.mark.parametrize("family", FAMILIES)
def test_layer_l_is_the_model_cut_after_block_l_to_the_bit(family: str) -> None:
    model = subject(FAMILIES[family]())
    for index, passage in passages(model.lm, model.anatomy, TEXTS[2:]):
        found = lens(model.lm, model.anatomy, passage.residuals)
        assert index == 0 and found.shape == (4, 9, 257)
        for layer in range(4):
            with torch.no_grad():
                logits = cut(model.lm.model, layer)(input_ids=torch.tensor([TEXTS[2]]), use_cache=False).logits[0]
            # what only pads the embedding is no token
            expected = torch.softmax(logits[:, :257], dim=-1)
            assert torch.equal(lens(model.lm, model.anatomy, passage.residuals[layer][None])[0], expected)
            # all layers at once are one larger product of matrices, whose sums have another order
            torch.testing.assert_close(found[layer], expected, rtol=1e-12, atol=0)


def test_probabilities_are_picked_from_it_at_each_place() -> None:
    model = subject(small_neox())
    places = [Place(0, 1, 40), Place(2, 8, 255), Place(2, 0, 100)]
    found = probabilities(model.lm, model.anatomy, TEXTS, places, TOXIC)
    assert found.shape == (3, 4, 2)
    for number, place in enumerate(places):
        for layer in range(4):
            ids = torch.tensor([TEXTS[place.sequence]])
            with torch.no_grad():
                logits = cut(model.lm.model, layer)(input_ids=ids, use_cache=False).logits[0, place.position, :257]
            p = torch.softmax(logits, dim=-1)
            expected = [float(p[place.token]), sum(float(p[index]) for index in TOXIC)]
            np.testing.assert_allclose(found[number, layer], expected, rtol=1e-12)


@pytest.mark.parametrize("top_k", [1, 3, 300])
def test_places_are_where_a_likely_token_is_toxic(top_k: int) -> None:
    model = subject(small_neox())
    counted = [[3], [0, 1], [2, 5, 8]]
    toxic = [index for index in range(257) if index % 4 == 0]
    expected = []
    for number, positions in enumerate(counted):
        with torch.no_grad():
            logits = model.lm.model(input_ids=torch.tensor([TEXTS[number]])).logits[0, :, :257]
        for position in positions:
            likeliest = logits[position].argsort(descending=True)[:top_k].tolist()
            hits = [index for index in likeliest if index in toxic]
            expected += [Place(number, position, hits[0])] if hits else []
    assert find_places(model.lm, model.anatomy, TEXTS, counted, toxic, top_k) == expected
    assert len(expected) == 6 or top_k < 300


def test_the_toxic_tokens_are_listed_or_scored() -> None:
    reader = as_loaded(small_neox(), byte_tokenizer()).reader
    assert listed_tokens(reader, ["Z", "idiot"]) == sorted([token("z"), token("Z")])
    # one byte a token: none spells a word of the lexicon
    assert scored_tokens(reader, LexiconScorer(), 0.5) == []


def test_means_weigh_places_and_resample_texts() -> None:
    random = np.random.default_rng(0)
    values = {"base": random.random((5, 4, 2)), "other": random.random((5, 4, 2))}
    found = summary(values, [0, 0, 0, 1, 2], 500, 0)
    for label, table in values.items():
        for kind, name in enumerate(("token", "all")):
            expected = [sum(table[p, layer, kind] for p in range(5)) / 5 for layer in range(4)]
            np.testing.assert_allclose(found["models"][label][name]["values"], expected, rtol=1e-12)
    # three texts: each resample is a mean over the places of three drawn texts
    low, high = found["models"]["base"]["token"]["intervals"][1]
    of_texts = [values["base"][rows, 1, 0].mean() for rows in ([0, 1, 2], [3], [4])]
    assert min(of_texts) <= low <= found["models"]["base"]["token"]["values"][1] <= high <= max(of_texts)
    assert (
        "5 places in 3 texts" in found["findings"][0]["verdict"][0] and "too few" in found["findings"][0]["verdict"][0]
    )
    assert found["findings"][0]["sure"] is False


def planted(*, learned: bool, hidden: bool):
    """A model that writes z from its second block on, unless its last one takes it back."""
    model = plain_neox()
    d = free_direction(model, "z")
    if learned:
        plant(model, 1, 7, d, 20.0)
    if hidden:
        plant(model, 2, 9, d, -40.0)
    return model


def test_what_a_neuron_writes_is_found_at_its_layer_and_a_hidden_one_inside(tmp_path: Path) -> None:
    models = {
        "base": planted(learned=True, hidden=False),
        "hides": planted(learned=True, hidden=True),
        "unlearned": planted(learned=False, hidden=False),
        "same": planted(learned=True, hidden=False),
    }
    bench = make_bench(tmp_path, models, [f"text {number}" for number in range(12)], [])
    bench.__dict__["scorer"] = CountsZ()
    words = tmp_path / "words.txt"
    words.write_text("z\n")
    asked = bench.asked
    object.__setattr__(asked, "lens", type(asked.lens)(toxic_words=str(words)))
    found = logit_lens.analyse(bench)
    curves = {label: found["models"][label]["token"]["values"] for label in models}
    assert found["places"] == 12 and found["toxic_tokens"] == 2
    assert max(curves["base"][:2]) < 0.1 and min(curves["base"][2:]) > 0.9
    assert curves["hides"][2] > 0.9 and curves["hides"][3] < 0.01 and max(curves["unlearned"]) < 0.1
    intro, hides, unlearned, same = found["findings"][0]["verdict"]
    assert "12 places in 12 texts" in intro and "too few" not in intro
    assert "lower at the end, not surely inside" in hides and "lower inside as well" in unlearned
    assert "no sure difference" in same and found["findings"][0]["sure"] is False
    assert found["quotes"][0]["rows"][0][1] == "z"


def test_a_base_that_says_nothing_toxic_is_told(tmp_path: Path) -> None:
    bench = make_bench(tmp_path, {"base": planted(learned=False, hidden=False)}, ["text"], [])
    words = tmp_path / "words.txt"
    words.write_text("z\n")
    object.__setattr__(bench.asked, "lens", type(bench.asked.lens)(toxic_words=str(words)))
    with pytest.raises(InputError, match="predicts none of the 2 toxic tokens at any of 1 places in 1 texts"):
        logit_lens.analyse(bench)
