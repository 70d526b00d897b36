"""Corruptions of the two files as such: missing, cut, with another header, lengths, pointers or doc_idx."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tests.data.corruptible import (
    DOC_IDX,
    DOC_IDX_AT,
    LENGTHS,
    LENGTHS_AT,
    POINTERS_AT,
    Project,
    copy_doc_idx,
    corruption,
    patch,
    resize,
    swap,
)

# --- the two files -----------------------------------------------------------------------------------------------


@corruption("missing", "data.idx does not exist")
def index_missing(project: Project) -> None:
    Path(project.data + ".idx").unlink()


@corruption("missing", "data.bin does not exist")
def bin_missing(project: Project) -> None:
    Path(project.data + ".bin").unlink()


@corruption("empty", "data.idx is empty (0 bytes)")
def index_of_zero_bytes(project: Project) -> None:
    os.truncate(project.data + ".idx", 0)


@corruption("empty", "data.bin is empty (0 bytes)")
def bin_of_zero_bytes(project: Project) -> None:
    os.truncate(project.data + ".bin", 0)


@corruption("not-a-file", "data.idx is not a file")
def index_is_a_folder(project: Project) -> None:
    Path(project.data + ".idx").unlink()
    Path(project.data + ".idx").mkdir()


@corruption("not-a-file", "data.bin is not a file")
def bin_is_a_pipe(project: Project) -> None:
    """Opening it would wait for ever."""
    Path(project.data + ".bin").unlink()
    os.mkfifo(project.data + ".bin")


@corruption("missing", "data.bin is a link to nothing")
def bin_is_a_dangling_link(project: Project) -> None:
    Path(project.data + ".bin").unlink()
    Path(project.data + ".bin").symlink_to("nowhere")


@corruption("unreadable", "data.idx cannot be read")
def index_is_a_link_to_itself(project: Project) -> None:
    Path(project.data + ".idx").unlink()
    Path(project.data + ".idx").symlink_to("data.idx")


# --- the header of the index -------------------------------------------------------------------------------------


@corruption("magic", "not an mmap index")
def magic_is_another(project: Project) -> None:
    patch(project.data + ".idx", 0, "<B", 0)


@corruption("magic", "legacy index")
def index_is_of_the_legacy_format(project: Project) -> None:
    patch(project.data + ".idx", 0, "8s", b"TNTIDX\0\0")


@corruption("magic", "not an mmap index")
def index_and_bin_are_exchanged(project: Project) -> None:
    swap(project.data + ".idx", project.data + ".bin")


@corruption("version", "index version 2")
def version_is_two(project: Project) -> None:
    patch(project.data + ".idx", 9, "<Q", 2)


@corruption("version", "index version 72057594037927936")
def version_is_big_endian(project: Project) -> None:
    patch(project.data + ".idx", 9, ">Q", 1)


@corruption("dtype-code", "unknown dtype code 0")
def dtype_code_is_zero(project: Project) -> None:
    patch(project.data + ".idx", 17, "<B", 0)


@corruption("dtype-code", "unknown dtype code 255")
def dtype_code_is_unknown(project: Project) -> None:
    patch(project.data + ".idx", 17, "<B", 255)


@corruption("bin-size pointers", "belong to different datasets")
def dtype_code_is_too_narrow(project: Project) -> None:
    patch(project.data + ".idx", 17, "<B", 8)


@corruption("bin-size pointers", "is truncated")
def dtype_code_is_too_wide(project: Project) -> None:
    patch(project.data + ".idx", 17, "<B", 5)


@corruption("dtype content alignment", "holds float32 values, not tokens")
def dtype_code_is_a_float(project: Project) -> None:
    patch(project.data + ".idx", 17, "<B", 7)


@corruption("index-size", "is truncated")
def document_count_is_enormous(project: Project) -> None:
    patch(project.data + ".idx", 18, "<Q", 1 << 60)


@corruption("index-size", "is truncated")
def document_count_is_minus_one(project: Project) -> None:
    patch(project.data + ".idx", 18, "<q", -1)


@corruption("index-size", "is truncated")
def document_count_overflows_when_multiplied(project: Project) -> None:
    """12 * count is 8 modulo 2**64."""
    patch(project.data + ".idx", 18, "<Q", ((1 << 64) + 8) // 12)


@corruption("index-size", "has trailing bytes")
def document_count_is_one_less(project: Project) -> None:
    patch(project.data + ".idx", 18, "<Q", len(LENGTHS) - 1)


@corruption("index-size", "has trailing bytes")
def document_count_is_zero(project: Project) -> None:
    patch(project.data + ".idx", 18, "<Q", 0)


@corruption("index-size", "is truncated")
def doc_idx_count_is_enormous(project: Project) -> None:
    patch(project.data + ".idx", 26, "<Q", 1 << 61)


@corruption("index-size", "the header alone has 34")
def index_ends_in_the_header(project: Project) -> None:
    os.truncate(project.data + ".idx", 30)


@corruption("index-size", "is truncated")
def index_lacks_a_byte(project: Project) -> None:
    resize(project.data + ".idx", -1)


@corruption("index-size", "is truncated")
def index_ends_in_the_pointers(project: Project) -> None:
    os.truncate(project.data + ".idx", POINTERS_AT + 12)


@corruption("index-size", "has trailing bytes")
def index_has_a_byte_more(project: Project) -> None:
    resize(project.data + ".idx", 1)


@corruption("multimodal", "a mode for each document: a multimodal dataset")
def index_has_modes(project: Project) -> None:
    resize(project.data + ".idx", len(LENGTHS))


# --- lengths, pointers, doc_idx ----------------------------------------------------------------------------------


@corruption("negative-length", "document 2 has length -5")
def length_is_negative(project: Project) -> None:
    patch(project.data + ".idx", LENGTHS_AT + 8, "<i", -5)


@corruption("bin-size pointers", "document 3 starts at byte 192, expected 196")
def length_is_one_more(project: Project) -> None:
    patch(project.data + ".idx", LENGTHS_AT + 8, "<i", LENGTHS[2] + 1)


@corruption("pointers", "document 1 starts at byte 120, expected 4")
def two_lengths_are_exchanged(project: Project) -> None:
    patch(project.data + ".idx", LENGTHS_AT, "<ii", LENGTHS[1], LENGTHS[0])


@corruption("no-tokens", "lists no tokens")
def lengths_are_all_zero(project: Project) -> None:
    patch(project.data + ".idx", LENGTHS_AT, f"<{len(LENGTHS)}i", *[0] * len(LENGTHS))


@corruption("pointers", "document 4 starts at byte 456, expected 448")
def pointer_leaves_a_gap(project: Project) -> None:
    patch(project.data + ".idx", POINTERS_AT + 32, "<q", 456)


@corruption("pointers", "document 0 starts at byte -4")
def pointer_is_negative(project: Project) -> None:
    patch(project.data + ".idx", POINTERS_AT, "<q", -4)


@corruption("pointers", "document 5 starts at byte 1099511627776")
def pointer_is_beyond_the_end(project: Project) -> None:
    patch(project.data + ".idx", POINTERS_AT + 40, "<q", 1 << 40)


@corruption("pointers", "document 3 starts at byte 48, expected 192 and 2 more")
def pointers_count_tokens(project: Project) -> None:
    starts = np.cumsum((0, *LENGTHS))[:-1]
    patch(project.data + ".idx", POINTERS_AT, f"<{len(LENGTHS)}q", *starts)


@corruption("doc-idx", "doc_idx decreases: 5 then 2 at entry 2", refused_by=DOC_IDX)
def doc_idx_decreases(project: Project) -> None:
    patch(project.data + ".idx", DOC_IDX_AT + 16, "<q", 5)
    patch(project.data + ".idx", DOC_IDX_AT + 24, "<q", 2)
    project.seal(project.data)
    copy_doc_idx(project)


@corruption("doc-idx", "leaves the 6 sequences: entry 6 is 7", refused_by=DOC_IDX)
def doc_idx_is_out_of_range(project: Project) -> None:
    patch(project.data + ".idx", DOC_IDX_AT + 48, "<q", 7)
    project.seal(project.data)
    copy_doc_idx(project)


@corruption("doc-idx", "leaves the 6 sequences: entry 1 is -1", refused_by=DOC_IDX)
def doc_idx_is_negative(project: Project) -> None:
    patch(project.data + ".idx", DOC_IDX_AT + 8, "<q", -1)
    project.seal(project.data)
    copy_doc_idx(project)


@corruption("doc-idx", "doc_idx starts with 1, not with 0", refused_by=DOC_IDX)
def doc_idx_starts_late(project: Project) -> None:
    patch(project.data + ".idx", DOC_IDX_AT, "<q", 1)
    project.seal(project.data)
    copy_doc_idx(project)


@corruption("doc-idx", "doc_idx has no entry", refused_by=DOC_IDX)
def doc_idx_is_empty(project: Project) -> None:
    for prefix in (project.data, project.mask, project.scores):
        patch(prefix + ".idx", 26, "<Q", 0)
        os.truncate(prefix + ".idx", DOC_IDX_AT)
        project.seal(prefix)
