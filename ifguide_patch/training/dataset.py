"""Masks beside the training data: every sample of NeoX's ``GPT2Dataset`` reads its penalty codes from the
very ranges that its tokens come from.

A code is keyed by document and offset, never by sample index: another seed, sequence length, number
of iterations or blend reads the same code for the same token.

Shapes: T sequence length; a sample has T + 1 tokens. N_tokens tokens of a dataset.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ifguide.data.aligned import Aligned, load_aligned, open_aligned
from ifguide.data.fingerprint import fingerprint
from ifguide.data.indexed import IndexedDataset, TokenDataset
from ifguide.data.sidecar import PENALTIES, file_states, sidecar_path
from ifguide.errors import InputError, MismatchError
from ifguide.penalties.coding import CODE_MAX, CODE_SHIFT, TOKEN_BITS, highest_code
from ifguide.penalties.keys import mask_key, mask_pairs, missing_files, values_of
from ifguide_patch.run_state import state
from ifguide_patch.training.batch import find_hidden_token

VERIFIED_VARIABLE = "IFGUIDE_VERIFIED"

_IGNORED_LABEL = -100
_SOURCE = "ifguide_source"  # attribute of a GPT2Dataset that has a mask


class MaskedSource:
    """Tokens, labels and penalty codes of one training dataset, read by document and offset.

    NeoX's own dataset objects are left alone; these are plain views of the same files.
    """

    def __init__(self, data_prefix: str, mask_prefix: str, label_prefix: str | None):
        self.data_prefix = data_prefix
        self._prefixes = (data_prefix, mask_prefix, label_prefix)
        tokens = TokenDataset.open(data_prefix)
        mask = verified_mask(tokens, mask_prefix)
        # plain arrays: slicing a memmap makes a memmap, ten times slower
        self._starts = tokens.starts
        self._tokens = np.asarray(tokens.tokens)
        self._may_be_impossible = self._tokens.dtype not in (np.uint8, np.uint16, np.uint32)
        self._codes = np.asarray(mask.values)
        self._labels = None if label_prefix is None else np.asarray(_labels(label_prefix, tokens).values)
        # binary masks hold 0 and 1, which mean strength 0 and 1
        self._highest_code = highest_code(mask.sidecar["encoding"])
        self._unit = np.int64((CODE_MAX // self._highest_code) << CODE_SHIFT)

    def __reduce__(self) -> Any:
        # a loader worker that is spawned opens the files again: pickling would copy their content
        return MaskedSource, self._prefixes

    def sample(self, pieces: Sequence[tuple[int, int, int | None]], size: int) -> dict[str, np.ndarray]:
        """One sample of ``pieces`` (document, offset, length or None for its rest), cut or padded to ``size``.

        Returns:
            ``text``: int64[size], token + code * 2**32, 0 where padded; ``label``: int64[size], -100 where
            padded, if the dataset has labels.

        Raises:
            InputError: a token id or a code that would pass for another; no tool of ours writes one.
        """
        text = np.empty(size, np.int64)
        codes = np.empty(size, np.int64)
        label = None if self._labels is None else np.full(size, _IGNORED_LABEL, np.int64)
        starts, at = self._starts, 0
        for document, offset, length in pieces:
            begin = int(starts[document]) + offset
            end = int(starts[document + 1]) if length is None else begin + length
            end = min(end, begin + size - at)
            stop = at + end - begin
            text[at:stop] = self._tokens[begin:end]
            codes[at:stop] = self._codes[begin:end]
            if label is not None and self._labels is not None:
                label[at:stop] = self._labels[begin:end]
            at = stop
        text[at:] = 0
        codes[at:] = 0
        highest = codes.max()
        if highest > self._highest_code or (self._may_be_impossible and (text.min() < 0 or text.max() > TOKEN_BITS)):
            raise InputError(f"{self.data_prefix} or its mask holds impossible values: run `ifguide verify`")
        if highest:
            codes *= self._unit
            text += codes
        return {"text": text} if label is None else {"text": text, "label": label}


def verified_mask(tokens: TokenDataset, mask_prefix: str) -> Aligned:
    """The mask, known to belong to ``tokens``.

    The launcher compares contents once (`verify_masks`). A worker that finds the same files, by size and modification
    time, reads neither the corpus nor the mask again, also where a copy has moved the times that the sidecars know.

    Raises:
        InputError, MismatchError: as `ifguide.data.aligned.load_aligned`.
    """
    known = json.loads(base64.urlsafe_b64decode(os.environ.get(VERIFIED_VARIABLE, "")) or "{}")
    if mask_prefix not in known or known[mask_prefix] != _states(tokens.prefix, mask_prefix):
        return load_aligned(mask_prefix, tokens, PENALTIES)
    mask = open_aligned(mask_prefix, PENALTIES)
    if not np.array_equal(mask.dataset.lengths, tokens.lengths):
        raise MismatchError(f"mask {mask_prefix} was made for other data than {tokens.prefix} (document lengths)")
    return mask


def verify_masks(config: dict[str, Any]) -> list[str]:
    """Compare every mask of ``config`` with its data, in full; one line for each that does not fit.

    Those that fit are named in the environment, for the workers.
    """
    faults, verified = [], {}
    for data, mask in mask_pairs(config):
        absent = [*missing_files("train_data_paths" if config.get("train_data_paths") else "data_path", data)]
        absent += missing_files(mask_key(config), mask, mask=True)
        if absent:
            faults += absent
            continue
        try:
            tokens = TokenDataset.open(data)
            fingerprint(tokens, progress=True)  # reads a corpus once that no sidecar describes, and shows it
            load_aligned(mask, tokens, PENALTIES)
            verified[mask] = _states(data, mask)
        except InputError as error:
            faults.append(f"{mask_key(config)}: {error}")
    # launchers write variables into command lines, where quotes and commas do not survive
    os.environ[VERIFIED_VARIABLE] = base64.urlsafe_b64encode(json.dumps(verified).encode()).decode()
    return faults


def build_loaders(original: Callable[..., Any]) -> Callable[..., Any]:
    """``build_train_valid_test_data_loaders``, which makes its configuration known to what it calls, and to
    `ifguide_patch.training.batch` which token stands for hidden ones."""

    def build(neox_args: Any) -> Any:
        state.hidden = find_hidden_token(neox_args)
        state.building = neox_args
        try:
            return original(neox_args)
        finally:
            state.building = None

    return build


def build_weighted(original: Callable[..., Any]) -> Callable[..., Any]:
    """``build_weighted_datasets`` (the route of ``train_data_paths``) with masks on the training datasets."""

    def build(neox_args: Any, *args: Any, **kwargs: Any) -> Any:
        train, valid, test = original(neox_args, *args, **kwargs)
        masks = neox_args.train_penalty_data_paths or []
        labels = neox_args.train_label_data_paths or [None] * len(masks)
        for dataset, data, mask, label in zip(train, neox_args.train_data_paths or [], masks, labels):
            if mask:
                attach(dataset, data, mask, label)
        return train, valid, test

    return build


def build_split(original: Callable[..., Any]) -> Callable[..., Any]:
    """``build_train_valid_test_datasets`` (the route of ``data_path``) with a mask on the training part."""

    def build(data_prefix: str, *args: Any, **kwargs: Any) -> Any:
        train, valid, test = original(data_prefix, *args, **kwargs)
        building = state.building
        if train is not None and building is not None and mask_pairs(values_of(building)):
            attach(train, data_prefix, building.penalty_data_path, None)
        return train, valid, test

    return build


def attach(dataset: Any, data_prefix: str, mask_prefix: str, label_prefix: str | None) -> None:
    """Give a ``GPT2Dataset`` its mask; `getitem` reads it from then on."""
    setattr(dataset, _SOURCE, MaskedSource(data_prefix, mask_prefix, label_prefix))
    for name in ("doc_idx", "sample_idx", "shuffle_idx"):
        if hasattr(dataset, name):  # the first pass of weight_by_num_documents builds none
            setattr(dataset, name, np.asarray(getattr(dataset, name)))


def getitem(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``GPT2Dataset.__getitem__``: NeoX's own without a mask; with one, the same sample and its codes."""

    def item(self: Any, idx: Any) -> dict[str, np.ndarray]:
        source = self.__dict__.get(_SOURCE)
        if source is None:
            return original(self, idx)
        # NeoX goes round for ever where every sample that stands in runs over the end itself
        for _ in range(len(self) + 1):
            place = idx
            try:
                # where NeoX runs over an end it takes another sample: tokens and codes must take the same
                place = self.shuffle_idx[idx]
                return source.sample(_pieces(self, place), self.seq_length + 1)
            except IndexError:
                idx = place % len(self)
        raise InputError(f"{source.data_prefix} is too small: sample {idx} of {len(self)} runs over the end of it")

    return item


def _pieces(dataset: Any, place: int) -> list[tuple[int, int, int | None]]:
    """The (document, offset, length) ranges of the sample at ``place`` of ``sample_idx``, as NeoX takes them."""
    first, offset = dataset.sample_idx[place].tolist()
    last, end = dataset.sample_idx[place + 1].tolist()
    documents = dataset.doc_idx[first : last + 1].tolist()
    if len(documents) <= last - first:
        raise IndexError(f"document {last} of the {len(dataset.doc_idx)} in doc_idx")
    if first == last:
        return [(documents[0], offset, end - offset + 1)]
    return [
        (documents[0], offset, None),
        *((document, 0, None) for document in documents[1:-1]),
        (documents[-1], 0, end + 1),
    ]


def _labels(prefix: str, tokens: TokenDataset) -> IndexedDataset:
    labels = IndexedDataset.open(prefix)
    if not np.array_equal(labels.lengths, tokens.lengths):
        raise MismatchError(f"train_label_data_paths: {prefix} has other documents than {tokens.prefix}")
    return labels


def _states(data_prefix: str, mask_prefix: str) -> list[Any]:
    """Size and modification time of the files of both datasets, and of the mask's sidecar."""
    sidecar = sidecar_path(mask_prefix).stat()
    files = [file_states(f"{prefix}.idx", f"{prefix}.bin") for prefix in (data_prefix, mask_prefix)]
    return [*files, [sidecar.st_size, sidecar.st_mtime_ns]]
