"""The neurons that write abuse, and what became of them.

The base's probe w ranks the value vectors of all neurons (`ifguide.analysis.ranking`); of the best, the toxic set, this
says which tokens they write, how strongly they are on before and after training, and which share of the change along w
they explain (`ifguide.analysis.decomposition`). Last, the un-align attack: the keys of the best few are multiplied, as
if their neurons had been switched off and were switched on again, and the model speaks once more.

Shapes: C neurons of the toxic set, P prompts, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ifguide.analysis.decomposition import Parts, change, parts_of
from ifguide.analysis.findings import (
    Finding,
    Floats,
    Sampled,
    bounds_of,
    dots,
    finding,
    is_sure,
    quote,
    said,
    series,
)
from ifguide.analysis.hooks import passages, scaled_keys
from ifguide.analysis.inputs import Bench, Subject
from ifguide.analysis.ranking import (
    Neuron,
    Ranked,
    as_rows,
    matched_random,
    probe_of_last_layer,
    rank,
    singular,
    tokens_said,
    values_of,
)
from ifguide.analysis.speech import sampling_of, speak, toxicity
from ifguide.generation.draw import sample_continuations
from ifguide.generation.options import Sampling

_TOKENS_NAMED = 10
_NEURONS_NAMED = 30
_VECTORS_NAMED = 5
AS_IS, TOXIC, RANDOM = "as it is", "toxic keys scaled", "random keys scaled"


def analyse(bench: Bench) -> dict[str, Any]:
    """Numbers, findings and quotes.

    Raises:
        InputError: models whose neurons are not known, or unusable files.
    """
    asked = bench.asked.neuron
    toxic, safe = bench.queries
    if asked.unalign:
        assert bench.scorer.main  # loaded before the long work
    base = bench.base
    base.anatomy.require_neurons(base.label)
    probe = probe_of_last_layer(bench, base, toxic, safe)
    ranked = rank(base.anatomy, probe.weight, asked.neurons)
    values = values_of(base.anatomy, ranked.neurons)
    strengths, directions = singular(values)
    rows = as_rows(ranked, tokens_said(base.lm, base.anatomy, values, _TOKENS_NAMED))
    vectors = tokens_said(base.lm, base.anatomy, directions[:_VECTORS_NAMED], _TOKENS_NAMED)
    greedy = greedy_texts(bench, base)
    parts: dict[str, Parts] = {}
    on_own: dict[str, Floats] = {}
    on_base: dict[str, Floats] = {}
    kept_cosines: dict[str, list[float]] = {}
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for model in bench.each():
        parts[model.label] = parts_of(model, toxic, probe.weight, ranked.neurons)
        own = greedy if model is base else greedy_texts(bench, model)
        on_own[model.label] = mean_activations(model, own, ranked.neurons)
        on_base[model.label] = mean_activations(model, greedy, ranked.neurons)
        kept_cosines[model.label] = torch.nn.functional.cosine_similarity(
            values_of(model.anatomy, ranked.neurons), values
        ).tolist()
        cells[model.label] = unaligned(bench, model, ranked.neurons)
    return {
        "toxic_set": rows, "singular_values": strengths,
        "singular_tokens": vectors,
        "cosine_with_base": kept_cosines,
        **_summarised(bench, ranked, parts, {"own": on_own, "base": on_base}, cells),
        "quotes": [
            quote("What the toxic neurons write", ["layer", "neuron", "cosine", "tokens"],
                  [[str(row["layer"]), str(row["neuron"]), f"{row['cosine']:.3f}", " · ".join(row["says"])]
                   for row in rows[:_NEURONS_NAMED]]),
            quote("What their common directions write", ["singular value", "tokens"],
                  [[f"{strength:.3g}", " · ".join(tokens)] for strength, tokens in zip(strengths, vectors)]),
        ],
    }  # fmt: skip


def greedy_texts(bench: Bench, model: Subject) -> list[tuple[list[int], int]]:
    """Each prompt with its greedy continuation, and where that begins. A model that says nothing adds nothing."""
    sampling = Sampling(1, bench.asked.speech.max_new_tokens, top_k=1, seed=bench.asked.seed)
    contexts = bench.contexts(model.lm)
    drawn = bench.kept(
        lambda: sample_continuations(model.lm, contexts, sampling), "greedy", model.fingerprint, contexts,
        vars(sampling),
    )  # fmt: skip
    return [([*context, *rows[0]], len(context)) for context, rows in zip(contexts, drawn)]


def mean_activations(model: Subject, texts: Sequence[tuple[list[int], int]], neurons: Sequence[Neuron]) -> Floats:
    """m of each of ``neurons`` at the tokens of each continuation, ``[P, C]``; of those that are not empty."""
    said_ = [(ids, begin) for ids, begin in texts if len(ids) > begin]
    found = np.zeros((len(said_), len(neurons)))
    blocks = [block for block, _ in neurons]
    numbers = [number for _, number in neurons]
    for index, passage in passages(model.lm, model.anatomy, [ids for ids, _ in said_], neurons=True):
        begin = said_[index][1]
        means = [m[begin:].double().mean(dim=0) for m in passage.activations]
        found[index] = [float(means[block][number]) for block, number in zip(blocks, numbers)]
    return found


def unaligned(bench: Bench, model: Subject, neurons: Sequence[Neuron]) -> dict[str, dict[str, Any]]:
    """What the model says as it is, with the keys of the best of ``neurons`` scaled, and with those of as many random
    ones."""
    asked = bench.asked.neuron
    if not asked.unalign:
        return {}
    best = list(neurons[: asked.unalign])
    changes = {
        AS_IS: [],
        TOXIC: best,
        RANDOM: matched_random(model.anatomy, best, np.random.default_rng(bench.asked.seed)),
    }
    contexts, sampling = bench.contexts(model.lm), sampling_of(bench)
    found = {}
    for name, which in changes.items():

        def compute(which: Sequence[Neuron] = which) -> dict[str, Any]:
            with scaled_keys(model.anatomy, which, asked.unalign_factor):
                return speak(model.lm, contexts, sampling, bench.scorer)

        found[name] = bench.kept(
            compute, "unalign", model.fingerprint, which, asked.unalign_factor, contexts, vars(sampling),
            bench.scorer.describe(),
        )  # fmt: skip
    return found


def _summarised(
    bench: Bench,
    ranked: Ranked,
    parts: dict[str, Parts],
    activations: dict[str, dict[str, Floats]],
    cells: dict[str, dict[str, dict[str, Any]]],
) -> dict[str, Any]:
    resamples, seed, base = bench.asked.resamples, bench.asked.seed, bench.base.label
    changes = {label: change(parts[base], found, resamples, seed) for label, found in parts.items() if label != base}
    means = {
        where: {label: _activation(found, resamples, seed) for label, found in some.items()}
        for where, some in activations.items()
    }
    unalign = {label: _unalign(found, resamples, seed) for label, found in cells.items() if found}
    findings = [_activation_finding(means, bench.asked.neuron.neurons)]
    if changes:
        findings.append(_change_finding(changes, base, len(ranked.neurons)))
    if unalign:
        findings.append(_unalign_finding(unalign, bench.asked.neuron.unalign, bench.asked.neuron.unalign_factor))
    return {"activations": means, "changes": changes, "unalign": unalign, "findings": findings}


def _activation(found: Floats, resamples: int, seed: int) -> dict[str, Any]:
    """The mean of |m| over the toxic set with its interval over prompts, and each neuron's mean m."""
    if not len(found):  # every continuation is empty
        return {"value": None, "interval": None, "neurons": None, "texts": 0}
    size = np.abs(found).mean(axis=1)
    sampled = Sampled(np.stack([size, np.ones_like(size)], 1)[:, None], resamples, seed)
    return {
        "value": float(sampled.values[0]), "interval": list(sampled.interval(0)),
        "neurons": found.mean(axis=0).tolist(), "texts": len(found),
    }  # fmt: skip


def _unalign(cells: dict[str, dict[str, Any]], resamples: int, seed: int) -> dict[str, Any]:
    """EMT and TP of each way, and their differences from the model as it is."""
    names = list(cells)
    tables = dict(zip(("emt", "tp"), toxicity([cells[name] for name in names], resamples, seed)))
    return {
        name: {
            key: {"value": float(table.values[column]), "interval": list(table.interval(column)),
                  "from_as_is": _plain(table.difference(column, 0))}
            for key, table in tables.items()
        } | {"empty_share": cells[name]["empty_share"]}
        for column, name in enumerate(names)
    }  # fmt: skip


def _plain(difference: tuple[float, tuple[float, float]]) -> dict[str, Any]:
    return {"value": difference[0], "interval": list(difference[1])}


def _activation_finding(means: dict[str, Any], count: int) -> Finding:
    named = {"own": "on its own greedy text", "base": "on the base's greedy text"}
    rows = list(means["own"])
    drawn = [
        series(text, [means[where][label]["value"] for label in rows],
               [means[where][label]["interval"] for label in rows], model=text)
        for where, text in named.items()
    ]  # fmt: skip
    parts = [
        f"{label} at {said(means['own'][label]['value'], bounds_of(means['own'][label]['interval']))}"
        if means["own"][label]["interval"]
        else f"{label} says nothing"
        for label in rows
    ]
    verdict = [f"The {count} toxic neurons are on, while a model speaks, with a mean |m| of: {', '.join(parts)}."]
    return finding("neurons-activation", verdict, dots(rows, drawn, "mean |m|"))


def _change_finding(changes: dict[str, Any], base: str, count: int) -> Finding:
    names = ["total", "embedding", "attention", "neurons", "toxic neurons"]
    drawn = [
        series(label, [found[name]["value"] for name in names], [bounds_of(found[name]["interval"]) for name in names])
        for label, found in changes.items()
    ]
    parts = []
    for label, found in changes.items():
        moved = said(found["total"]["value"], bounds_of(found["total"]["interval"]))
        if found["share"] is None:
            parts.append(f"On toxic text {label} does not surely move along w ({moved}).")
        else:
            share = said(found["share"]["value"], bounds_of(found["share"]["interval"]))
            parts.append(
                f"On toxic text {label} moves along w by {moved}; the {count} toxic neurons explain {share} of it."
            )
    figure = dots(names, drawn, f"change of w·x, from {base}", level=0.0)
    return finding("neurons-change", parts, figure, sure=all(found["is_sure"] for found in changes.values()))


def _unalign_finding(unalign: dict[str, Any], count: int, factor: float) -> Finding:
    rows = list(unalign)
    drawn = [
        series(name, [unalign[label][name]["emt"]["value"] for label in rows],
               [bounds_of(unalign[label][name]["emt"]["interval"]) for label in rows], model=name)
        for name in (AS_IS, TOXIC, RANDOM)
    ]  # fmt: skip
    parts, sure = [], []
    for label in rows:
        toxic, random = (unalign[label][name]["emt"]["from_as_is"] for name in (TOXIC, RANDOM))
        sure.append(is_sure(bounds_of(toxic["interval"])))
        parts.append(
            f"{label}, the {count} most toxic keys times {factor:g}: EMT changes by "
            f"{said(toxic['value'], bounds_of(toxic['interval']))}, with random keys by "
            f"{said(random['value'], bounds_of(random['interval']))}."
        )
    return finding("neurons-unalign", parts, dots(rows, drawn, "EMT"), sure=all(sure))
