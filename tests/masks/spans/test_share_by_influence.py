"""What influence points at beyond noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import write_aligned
from ifguide.errors import InputError, MismatchError
from ifguide.masks.spans import share_by_influence
from ifguide.masks.spans.share_by_influence import excess_share
from tests.masks.datasets import EOD
from tests.support.datasets import write_tokens


def write_directions(folder: Path, share: float, directions: int = 20, documents: int = 300) -> tuple[str, list[str]]:
    """Noise along every direction; in abusive documents the real one lies far above it. EOD tokens score high."""
    generator = np.random.default_rng(0)
    tokens = write_tokens(folder / "data", [[1] * 99 + [EOD]] * documents, tokenizer={"eod": EOD})
    names = []
    for k in range(directions + 1):
        values = generator.standard_normal((documents, 100)).astype(np.float32)
        if k == 0:
            values[: round(share * documents), :99] += 50
        values[:, 99] = 1000
        names.append(str(folder / f"s{k}"))
        write_aligned(names[-1], tokens, values.reshape(-1), np.float32, {})
    return names[0], names[1:]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
def test_the_excess_is_what_stands_out(tmp_path, share):
    scores, permuted = write_directions(tmp_path, share)
    found = excess_share(scores, permuted)
    assert found.share == pytest.approx(share, abs=2e-3) and found.low <= share <= found.high + 1e-3
    assert found.expected == pytest.approx(0.001, rel=0.01)
    assert found.tokens == 300 * 99 and found.directions == 20
    assert (found.low > 0) == (share > 0)


def test_a_sample_of_documents_gives_much_the_same(tmp_path, monkeypatch):
    scores, permuted = write_directions(tmp_path, 0.1)
    monkeypatch.setattr(share_by_influence, "_SAMPLE_TOKENS", 15_000)
    found = excess_share(scores, permuted, seed=3)
    assert 15_000 <= found.tokens < 15_100 and found.low < 0.1 < found.high


def test_the_command(tmp_path, capsys):
    scores, permuted = write_directions(tmp_path, 0.1)
    words = ["mask-stats", "--estimate", "--scores", scores, "--permuted", *permuted]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["share"] == excess_share(scores, permuted).share
    assert main(words) == 0
    assert "does not stand out" in capsys.readouterr().out


def test_refuses_too_few_directions_and_other_tokens(tmp_path):
    scores, permuted = write_directions(tmp_path, 0.1)
    with pytest.raises(InputError, match="names 19 score datasets"):
        excess_share(scores, permuted[:19])
    other = write_tokens(tmp_path / "other", [[1, 2, EOD]])
    write_aligned(tmp_path / "o", other, np.ones(3, np.float32), np.float32, {})
    with pytest.raises(MismatchError):
        excess_share(scores, [*permuted[:19], tmp_path / "o"])
