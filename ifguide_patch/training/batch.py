"""From a penalised sample to the signed loss mask, on every tensor-parallel rank.

A sample's ``text`` carries each token's penalty code above its id (`ifguide.penalties.coding`).

Shapes: B micro-batch, T tokens of a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ifguide.penalties.coding import sign, unpack
from ifguide.penalties.keys import mask_pairs, values_of


def get_batch(original: Callable[..., Any]) -> Callable[..., Any]:
    """``megatron.training._get_batch``: takes the codes off the tokens and signs the loss mask with them.

    Plain and pipeline training both come through here. Without penalties in the configuration nothing
    is touched. The codes are broadcast by themselves: a further entry in ``keys`` would be taken for
    the labels.
    """

    def batch(
        neox_args: Any, tokenizer: Any, keys: list[str], data: Any, datatype: Any, label_mask_zero: bool = False
    ) -> Any:
        if not mask_pairs(values_of(neox_args)):
            return original(neox_args, tokenizer, keys, data, datatype, label_mask_zero)
        import torch
        from megatron import mpu

        codes = None
        if data is not None:
            text, above = unpack(data[keys[0]])
            codes = {"penalty": above.to(torch.uint8)}
            data = {**data, keys[0]: text}
        tokens, labels, loss_mask, attention_mask, position_ids = original(
            neox_args, tokenizer, keys, data, datatype, label_mask_zero
        )
        # the code of a token acts where the token is a label: labels are text[1:]
        codes = mpu.broadcast_data(["penalty"], codes, torch.uint8)["penalty"][:, 1:]
        return tokens, labels, sign(loss_mask, codes), attention_mask, position_ids

    return batch
