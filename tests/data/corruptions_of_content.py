"""Corruptions of what sound files hold: values, sidecars, alignment; and of what lies beside the data."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np

from ifguide.system.files import read_json
from tests.data.corruptible import (
    DOC_IDX,
    DOC_IDX_AT,
    LENGTHS,
    TOKENIZER,
    Project,
    copy_doc_idx,
    corruption,
    patch,
    resize,
)

# --- the values of the tokens ------------------------------------------------------------------------------------


@corruption("bin-size", "is truncated: 643 bytes, its index needs 644")
def bin_lacks_a_byte(project: Project) -> None:
    resize(project.data + ".bin", -1)


@corruption("bin-size", "is truncated: 484 bytes")
def bin_lacks_a_document(project: Project) -> None:
    resize(project.data + ".bin", -4 * LENGTHS[-1])


@corruption("bin-size", "has 645 bytes, its index says 644")
def bin_has_a_byte_more(project: Project) -> None:
    resize(project.data + ".bin", 1)


@corruption("bin-size", "has 1288 bytes")
def bin_is_there_twice(project: Project) -> None:
    content = Path(project.data + ".bin").read_bytes()
    Path(project.data + ".bin").write_bytes(content * 2)


@corruption("content alignment", "content hash")
def bin_is_of_another_dataset(project: Project) -> None:
    """As long, cut alike: only the content tells."""
    other = Project.create(project.folder / "other", seed=1)
    shutil.move(other.data + ".bin", project.data + ".bin")


@corruption("content alignment", "content hash")
def bit_flips_in_the_tokens(project: Project) -> None:
    flip(project.data + ".bin")


@corruption(
    "content alignment",
    "content hash",
    deep=True,
    refused_by="loaders know a file by its size and time, both as they were: reading all at each start takes hours",
)
def bit_flips_and_the_time_is_kept(project: Project) -> None:
    status = os.stat(project.data + ".bin")  # noqa: PTH116
    flip(project.data + ".bin")
    os.utime(project.data + ".bin", ns=(status.st_atime_ns, status.st_mtime_ns))


def flip(path: str) -> None:
    content = bytearray(Path(path).read_bytes())
    content[100] ^= 1
    Path(path).write_bytes(content)


@corruption("token-id", "3 token ids outside the vocabulary of 512: 512 at document 2, token 4")
def token_ids_are_beyond_the_vocabulary(project: Project) -> None:
    set_tokens(project, {35: 512, 36: 2**31 - 1, 100: 600})


@corruption("token-id", "1 token ids outside the vocabulary of 512: -1 at document 0, token 3")
def token_id_is_negative(project: Project) -> None:
    """Padding is -1 in a sample: it would pass for that."""
    set_tokens(project, {3: -1})


@corruption("token-id", "4294967301 at document 0, token 7")
def token_id_carries_a_penalty_code(project: Project) -> None:
    """A packed value is token + code * 2**32: it would pass for token 5, selected."""
    project.write_tokens(np.fromfile(project.data + ".bin", np.int32), np.int64)
    set_tokens(project, {7: 5 + (1 << 32)}, np.int64)


@corruption("token-id", "65535 at document 0, token 0")
def token_id_is_a_wrapped_minus_one(project: Project) -> None:
    project.write_tokens(np.fromfile(project.data + ".bin", np.int32), np.uint16)
    set_tokens(project, {0: 65535}, np.uint16)


def set_tokens(project: Project, values: dict[int, int], dtype: type = np.int32) -> None:
    set_values(project, project.data, values, dtype)


def set_values(project: Project, prefix: str, values: dict[int, int], dtype: type) -> None:
    """Change numbers of a dataset whose sidecar then agrees with it again."""
    numbers = np.memmap(prefix + ".bin", dtype, "r+")
    for position, value in values.items():
        numbers[position] = value
    numbers.flush()
    project.seal(prefix)


# --- the sidecar of the tokens -----------------------------------------------------------------------------------


@corruption("sidecar", "not valid JSON")
def sidecar_is_cut(project: Project) -> None:
    resize(project.data + ".json", -5)


@corruption("sidecar", "not valid JSON")
def sidecar_is_binary(project: Project) -> None:
    Path(project.data + ".json").write_bytes(b"\xff\xfe\x00{}")


@corruption("sidecar", "not valid JSON")
def sidecar_is_nested_beyond_measure(project: Project) -> None:
    Path(project.data + ".json").write_text("[" * 200_000)


@corruption("sidecar", "is not a JSON object")
def sidecar_is_a_list(project: Project) -> None:
    Path(project.data + ".json").write_text("[1, 2]")


@corruption("sidecar", "is not a file")
def sidecar_is_a_pipe(project: Project) -> None:
    Path(project.data + ".json").unlink()
    os.mkfifo(project.data + ".json")


@corruption("sidecar", "format version 99")
def sidecar_is_of_another_version(project: Project) -> None:
    project.edit(project.data, format_version=99)


@corruption("sidecar", "holds scores, not tokens")
def sidecar_says_scores(project: Project) -> None:
    project.edit(project.data, kind="scores")


@corruption("sidecar", "'fingerprint' is not a JSON object")
def sidecar_has_a_string_for_the_fingerprint(project: Project) -> None:
    project.edit(project.data, fingerprint="abc")


@corruption(
    "sidecar", "vocab_size is 'many'", refused_by="loaders take the vocabulary from the tokenizer, not from here"
)
def sidecar_has_no_number_for_the_vocabulary(project: Project) -> None:
    project.edit(project.data, tokenizer={"identity": TOKENIZER.vocabulary_fingerprint, "vocab_size": "many"})


@corruption(
    "content",
    "documents 7 != 6; tokens 162 != 161",
    refused_by="what counts, the fingerprint in the mask's sidecar, is compared with the files themselves",
)
def sidecar_counts_another_dataset(project: Project) -> None:
    sidecar = read_json(project.data + ".json")
    project.edit(project.data, fingerprint=sidecar["fingerprint"] | {"documents": 7, "tokens": 162})


@corruption("alignment alignment", "tokenizer")
def sidecar_names_another_tokenizer(project: Project) -> None:
    for prefix in (project.mask, project.scores):
        project.edit(prefix, tokenizer={"identity": "f" * 64})


# --- the mask ----------------------------------------------------------------------------------------------------


@corruption("sidecar", "mask has no sidecar")
def mask_has_no_sidecar(project: Project) -> None:
    Path(project.mask + ".json").unlink()


@corruption("sidecar", "not valid JSON")
def mask_sidecar_is_cut(project: Project) -> None:
    resize(project.mask + ".json", -5)


@corruption("sidecar encoding content", "holds scores, not penalties")
def mask_has_the_sidecar_of_the_scores(project: Project) -> None:
    shutil.copy(project.scores + ".json", project.mask + ".json")


@corruption("sidecar", "does not say which files or which data")
def mask_sidecar_names_no_data(project: Project) -> None:
    project.edit(project.mask, data=None)


@corruption("encoding", "unknown encoding 'ternary'")
def mask_encoding_is_unknown(project: Project) -> None:
    project.edit(project.mask, encoding="ternary")


@corruption("code", "1 codes above 1 in a binary mask: 2 at document 3, token 2")
def mask_code_is_two(project: Project) -> None:
    """Twice the strength: the clean loss would be subtracted."""
    set_codes(project, {50: 2})


def set_codes(project: Project, values: dict[int, int]) -> None:
    set_values(project, project.mask, values, np.uint8)


@corruption("dtype", "holds float32 values; penalties are uint8")
def mask_is_float32(project: Project) -> None:
    project.write(project.mask, np.zeros(sum(LENGTHS)), np.float32)
    project.seal(project.mask)


@corruption("dtype", "holds int8 values; penalties are uint8")
def mask_is_int8(project: Project) -> None:
    project.write(project.mask, np.zeros(sum(LENGTHS)), np.int8)
    project.seal(project.mask)


@corruption("content", "content hash")
def bit_flips_in_the_mask(project: Project) -> None:
    flip(project.mask + ".bin")


@corruption("content", "index")
def mask_index_is_replaced(project: Project) -> None:
    """A builder that was killed between its two renames: the new index, the old values."""
    patch(project.mask + ".idx", DOC_IDX_AT + 8, "<q", 0)
    index = Path(project.mask + ".idx").read_bytes()
    patch(project.data + ".idx", DOC_IDX_AT + 8, "<q", 0)
    project.seal(project.data)
    copy_doc_idx(project)
    project.edit(project.mask, fingerprint=read_json(project.mask + ".json")["fingerprint"] | {"index_hash": "0" * 64})
    Path(project.mask + ".idx").write_bytes(index)


@corruption("bin-size", "is truncated: 160 bytes")
def mask_lacks_a_code(project: Project) -> None:
    resize(project.mask + ".bin", -1)


@corruption("alignment", "content hash")
def mask_is_of_another_dataset(project: Project) -> None:
    other = Project.create(project.folder / "other", seed=1)
    for suffix in (".bin", ".idx", ".json"):
        shutil.move(other.mask + suffix, project.mask + suffix)
    shutil.rmtree(other.folder)


@corruption("alignment alignment", "5 documents for 6")
def mask_lacks_a_document(project: Project) -> None:
    project.write(project.mask, np.zeros(sum(LENGTHS[:-1])), np.uint8, LENGTHS[:-1])
    set_codes(project, {0: 1})


@corruption("alignment", "2 documents of another length, first document 0: 29 values for 30 tokens")
def mask_is_off_by_one_token(project: Project) -> None:
    """As many documents and as many values, and a sidecar that names the right data."""
    project.write(project.mask, np.zeros(sum(LENGTHS)), np.uint8, (LENGTHS[0] - 1, LENGTHS[1] + 1, *LENGTHS[2:]))
    set_codes(project, {0: 1})


@corruption("alignment", "doc_idx is not that of", refused_by=DOC_IDX)
def mask_has_another_doc_idx(project: Project) -> None:
    patch(project.mask + ".idx", DOC_IDX_AT + 8, "<q", 0)
    project.seal(project.mask)


# --- the scores --------------------------------------------------------------------------------------------------


@corruption("not-finite", "2 scores (2 NaN) that are not finite: nan at document 1, token 0", refused_by="scores")
def scores_are_nan(project: Project) -> None:
    set_scores(project, {30: np.nan, 90: np.nan})


@corruption("not-finite", "1 scores (0 NaN) that are not finite: inf at document 5, token 39", refused_by="scores")
def score_is_infinite(project: Project) -> None:
    set_scores(project, {160: np.inf})


@corruption("not-finite", "9 scores (0 NaN) that are not finite: -inf at document 0, token 0, ", refused_by="scores")
def scores_are_minus_infinite(project: Project) -> None:
    set_scores(project, dict.fromkeys(range(0, 161, 20), -np.inf))


def set_scores(project: Project, values: dict[int, float]) -> None:
    scores = np.memmap(project.scores + ".bin", np.float32, "r+")
    for position, value in values.items():
        scores[position] = value
    scores.flush()
    project.seal(project.scores)


@corruption("dtype", "holds float64 values; scores are float32", refused_by="scores")
def scores_are_float64(project: Project) -> None:
    project.write(project.scores, np.zeros(sum(LENGTHS)), np.float64)
    project.seal(project.scores)


@corruption("bin-size", "scores.bin is truncated", refused_by="scores")
def scores_are_cut_at_a_page(project: Project) -> None:
    os.truncate(project.scores + ".bin", 512)


@corruption("sidecar", "scores has no sidecar", refused_by="scores")
def scores_have_no_sidecar(project: Project) -> None:
    Path(project.scores + ".json").unlink()


@corruption("alignment", "content hash", refused_by="scores")
def scores_are_of_another_dataset(project: Project) -> None:
    other = Project.create(project.folder / "other", seed=1)
    for suffix in (".bin", ".idx", ".json"):
        shutil.move(other.scores + suffix, project.scores + suffix)
    shutil.rmtree(other.folder)


# --- beside the data ---------------------------------------------------------------------------------------------

_CACHE = "the embedded engine does not read it; GPT-NeoX does, before anything of ours can look"


@corruption("index-cache", "a pickle, not an array of numbers", refused_by=_CACHE)
def index_cache_holds_objects(project: Project) -> None:
    path = project.data + "_train_0_indexmap_10ns_16sl_1s_packedpi_ac_doc_idx.npy"
    np.save(path, np.array([{"code": "here"}], dtype=object), allow_pickle=True)


@corruption("index-cache", "a pickle, not an array of numbers", refused_by=_CACHE)
def index_cache_is_a_bare_pickle(project: Project) -> None:
    path = Path(project.data) / "cache" / "GPTDataset_indices" / "a-document_index.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps([1, 2, 3]))


@corruption("index-cache", "a pickle, not an array of numbers", refused_by=_CACHE)
def index_cache_is_cut(project: Project) -> None:
    path = Path(project.data + "_valid_0_indexmap_10ns_16sl_1s_packedpi_ac_shuffle_idx.npy")
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'")
