"""From a penalised sample to the signed loss mask, on every tensor-parallel rank; and hidden tokens, taken out of the
input there.

A sample's ``text`` carries each token's penalty code above its id (`ifguide.penalties.coding`).

Shapes: B micro-batch, T tokens of a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ifguide.data.text.record import config_datasets, recorded_tokenizer
from ifguide.penalties.coding import sign, unpack
from ifguide.penalties.hiding import hidden_token
from ifguide.penalties.keys import action_of, mask_pairs, values_of
from ifguide_patch.run_state import state


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
        # the loss of a token is where the token is a label: labels are text[1:]
        codes = mpu.broadcast_data(["penalty"], codes, torch.uint8)["penalty"]
        if state.hidden is not None:
            # after NeoX has made the masks: those are of the text as it is
            tokens = tokens.masked_fill(codes[:, :-1] > 0, state.hidden)
        return tokens, labels, sign(loss_mask, codes[:, 1:]), attention_mask, position_ids

    return batch


def find_hidden_token(neox_args: Any) -> int | None:
    """The id that is read in place of hidden tokens; None unless ``penalty_action`` is ``hide``.

    Raises:
        InputError: ``penalty_hidden_token`` is none of the model's tokens, or the one that ends documents.
    """
    config = values_of(neox_args)
    if action_of(config) != "hide" or not mask_pairs(config):
        return None
    tokenizer = neox_args.tokenizer

    def token_id(name: str) -> int | None:
        try:
            return tokenizer.vocab.get(name)
        except NotImplementedError:  # a tokenizer of NeoX that does not list its tokens
            return None

    separators = {recorded_tokenizer(prefix).get("eod") for prefix in config_datasets(config)}
    rows = neox_args.padded_vocab_size
    return hidden_token(config["penalty_hidden_token"], token_id, rows, {*separators, tokenizer.eod} - {None})
