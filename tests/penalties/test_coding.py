"""One coding for both engines: what goes in comes out, whatever carries it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ifguide.penalties.coding import CODE_MAX, ENCODINGS, highest_code, pack, scaled, sign, strength, unpack, unsign

TOKENS = np.array([0, 1, 50303, 2**31 - 1, 2**32 - 1, 7])
CODES = np.array([0, 1, 127, 254, 255, 0])


def test_both_encodings_mean_the_same_strengths() -> None:
    assert scaled(np.array([0, 1], dtype=np.uint8), "binary").tolist() == [0, 255]
    assert scaled(CODES, "graded").tolist() == CODES.tolist()
    assert [highest_code(encoding) for encoding in ENCODINGS] == [1, 255]
    codes = torch.tensor([0, 1, 128, 255], dtype=torch.uint8)
    assert strength(codes).tolist() == [0.0, pytest.approx(1 / 255), pytest.approx(128 / 255), 1.0]
    with pytest.raises(ValueError, match="unknown mask encoding 'ternary'"):
        highest_code("ternary")


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_a_token_and_its_code_cannot_part(make) -> None:
    packed = pack(make(TOKENS), make(CODES))
    assert str(packed.dtype).endswith("int64")
    tokens, codes = unpack(packed[2:])
    assert tokens.tolist() == TOKENS[2:].tolist() and codes.tolist() == CODES[2:].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_signed_mask_survives_every_precision(dtype: torch.dtype) -> None:
    codes = torch.arange(CODE_MAX + 1, dtype=torch.uint8).repeat(2)
    counts = torch.arange(2 * (CODE_MAX + 1)) % 3 > 0
    signed = sign(counts.to(dtype), codes)
    mask, strengths = unsign(signed, torch.float32)
    assert torch.equal(mask > 0, counts)
    assert torch.equal(strengths, strength(codes) * counts)
