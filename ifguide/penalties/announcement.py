"""What a training run says of its penalty before it starts, in the same words for both engines.

Imports numpy and the data formats alone: the GPT-NeoX engine's launcher says it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ifguide.data.indexed import IndexedDataset
from ifguide.data.sidecar import read_sidecar
from ifguide.penalties.keys import PenaltyKeys, action_of, mask_pairs
from ifguide.system.progress import counted

_CHUNK = 1 << 24


@dataclass(frozen=True)
class MaskCount:
    """A training corpus and what its mask selects.

    Attributes:
        data: prefix of the tokens.
        mask: prefix of the mask; "" for a corpus without one.
        tokens: of the corpus.
        selected: tokens that the mask penalises.
        encoding: of the mask: binary or graded.
    """

    data: str
    mask: str
    tokens: int
    selected: int = 0
    encoding: str = ""

    @classmethod
    def of(cls, data: str, mask: str = "") -> MaskCount:
        """As the files say. The sidecar's count is taken where it has one; else the mask is read.

        Raises:
            InputError: files that cannot be read.
        """
        if not mask:
            return cls(data, "", IndexedDataset.open(data).num_tokens)
        codes, sidecar = IndexedDataset.open(mask), read_sidecar(mask)
        counts = sidecar.get("counts")
        known = counts.get("selected") if isinstance(counts, dict) else None
        selected = known if isinstance(known, int) else _count(codes.values)
        return cls(data, mask, codes.num_tokens, selected, str(sidecar.get("encoding", "")))


def announcement(config: Mapping[str, Any]) -> list[str]:
    """Lines for people: the penalty, and each corpus with its mask and the tokens that it selects.

    Args:
        config: keys of `PenaltyKeys`, ``data_path`` with ``split`` or ``train_data_paths``; what is absent or None
            has its default.

    Raises:
        InputError: masks or data that cannot be read.
    """
    if not mask_pairs(config):
        return ["penalty: none (no mask is configured)"]
    if config.get("penalty_data_path"):
        corpora = [(config["data_path"], config["penalty_data_path"])]
    else:
        corpora = list(zip(config["train_data_paths"], config["train_penalty_data_paths"]))
    return [_penalty(config), *_corpora([MaskCount.of(data, mask) for data, mask in corpora], config)]


def _penalty(config: Mapping[str, Any]) -> str:
    """Form, λ, clip and warm-up; or what is done instead of pushing."""
    action = action_of(config)
    if action == "drop":
        return "penalty: drop, selected tokens have no loss"
    if action == "hide":
        return f"penalty: hide, selected tokens have no loss and are read as {config['penalty_hidden_token']}"

    def value(key: str) -> Any:
        given = config.get(key)
        return getattr(PenaltyKeys, key) if given is None else given

    said = f"penalty: {str(value('penalty_form')).lower()}"
    if config.get("penalty_clip") is not None:
        said += f", clipped at {config['penalty_clip']:g} nats"
    said += f", λ {value('penalty_lambda'):g}"
    warmup = value("penalty_warmup_iters")
    return said + (f", rising from 0 over {warmup:,} iterations" if warmup else ", without a warm-up")


def _corpora(counts: Sequence[MaskCount], config: Mapping[str, Any]) -> Iterator[str]:
    for corpus in counts:
        if corpus.mask:
            yield f"mask {corpus.mask} of {corpus.data}: {_share([corpus])} ({corpus.encoding})"
        else:
            yield f"no mask for {corpus.data}: 0 of {corpus.tokens:,} tokens selected"
    if len(counts) > 1:
        yield f"all corpora: {_share(counts)}"
    if config.get("penalty_data_path"):
        split = config.get("split") or "969, 30, 1"
        yield f"training reads the first part of these tokens (split {split})"


def _share(counts: Sequence[MaskCount]) -> str:
    selected, tokens = sum(one.selected for one in counts), sum(one.tokens for one in counts)
    return f"{selected:,} of {counted(tokens, 'token')} selected ({selected / max(tokens, 1):.2%})"


def _count(codes: np.ndarray) -> int:
    return sum(int(np.count_nonzero(codes[at : at + _CHUNK])) for at in range(0, len(codes), _CHUNK))
