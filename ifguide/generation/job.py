"""A file of prompts -> a file of their continuations, as a job that can be killed and run again.

In:  JSONL ``{"prompt": str, ...}``; an ``id`` is kept, or the line's number from 0 is given.
Out: JSONL ``{"id", "prompt", "continuations": [str] * K, ...all other fields}`` in the order of the prompts, and beside
     it FILE.json: the model, the decoding, seeds and versions.

Finished batches wait in FILE.partial. A batch is made of the same prompts whether or not others are finished, so the
output of a run that was killed and repeated is the output of one that was not, byte for byte.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ifguide.data.sources.names import input_hash
from ifguide.data.sources.reading import read_rows
from ifguide.data.text.tags import BAD, GOOD
from ifguide.errors import ConfigError, InputError, first_faults
from ifguide.generation.draw import Drawing, continuation_texts, prompt_contexts
from ifguide.generation.options import GenerateOptions, Sampling
from ifguide.generation.rad import Rad
from ifguide.models.devices import choose_device
from ifguide.models.folder import model_fingerprint
from ifguide.models.language_model import LanguageModel, load_language_model
from ifguide.scorers.registry import load_scorer
from ifguide.system.files import hash_file, read_json, write_json, write_jsonl
from ifguide.system.journal import Journal, key_of
from ifguide.system.locks import only_writer
from ifguide.system.progress import Progress
from ifguide.system.provenance import environment, origin, versions

KIND, FORMAT = "ifguide-generations", 1
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}
_DEFAULT = GenerateOptions()


def generate_file(
    model: str | os.PathLike,
    prompts: str | os.PathLike,
    output: str | os.PathLike,
    sampling: Sampling,
    options: GenerateOptions = _DEFAULT,
    *,
    progress: bool = False,
) -> dict[str, Any]:
    """Continue every prompt; the same call goes on where a killed one stopped.

    Args:
        model: Hugging Face folder.
        prompts, output: files, see the module.
        sampling: what to draw.
        options: with what and where.
        progress: show a progress bar.

    Returns:
        The sidecar, with ``output``.

    Raises:
        InputError: unusable model, prompts, scorer or output, or another process is writing the output.
        NumericsError: logits or rewards that are not finite.
    """
    output = Path(output)
    require_folder_of(output)
    batch_size, device = options.batch_size, choose_device(options.device)
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size {batch_size} must be at least 1")
    rows = read_prompts(prompts)
    with only_writer(output):
        lm = load_language_model(model, _DTYPES[options.dtype], device, options.eod_token)
        rad = None
        if options.rad:
            scorer = load_scorer(options.rad, device=device)
            rad = Rad(lm, scorer, options.rad_weight, options.rad_top_k, options.rad_order)
        condition = None if options.condition is None else condition_of(lm, options.condition)
        settings: dict[str, Any] = {
            "model": {"path": str(model), "identity": model_fingerprint(Path(model))},
            "reader": lm.reader.record() | {"stops": sorted(lm.stops)},
            "prompts_file": {"path": str(prompts), "hash": input_hash(prompts)},
            "sampling": asdict(sampling),
            "rad": rad.describe() if rad else None,
            **({} if condition is None else {"condition": {"token": options.condition, "id": condition}}),
            "batch_size": batch_size or "auto",
            "dtype": options.dtype,
            "device": device.partition(":")[0],
            "versions": versions(),
        }
        if not _is_complete(output, settings):
            _generate(lm, rows, output, sampling, rad, batch_size, settings, progress, condition)
        partial_path(output).unlink(missing_ok=True)
        return {"output": str(output), **read_json(sidecar_path(output))}


def read_prompts(path: str | os.PathLike) -> list[dict[str, Any]]:
    """
    Raises:
        InputError: missing, or not JSONL.
        ConfigError: lines that are no prompts; all of them at once.
    """
    rows = []
    faults = []
    for place, row in read_rows(path, "prompts"):
        rows.append(row)
        if not isinstance(row.get("prompt"), str):
            faults.append(place.message("prompts", 'needs a "prompt" that is text'))
        taken = [key for key in ("continuations", "scores") if key in row]
        if taken:
            faults.append(place.message("prompts", f'has "{taken[0]}" already; give prompts alone'))
    raise_faults(faults if rows else [f"prompts {path}: the file is empty"])
    return rows


def condition_of(lm: LanguageModel, token: str) -> int:
    """The id of a condition, by its name or as a number.

    Raises:
        InputError: neither a token of the vocabulary nor a row of the model's embedding, or the end of a document.
    """
    found = lm.reader.tokenizer.token_id(token)
    if found is None and token.isdecimal():
        found = int(token)
    rows = int(lm.model.get_input_embeddings().num_embeddings)
    if found is None or found >= rows:
        raise InputError(
            f"--condition {token}: neither a token of {lm.name}'s vocabulary nor one of its embedding's {rows} rows"
        )
    if found in lm.stops:
        raise InputError(f"--condition {token}: ends a text; name the token that build-tags put before harmless spans")
    return found


def tags_of(lm: LanguageModel) -> set[int]:
    """Ids of the tags of build-tags that the vocabulary has, which are no text."""
    found = (lm.reader.tokenizer.token_id(name) for name in (GOOD, BAD))
    return {one for one in found if one is not None and one < lm.drawn_ids}


def raise_faults(faults: Sequence[str]) -> None:
    """
    Raises:
        ConfigError: there are faults; the first of them and the number of the others.
    """
    if faults:
        raise ConfigError(first_faults(faults))


def sidecar_path(output: Path) -> Path:
    """FILE.jsonl -> FILE.jsonl.json."""
    return output.with_name(output.name + ".json")


def partial_path(output: Path) -> Path:
    """Where finished pieces wait."""
    return output.with_name(output.name + ".partial")


def require_folder_of(output: Path) -> None:
    """
    Raises:
        InputError: there is no folder to write ``output`` into; said before the work, not after it.
    """
    if not output.parent.is_dir():
        raise InputError(f"folder {output.parent} does not exist")


def _is_complete(output: Path, settings: dict[str, Any]) -> bool:
    """Whether ``output`` was made with ``settings`` and is as it was written."""
    sidecar = sidecar_path(output)
    if not (output.is_file() and sidecar.is_file()):
        return False
    made = read_json(sidecar, "sidecar")
    same = isinstance(made, dict) and {key: made.get(key) for key in settings} == settings
    return same and made.get("hash") == hash_file(output)


def _generate(
    lm: LanguageModel,
    rows: Sequence[dict[str, Any]],
    output: Path,
    sampling: Sampling,
    rad: Rad | None,
    batch_size: int | None,
    settings: dict[str, Any],
    progress: bool,
    condition: int | None,
) -> None:
    """Write ``output`` and its sidecar."""
    contexts = prompt_contexts(lm, [row["prompt"] for row in rows], sampling.max_new_tokens, condition)
    banned = set() if condition is None else tags_of(lm) | ({condition} if condition < lm.drawn_ids else set())
    drawing = Drawing(lm, contexts, sampling, rows_per_batch=batch_size, rad=rad, banned=banned)
    with Journal(partial_path(output)) as partial:
        texts, cut = _continue(lm, contexts, drawing, sampling.samples, partial, key_of(settings), rad, progress)
    write_jsonl(
        output,
        [
            {"id": row.get("id", index), "prompt": row["prompt"], "continuations": said}
            | {key: value for key, value in row.items() if key not in ("id", "prompt")}
            for index, (row, said) in enumerate(zip(rows, texts))
        ],
    )
    counts = {"prompts": len(rows), "continuations": len(rows) * sampling.samples, "truncated": cut}
    sidecar = {"kind": KIND, "format": FORMAT, **settings, **counts, "hash": hash_file(output), **origin()}
    write_json(sidecar_path(output), sidecar | environment())


def _continue(
    lm: LanguageModel,
    contexts: Sequence[Sequence[int]],
    drawing: Drawing,
    samples: int,
    partial: Journal,
    settings: str,
    rad: Rad | None,
    progress: bool,
) -> tuple[list[list[str]], int]:
    """``[prompt][sample]``, from the journal or drawn now; and how many texts RAD's scorer read only the start of."""
    keys = [key_of(settings, batch) for batch in drawing.batches]
    known = sum(len(batch) for batch, key in zip(drawing.batches, keys) if key in partial)
    texts: list[list[str]] = [[] for _ in contexts]
    cut = 0
    with Progress(
        len(contexts) * samples, "continuations", "generate", done=known * samples, quiet=not progress
    ) as bar:  # fmt: skip
        for batch, key in zip(drawing.batches, keys):
            if key not in partial:
                before = rad.truncated if rad else 0
                drawn = zip(batch, drawing.draw(batch))
                said = [continuation_texts(lm, contexts[index], ids) for index, ids in drawn]
                partial.write([{"key": key, "continuations": said, "cut": (rad.truncated if rad else 0) - before}])
                bar.update(len(batch) * samples)
            for index, rows in zip(batch, partial[key]["continuations"]):
                texts[index] = rows
            cut += partial[key].get("cut", 0)
    return texts, cut
