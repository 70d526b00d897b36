"""From a score dataset to a penalty mask on disk: reads, selects (M3), writes the aligned mask."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ifguide.data.aligned import ENCODINGS, Aligned, load_aligned, require_finite, write_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.sidecar import SCORES, read_sidecar
from ifguide.errors import InputError
from ifguide.files import hash_value
from ifguide.selection import SelectionSettings, graded_codes, random_selection, select

METHODS = ("influence", "random")


def build_mask(
    scores_prefix: str | Path,
    output: str | Path,
    settings: SelectionSettings | None = None,
    *,
    method: str = "influence",
    encoding: str = "binary",
    seed: int = 0,
    data_prefix: str | Path | None = None,
) -> dict[str, Any]:
    """Write the mask ``output.{bin,idx,json}`` for the tokens that ``scores_prefix`` scored.

    Args:
        method: ``influence`` is Algorithm 1; ``random`` draws as many tokens as Algorithm 1 selects, the
            control that shows what the penalty does when it falls on arbitrary tokens.
        encoding: ``binary`` or ``graded`` (strength by score; ``influence`` only).
        seed: of the random method.
        data_prefix: the token dataset, if it moved since it was scored (needed to know EOD tokens).

    Returns:
        ``output``, ``method``, ``threshold``, ``tokens``, ``toxic``, ``selected``, ``fraction``, ``budget``,
        ``seconds``.

    Raises:
        InputError: settings or files that cannot be used.
        MismatchError: the scores are of other tokens than ``data_prefix``.
        NumericsError: a score is NaN or infinite.
    """
    started = time.monotonic()
    settings = settings or SelectionSettings()
    if method not in METHODS:
        raise InputError(f"unknown method '{method}'; one of {', '.join(METHODS)}")
    if encoding not in ENCODINGS:
        raise InputError(f"unknown encoding '{encoding}'; one of {', '.join(ENCODINGS)}")
    if method == "random" and encoding == "graded":
        raise InputError("a random mask has no scores to grade by; use --encoding binary")
    folder = Path(output).absolute().parent
    if not folder.is_dir():
        raise InputError(f"--output {output}: folder {folder} does not exist")

    scores = load_aligned(scores_prefix, None, SCORES)
    eod = None if settings.include_eod else _eod_positions(scores, data_prefix)
    require_finite(scores)
    selection = select(scores.values, scores.starts, settings, eod)
    if method == "random":
        codes = random_selection(scores.values, scores.starts, selection.counts["selected"], seed, eod).astype(np.uint8)
    elif encoding == "graded":
        codes = graded_codes(scores.values, selection)
    else:
        codes = selection.selected.astype(np.uint8)

    parameters = {"method": method, **asdict(settings), **({"seed": seed} if method == "random" else {})}
    sidecar = {
        "encoding": encoding,
        "parameters": parameters,
        "counts": selection.counts,
        "threshold": selection.threshold,
        "scores": {"prefix": str(scores_prefix), "fingerprint": scores.sidecar["fingerprint"]},
        "identity": hash_value([parameters, encoding, scores.sidecar["fingerprint"]]),
    }
    write_aligned(output, scores, codes, np.uint8, sidecar)
    counts = selection.counts
    return {
        "output": str(output),
        "method": method,
        "threshold": selection.threshold,
        **counts,
        "fraction": counts["selected"] / counts["tokens"],
        "seconds": round(time.monotonic() - started, 3),
    }


def _eod_positions(scores: Aligned, data_prefix: str | Path | None) -> np.ndarray | None:
    """``[N]`` bool, true at end-of-document tokens; None where the vocabulary has none.

    Raises:
        InputError: the tokens cannot be found, or nothing says which id ends a document.
    """
    prefix = data_prefix or scores.sidecar.get("data_prefix")
    if prefix is None or not Path(f"{prefix}.idx").exists():
        raise InputError(
            f"the tokens that {scores.prefix} scored are not at {prefix}; say where with --data, "
            "or count EOD tokens like any other with --include-eod"
        )
    tokens = TokenDataset.open(prefix)
    load_aligned(scores.prefix, tokens, SCORES)
    # preprocess records the id; for data made elsewhere the scoring pass recorded the one it used
    tokenizer = read_sidecar(tokens.prefix).get("tokenizer") or {}
    eod = tokenizer["eod"] if "eod" in tokenizer else scores.sidecar.get("eod")
    return None if eod is None else tokens.tokens == eod
