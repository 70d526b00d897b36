"""Which tokens a suffix may be made of, and which suffixes are tried next.

An attacker types text. A suffix whose ids are not what its text is read as cannot be typed: every suffix here survives
being written out behind its prompt and read again, and so does the random one that it is compared with.

Shapes: S tokens of a suffix, V of the tokenizer, B candidates, k tokens a position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ifguide.errors import InputError
from ifguide.generation.draw import continuation_texts
from ifguide.models.language_model import LanguageModel

# how often candidates are drawn anew, or a token of a random suffix, until enough of them can be typed
_ROUNDS = 4
_TRIES = 2000

Survives = Callable[[list[list[int]]], list[bool]]


def alphabet(lm: LanguageModel, any_token: bool = False) -> Tensor:
    """``bool[V]``: ids that may be used. Not EOD and other tokens that end or frame a text, nor a token that is read
    otherwise when it is written alone; unless ``any_token``, printable ASCII only.

    Raises:
        InputError: there are none.
    """
    reader = lm.reader
    special = {*lm.stops, *reader.prefix, *reader.suffix, *([] if lm.eod is None else [lm.eod])}
    texts = {
        index: made
        for index in range(lm.vocab_size)
        if index not in special and (made := _text(reader.token_bytes(index), any_token)) is not None
    }
    read = reader.encode_batch(list(texts.values()))
    allowed = torch.zeros(lm.vocab_size, dtype=torch.bool)
    allowed[[index for index, ids in zip(texts, read) if ids == [index]]] = True
    if not bool(allowed.any()):
        raise InputError(f"model {lm.name}: no token of its tokenizer can be typed; try --any-token")
    return allowed


def survivors(lm: LanguageModel, prompt: str) -> Survives:
    """Which suffixes come back when ``prompt`` and their text are read as one."""
    context = lm.reader.prompt(prompt)

    def survives(suffixes: list[list[int]]) -> list[bool]:
        whole = [prompt + text for text in continuation_texts(lm, context, suffixes)]
        return [[*lm.reader.prompt(""), *ids] == [*context, *suffix] for ids, suffix in zip(lm.encode(whole), suffixes)]

    return survives


def random_suffix(
    allowed: Tensor, length: int, survives: Survives, random: np.random.Generator, before: Sequence[int] = ()
) -> list[int]:
    """``before`` and further tokens of ``allowed``, ``length`` in all, each drawn until what there is survives.

    Raises:
        InputError: no token fits behind the others.
    """
    ids = np.flatnonzero(allowed.numpy())
    suffix = list(before)
    while len(suffix) < length:
        for _ in range(_TRIES // 32):
            tried = [[*suffix, token] for token in random.choice(ids, 32).tolist()]
            kept = [one for one, fits in zip(tried, survives(tried)) if fits]
            if kept:
                suffix = kept[0]
                break
        else:
            raise InputError("no suffix of random tokens survives being written and read again; try --any-token")
    return suffix


def swaps(
    gradient: Tensor,
    suffix: Sequence[int],
    allowed: Tensor,
    top_k: int,
    width: int,
    survives: Survives,
    random: np.random.Generator,
) -> Tensor:
    """Up to ``width`` distinct suffixes ``[B, S]`` that differ from ``suffix`` in one token, all of which survive: a
    random position, and one of the ``top_k`` allowed tokens whose G is lowest there. Empty if none survives."""
    top = lowest(gradient, allowed, top_k)
    found: dict[tuple[int, ...], None] = {}
    for _ in range(_ROUNDS):
        positions = random.integers(len(suffix), size=width).tolist()
        ranks = random.integers(top.shape[1], size=width).tolist()
        drawn: dict[tuple[int, ...], None] = {}
        for position, rank in zip(positions, ranks):
            changed = list(suffix)
            changed[position] = int(top[position, rank])
            if changed != list(suffix) and tuple(changed) not in found:
                drawn[tuple(changed)] = None
        fresh = [list(one) for one in drawn]
        if fresh:
            found |= {tuple(one): None for one, fits in zip(fresh, survives(fresh)) if fits}
        if len(found) >= width:
            break
    return torch.tensor([*found][:width], dtype=torch.int64).reshape(-1, len(suffix))


def lowest(gradient: Tensor, allowed: Tensor, top_k: int) -> Tensor:
    """Ids ``[S, k]`` of the allowed tokens whose G ``[S, V]`` is lowest, on the processor."""
    barred = gradient.masked_fill(~allowed.to(gradient.device), torch.inf)
    return barred.topk(min(top_k, int(allowed.sum())), dim=1, largest=False).indices.cpu()


def _text(raw: bytes, any_token: bool) -> str | None:
    """What a token adds, None where that cannot be typed."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return None
    fine = text.isprintable() if any_token else text.isascii() and text.isprintable()
    return text if text and fine else None
