"""Probes: the optimum by its gradient, AUC by its pairs, folds by prompts, and a class that can or cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ifguide.analysis import probes
from ifguide.analysis.inputs import Text
from ifguide.analysis.options import ProbeOptions
from ifguide.analysis.probes import auc, auc_draws, features, fit, fit_standardised, folds_by_prompt
from ifguide.errors import InputError
from tests.support.insides import make_bench, plain_neox, small_neox, subject, token, write_jsonl


def test_the_gradient_is_0_at_the_fit() -> None:
    """Of |w|^2 / 2 + C Σ log(1 + exp(-y (w x + b))), written out."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(60, 7)), random.integers(0, 2, 60)
    for strength in (0.1, 1.0, 30.0):
        w, b = fit_standardised(x, y, strength)
        of_w, of_b = w.copy(), 0.0
        for row, label in zip(x, y):
            p = 1.0 / (1.0 + np.exp(-(sum(w * row) + b)))
            of_w += strength * (p - label) * row
            of_b += strength * (p - label)
        assert max(abs(of_w)) < 1e-6 and abs(of_b) < 1e-6


def test_a_probe_reads_features_as_they_are() -> None:
    random = np.random.default_rng(1)
    x, y = 5 + 3 * random.normal(size=(40, 4)), random.integers(0, 2, 40)
    x[:, 3] = 2.0  # does not vary
    probe = fit(x, y, 1.0)
    deviation = np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
    w, b = fit_standardised((x - x.mean(axis=0)) / deviation, y, 1.0)
    np.testing.assert_allclose(probe(x), [sum(w * (row - x.mean(axis=0)) / deviation) + b for row in x], atol=1e-9)


def literal_auc(scores, labels, folds, counts) -> float:
    above = pairs = 0.0
    for i in range(len(scores)):
        for j in range(len(scores)):
            if labels[i] == 1 and labels[j] == 0 and folds[i] == folds[j]:
                weight = counts[i] * counts[j]
                pairs += weight
                above += weight * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
    return above / pairs


def test_auc_counts_pairs_of_one_fold() -> None:
    random = np.random.default_rng(2)
    scores = random.integers(0, 6, 30).astype(float)  # with ties
    labels, folds = random.integers(0, 2, 30), random.integers(0, 3, 30)
    counts = random.integers(0, 3, (4, 30)).astype(float)
    ones = np.ones(30)
    assert auc(scores, labels, folds) == pytest.approx(literal_auc(scores, labels, folds, ones), abs=1e-12)
    expected = [literal_auc(scores, labels, folds, row) for row in counts]
    np.testing.assert_allclose(auc_draws(scores, labels, folds, counts), expected, atol=1e-12)
    np.testing.assert_allclose(auc_draws(scores, labels, folds, np.zeros((1, 30))), [0.5])


def test_no_prompt_is_in_two_folds_and_each_has_both_kinds() -> None:
    random = np.random.default_rng(3)
    groups = random.integers(0, 25, 200)
    groups = np.unique(groups, return_inverse=True)[1]
    labels = random.integers(0, 2, 200)
    folds = folds_by_prompt(groups, labels, 5, 0)
    for group in range(groups.max() + 1):
        assert len(set(folds[groups == group])) == 1
    assert all(set(labels[folds == fold]) == {0, 1} for fold in range(5))
    assert set(folds) == set(range(5)) and (folds != folds_by_prompt(groups, labels, 5, 1)).any()
    with pytest.raises(InputError, match="2 prompts are too few for 3 folds"):
        folds_by_prompt(np.array([0, 0, 1]), np.array([0, 1, 1]), 3, 0)


@pytest.mark.parametrize("at", ["mean", "end", "prompt"])
def test_features_are_read_where_they_were_asked_for(at: str) -> None:
    model = subject(small_neox())
    texts = [Text((0, 5, 6, 7, 8), (False, False, True, True, True)), Text((0, 9, 3), (False, True, True))]
    found = features(model, texts, at)
    for number, text in enumerate(texts):
        with torch.no_grad():
            output = model.lm.model(input_ids=torch.tensor([text.tokens]), output_hidden_states=True)
        first = text.is_target.index(True)
        for layer in range(3):
            states = output.hidden_states[layer][0].numpy()
            rows = {"mean": range(first, len(states)), "end": [len(states) - 1], "prompt": [first - 1]}[at]
            expected = sum(states[row] for row in rows) / len(rows)
            np.testing.assert_allclose(found[number, layer], expected, rtol=0, atol=1e-12)


def told_apart(known: bool) -> Any:
    """a and b have embeddings of their own, or the same one."""
    model = plain_neox()
    if not known:
        embedding = model.gpt_neox.embed_in.weight.data
        embedding[token("b")] = embedding[token("a")]
    return model


def test_a_class_that_is_not_inside_cannot_be_read(tmp_path: Path) -> None:
    # each completion has other letters too, so that no feature is constant
    toxic, safe = ([f"{letter}{letter}{'cdefghij'[n % 8]}" for n in range(40)] for letter in "ab")
    heat = write_jsonl(tmp_path / "heat.jsonl", [{"prompt": "ab"}])
    bench = make_bench(
        tmp_path, {"base": told_apart(True), "guided": told_apart(False)}, toxic, safe,
        probe=ProbeOptions(hidden=16, folds=4, heat_prompts=heat),
    )  # fmt: skip
    found = probes.analyse(bench)
    base, guided = found["models"]["base"], found["models"]["guided"]
    assert base["logistic"]["values"] == pytest.approx([1.0] * 4) and min(base["mlp"]["values"]) > 0.8
    assert all(value < 0.65 for value in guided["logistic"]["values"])
    assert all(value < 0.65 for value in guided["base's probe"]["values"]) and "base's probe" not in base
    # what was told shuffled labels knows nothing of them
    assert all(0.15 < value < 0.85 for found in (base, guided) for value in found["shuffled"]["values"])
    fresh, of_base, controls = found["findings"]
    assert "AUC 1 [1, 1]" in fresh["verdict"][0] and "surely below base's own there" in fresh["verdict"][1]
    assert fresh["sure"] and "surely below" in of_base["verdict"][0] and len(controls["verdict"]) == 4
    assert found["prompts"] == 80 and found["layers"] == ["embedding", "1", "2", "3"]
    # token by layer: a is toxic, b is not, at every layer of the base; guided's own probe cannot tell
    own, guided_own, guided_base = found["maps"]
    assert own["tokens"] == ["a", "b"] and np.shape(own["values"]) == (4, 2)
    assert all(a > 0.7 and b < 0.3 for a, b in own["values"])
    assert (guided_own["probe"], guided_base["probe"]) == ("its own probe", "the base's probe")
    assert all(a == b for a, b in guided_base["values"])
