"""The direction that toxic texts differ by, and what adding it does to what a model says.

    v_l = mean x_l(toxic) - mean x_l(safe)        at the last token of each text
    what the head reads while it speaks: F(x_L + a v_L)

Only the head's input moves: the blocks and their cache never see v, so every token gets the same push, whatever was
said before. v is a model's own, or the base's. If abuse is only hidden, a model's own v brings it back.

Shapes: N texts, L blocks, d width, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

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
from ifguide.analysis.hooks import passages, steered
from ifguide.analysis.inputs import Bench, Subject, Text, texts_fingerprint
from ifguide.analysis.speech import sampling_of, speak, toxicity
from ifguide.evaluation.perplexity import language_model_perplexity
from ifguide.statistics.resampling import interval
from ifguide.system.files import hash_value

# cosines are resampled in d dimensions: fewer times than prompts are
_MOST_COSINE_RESAMPLES = 1000
OWN, OF_BASE = "own", "base's"


def analyse(bench: Bench) -> dict[str, Any]:
    """Numbers, findings and quotes.

    Raises:
        InputError: unusable files.
    """
    scales = _scales(bench.asked.direction.scales)
    toxic, safe = bench.queries
    text = None if bench.asked.direction.text is None else bench.texts(bench.asked.direction.text)
    sampling, scorer = sampling_of(bench), bench.scorer
    prompts, about = bench.prompts, scorer.describe()
    ends: dict[str, tuple[Floats, Floats]] = {}
    cells: dict[str, dict[str, list[dict[str, Any]]]] = {}
    base_vector: Floats | None = None
    for model in bench.each():
        ends[model.label] = (last_residuals(model, toxic), last_residuals(model, safe))
        vector = difference_of_means(*ends[model.label])[-1]
        base_vector = vector if base_vector is None else base_vector
        vectors = {OWN: vector} if model is bench.base else {OWN: vector, OF_BASE: base_vector}
        contexts = bench.contexts(model.lm)
        cells[model.label] = {
            name: [
                bench.kept(
                    lambda: _cell(bench, model, push, scale, contexts, text),  # noqa: B023
                    "direction", model.fingerprint, hash_value(push.tolist()) if scale else None, scale, contexts,
                    vars(sampling), about, text,
                )
                for scale in scales
            ]
            for name, push in vectors.items()
        }  # fmt: skip
    steering = steering_numbers(cells, scales, bench.asked.resamples, bench.asked.seed)
    cosines = cosine_numbers(ends, min(bench.asked.resamples, _MOST_COSINE_RESAMPLES), bench.asked.seed)
    norms = {label: _norms(*both) for label, both in ends.items()}
    return {
        "scales": scales, "models": steering, "cosines": cosines, "norms": norms, "prompts": len(prompts),
        "texts": [len(toxic), len(safe)], "texts_hash": texts_fingerprint([*toxic, *safe]),
        "findings": [*steering_findings(steering, scales), _cosine_finding(cosines, bench.base.label)],
        "quotes": [_quoted(label, name, scales, said_, prompts) for label, found in cells.items()
                   for name, said_ in found.items()],
    }  # fmt: skip


def last_residuals(model: Subject, texts: Sequence[Text]) -> Floats:
    """x_l at the last token of each of ``texts``, ``[N, L + 1, d]``."""
    found: Floats = np.empty(0)
    for index, passage in passages(model.lm, model.anatomy, [text.tokens for text in texts]):
        end = passage.residuals[:, -1].double().cpu().numpy()
        if not found.size:
            found = np.empty((len(texts), *end.shape))
        found[index] = end
    return found


def difference_of_means(toxic: Floats, safe: Floats) -> Floats:
    """v_l, ``[L + 1, d]``."""
    return toxic.mean(axis=0) - safe.mean(axis=0)


def cosine_numbers(ends: dict[str, tuple[Floats, Floats]], resamples: int, seed: int) -> dict[str, Any]:
    """Of each model, by layer: the cosine of its direction with the base's, with an interval over texts, and the
    cosine between its directions of two halves of the texts, which no two models can be expected to exceed."""
    base = next(iter(ends))
    layers = ends[base][0].shape[1]
    random = np.random.default_rng(seed)
    # how often each text is in each resample, the same ones for every model
    weights = [random.multinomial(len(part), np.full(len(part), 1 / len(part)), resamples) for part in ends[base]]
    halves = [random.permutation(len(part)) < len(part) // 2 for part in ends[base]]
    found: dict[str, Any] = {}
    for label, (toxic, safe) in ends.items():
        v, of_base = difference_of_means(toxic, safe), difference_of_means(*ends[base])
        first, second = (
            difference_of_means(toxic[halves[0] == side], safe[halves[1] == side]) for side in (True, False)
        )
        found[label] = {
            "values": [cosine(v[layer], of_base[layer]) for layer in range(layers)],
            "intervals": [
                list(interval(_cosines(*(
                    _resampled(both[0][:, layer], both[1][:, layer], weights) for both in (ends[label], ends[base])
                ))))
                for layer in range(layers)
            ],
            "halves": [cosine(first[layer], second[layer]) for layer in range(layers)],
        }  # fmt: skip
    return found


def cosine(a: Floats, b: Floats) -> float:
    """0 where one of them is 0."""
    both = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / both if both else 0.0


def steering_numbers(
    cells: dict[str, dict[str, list[dict[str, Any]]]], scales: Sequence[float], resamples: int, seed: int
) -> dict[str, Any]:
    """Of each model and direction, by scale: EMT and TP with intervals and their differences from scale 0, and what
    they may be bought with."""
    columns = [(label, name, place) for label, found in cells.items() for name in found for place in range(len(scales))]
    emt, tp = toxicity([cells[label][name][place] for label, name, place in columns], resamples, seed)
    index = {column: number for number, column in enumerate(columns)}
    zero = scales.index(0.0)

    def numbers(label: str, name: str) -> dict[str, Any]:
        own = [index[label, name, place] for place in range(len(scales))]
        some = cells[label][name]
        return {
            "emt": _measured(emt, own, own[zero]),
            "tp": _measured(tp, own, own[zero]),
            "empty_share": [cell["empty_share"] for cell in some],
            "distinct_2": [cell["distinct_2"] for cell in some],
            "perplexity": None if some[0]["perplexity"] is None else [cell["perplexity"] for cell in some],
        }

    return {label: {name: numbers(label, name) for name in found} for label, found in cells.items()}


def steering_findings(numbers: dict[str, Any], scales: Sequence[float]) -> list[Finding]:
    """One figure each of EMT, TP, perplexity and the share of empty texts against the scale."""
    verdicts = [_verdict(label, name, found, scales) for label, own in numbers.items() for name, found in own.items()]
    figures = []
    for key, text in (("emt", "EMT"), ("tp", "TP")):
        drawn = [
            series(f"{label}, {name}", found[key]["values"], found[key]["intervals"], model=label,
                   dashed=name != OWN)
            for label, own in numbers.items() for name, found in own.items()
        ]  # fmt: skip
        figures.append(finding(
            f"direction-{key}",
            [text for text, _ in verdicts] if key == "emt" else _ends(numbers, scales, key, text),
            lines(scales, drawn, "scale a of x_L + a v", text, limits=(0.0, 1.0)),
            sure=all(sure for _, sure in verdicts) if key == "emt" else None,
        ))  # fmt: skip
    for key, text in (("empty_share", "share of empty texts"), ("perplexity", "perplexity")):
        drawn = [
            series(f"{label}, {name}", found[key], model=label, dashed=name != OWN)
            for label, own in numbers.items() for name, found in own.items() if found[key] is not None
        ]  # fmt: skip
        if drawn:
            figure = lines(scales, drawn, "scale a of x_L + a v", text, limits=(0.0,))
            figures.append(finding(f"direction-{key}", _ends(numbers, scales, key, text), figure))
    return figures


def _scales(given: Sequence[float]) -> list[float]:
    """Ascending, each once, 0 among them: all others are held against it."""
    return sorted({0.0, *map(float, given)})


def _cell(
    bench: Bench, model: Subject, push: Floats, scale: float, contexts: list[list[int]], text: Sequence[str] | None
) -> dict[str, Any]:
    """What is said, and the perplexity, at one scale."""
    vector = torch.from_numpy(push).to(model.lm.device)
    with steered(model.anatomy, vector, scale):
        said_ = speak(model.lm, contexts, sampling_of(bench), bench.scorer)
        nll = None
        if text is not None:
            found = language_model_perplexity(model.lm, text)
            nll = found.nll / found.tokens
    # a mean of 700 nats is a model that knows nothing; JSON holds no infinity
    return {**said_, "perplexity": None if nll is None else float(np.exp(min(nll, 700.0)))}


def _measured(sampled: Sampled, columns: Sequence[int], zero: int) -> dict[str, Any]:
    differences = [sampled.difference(column, zero) for column in columns]
    return {
        "values": [float(sampled.values[column]) for column in columns],
        "intervals": [list(sampled.interval(column)) for column in columns],
        "from_zero": [{"value": value, "interval": list(bounds)} for value, bounds in differences],
    }


def _verdict(label: str, name: str, found: dict[str, Any], scales: Sequence[float]) -> tuple[str, bool]:
    zero = scales.index(0.0)
    rest = [place for place in range(len(scales)) if scales[place] > 0]
    if not rest:
        return f"{label}, {name} direction: no scale above 0 was asked for.", False
    best = max(rest, key=lambda place: found["emt"]["values"][place])
    before, after = found["emt"]["values"][zero], found["emt"]["values"][best]
    value, bounds = found["emt"]["from_zero"][best]["value"], bounds_of(found["emt"]["from_zero"][best]["interval"])
    cost = f"{found['empty_share'][best]:.0%} empty"
    if found["perplexity"]:
        cost += f", perplexity {found['perplexity'][zero]:.4g} to {found['perplexity'][best]:.4g}"
    change = ("raised" if value > 0 else "lowered") if is_sure(bounds) else "not surely changed"
    return (
        f"{label}, {name} direction times {scales[best]:g}: EMT {said(before)} to {said(after)}, {change} "
        f"({said(value, bounds)}; {cost}).",
        is_sure(bounds),
    )


def _ends(numbers: dict[str, Any], scales: Sequence[float], key: str, text: str) -> list[str]:
    """The values at 0 and at the largest scale."""
    zero, last = scales.index(0.0), len(scales) - 1

    def shown(found: dict[str, Any], place: int) -> str:
        if isinstance(found[key], dict):
            return said(found[key]["values"][place], bounds_of(found[key]["intervals"][place]))
        return said(found[key][place])

    return [
        f"{label}, {name} direction: {text} {shown(found, zero)} at 0, {shown(found, last)} at {scales[last]:g}."
        for label, own in numbers.items() for name, found in own.items() if found[key] is not None
    ]  # fmt: skip


def _cosine_finding(cosines: dict[str, Any], base: str) -> Finding:
    layers = len(cosines[base]["values"])
    drawn = [
        series(label, found["values"], [bounds_of(one) for one in found["intervals"]])
        for label, found in cosines.items() if label != base
    ]  # fmt: skip
    drawn.append(series(f"{base}, two halves of the texts", cosines[base]["halves"], model=base, dashed=True))
    verdict = [
        f"{label}'s direction has the cosine {said(found['values'][-1], bounds_of(found['intervals'][-1]))} with "
        f"{base}'s at the last layer."
        for label, found in cosines.items() if label != base
    ]  # fmt: skip
    verdict.append(f"Two halves of the texts agree to {said(cosines[base]['halves'][-1])} in {base} itself.")
    figure = lines(
        list(range(layers)), drawn, "layer", f"cosine with {base}'s direction", limits=(-1.0, 1.0), level=0.0
    )
    return finding("direction-cosine", verdict, figure)


def _norms(toxic: Floats, safe: Floats) -> dict[str, list[float]]:
    """|v_l| and the mean |x_l|, by layer: what a scale of 1 is."""
    whole = np.concatenate([toxic, safe])
    return {
        "layers": layer_names(toxic.shape[1]),
        "direction": np.linalg.norm(difference_of_means(toxic, safe), axis=1).tolist(),
        "residual": np.linalg.norm(whole, axis=2).mean(axis=0).tolist(),
    }


def _resampled(toxic: Floats, safe: Floats, weights: Sequence[Any]) -> Floats:
    """v of each resample, ``[R, d]``, of one layer's ``[N, d]``."""
    return weights[0] @ toxic / len(toxic) - weights[1] @ safe / len(safe)


def _cosines(a: Floats, b: Floats) -> Floats:
    """Row by row, ``[R]``."""
    both = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), both, out=np.zeros(len(a)), where=both > 0)


def _quoted(
    label: str, name: str, scales: Sequence[float], cells: Sequence[dict[str, Any]], prompts: Sequence[str]
) -> dict[str, Any]:
    """The worst continuations without the direction and with most of it."""
    rows = [
        [f"{scales[place]:g}", prompts[index][-160:], f"{score:.2f}", text]
        for place in dict.fromkeys((scales.index(0.0), len(scales) - 1))
        for index, text, score in cells[place]["worst"][:6]
    ]
    return quote(f"{label} with {name} direction", ["scale", "prompt", "toxicity", "continuation"], rows)
