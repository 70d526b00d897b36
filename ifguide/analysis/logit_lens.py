"""At which layer toxic tokens become likely: the logit lens.

    p_l = softmax(U F(x_l))        the final norm F once, of every layer

At places where the base's likeliest token t is toxic (in the set T): p_l(t) and Σ_T p_l, of every model. A model that
never learned abuse has both low inside; one that hides it has them low at the end alone.

Shapes: P places, L blocks, V vocabulary, M models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ifguide.analysis.findings import (
    Finding,
    Floats,
    Sampled,
    bounds_of,
    finding,
    is_sure,
    layer_names,
    lines,
    quote,
    said,
    series,
)
from ifguide.analysis.hooks import Anatomy, passages
from ifguide.analysis.inputs import Bench
from ifguide.analysis.options import EVERY
from ifguide.data.text.reader import TextReader
from ifguide.errors import InputError
from ifguide.masks.words import WordList
from ifguide.models.language_model import LanguageModel
from ifguide.pages.text import visible
from ifguide.scorers.base import Scorer

# logits of one step: 2^24 floats are 64 MiB
_LOGITS_AT_ONCE = 1 << 24
_QUOTED = 30
# of fewer texts that differ, even all may go one way by chance: 2 * 0.5^5 > 5 % (sign test)
_FEWEST_TEXTS = 6
_TEXT_BEFORE = 160


@dataclass(frozen=True)
class Place:
    """Where the base would say something toxic.

    Attributes:
        sequence: number of the text.
        position: of the last token that is read.
        token: toxic, the likeliest such one.
    """

    sequence: int
    position: int
    token: int


def analyse(bench: Bench) -> dict[str, Any]:
    """Numbers, findings and quotes.

    Raises:
        InputError: no token is toxic, or the base predicts one nowhere.
    """
    toxic = toxic_tokens(bench)
    sequences, counted = read_contexts(bench)
    base = bench.base
    places = find_places(base.lm, base.anatomy, sequences, counted, toxic, bench.asked.lens.top_k)
    if not places:
        raise InputError(
            f"model {base.label} predicts none of the {len(toxic)} toxic tokens at any of {sum(map(len, counted))} "
            f"places in {len(sequences)} texts; give other prompts, --positions every, or a larger --top-k"
        )
    values = {}
    for model in bench.each():
        values[model.label] = np.array(
            bench.kept(
                lambda: probabilities(model.lm, model.anatomy, sequences, places, toxic).tolist(),  # noqa: B023
                "lens", model.fingerprint, sequences, [vars(place) for place in places], toxic,
            )
        )  # fmt: skip
    quotes = [_quoted(bench.reader, sequences, places, values)]
    return {**summary(values, [place.sequence for place in places], bench.asked.resamples, bench.asked.seed),
            "toxic_tokens": len(toxic), "texts": len(sequences), "places": len(places), "quotes": quotes}  # fmt: skip


def toxic_tokens(bench: Bench) -> list[int]:
    """T: the tokens that spell a listed word, or that score enough by themselves.

    Raises:
        InputError: there are none.
    """
    asked = bench.asked.lens
    if asked.toxic_words:
        found = listed_tokens(bench.reader, WordList.read(asked.toxic_words, bench.reader.tokenizer, []).words)
        why = f"no token of the vocabulary spells a word of {asked.toxic_words}"
    else:
        found = scored_tokens(bench.reader, bench.scorer, asked.token_threshold)
        why = f"{bench.scorer.name} gives no token {asked.token_threshold} or more; give --toxic-words FILE"
    if not found:
        raise InputError(f"there are no toxic tokens to look for: {why}")
    return found


def listed_tokens(reader: TextReader, words: Sequence[str]) -> list[int]:
    """Tokens whose whole text, but for white space and case, is one of ``words``."""
    wanted = {word.casefold() for word in words}
    texts = [reader.token_bytes(index).decode("utf-8", "replace") for index in range(reader.vocab_size)]
    return [index for index, text in enumerate(texts) if text.strip().casefold() in wanted]


def scored_tokens(reader: TextReader, scorer: Scorer, threshold: float) -> list[int]:
    """Tokens that spell a whole word, and that ``scorer`` gives ``threshold`` or more by themselves."""
    texts = [reader.token_bytes(index).decode("utf-8", "replace").strip() for index in range(reader.vocab_size)]
    spelled = [index for index, text in enumerate(texts) if re.search(r"\w\w", text)]
    scores = scorer.score([texts[index] for index in spelled])[scorer.main]
    return [index for index, score in zip(spelled, scores) if score >= threshold]


def read_contexts(bench: Bench) -> tuple[list[list[int]], list[list[int]]]:
    """Texts that fit into the models, and the positions in each after which a token is looked at."""
    every = bench.asked.lens.positions == EVERY
    texts = dict.fromkeys((row["prompt"], row.get("completion", "") if every else "") for row in bench.rows)
    start = len(bench.reader.prompt(""))
    sequences, counted = [], []
    for prompt, completion in bench.drawn(list(texts)):
        if not isinstance(completion, str):
            raise InputError('a line of the prompts has a "completion" that is no text')
        ids = bench.reader.prompt(prompt + completion)
        ids = ids if bench.window is None else ids[-bench.window :] if not every else ids[: bench.window]
        if ids:
            sequences.append(ids)
            counted.append(list(range(max(0, start - 1), len(ids))) if every else [len(ids) - 1])
    if not sequences:
        raise InputError("the prompts have no tokens")
    return sequences, counted


def find_places(
    lm: LanguageModel,
    anatomy: Anatomy,
    sequences: Sequence[Sequence[int]],
    counted: Sequence[Sequence[int]],
    toxic: Sequence[int],
    top_k: int = 1,
) -> list[Place]:
    """Places, in order, where one of the ``top_k`` likeliest tokens of ``lm`` is toxic."""
    is_toxic = torch.zeros(lm.drawn_ids, dtype=torch.bool, device=lm.device)
    is_toxic[torch.tensor(toxic, device=lm.device)] = True
    found = []
    for index, passage in passages(lm, anatomy, sequences):
        positions = torch.tensor(counted[index], device=lm.device)
        for some in positions.split(max(1, _LOGITS_AT_ONCE // lm.drawn_ids)):
            with torch.no_grad():
                logits = lm.drawable_logits(anatomy.said(passage.residuals[-1, some]))
            likeliest = logits.topk(min(top_k, logits.shape[-1])).indices  # [places, K], the best first
            hit = is_toxic[likeliest]
            for row in hit.any(dim=1).nonzero()[:, 0].tolist():
                token = int(likeliest[row, hit[row].nonzero()[0, 0]])
                found.append(Place(index, int(some[row]), token))
    return sorted(found, key=lambda place: (place.sequence, place.position))


def probabilities(
    lm: LanguageModel,
    anatomy: Anatomy,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Place],
    toxic: Sequence[int],
) -> Floats:
    """``[P, L + 1, 2]``: p_l of each place's token, and Σ_T p_l."""
    used = sorted({place.sequence for place in places})
    of_text: dict[int, list[int]] = {}
    for number, place in enumerate(places):
        of_text.setdefault(place.sequence, []).append(number)
    ids = torch.tensor(toxic, device=lm.device)
    result = np.empty((len(places), len(anatomy.blocks) + 1, 2))
    for row, passage in passages(lm, anatomy, [sequences[index] for index in used]):
        for number in of_text[used[row]]:
            place = places[number]
            p = lens(lm, anatomy, passage.residuals[:, place.position])
            result[number, :, 0] = p[:, place.token].double().cpu().numpy()
            result[number, :, 1] = p[:, ids].double().sum(dim=1).cpu().numpy()
    return result


def lens(lm: LanguageModel, anatomy: Anatomy, residuals: Tensor) -> Tensor:
    """p_l ``[..., V]`` of ``residuals[..., d]``, over the tokens that can be drawn."""
    with torch.no_grad():
        return torch.softmax(lm.drawable_logits(anatomy.said(residuals)), dim=-1)


def summary(values: dict[str, Floats], texts: Sequence[int], resamples: int, seed: int) -> dict[str, Any]:
    """Means with intervals, and findings.

    Args:
        values: of each model ``[P, L + 1, 2]``, the base first.
        texts: number of the text of each place; texts are resampled, not places.
    """
    labels = list(values)
    layers = next(iter(values.values())).shape[1]
    # [texts, models * layers * 2, (sum, places)]
    members = np.unique(texts, return_inverse=True)[1]
    table = np.stack([values[label] for label in labels], axis=1).reshape(len(texts), -1)
    sums = np.zeros((members.max() + 1, table.shape[1], 2))
    np.add.at(sums, members, np.stack([table, np.ones_like(table)], axis=2))
    sampled = Sampled(sums, resamples, seed)

    def column(model: int, layer: int, kind: int) -> int:
        return (model * layers + layer) * 2 + kind

    numbers = {
        label: {
            name: {
                "values": [float(sampled.values[column(model, layer, kind)]) for layer in range(layers)],
                "intervals": [list(sampled.interval(column(model, layer, kind))) for layer in range(layers)],
            }
            for kind, name in enumerate(("token", "all"))
        }
        for model, label in enumerate(labels)
    }
    verdicts = [
        _verdict(labels, model, numbers, sampled, [column(0, layer, 0) for layer in range(layers)],
                 [column(model, layer, 0) for layer in range(layers)])
        for model in range(1, len(labels))
    ]  # fmt: skip
    known = int(members.max()) + 1
    where = f"{len(texts)} places in {known} texts where {labels[0]} would say a toxic token"
    where += "." if known >= _FEWEST_TEXTS else ": too few to be sure of anything."
    sure = known >= _FEWEST_TEXTS and all(sure for _, sure in verdicts)
    findings = [
        _figure(numbers, labels, "token", [where, *(text for text, _ in verdicts)], sure),
        _figure(numbers, labels, "all", [], None),
    ]
    return {"layers": layer_names(layers), "models": numbers, "findings": findings}


def _verdict(
    labels: Sequence[str], model: int, numbers: dict[str, Any], sampled: Sampled, base: list[int], own: list[int]
) -> tuple[str, bool]:
    """What one model's curve says against the base's, and whether its interval says so."""
    label, first = labels[model], labels[0]
    of_base, of_model = numbers[first]["token"], numbers[label]["token"]
    inner = range(1, len(base) - 1) or range(len(base) - 1)
    end, end_bounds = sampled.difference(own[-1], base[-1])
    text = (
        f"{label} gives it {said(of_model['values'][-1], of_model['intervals'][-1])}, {first} "
        f"{said(of_base['values'][-1], of_base['intervals'][-1])}"
    )
    if not is_sure(end_bounds):
        return f"{text}: no sure difference ({said(end, end_bounds)}).", False
    if end > 0:
        return f"{text}: {label} says it more ({said(end, end_bounds)}).", True
    peak = max(inner, key=lambda layer: of_base["values"][layer])
    inside, inside_bounds = sampled.difference(own[peak], base[peak])
    how = "lower inside as well" if is_sure(inside_bounds) and inside < 0 else "lower at the end, not surely inside"
    return f"{text}: {how} (by {said(inside, inside_bounds)} at layer {peak}, {first}'s peak before the last).", True


def _figure(
    numbers: dict[str, Any], labels: Sequence[str], kind: str, verdict: Sequence[str], sure: bool | None
) -> Finding:
    layers = range(len(numbers[labels[0]][kind]["values"]))
    drawn = [
        series(label, numbers[label][kind]["values"], [bounds_of(pair) for pair in numbers[label][kind]["intervals"]])
        for label in labels
    ]
    what = {"token": "p of the base's toxic token", "all": "p of all toxic tokens"}[kind]
    verdict = verdict or [
        f"All toxic tokens at the end, {label}: "
        f"{said(numbers[label][kind]['values'][-1], numbers[label][kind]['intervals'][-1])}."
        for label in labels
    ]
    figure = lines(list(layers), drawn, "layer (last: what the model says)", what, limits=(0.0,))
    return finding(f"lens-{kind}", verdict, figure, sure=sure)


def _quoted(
    reader: TextReader, sequences: Sequence[Sequence[int]], places: Sequence[Place], values: dict[str, Floats]
) -> dict[str, Any]:
    """The places where the base is surest."""
    labels = list(values)
    order = np.argsort(-values[labels[0]][:, -1, 0])[:_QUOTED]
    rows = []
    for number in order:
        place = places[number]
        before = reader.decode(sequences[place.sequence][: place.position + 1])[-_TEXT_BEFORE:]
        token = reader.token_bytes(place.token).decode("utf-8", "replace")
        rows.append([before, token, *(f"{values[label][number, -1, 0]:.3g}" for label in labels)])
    return quote("Where the base is surest", ["text before", "toxic token", *map(visible, labels)], rows)
