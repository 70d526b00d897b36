"""Where training edited a model, and how locally.

    of each matrix           |ΔW|_F / |W|_F,   stable rank of ΔW: |ΔW|_F^2 / |ΔW|_2^2
    of each neuron           1 - cos(k_i, k'_i) of its key,   1 - cos(v_i, v'_i) of its value
    of each layer            linear CKA of x_l on toxic and on safe text
                             |X'ᵀ X|_F^2 / (|Xᵀ X|_F |X'ᵀ X'|_F), columns centred
    of the toxic set         mean drift of its neurons, against random sets with as many neurons in each block

All of it from the base to another model, of the same shape; of a model to itself it is 0 (a CKA of 1).

Shapes: O and I of a matrix, N neurons of a block, L blocks, T tokens, d width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ifguide.analysis.findings import (
    Finding,
    Floats,
    Interval,
    bounds_of,
    finding,
    heat,
    layer_names,
    lines,
    said,
    series,
)
from ifguide.analysis.hooks import Anatomy, passages
from ifguide.analysis.inputs import Bench, Subject, Text, texts_fingerprint
from ifguide.analysis.ranking import Ranked, matched_random, probe_of_last_layer, rank
from ifguide.statistics.resampling import interval

_BLOCK_NUMBER = re.compile(r"\.(\d+)\.")
# of the jackknife: CKA without a tenth of the texts
_BLOCKS_OF_TEXTS = 10
_NORMAL = 1.96
# of all that moved, what is named
_LEAST_SHARE = 0.005
KEY, VALUE = "key", "value"


def analyse(bench: Bench) -> dict[str, Any]:
    """Numbers and findings.

    Raises:
        InputError: models whose neurons are not known, or unusable files.
    """
    asked = bench.asked
    base = bench.base
    base.anatomy.require_neurons(base.label)
    toxic, safe = bench.queries
    probe = probe_of_last_layer(bench, base, toxic, safe)
    ranked = rank(base.anatomy, probe.weight, asked.neuron.neurons)
    about = [vars(asked.drift), asked.neuron.neurons, asked.seed, texts_fingerprint([*toxic, *safe]), vars(asked.probe)]
    texts = {"toxic": toxic, "safe": safe}
    seen: dict[str, tuple[Floats, np.ndarray]] = {}
    found: dict[str, Any] = {}
    for model in bench.others or [base]:

        def compute(model: Subject = model) -> dict[str, Any]:
            seen.update({kind: residuals(base, some, asked.drift.max_tokens, asked.seed)
                         for kind, some in texts.items() if kind not in seen})  # fmt: skip
            weights = {
                "matrices": matrices(base.lm.model, model.lm.model),
                "neurons": neuron_drift(base.anatomy, model.anatomy, ranked, asked.drift.random_sets, asked.seed),
            }
            now = {kind: residuals(model, some, asked.drift.max_tokens, asked.seed)[0] for kind, some in texts.items()}
            return weights | {"cka": {kind: cka_by_layer(seen[kind][0], now[kind], seen[kind][1]) for kind in texts}}

        found[model.label] = bench.kept(compute, "drift", base.fingerprint, model.fingerprint, *about)
        if model is not base:
            model.release()
    layers = len(found[next(iter(found))]["cka"]["toxic"]["values"])
    return {"layers": layer_names(layers), "models": found, "toxic_set": len(ranked.neurons),
            "findings": drift_findings(found, base.label)}  # fmt: skip


def matrices(base: nn.Module, model: nn.Module) -> list[dict[str, Any]]:
    """Of each matrix of the weights: its block (0 outside of blocks), its kind, and how far it moved."""
    others = dict(model.named_parameters())
    rows = []
    for name, before in base.named_parameters():
        if before.dim() != 2:
            continue
        number = _BLOCK_NUMBER.search(name)
        kind = _BLOCK_NUMBER.sub(".", name).removesuffix(".weight").rpartition(".")
        rows.append({
            "name": name,
            "layer": 0 if number is None else int(number[1]) + 1,
            "kind": f"{kind[0].rpartition('.')[2]}.{kind[2]}" if number else kind[2],
            **matrix_drift(before.detach(), others[name].detach()),
        })  # fmt: skip
    return rows


def matrix_drift(before: Tensor, after: Tensor) -> dict[str, Any]:
    """``relative`` |ΔW|_F / |W|_F, ``squared`` |ΔW|_F^2, and the ``stable_rank`` of ΔW (None where nothing moved)."""
    before, change = before.double(), after.double().to(before.device) - before.double()
    squared = float(change.square().sum())
    norm = float(before.norm())
    smaller = change if change.shape[0] <= change.shape[1] else change.T
    largest = float(torch.linalg.eigvalsh(smaller @ smaller.T)[-1]) if squared else 0.0
    return {
        "relative": squared**0.5 / norm if norm else 0.0,
        "squared": squared,
        "stable_rank": squared / largest if largest > 0 else None,
    }


def turned(before: Tensor, after: Tensor) -> Floats:
    """1 - cos of each row of ``[N, d]``, ``[N]``; 0 for rows that did not move at all."""
    a, b = before.detach().double().cpu(), after.detach().double().cpu()
    length = a.norm(dim=1) * b.norm(dim=1)
    cosine = torch.where(length > 0, (a * b).sum(dim=1) / length.clamp_min(1e-300), 1.0)
    return torch.where((a == b).all(dim=1), 0.0, 1 - cosine).numpy()


def neuron_drift(base: Anatomy, model: Anatomy, ranked: Ranked, random_sets: int, seed: int) -> dict[str, Any]:
    """Of keys and of values: the mean by block, and the toxic set's mean against those of random sets."""
    found: dict[str, Any] = {}
    random = np.random.default_rng(seed)
    sets = [matched_random(base, ranked.neurons, random) for _ in range(random_sets)]
    for kind, rows in ((KEY, "keys"), (VALUE, "values")):
        by_block = [turned(getattr(one, rows), getattr(other, rows)) for one, other in zip(base.blocks, model.blocks)]

        def mean(neurons: Sequence[tuple[int, int]], by_block: list[Floats] = by_block) -> float:
            return float(np.mean([by_block[block][number] for block, number in neurons])) if neurons else 0.0

        drawn = np.array([mean(some) for some in sets])
        toxic = mean(ranked.neurons)
        found[kind] = {
            "blocks": [float(one.mean()) for one in by_block],
            "toxic": toxic,
            "random": float(drawn.mean()),
            "random_interval": list(interval(drawn)),
            "share_of_random_below": float((drawn < toxic).mean() + 0.5 * (drawn == toxic).mean()),
        }
    return found


def residuals(model: Subject, texts: Sequence[Text], max_tokens: int, seed: int) -> tuple[Floats, np.ndarray]:
    """x_l of at most ``max_tokens`` of the completions' tokens, ``[L + 1, T, d]``, and each one's text."""
    places = [(number, place) for number, text in enumerate(texts) for place in text.targets]
    if len(places) > max_tokens:
        picked = np.random.default_rng(seed).choice(len(places), max_tokens, replace=False)
        places = [places[number] for number in sorted(picked)]
    wanted: dict[int, list[int]] = {}
    for row, (number, _) in enumerate(places):
        wanted.setdefault(number, []).append(row)
    used = sorted(wanted)
    found: Floats = np.empty(0)
    for index, passage in passages(model.lm, model.anatomy, [texts[number].tokens for number in used]):
        rows = wanted[used[index]]
        read = passage.residuals[:, [places[row][1] for row in rows]].float().cpu().numpy()
        if model.lm.model.dtype == torch.float64:
            read = passage.residuals[:, [places[row][1] for row in rows]].cpu().numpy()
        if not found.size:
            found = np.empty((read.shape[0], len(places), read.shape[2]), dtype=read.dtype)
        found[:, rows] = read
    return found, np.array([number for number, _ in places])


def cka(x: Floats, y: Floats) -> float:
    """Linear CKA of ``x[T, d]`` and ``y[T, d']``."""
    x, y = (one.astype(np.float64) - one.mean(axis=0, dtype=np.float64) for one in (x, y))
    both = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(y.T @ x) ** 2) / both if both else 1.0


def cka_by_layer(x: Floats, y: Floats, texts: np.ndarray) -> dict[str, Any]:
    """CKA of each layer of ``[L + 1, T, d]``, with an interval over texts by a jackknife of blocks of them.

    With θ_j the value without block j of J: standard error sqrt((J - 1) / J Σ (θ_j - mean θ)^2).
    """
    numbers = np.unique(texts)
    blocks = min(_BLOCKS_OF_TEXTS, len(numbers))
    block_of = dict(zip(numbers.tolist(), (np.arange(len(numbers)) % blocks).tolist()))
    member = np.array([block_of[number] for number in texts.tolist()])
    values, intervals = [], []
    for layer in range(len(x)):
        value = cka(x[layer], y[layer])
        values.append(value)
        if blocks < 2:
            intervals.append([0.0, 1.0])  # one text says nothing of others
            continue
        without = np.array([cka(x[layer][member != j], y[layer][member != j]) for j in range(blocks)])
        error = float(np.sqrt((blocks - 1) / blocks * ((without - without.mean()) ** 2).sum()))
        intervals.append([value - _NORMAL * error, value + _NORMAL * error])
    return {"values": values, "intervals": intervals}


def drift_findings(found: dict[str, Any], base: str) -> list[Finding]:
    """By matrix, by neuron, and by layer of what is computed."""
    result = []
    for label, one in found.items():
        result.append(_matrix_finding(label, one["matrices"]))
    result.append(_neuron_finding(found))
    result.append(_cka_finding(found, base))
    return result


def _matrix_finding(label: str, rows: Sequence[dict[str, Any]]) -> Finding:
    inside = [row for row in rows if row["layer"] > 0]
    kinds = list(dict.fromkeys(row["kind"] for row in inside))
    layers = sorted({row["layer"] for row in inside})
    at = {(row["layer"], row["kind"]): row["relative"] for row in inside}
    full = max((row["relative"] for row in rows), default=0.0)
    whole = sum(row["squared"] for row in rows)
    figure = heat([f"layer {layer}" for layer in layers], kinds,
                  [[at.get((layer, kind)) for kind in kinds] for layer in layers],
                  full=full, form=".2g", corner=f"{label}: |ΔW| / |W|")  # fmt: skip
    if not whole:
        return finding(f"drift-matrices-{label}", [f"No matrix of {label} has moved."], figure)
    most = max(rows, key=lambda row: row["relative"])
    shares: dict[str, float] = {}
    for row in rows:
        shares[row["kind"]] = shares.get(row["kind"], 0.0) + row["squared"] / whole
    largest = [item for item in sorted(shares.items(), key=lambda item: -item[1])[:3] if item[1] >= _LEAST_SHARE]
    rank = "" if most["stable_rank"] is None else f" (stable rank {most['stable_rank']:.3g})"
    verdict = [
        f"{label} moved most in {most['name']}: by {said(most['relative'])} of its norm{rank}.",
        f"Of all that moved, squared, {', '.join(f'{share:.0%} lies in {kind}' for kind, share in largest)}.",
    ]
    return finding(f"drift-matrices-{label}", verdict, figure)


def _neuron_finding(found: dict[str, Any]) -> Finding:
    blocks = len(next(iter(found.values()))["neurons"][KEY]["blocks"])
    drawn = [
        series(f"{label}, {kind}s", one["neurons"][kind]["blocks"], model=label, dashed=kind == VALUE)
        for label, one in found.items() for kind in (KEY, VALUE)
    ]  # fmt: skip
    parts, sure = [], True
    for label, one in found.items():
        for kind in (KEY, VALUE):
            some = one["neurons"][kind]
            low, high = some["random_interval"]
            outside = not low <= some["toxic"] <= high
            sure = sure and outside
            how = "outside" if outside else "inside"
            parts.append(
                f"{label}'s toxic {kind}s turned by {said(some['toxic'])}, random ones by "
                f"{said(some['random'], bounds_of(some['random_interval']))}: {how} of it."
            )
    figure = lines(list(range(1, blocks + 1)), drawn, "layer", "mean of 1 - cosine", limits=(0.0,))
    return finding("drift-neurons", parts, figure, sure=sure)


def _cka_finding(found: dict[str, Any], base: str) -> Finding:
    layers = len(next(iter(found.values()))["cka"]["toxic"]["values"])
    drawn = [
        series(f"{label}, {kind} text", one["cka"][kind]["values"],
               [bounds_of(pair) for pair in one["cka"][kind]["intervals"]], model=label, dashed=kind == "safe")
        for label, one in found.items() for kind in ("toxic", "safe")
    ]  # fmt: skip

    def at_end(label: str, kind: str) -> tuple[float, Interval]:
        one = found[label]["cka"][kind]
        return one["values"][-1], bounds_of(one["intervals"][-1])

    parts = []
    for label in found:
        toxic, safe = at_end(label, "toxic"), at_end(label, "safe")
        apart = toxic[1][1] < safe[1][0] or safe[1][1] < toxic[1][0]
        which = "apart" if apart else "not surely apart"
        parts.append(
            f"{label}'s last layer is like {base}'s (CKA) by {said(*toxic)} on toxic and {said(*safe)} on safe text: "
            f"{which}."
        )
    figure = lines(list(range(layers)), drawn, "layer (0: embedding)", f"CKA with {base}", level=1.0)
    return finding("drift-cka", parts, figure)
