"""GPT-NeoX training with penalties, written a second time: plain PyTorch in double precision.

Nothing here comes from the product or from NeoX but the files on disk: the tokens, masks and labels
(read by their documented layout) and NeoX's saved index maps, which say in which order it packs.

Shapes: B samples of a micro-batch, T tokens (a sample has T + 1), D hidden, H heads, V vocabulary.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

_DTYPES = {1: np.uint8, 4: np.int32, 5: np.int64, 8: np.uint16}
_IGNORED = -100
_EOD = 0


@dataclass
class Sample:
    """One training sample, token by token: ids, strength of the penalty, label (-100: none)."""

    tokens: list[int]
    strengths: list[float]
    labels: list[int]
    codes: list[int]


@dataclass
class Step:
    """What a step should report, and the mean of the losses of its micro-batches."""

    loss: float
    lm_loss: float
    objective: float
    penalty_fraction: float
    penalty_ce: float


# ---- data ----


def read_documents(prefix: str) -> list[list[int]]:
    """All documents of an indexed dataset, by the layout of the ``.idx`` file."""
    raw = Path(f"{prefix}.idx").read_bytes()
    assert raw[:9] == b"MMIDIDX\x00\x00" and struct.unpack("<Q", raw[9:17]) == (1,)
    kind = np.dtype(_DTYPES[raw[17]])
    (count,) = struct.unpack("<Q", raw[18:26])
    lengths = struct.unpack(f"<{count}i", raw[34 : 34 + 4 * count])
    pointers = struct.unpack(f"<{count}q", raw[34 + 4 * count : 34 + 12 * count])
    content = Path(f"{prefix}.bin").read_bytes()
    return [np.frombuffer(content, kind, length, at).tolist() for length, at in zip(lengths, pointers)]


class Blend:
    """The training samples of a configuration, in the order that NeoX serves them."""

    def __init__(self, config: Mapping[str, Any], processes: int):
        self.config = config
        self.length = config["seq_length"]
        self.replicas = processes // (max(1, config["pipe_parallel_size"]) * config["model_parallel_size"])
        self.batch = config["train_micro_batch_size_per_gpu"] * self.replicas
        self.samples = config["train_iters"] * self.batch * config["gradient_accumulation_steps"]
        paths = config.get("train_data_paths") or [config["data_path"]]
        single = config.get("train_data_paths") is None
        masks = config.get("train_penalty_data_paths") or [config.get("penalty_data_path")] * len(paths)
        labels = config.get("train_label_data_paths") or [None] * len(paths)
        weights = self.weights(paths)
        self.datasets = []
        for number, path in enumerate(paths):
            wanted = self.samples if single else math.ceil(self.samples * weights[number] * 1.005)
            name = "train" if single else f"train_{number}"
            self.datasets.append(Packed(config, path, name, wanted, masks[number], labels[number]))
        self.order = list(blended(weights, sum(len(dataset) for dataset in self.datasets)))

    def weights(self, paths: list[str]) -> list[float]:
        weights = [float(weight) for weight in self.config.get("train_data_weights") or [1.0] * len(paths)]
        if self.config.get("weight_by_num_documents"):
            # the published formula: p**alpha, damped by how common the dataset is
            counts = [len(read_documents(path)) for path in paths]
            shares = [(count / sum(counts)) ** self.config.get("weighted_sampler_alpha", 1.0) for count in counts]
            shares = [share / sum(shares) for share in shares]
            weights = [share * (1 - count / sum(counts)) for share, count in zip(shares, counts)]
        return [weight / sum(weights) for weight in weights]

    def sample(self, index: int) -> Sample:
        dataset, place = self.order[index]
        return self.datasets[dataset].sample(place)

    def micro_batches(self, step: int) -> Iterator[list[Sample]]:
        """Of all data-parallel ranks, in step ``step`` (from 0)."""
        size = self.config["train_micro_batch_size_per_gpu"]
        for part in range(self.config["gradient_accumulation_steps"]):
            first = (step * self.config["gradient_accumulation_steps"] + part) * self.batch
            for rank in range(self.replicas):
                yield [self.sample(first + rank * size + one) for one in range(size)]


def blended(weights: list[float], size: int) -> Iterator[tuple[int, int]]:
    """(dataset, its next sample): always the dataset that lags furthest behind its weight."""
    taken = [0] * len(weights)
    for index in range(size):
        behind = [weight * max(index, 1) - count for weight, count in zip(weights, taken)]
        chosen = behind.index(max(behind))
        yield chosen, taken[chosen]
        taken[chosen] += 1


class Packed:
    """One dataset, packed by NeoX's saved index maps."""

    def __init__(
        self, config: Mapping[str, Any], prefix: str, name: str, wanted: int, mask: str | None, labels: str | None
    ):
        self.length = config["seq_length"]
        stem = f"{prefix}_{name}_indexmap_{wanted}ns_{self.length}sl_{config.get('seed', 1234)}s"
        stem += f"_{config.get('pack_impl', 'packed')}pi" + ("_ac" if config.get("allow_chopped", True) else "")
        self.documents, self.places, self.shuffle = (
            np.load(f"{stem}_{what}_idx.npy", allow_pickle=True) for what in ("doc", "sample", "shuffle")
        )
        self.tokens = read_documents(prefix)
        self.codes = read_documents(mask) if mask else None
        self.scale = 1.0
        if mask and json.loads(Path(f"{mask}.json").read_text())["encoding"] == "graded":
            self.scale = 255.0
        self.labels = read_documents(labels) if labels else None

    def __len__(self) -> int:
        return min(len(self.shuffle), len(self.places)) - 1

    def sample(self, index: int) -> Sample:
        """At an index beyond the end, or a place that runs over it, NeoX takes another sample instead."""
        if index >= len(self.shuffle):
            return self.sample(index % len(self))
        place = int(self.shuffle[index])
        try:
            return self.walk(place)
        except IndexError:
            return self.sample(place % len(self))

    def walk(self, place: int) -> Sample:
        """From the first token of the sample at ``place`` to its last, one by one."""
        (entry, offset), (last_entry, last_offset) = self.places[place].tolist(), self.places[place + 1].tolist()
        found = Sample([], [], [], [])
        while (entry, offset) <= (last_entry, last_offset):
            document = int(self.documents[entry])
            if offset == len(self.tokens[document]):
                entry, offset = entry + 1, 0
                continue
            code = self.codes[document][offset] if self.codes else 0
            token = self.tokens[document][offset]
            found.tokens.append(token)
            found.codes.append(code)
            found.strengths.append(code / self.scale)
            found.labels.append(self.labels[document][offset] if self.labels else token)
            offset += 1
        wanted = self.length + 1
        for values, filler in (
            (found.tokens, 0),
            (found.codes, 0),
            (found.strengths, 0.0),
            (found.labels, _IGNORED if self.labels else 0),
        ):
            values += [filler] * (wanted - len(values))
            del values[wanted:]
        return found


# ---- model ----


def token_losses(parameters: Mapping[str, Tensor], config: Mapping[str, Any], inputs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy [B, T] of GPT-NeoX (parallel residual or not, partial rotary positions, untied head)."""
    heads, size = config["num_attention_heads"], config["hidden_size"] // config["num_attention_heads"]
    batch, length = inputs.shape
    hidden = parameters["0.word_embeddings.weight"][inputs]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    for layer in range(2, 2 + config["num_layers"]):

        def weight(name: str, layer: int = layer) -> tuple[Tensor, Tensor]:
            return parameters[f"{layer}.{name}.weight"], parameters[f"{layer}.{name}.bias"]

        normed = normalise(hidden, *weight("input_layernorm"))
        mixed = functional.linear(normed, *weight("attention.query_key_value")).view(batch, length, heads, 3 * size)
        query, key, value = mixed.transpose(1, 2).split(size, dim=-1)
        query, key = rotate(query, config["rotary_pct"]), rotate(key, config["rotary_pct"])
        scores = (query @ key.transpose(-1, -2) / math.sqrt(size)).masked_fill(~causal, -math.inf)
        context = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, heads * size)
        attended = functional.linear(context, *weight("attention.dense"))
        halfway = hidden + attended
        second = normalise(hidden if config["gpt_j_residual"] else halfway, *weight("post_attention_layernorm"))
        inner = functional.gelu(functional.linear(second, *weight("mlp.linear1")))
        hidden = halfway + functional.linear(inner, *weight("mlp.linear2"))
    top = 3 + config["num_layers"]
    hidden = normalise(hidden, parameters[f"{top}.norm.weight"], parameters[f"{top}.norm.bias"])
    logits = hidden @ parameters[f"{top + 1}.final_linear.weight"].T
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(batch, length)


def normalise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5) * weight + bias


def rotate(x: Tensor, share: float) -> Tensor:
    """Rotary positions on the first ``share`` of each head's dimensions; x [B, H, T, D / H]."""
    length, size = x.shape[-2:]
    turned = int(size * share)
    angles = torch.outer(
        torch.arange(length, dtype=x.dtype), 10000.0 ** (-torch.arange(0, turned, 2, dtype=x.dtype) / turned)
    )
    cosine, sine = angles.cos(), angles.sin()
    first, second = x[..., : turned // 2], x[..., turned // 2 : turned]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine, x[..., turned:]], -1)


# ---- objective ----


def penalised(ce: Tensor, strength: float, form: str, lam: float, clip: float | None) -> Tensor:
    """The bracket of (M4) for one token."""
    if strength == 0:
        return ce
    if form == "ascent":
        pushed = -ce
    elif form == "clipped":
        pushed = -ce if ce < clip else torch.tensor(-clip, dtype=ce.dtype)
    else:
        pushed = -torch.log(1 - torch.exp(-ce))
    return (1 - strength) * ce + strength * lam * pushed


def counts(sample: Sample, position: int, eod_mask_loss: bool) -> bool:
    """Does the label after ``position`` count?"""
    return sample.labels[position + 1] >= 0 and not (eod_mask_loss and sample.tokens[position] == _EOD)


# ---- training ----


class Reference:
    """A NeoX run from given ``initial`` parameters.

    ``uncounted`` names parameters that the norm for gradient clipping leaves out, as NeoX does by mistake;
    ``lengths`` are the sequence lengths of the steps of a curriculum.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        initial: Mapping[str, Tensor],
        processes: int,
        uncounted: Collection[str] = (),
        lengths: Sequence[int] | None = None,
    ):
        self.lengths = lengths
        self.config, self.blend, self.uncounted = config, Blend(config, processes), uncounted
        self.parameters = {name: value.double().requires_grad_() for name, value in initial.items()}
        self.first = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in self.parameters.items()}

    def train(self, steps: int) -> list[Step]:
        return [self.step(number) for number in range(steps)]

    def step(self, number: int) -> Step:
        config = self.config
        lam, form = config.get("penalty_lambda", 1.0), config.get("penalty_form", "ascent")
        warmup, clip = config.get("penalty_warmup_iters", 0), config.get("penalty_clip")
        action, hidden = config.get("penalty_action", "penalise"), config.get("penalty_hidden_token")
        if warmup:
            lam = lam * min(1.0, (number + 1) / warmup)
        length = self.lengths[number] if self.lengths else config["seq_length"]
        losses = []
        clean, selected, objective = [], [], []
        for samples in self.blend.micro_batches(number):
            tokens = torch.tensor([sample.tokens for sample in samples])
            if action == "hide":
                tokens = torch.tensor(
                    [[hidden if s else token for token, s in zip(one.tokens, one.strengths)] for one in samples]
                )
            labels = torch.tensor([sample.labels for sample in samples])[:, 1 : length + 1].clamp(min=0)
            ce = token_losses(self.parameters, config, tokens[:, :length], labels)
            terms = []
            for row, sample in enumerate(samples):
                for position in range(length):
                    if not counts(sample, position, config.get("eod_mask_loss", False)):
                        continue
                    # the code of a token acts where the token is the label
                    strength = sample.strengths[position + 1]
                    if action == "penalise":
                        terms.append(penalised(ce[row, position], strength, form, lam, clip))
                    else:  # no loss, but counted
                        terms.append(0 * ce[row, position] if strength else ce[row, position])
                    (selected if strength else clean).append(float(ce[row, position].detach()))
            losses.append(torch.stack(terms).sum() / len(terms))
            objective += [float(term.detach()) for term in terms]
        loss = torch.stack(losses).mean()
        self.update(torch.autograd.grad(loss, list(self.parameters.values())), number)
        return Step(
            loss=float(loss.detach()),
            lm_loss=sum(clean) / max(1, len(clean)),
            objective=sum(objective) / len(objective),
            penalty_fraction=len(selected) / len(objective),
            penalty_ce=sum(selected) / len(selected) if selected else math.nan,
        )

    def update(self, gradients: tuple[Tensor, ...], number: int) -> None:
        """Clip, then Adam with decoupled weight decay (none for norms and biases)."""
        config, options = self.config, self.config["optimizer"]["params"]
        counted = (one for name, one in zip(self.parameters, gradients) if name not in self.uncounted)
        norm = math.sqrt(sum(float((gradient**2).sum()) for gradient in counted))
        scale = min(1.0, config["gradient_clipping"] / (norm + 1e-6))
        (beta1, beta2), rate = options["betas"], self.rate(number)
        for (name, value), gradient in zip(self.parameters.items(), gradients):
            gradient = gradient * scale
            self.first[name] = beta1 * self.first[name] + (1 - beta1) * gradient
            self.second[name] = beta2 * self.second[name] + (1 - beta2) * gradient**2
            mean = self.first[name] / (1 - beta1 ** (number + 1))
            spread = torch.sqrt(self.second[name] / (1 - beta2 ** (number + 1)))
            decay = 0.0 if name.endswith("bias") or "norm" in name else config["weight_decay"]
            with torch.no_grad():
                value -= rate * (decay * value + mean / (spread + options["eps"]))

    def rate(self, number: int) -> float:
        """Learning rate of step ``number`` (from 0): linear warm-up, then a cosine."""
        config, top = self.config, self.config["optimizer"]["params"]["lr"]
        warmup = config["warmup"] * config["lr_decay_iters"]
        if number <= warmup:
            return top * max(1, number) / warmup
        turned = math.pi * (number - warmup) / (config["lr_decay_iters"] - warmup)
        return config["min_lr"] + (top - config["min_lr"]) / 2 * (math.cos(turned) + 1)
