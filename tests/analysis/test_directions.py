"""The direction and what adding it does, literally, and on a model whose direction is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ifguide.analysis import directions
from ifguide.analysis.directions import cosine, cosine_numbers, difference_of_means, last_residuals, steering_numbers
from ifguide.analysis.inputs import Text
from ifguide.analysis.options import DirectionOptions, SpeechOptions
from ifguide.errors import InputError
from ifguide.generation.draw import sample_continuations
from ifguide.generation.options import Sampling
from tests.support.insides import (
    CountsZ,
    free_direction,
    make_bench,
    plain_neox,
    small_neox,
    subject,
    token,
    write_jsonl,
)


def text(*tokens: int) -> Text:
    return Text((0, *tokens), (False, False, *[True] * (len(tokens) - 1)))


def test_it_is_the_difference_of_means_at_the_last_token() -> None:
    model = subject(small_neox())
    toxic, safe = [text(5, 6, 7), text(9, 8), text(3, 3, 3, 4)], [text(30, 31), text(40, 41, 42)]
    found = difference_of_means(last_residuals(model, toxic), last_residuals(model, safe))
    for layer in range(3):  # the last entry of transformers is normed
        sums = []
        for some in (toxic, safe):
            ends = []
            for one in some:
                with torch.no_grad():
                    states = model.lm.model(input_ids=torch.tensor([one.tokens]), output_hidden_states=True)
                ends.append(states.hidden_states[layer][0, -1].numpy())
            sums.append(sum(ends) / len(ends))
        np.testing.assert_allclose(found[layer], sums[0] - sums[1], rtol=0, atol=1e-12)


def test_cosines_by_layer_with_two_halves_as_their_ceiling() -> None:
    random = np.random.default_rng(0)
    toxic, safe = random.normal(1.0, 1.0, (40, 2, 6)), random.normal(0.0, 1.0, (30, 2, 6))
    found = cosine_numbers({"base": (toxic, safe), "same": (toxic, safe), "other": (-toxic, -safe)}, 200, 0)
    v = [[toxic[:, layer].mean(axis=0)[k] - safe[:, layer].mean(axis=0)[k] for k in range(6)] for layer in range(2)]
    for layer in range(2):
        length = math.sqrt(sum(x * x for x in v[layer]))
        assert cosine(np.array(v[layer]), np.array([1.0, 0, 0, 0, 0, 0])) == pytest.approx(v[layer][0] / length)
        assert found["same"]["values"][layer] == pytest.approx(1.0, abs=1e-12)
        np.testing.assert_allclose(found["same"]["intervals"][layer], 1.0, atol=1e-12)
        assert found["other"]["values"][layer] == pytest.approx(-1.0, abs=1e-12)
        assert 0.5 < found["base"]["halves"][layer] < 1.0
    assert cosine(np.zeros(3), np.ones(3)) == 0.0


def test_scale_0_is_the_model_itself(tmp_path: Path) -> None:
    bench = make_bench(
        tmp_path,
        {"base": small_neox()},
        ["abc", "abd"],
        ["xyz", "xyw"],
        speech=SpeechOptions(samples=3, max_new_tokens=4),
    )
    bench.__dict__["scorer"] = CountsZ()
    model = bench.base
    contexts = bench.contexts(model.lm)
    cell = directions._cell(bench, model, np.full(16, 9.0), 0.0, contexts, ["some text"])
    drawn = sample_continuations(model.lm, contexts, Sampling(3, 4))
    expected = [[model.lm.decode([ids])[0] for ids in rows] for rows in drawn]
    assert cell["scores"] == [[row.count("z") / max(1, len(row)) for row in rows] for rows in expected]
    assert cell["empty_share"] == sum(not t.strip() for rows in expected for t in rows) / 6
    other = directions._cell(bench, model, np.full(16, 9.0), 2.0, contexts, ["some text"])
    assert other["perplexity"] != cell["perplexity"]


def test_numbers_are_means_over_prompts_of_the_worst() -> None:
    random = np.random.default_rng(1)

    def cell() -> dict[str, Any]:
        return {"scores": random.random((7, 3)).tolist(), "empty_share": 0.25, "distinct_2": 0.5, "perplexity": None}

    cells = {"m": {"own": [cell(), cell(), cell()]}}
    found = steering_numbers(cells, [-1.0, 0.0, 2.0], 300, 0)["m"]["own"]
    for place in range(3):
        worst = [max(row) for row in cells["m"]["own"][place]["scores"]]
        at_zero = [max(row) for row in cells["m"]["own"][1]["scores"]]
        assert found["emt"]["values"][place] == pytest.approx(sum(worst) / 7)
        assert found["tp"]["values"][place] == pytest.approx(sum(x >= 0.5 for x in worst) / 7)
        difference = sum(a - b for a, b in zip(worst, at_zero)) / 7
        assert found["emt"]["from_zero"][place]["value"] == pytest.approx(difference)
    assert found["emt"]["from_zero"][1]["interval"] == [0.0, 0.0]
    assert found["empty_share"] == [0.25] * 3 and found["perplexity"] is None


def with_direction(known: bool) -> Any:
    """Of texts that end in ``!`` and in ``.`` the last residuals differ along d; the head says z along d, if it is
    known."""
    model = plain_neox()
    d = free_direction(model, "z" if known else None)
    embedding = model.gpt_neox.embed_in.weight.data
    embedding[token("!")] = embedding[token(".")] + d
    return model


def test_a_known_direction_brings_back_what_it_says(tmp_path: Path) -> None:
    prompts = write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"so {number}"} for number in range(8)])
    held_out = write_jsonl(tmp_path / "text.jsonl", [{"text": "a text"}])
    bench = make_bench(
        tmp_path, {"base": with_direction(True), "guided": with_direction(False)}, ["a!", "b!"], ["c.", "d."],
        prompts=prompts, direction=DirectionOptions(scales=[8.0, -2.0], text=held_out),
        speech=SpeechOptions(samples=2, max_new_tokens=6),
    )  # fmt: skip
    bench.__dict__["scorer"] = CountsZ()
    found = directions.analyse(bench)
    assert found["scales"] == [-2.0, 0.0, 8.0]
    own = found["models"]["base"]["own"]
    assert own["emt"]["values"][1] < 0.4 and own["emt"]["values"][2] > 0.9 and own["tp"]["values"][2] == 1.0
    assert set(found["models"]["guided"]) == {"own", "base's"}
    for name in ("own", "base's"):
        assert max(found["models"]["guided"][name]["emt"]["values"]) < 0.5
    # v is d at every layer, because no block adds anything
    assert found["cosines"]["guided"]["values"] == pytest.approx([1.0] * 4)
    assert found["norms"]["base"]["direction"] == pytest.approx([math.sqrt(2)] * 4)
    base, *guided = found["findings"][0]["verdict"]
    assert base.startswith("base, own direction times 8: EMT") and ", raised (" in base and "perplexity" in base
    assert len(guided) == 2 and all("raised" not in sentence for sentence in guided)
    assert [one["name"] for one in found["findings"]] == [
        "direction-emt", "direction-tp", "direction-empty_share", "direction-perplexity", "direction-cosine",
    ]  # fmt: skip


def test_scales_must_be_numbers() -> None:
    assert directions._scales([2, -1, 2]) == [-1.0, 0.0, 2.0]
    with pytest.raises(InputError, match="--scales must be numbers"):
        DirectionOptions(scales=[float("inf")])
