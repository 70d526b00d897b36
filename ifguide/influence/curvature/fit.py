"""Curvature of the tracked layers: fitted with kronfluence, kept in a form of our own.

``H~ = (U_G ⊗ U_A) (Λ + damping) (U_G ⊗ U_A)^T`` per tracked layer, with ``U_A``[I, I], ``U_G``[O, O] and ``Λ``[O, I]:

    ekfac      U_A, U_G eigenvectors of the input and output-gradient covariance, Λ second moments in that basis
    kfac       the same basis, Λ = outer product of the two covariances' eigenvalues
    diagonal   no basis, Λ second moments of the gradient's entries
    identity   nothing: H~ = I

Scale (kronfluence's): covariances are means over TOKENS (padding not counted), so kfac's Λ is per token. Λ of ekfac
and diagonal is a mean over WINDOWS of the squared gradient of the window's SUMMED loss. Labels are drawn from the
model (true Fisher), one uniform number for each token.

Shapes: B windows, T positions, N labelled positions, V vocabulary, O outputs, I inputs with the bias column.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ifguide.compat import kronfluence
from ifguide.data.fingerprint import fingerprint
from ifguide.data.indexed import TokenDataset
from ifguide.data.tokenizer_record import tokenizer_difference
from ifguide.errors import IFGuideWarning, InputError, MismatchError, NumericsError
from ifguide.influence.batches import NO_LABEL, group_by_length
from ifguide.influence.passes import checks as dry_run
from ifguide.influence.windows import Windows, check_tokens, cut, resolve_lengths, sample
from ifguide.models.tracked import ScoredModel, label_losses, load_model
from ifguide.system.files import hash_file, read_json, write_json
from ifguide.system.progress import Progress
from ifguide.system.provenance import origin, versions, write_run_record
from ifguide.system.tensors import save_tensors

if TYPE_CHECKING:
    from ifguide.influence.curvature.stability import Stability

STRATEGIES = ("ekfac", "kfac", "diagonal", "identity")
FORMAT = 1
_SCALE = {"ekfac": "per window", "kfac": "per token", "diagonal": "per window", "identity": None}
_TENSORS = {"ekfac": ("U_A", "U_G", "Lambda"), "kfac": ("U_A", "U_G", "Lambda"), "diagonal": ("Lambda",)}
# kronfluence holds one gradient per window of a batch
_PER_WINDOW_GRADIENT_BYTES = 1 << 29


@dataclass(frozen=True, eq=False)
class Factors:
    """Fitted curvature.

    Attributes:
        strategy: one of `STRATEGIES`.
        layers: tracked layer -> its tensors ("U_A", "U_G", "Lambda", as the strategy has them).
        record: the contents of ``factors.json``.
        identity: hash of the tensors' file and of what the record says about them.
    """

    strategy: str
    layers: dict[str, dict[str, Tensor]]
    record: dict[str, Any]
    identity: str


def fit_factors(
    model_dir: str | Path,
    data_prefix: str | Path,
    output: str | Path,
    strategy: str = "ekfac",
    max_tokens: int | None = None,
    seq_length: int | None = None,
    context: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
    modules: str | None = None,
    stability: Stability | None = None,
    eod_token: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Fit curvature on a sample of the scoring windows; writes ``output/factors.{safetensors,json}``.

    Args:
        max_tokens: fit on a seeded sample of windows with about this many tokens (None: all).
        seq_length: window in tokens (None: the model's, at most 2048).
        context: overlap of the windows of a longer document (None: a quarter of the window).
        batch_size: a batch holds as many tokens as this many full windows.
        modules: regular expression on the names of the layers to track (None: all of attention and MLP).
        stability: also fit on two halves of the sample and compare the scores (None: do not).
        eod_token: the separator of documents (None: the data's, else the model's).

    Returns:
        The record written to ``factors.json`` (with ``stability`` where it was measured), ``output`` and ``seconds``.

    Raises:
        InputError: arguments, model or data that cannot be used.
        MismatchError: the data was made with another tokenizer than the model's.
        NumericsError: a factor is not finite.
    """
    started = time.monotonic()
    _check_processes()
    _check_arguments(strategy, max_tokens, batch_size)
    dataset = TokenDataset.open(data_prefix)
    load = partial(load_model, model_dir, implementation="sdpa", pattern=modules, data=data_prefix, eod_token=eod_token)
    model = load()
    seq_length, context = resolve_lengths(model.window, seq_length, context)
    check_tokens(dataset, model.vocab_size)
    everything = cut(dataset, model.eod, seq_length, context)
    windows = sample(everything, max_tokens, seed)
    if not len(windows) and strategy != "identity":
        raise InputError(f"{data_prefix} has no token to fit on: every document has a single token")
    queries = stability.load_queries(model, windows, strategy) if stability else None
    batch_tokens = batch_size * seq_length
    if strategy != "identity":
        dry_run.check_model_on(model, dry_run.largest_batch(windows, batch_tokens, _max_windows(model)), backward=True)
    output = Path(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output folder {output}: {error.strerror}") from None
    record = {
        "format": FORMAT,
        "strategy": strategy,
        "lambda_scale": _SCALE[strategy],
        "model": {"path": str(Path(model_dir).absolute()), "identity": model.identity},
        "modules": {name: list(model.matrix_shape(name)) for name in model.tracked},
        "data": fingerprint(dataset, progress=not quiet),
        "data_prefix": str(Path(data_prefix).absolute()),
        "seq_length": seq_length,
        "context": context,
        "eod": model.eod,
        "tokenizer": model.reader.record() if model.reader else None,
        "max_tokens": max_tokens,
        "tokens": int(windows.scored.sum()) if strategy != "identity" else 0,
        "windows": len(windows) if strategy != "identity" else 0,
        "seed": seed,
        "versions": versions(),
        **origin(),
    }
    save_factors(output, fit_layers(model, windows, strategy, batch_tokens, seed, quiet), record)
    if stability and queries:
        del model  # the halves need its room
        found = stability.measure(load, queries, everything, windows, strategy, batch_tokens, seed, quiet)
        record["stability"] = found
        write_json(output / "factors.json", read_json(output / "factors.json") | {"stability": found})
    seconds = time.monotonic() - started
    write_run_record(output, verb="fit-factors", parameters={"batch_size": batch_size, **record}, seconds=seconds)
    return {**record, "output": str(output), "seconds": round(seconds, 3)}


def fit_layers(
    model: ScoredModel, windows: Windows, strategy: str, batch_tokens: int, seed: int, quiet: bool = True
) -> dict[str, dict[str, Tensor]]:
    """Tensors of each tracked layer. Afterwards ``model`` is wrapped by kronfluence: do not use it again.

    Raises:
        NumericsError: a factor is not finite.
    """
    if strategy == "identity":
        return {name: {} for name in model.tracked}
    names = list(model.tracked)
    passes = 1 if strategy in ("kfac", "diagonal") else 2
    with Progress(passes * int(windows.scored.sum()), "tokens", f"fit {strategy}", quiet=quiet) as progress:
        found = _run_kronfluence(model, windows, strategy, batch_tokens, seed, progress)
    layers = {}
    for name in names:
        tensors = {}
        if strategy != "diagonal":
            tensors["U_A"] = found["activation_eigenvectors"][name]
            tensors["U_G"] = found["gradient_eigenvectors"][name]
        if strategy == "kfac":
            tensors["Lambda"] = torch.outer(
                *(found[f"{side}_eigenvalues"][name].clamp(min=0) for side in ("gradient", "activation"))
            )
        else:
            tensors["Lambda"] = found["lambda_matrix"][name] / found["num_lambda_processed"][name]
        layers[name] = {key: tensor.contiguous() for key, tensor in tensors.items()}
        for key, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise NumericsError(f"factor {key} of {name} is not finite; does the model give finite losses?")
    return layers


def save_factors(output: Path, layers: dict[str, dict[str, Tensor]], record: dict[str, Any]) -> None:
    """Write the tensors, then the record with their hash: a record is never there without its tensors."""
    tensors = {f"{name}/{key}": tensor for name, layer in layers.items() for key, tensor in layer.items()}
    save_tensors(output / "factors.safetensors", tensors)
    write_json(output / "factors.json", {**record, "tensors": hash_file(output / "factors.safetensors")})


def load_factors(directory: str | Path) -> Factors:
    """Read what `save_factors` wrote.

    Raises:
        InputError: not a factors folder, another format, or the two files do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    directory = Path(directory)
    record = read_json(directory / "factors.json", "factors")
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{directory / 'factors.json'} is not of format {FORMAT}; run fit-factors again")
    path = directory / "factors.safetensors"
    try:
        if hash_file(path) != record["tensors"]:
            raise InputError(f"{path} is not the file that factors.json describes; run fit-factors again")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    strategy = record["strategy"]
    keys = _TENSORS.get(strategy, ())
    layers = {name: {key: tensors[f"{name}/{key}"] for key in keys} for name in record["modules"]}
    return Factors(strategy, layers, record, f"{strategy}-{record['tensors'][:32]}")


def check_model(factors: Factors, model: ScoredModel) -> None:
    """
    Raises:
        MismatchError: the factors belong to another model.
    """
    if factors.record["model"]["identity"] != model.identity:
        raise MismatchError(
            f"the factors were fitted on another model ({factors.record['model']['path']}), not on {model.directory}; "
            "run fit-factors on this one"
        )
    if model.reader is None:
        return
    difference = tokenizer_difference(factors.record.get("tokenizer"), model.reader.record())
    if difference:
        raise MismatchError(
            f"the factors were fitted on text of another tokenizer than that of {model.directory} ({difference}); "
            "run fit-factors again"
        )
    fitted = factors.record.get("eod", model.eod)
    if fitted != model.eod:
        warnings.warn(
            f"the factors were fitted with token {fitted} before each document, scores are taken with {model.eod} "
            f"({model.reader.eod_token!r}); run fit-factors again",
            IFGuideWarning,
            stacklevel=2,
        )


def _run_kronfluence(
    model: ScoredModel, windows: Windows, strategy: str, batch_tokens: int, seed: int, progress: Progress
) -> dict[str, dict[str, Tensor]]:
    """kronfluence's factors: factor name -> layer -> tensor."""
    batches = _Batches(windows, group_by_length(windows.lengths, batch_tokens, _max_windows(model)), seed)
    # covariances in the weights' precision, at least fp32
    dtype = torch.promote_types(model.dtype, torch.float32)
    loss = _loss(model, progress)
    return kronfluence.fit(
        model.model, batches, loss, list(model.tracked), strategy, dtype, cpu=model.device.type == "cpu"
    )


def _max_windows(model: ScoredModel) -> int:
    """Windows of a batch for which kronfluence's gradients, one each, still fit."""
    largest = max(rows * columns for rows, columns in map(model.matrix_shape, model.tracked))
    return max(1, _PER_WINDOW_GRADIENT_BYTES // (largest * model.head.weight.element_size()))


class _Batches(torch.utils.data.Dataset):
    """Padded batches, each with the uniform numbers its labels are drawn with.

    The numbers follow the data order, so that the labels do not depend on the batch size.
    """

    def __init__(self, windows: Windows, groups: list[np.ndarray], seed: int):
        self._windows, self._groups = windows, groups
        self._offsets = np.cumsum(windows.scored) - windows.scored
        self._uniform = np.random.default_rng([seed, 1]).random(int(windows.scored.sum()), dtype=np.float64)

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        group = self._groups[index]
        batch = self._windows.batch(group)
        uniform = np.concatenate(
            [self._uniform[self._offsets[w] : self._offsets[w] + self._windows.scored[w]] for w in group]
        )
        return {
            "inputs": batch.inputs,
            "labels": batch.labels,
            "real": batch.real.long(),
            "uniform": torch.from_numpy(uniform),
        }


def _loss(scored: ScoredModel, progress: Progress) -> Callable[[dict[str, Tensor], bool], Tensor]:
    """The summed loss of a batch, with its own labels or with labels drawn from the model."""

    def loss(batch: dict[str, Tensor], sample: bool) -> Tensor:
        labelled = batch["labels"] != NO_LABEL
        logits = scored.logits(scored.hidden(batch["inputs"])[labelled])
        labels = draw_labels(logits.detach(), batch["uniform"]) if sample else batch["labels"][labelled]
        progress.update(len(labels))
        total = label_losses(logits, labels).sum()
        if not torch.isfinite(total):
            raise NumericsError(f"the loss of model {scored.directory} is not finite on this data: broken weights?")
        return total

    return loss


def draw_labels(logits: Tensor, uniform: Tensor) -> Tensor:
    """Labels[N] drawn from softmax(``logits``[N, V]) by inverting its distribution at ``uniform``[N] in [0, 1)."""
    cumulative = torch.softmax(logits, dim=-1).cumsum(dim=-1)
    threshold = uniform.to(cumulative.dtype)[:, None] * cumulative[:, -1:]
    labels = torch.searchsorted(cumulative, threshold, right=True).squeeze(1)
    return labels.clamp(max=logits.shape[-1] - 1)


def _check_processes() -> None:
    """kronfluence would take the processes of a launcher for its own: each on one device, reading what one wrote.

    Raises:
        InputError: WORLD_SIZE says that this is one of several.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size.isdecimal() and int(size) > 1:
        raise InputError(
            f"factors are fitted by one process, and this is one of {size} (WORLD_SIZE); run it once, without torchrun "
            "(where something else sets WORLD_SIZE, unset it)"
        )


def _check_arguments(strategy: str, max_tokens: int | None, batch_size: int) -> None:
    if strategy not in STRATEGIES:
        raise InputError(f"--strategy {strategy}: must be one of {', '.join(STRATEGIES)}")
    if max_tokens is not None and max_tokens < 1:
        raise InputError(f"--max-tokens {max_tokens}: must be at least 1")
    if batch_size < 1:
        raise InputError(f"--batch-size {batch_size}: must be at least 1")
