"""How well toxic text is told from safe text inside a model: fresh probes of every layer.

    f_l = mean over the completion's tokens of x_l      [N, d], standardised by the training folds
    logistic regression: min_w  |w|^2 / 2 + C Σ_n log(1 + exp(-y_n (w f_n + b)))
    AUC of what a fold's probe says of texts whose prompts it has not seen

Held against it: a small MLP, the same regression on shuffled labels, and the base's probe on the other models. A probe
that is trained afresh says what can be read, not what the model uses: where a list of words tells the classes apart, so
do the embeddings alone (layer 0), of any model.

Shapes: N texts, of them N1 toxic and N0 safe, L blocks, d width, R resamples.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from ifguide.analysis.findings import (
    Finding,
    Floats,
    bounds_of,
    finding,
    is_sure,
    layer_names,
    lines,
    said,
    series,
)
from ifguide.analysis.hooks import passages
from ifguide.analysis.inputs import Bench, Subject, Text, prompt_groups, texts_fingerprint
from ifguide.analysis.options import END, PROMPT
from ifguide.errors import InputError
from ifguide.generation.job import read_prompts
from ifguide.pages.text import split_text
from ifguide.statistics.resampling import interval

LOGISTIC, MLP, SHUFFLED, OF_BASE = "logistic", "mlp", "shuffled", "base's probe"
# so near its optimum that the gradient is 0 to ten digits
_TOLERANCE, _MOST_STEPS = 1e-10, 20_000
_MLP_STEPS = 300
# AUCs are resampled over pairs of texts
_MOST_RESAMPLES = 2000
_MOST_HEAT_TOKENS = 96
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Probe:
    """``w f + b`` of features as they are: positive speaks for toxic.

    Attributes:
        weight: w, ``[d]``.
        bias: b.
    """

    weight: Floats
    bias: float

    def __call__(self, features: Floats) -> Floats:
        """``[...]`` of ``features[..., d]``."""
        return features @ self.weight + self.bias


def analyse(bench: Bench) -> dict[str, Any]:
    """Numbers, findings and heat maps.

    Raises:
        InputError: too few prompts for the folds, or unusable files.
    """
    asked = bench.asked.probe
    toxic, safe = bench.queries
    texts = [*toxic, *safe]
    labels = np.array([1] * len(toxic) + [0] * len(safe))
    folds = folds_by_prompt(prompt_groups(texts), labels, asked.folds, bench.asked.seed)
    shuffled = np.random.default_rng(bench.asked.seed).permutation(labels)
    heat_rows = [] if asked.heat_prompts is None else [row["prompt"] for row in read_prompts(asked.heat_prompts)]
    of_base: Floats | None = None
    whole: list[Probe] = []
    scores: dict[str, dict[str, Floats]] = {}
    maps: list[dict[str, Any]] = []
    for model in bench.each():
        own = features(model, texts, asked.at)
        of_base = own if of_base is None else of_base
        kinds = [LOGISTIC, *([MLP] if asked.hidden else []), SHUFFLED, *([OF_BASE] if model is not bench.base else [])]
        scores[model.label] = {
            kind: np.array([
                bench.kept(
                    lambda: held_out(
                        kind, own[:, layer], of_base[:, layer], labels, shuffled, folds, bench  # noqa: B023
                    ).tolist(),
                    "probe", model.fingerprint, bench.base.fingerprint, texts_fingerprint(texts), vars(asked), kind,
                    layer, bench.asked.seed,
                )
                for layer in range(own.shape[1])
            ])
            for kind in kinds
        }  # fmt: skip
        if heat_rows:
            probes = [fit(own[:, layer], labels, asked.strength) for layer in range(own.shape[1])]
            whole = whole or probes
            maps += heat_maps(bench, model, heat_rows, probes, whole)
    told = {SHUFFLED: shuffled}
    numbers = auc_numbers(scores, labels, told, folds, prompt_groups(texts), bench.asked)
    return {
        "layers": layer_names(of_base.shape[1] if of_base is not None else 0), "texts": [len(toxic), len(safe)],
        "prompts": int(prompt_groups(texts).max() + 1), "models": numbers, "maps": maps,
        "findings": probe_findings(numbers, bench.base.label),
    }  # fmt: skip


def features(model: Subject, texts: Sequence[Text], at: str) -> Floats:
    """f_l of each of ``texts``, ``[N, L + 1, d]``, float64."""
    found: Floats = np.empty(0)
    for index, passage in passages(model.lm, model.anatomy, [text.tokens for text in texts]):
        text = texts[index]
        if at == PROMPT:
            read = passage.residuals[:, text.targets[0] - 1]
        elif at == END:
            read = passage.residuals[:, -1]
        else:
            read = passage.residuals[:, text.targets].double().mean(dim=1)
        row = read.double().cpu().numpy()
        if not found.size:
            found = np.empty((len(texts), *row.shape))
        found[index] = row
    return found


def folds_by_prompt(groups: Ints, labels: Ints, folds: int, seed: int) -> Ints:
    """Fold of each text, int64[N]: texts with one prompt are in one fold.

    Raises:
        InputError: a fold would have texts of one kind alone.
    """
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    place = np.empty_like(order)
    # prompts with toxic texts are dealt first, so that every fold gets its share of them
    has_toxic = np.zeros(len(order), dtype=bool)
    has_toxic[groups[labels == 1]] = True
    place[np.concatenate([order[has_toxic[order]], order[~has_toxic[order]]])] = np.arange(len(order))
    fold = place[groups] % folds
    for number in range(folds):
        inside = labels[fold == number]
        if not len(inside) or inside.min() == inside.max():
            raise InputError(
                f"{len(order)} prompts are too few for {folds} folds with toxic and safe texts in each; give more "
                "queries, or fewer --folds"
            )
    return fold


def fit(x: Floats, y: Ints, strength: float) -> Probe:
    """The regression on ``x[N, d]`` standardised, as a probe of features as they are."""
    mean, deviation = _scale(x)
    weight, bias = fit_standardised((x - mean) / deviation, y, strength)
    return Probe(weight / deviation, bias - float((weight / deviation) @ mean))


def fit_standardised(x: Floats, y: Ints, strength: float) -> tuple[Floats, float]:
    """w ``[d]`` and b: where the gradient of the loss is 0."""
    regression = LogisticRegression(C=strength, tol=_TOLERANCE, max_iter=_MOST_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as near as doubles come
        regression.fit(x, y)
    return regression.coef_[0], float(regression.intercept_[0])


def held_out(
    kind: str, own: Floats, of_base: Floats, labels: Ints, shuffled: Ints, folds: Ints, bench: Bench
) -> Floats:
    """``[N]``: what the probe of the other folds says of each text, of one layer's ``[N, d]``."""
    asked = bench.asked.probe
    found = np.empty(len(labels))
    for fold in range(asked.folds):
        train, test = folds != fold, folds == fold
        source = of_base if kind == OF_BASE else own
        if kind == MLP:
            found[test] = _mlp(own[train], labels[train], own[test], asked.hidden, bench.asked.seed)
        else:
            told = shuffled if kind == SHUFFLED else labels
            if told[train].min() == told[train].max():
                found[test] = 0.0  # shuffled into one kind alone: nothing can be learnt
            else:
                found[test] = fit(source[train], told[train], asked.strength)(own[test])
    return found


def auc(scores: Floats, labels: Ints, folds: Ints) -> float:
    """Share of pairs of a toxic and a safe text of one fold whose toxic text scores higher; ties count half."""
    wins, pairs = _pairs(scores, labels, folds)
    return float(wins.sum() / pairs.sum()) if pairs.any() else 0.5


def auc_draws(scores: Floats, labels: Ints, folds: Ints, counts: Floats) -> Floats:
    """`auc` of each resample, ``[R]``; ``counts[R, N]`` is how often each text is in it."""
    wins, pairs = _pairs(scores, labels, folds)
    toxic, safe = counts[:, labels == 1], counts[:, labels == 0]
    above, below = (((toxic @ table) * safe).sum(axis=1) for table in (wins, pairs))
    return np.divide(above, below, out=np.full(len(counts), 0.5), where=below > 0)


def auc_numbers(
    scores: dict[str, dict[str, Floats]], labels: Ints, told: dict[str, Ints], folds: Ints, groups: Ints, asked: Any
) -> dict[str, Any]:
    """Of each model and kind of probe: AUC by layer with its interval over prompts, and its difference from the base's
    fresh probe.

    Args:
        told: the labels of a kind of probe that was told others than ``labels``.
    """
    resamples = min(asked.resamples, _MOST_RESAMPLES)
    prompts = groups.max() + 1
    drawn = np.random.default_rng(asked.seed).multinomial(prompts, np.full(prompts, 1 / prompts), resamples)
    counts = drawn[:, groups].astype(np.float64)
    base = next(iter(scores))
    layers = range(len(scores[base][LOGISTIC]))
    reference = [auc_draws(scores[base][LOGISTIC][layer], labels, folds, counts) for layer in layers]
    level = [auc(scores[base][LOGISTIC][layer], labels, folds) for layer in layers]
    found: dict[str, Any] = {}
    for label, kinds in scores.items():
        found[label] = {}
        for kind, rows in kinds.items():
            truth = told.get(kind, labels)
            values = [auc(rows[layer], truth, folds) for layer in layers]
            draws = [auc_draws(rows[layer], truth, folds, counts) for layer in layers]
            found[label][kind] = {
                "values": values,
                "intervals": [list(interval(one)) for one in draws],
                "from_base": [
                    {"value": values[layer] - level[layer], "interval": list(interval(draws[layer] - reference[layer]))}
                    for layer in layers
                ],
            }
    return found


def probe_findings(numbers: dict[str, Any], base: str) -> list[Finding]:
    """Fresh probes of all models, the base's probe on the others, and the controls."""
    layers = list(range(len(numbers[base][LOGISTIC]["values"])))

    def curve(label: str, kind: str, name: str, dashed: bool = False) -> dict[str, Any]:
        found = numbers[label][kind]
        return series(name, found["values"], [bounds_of(one) for one in found["intervals"]], model=label, dashed=dashed)

    def figure(drawn: list[dict[str, Any]]) -> dict[str, Any]:
        return lines(layers, drawn, "layer (0: embedding)", "AUC, prompts apart", limits=(0.3, 1.02), level=0.5)

    verdicts = [_verdict(numbers, label, base, LOGISTIC) for label in numbers]
    found = [finding(
        "probe-fresh", [text for text, _ in verdicts],
        figure([curve(label, LOGISTIC, label) for label in numbers]), sure=all(sure for _, sure in verdicts),
    )]  # fmt: skip
    others = [label for label in numbers if label != base]
    if others:
        verdicts = [_verdict(numbers, label, base, OF_BASE) for label in others]
        drawn = [
            curve(base, LOGISTIC, base),
            *(curve(label, OF_BASE, f"{base}'s probe on {label}") for label in others),
        ]
        found.append(finding("probe-of-base", [text for text, _ in verdicts], figure(drawn),
                             sure=all(sure for _, sure in verdicts)))  # fmt: skip
    kinds = [kind for kind in (MLP, SHUFFLED) if kind in numbers[base]]
    drawn = [curve(label, kind, f"{label}, {kind}", dashed=kind == SHUFFLED) for label in numbers for kind in kinds]
    parts = [f"{label}, {kind}: {_best(numbers[label][kind])}." for label in numbers for kind in kinds]
    found.append(finding("probe-controls", parts, figure(drawn)))
    return found


def heat_maps(
    bench: Bench, model: Subject, prompts: Sequence[str], own: Sequence[Probe], of_base: Sequence[Probe]
) -> list[dict[str, Any]]:
    """Of each prompt: how toxic each token is at each layer by a probe, in [0, 1], ``[L + 1][T]``."""
    found = []
    sequences = [bench.reader.encode(prompt)[:_MOST_HEAT_TOKENS] for prompt in prompts]
    start = bench.reader.prompt("")
    room = None if bench.window is None else bench.window - len(start)
    whole = [[*start, *ids[:room]] for ids in sequences]
    said_ = [(number, ids) for number, ids in enumerate(whole) if len(ids) > len(start)]
    probes = {"its own probe": own} if model is bench.base else {"its own probe": own, "the base's probe": of_base}
    for place, passage in passages(model.lm, model.anatomy, [ids for _, ids in said_]):
        number, ids = said_[place]
        residuals = passage.residuals[:, len(start) :].double().cpu().numpy()
        pieces = split_text(ids[len(start) :], bench.reader.token_bytes)
        ends = np.cumsum([count for _, count in pieces]) - 1  # what shares a character is shown at its last token
        for name, some in probes.items():
            values = [
                (1 / (1 + np.exp(-np.clip(probe(residuals[layer]), -50, 50))))[ends].round(4).tolist()
                for layer, probe in enumerate(some)
            ]
            found.append({"prompt": number, "model": model.label, "probe": name, "tokens": [text for text, _ in pieces],
                          "values": values})  # fmt: skip
    return found


def _verdict(numbers: dict[str, Any], label: str, base: str, kind: str) -> tuple[str, bool]:
    found = numbers[label][kind]
    best = int(np.argmax(found["values"]))
    probe = "A fresh probe" if kind == LOGISTIC else f"{base}'s probe"
    text = f"{probe} on {label}: AUC {_best(found)}"
    last = said(found["values"][-1], bounds_of(found["intervals"][-1]))
    if label == base:
        return f"{text}; at the last layer {last}.", True
    value, bounds = found["from_base"][best]["value"], bounds_of(found["from_base"][best]["interval"])
    how = ("surely above" if value > 0 else "surely below") if is_sure(bounds) else "not surely apart from"
    return f"{text}, {how} {base}'s own there ({said(value, bounds)}); at the last layer {last}.", is_sure(bounds)


def _best(found: dict[str, Any]) -> str:
    layer = int(np.argmax(found["values"]))
    return f"{said(found['values'][layer], bounds_of(found['intervals'][layer]))} (layer {layer})"


def _pairs(scores: Floats, labels: Ints, folds: Ints) -> tuple[Floats, Floats]:
    """``[N1, N0]``: 1 where the toxic text scores higher (1/2 for a tie), and 1 where both are of one fold."""
    toxic, safe = labels == 1, labels == 0
    together = (folds[toxic][:, None] == folds[safe]).astype(np.float64)
    gap = scores[toxic][:, None] - scores[safe]
    return ((gap > 0) + 0.5 * (gap == 0)) * together, together


def _mlp(x: Floats, y: Ints, test: Floats, hidden: int, seed: int) -> Floats:
    mean, deviation = _scale(x)
    network = MLPClassifier((hidden,), max_iter=_MLP_STEPS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit((x - mean) / deviation, y)
    return network.predict_proba((test - mean) / deviation)[:, 1]


def _scale(x: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation ``[d]``; 1 for what does not vary."""
    deviation = x.std(axis=0)
    return x.mean(axis=0), np.where(deviation > 0, deviation, 1.0)
