"""Dropping and hiding of selected tokens: the token that is read in place of hidden ones, and masks that both refuse.

    drop   a selected token has no loss where it is a label
    hide   the same, and where it is an input another token is read in its place

Both leave the token in the denominator of (M4). A token is there or is not: a graded mask, whose codes say how hard to
push, is refused by both, in both engines.

What the files of tokenizer and data say is looked at before anything starts, without a tokenizer library. The workers,
which have the tokenizer, ask again (`hidden_token`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ifguide.data.sidecar import read_sidecar
from ifguide.data.text.record import config_datasets, file_vocabulary, recorded_tokenizer
from ifguide.data.text.tokenizers import EOD_TOKEN
from ifguide.errors import InputError
from ifguide.penalties.keys import action_of, mask_key, mask_pairs

_PADDED_TO = 128  # NeoX's make_vocab_size_divisible_by


def hidden_token(
    value: str | int, token_id: Callable[[str], int | None], rows: int | None, separators: Collection[int | None]
) -> int:
    """The id that ``penalty_hidden_token`` means.

    Args:
        value: name or id.
        token_id: id of a name, None where the vocabulary has no such token.
        rows: of the padded vocabulary; None where they are not known yet.
        separators: the tokens that end documents.

    Raises:
        InputError: no token, or one that documents need.
    """
    found = token_id(value) if isinstance(value, str) else value
    if found is None:
        raise InputError(
            f"penalty_hidden_token: {value!r} is not in the tokenizer's vocabulary; write it as it is there, or give "
            "the id of a spare row of the padded vocabulary"
        )
    if found < 0 or (rows is not None and found >= rows):
        size = "" if rows is None else f" of {rows} rows"
        raise InputError(
            f"penalty_hidden_token: {value!r} is outside of the padded vocabulary{size}; take an id inside it, or "
            "raise make_vocab_size_divisible_by"
        )
    if found in separators:
        raise InputError(
            f"penalty_hidden_token: {value!r} is the end-of-document token, which must stay a token of its own; take "
            "another one"
        )
    return found


def action_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Why masks or ``penalty_hidden_token`` do not go with ``penalty_action``, as far as files say; one line each.

    Args:
        config: all keys of a NeoX configuration, of sound types; what is absent or None has its default. Files that
            are missing or damaged are passed over: others speak of them.
    """
    action = action_of(config)
    if action == "penalise":
        return
    for _, mask in mask_pairs(config):
        if fault := graded_fault(action, mask, _sidecar(mask).get("encoding")):
            yield f"{mask_key(config)}: {fault}"
    value = config.get("penalty_hidden_token")
    if action != "hide" or value is None:
        return
    files = [config.get(key) for key in ("tokenizer_type", "vocab_file", "merge_file")]
    vocabulary, size = file_vocabulary(*files)
    separators = {_recorded_eod(prefix) for prefix in config_datasets(config)} | {vocabulary.get(EOD_TOKEN)}
    if isinstance(value, str) and size is None:
        return  # no file says the names plainly: the workers will
    try:
        hidden_token(value, vocabulary.get, None if size is None else _padded(size, config), separators - {None})
    except InputError as error:
        yield str(error)


def graded_fault(action: str, mask: str, encoding: Any) -> str | None:
    """Why a mask of this encoding cannot be used with ``penalty_action``; None where it can."""
    if action == "penalise" or encoding != "graded":
        return None
    return (
        f"{mask} is a graded mask, which says how hard to push; penalty_action {action} needs a binary one: "
        "build it with `ifguide build-mask --encoding binary`"
    )


def _padded(size: int, config: Mapping[str, Any]) -> int:
    """Rows of the vocabulary as NeoX pads it."""
    slices = config.get("model_parallel_size") or 1
    multiple = (config.get("make_vocab_size_divisible_by") or _PADDED_TO) * slices
    return math.ceil(size / multiple) * multiple


def _sidecar(prefix: str) -> Mapping[str, Any]:
    try:
        return read_sidecar(prefix)
    except InputError:
        return {}


def _recorded_eod(prefix: str) -> int | None:
    try:
        eod = recorded_tokenizer(prefix).get("eod")
    except InputError:
        return None
    return eod if isinstance(eod, int) else None
