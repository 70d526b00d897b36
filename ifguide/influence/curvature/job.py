"""Fit the curvature of a model on a sample of its data, from files to files, and measure how stable it is."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ifguide.data.fingerprint import fingerprint
from ifguide.data.indexed import TokenDataset
from ifguide.errors import InputError
from ifguide.influence.curvature.fit import LAMBDA_SCALE, fit_layers, largest_fit_batch, partitions_for
from ifguide.influence.curvature.stability import Stability
from ifguide.influence.curvature.store import FORMAT, save_factors
from ifguide.influence.options import STRATEGIES, FitOptions
from ifguide.influence.passes import checks
from ifguide.influence.windows import check_tokens, cut, resolve_lengths, sample
from ifguide.models.tracked import load_model
from ifguide.system.files import read_json, write_json
from ifguide.system.provenance import origin, versions, write_run_record
from ifguide.system.run_process import require_one_process

_DEFAULT = FitOptions()


def fit_factors(
    model_dir: str | Path,
    data_prefix: str | Path,
    output: str | Path,
    options: FitOptions = _DEFAULT,
    stability: Stability | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Fit curvature on a sample of the scoring windows; writes ``output/factors.{safetensors,json}``.

    Args:
        stability: also fit on two halves of the sample and compare the scores (None: do not).

    Returns:
        The record written to ``factors.json`` (with ``stability`` where it was measured), ``partitions``, ``output``
        and ``seconds``.

    Raises:
        InputError: arguments, model or data that cannot be used, or several processes.
        MismatchError: the data was made with another tokenizer than the model's.
        NumericsError: a factor is not finite.
    """
    started = time.monotonic()
    # kronfluence reads WORLD_SIZE itself: each process would fit on one device, and read what another one writes
    require_one_process("factors are fitted by one alone", "it")
    _check_arguments(options)
    strategy, seed = options.strategy, options.seed
    dataset = TokenDataset.open(data_prefix)
    load = partial(
        load_model,
        model_dir,
        implementation="sdpa",
        pattern=options.modules,
        data=data_prefix,
        eod_token=options.eod_token,
    )
    model = load()
    seq_length, context = resolve_lengths(model.window, options.seq_length, options.context)
    check_tokens(dataset, model.vocab_size)
    everything = cut(dataset, model.eod, seq_length, context)
    windows = sample(everything, options.max_tokens, seed)
    if not len(windows) and strategy != "identity":
        raise InputError(f"{data_prefix} has no token to fit on: every document has a single token")
    queries = stability.load_queries(model, windows, strategy) if stability else None
    batch_tokens = options.batch_size * seq_length
    if strategy != "identity":
        checks.check_model_on(model, largest_fit_batch(model, windows, batch_tokens), backward=True)
    output = Path(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output folder {output}: {error.strerror}") from None
    record = {
        "format": FORMAT,
        "strategy": strategy,
        "lambda_scale": LAMBDA_SCALE[strategy],
        "model": {"path": str(Path(model_dir).absolute()), "identity": model.fingerprint},
        "modules": {name: list(model.matrix_shape(name)) for name in model.tracked},
        "data": fingerprint(dataset, progress=not quiet),
        "data_prefix": str(Path(data_prefix).absolute()),
        "seq_length": seq_length,
        "context": context,
        "eod": model.eod,
        "tokenizer": model.reader.record() if model.reader else None,
        "max_tokens": options.max_tokens,
        "tokens": int(windows.scored.sum()) if strategy != "identity" else 0,
        "windows": len(windows) if strategy != "identity" else 0,
        "seed": seed,
        "versions": versions(),
        **origin(),
    }
    partitions = partitions_for(model, windows, strategy, batch_tokens)
    save_factors(output, fit_layers(model, windows, strategy, batch_tokens, seed, quiet, partitions), record)
    if stability and queries:
        del model  # the halves need its room
        found = stability.measure(load, queries, everything, windows, strategy, batch_tokens, seed, quiet)
        record["stability"] = found
        write_json(output / "factors.json", read_json(output / "factors.json") | {"stability": found})
    seconds = time.monotonic() - started
    parameters = {"batch_size": options.batch_size, **record, "partitions": asdict(partitions)}
    write_run_record(output, verb="fit-factors", parameters=parameters, seconds=seconds)
    return {**record, "partitions": asdict(partitions), "output": str(output), "seconds": round(seconds, 3)}


def _check_arguments(options: FitOptions) -> None:
    if options.strategy not in STRATEGIES:
        raise InputError(f"--strategy {options.strategy}: must be one of {', '.join(STRATEGIES)}")
    if options.max_tokens is not None and options.max_tokens < 1:
        raise InputError(f"--max-tokens {options.max_tokens}: must be at least 1")
    if options.batch_size < 1:
        raise InputError(f"--batch-size {options.batch_size}: must be at least 1")
