"""The share of abuse: what is estimated on corpora whose share is known, and when a budget is taken from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import write_aligned
from ifguide.data.sidecar import read_sidecar
from ifguide.errors import InputError, MismatchError
from ifguide.masks.spans.share import Estimate, budget_of, estimate_share
from tests.masks.datasets import EOD
from tests.support.datasets import write_tokens

TPR, FPR = 0.85, 0.04
REPORT = {"texts": 500, "positives": 250, "folds": 5, "true_positive_rate": TPR, "false_positive_rate": FPR}
LINES, LINE = 8, 12


def write_corpus(folder: Path, name: str, share: float, seed: int, documents: int = 600, identity: str = "a") -> str:
    """Documents of `LINES` lines; a document is abusive or not, and the classifier errs as `REPORT` says."""
    generator = np.random.default_rng(seed)
    abusive = generator.random(documents) < share
    suspected = np.where(
        abusive[:, None], generator.random((documents, LINES)) < TPR, generator.random((documents, LINES)) < FPR
    )
    score = np.where(suspected, 0.5 + generator.random(suspected.shape) / 2, generator.random(suspected.shape) / 2)
    values = np.concatenate([np.append(np.repeat(row, LINE), 0) for row in score]).astype(np.float32)
    tokens = write_tokens(folder / name, [[1] * (LINES * LINE) + [EOD]] * documents, tokenizer={"eod": EOD})
    scorer = {"name": "linear:x", "identity": identity, "threshold": 0.5, "report": REPORT}
    write_aligned(folder / f"{name}_S", tokens, values, np.float32, {"scorer": scorer, "eod": EOD})
    return str(folder / f"{name}_S")


@pytest.mark.slow
def test_known_shares_are_found_and_the_interval_covers_them(tmp_path):
    """Within a factor of 1.5 from 2 % up, and 20 of 25 intervals hold the truth."""
    covered = 0
    for share in (0.0, 0.005, 0.02, 0.06, 0.12):
        for seed in range(5):
            scores = write_corpus(tmp_path, f"c{share}-{seed}", share, 10 * seed, documents=3000)
            clean = write_corpus(tmp_path, f"clean{share}-{seed}", 0.0, 10 * seed + 1)
            found = estimate_share([scores], clean=clean, seed=seed)
            covered += found.low <= share <= found.high
            if share >= 0.02:
                assert share / 1.5 < found.share < share * 1.5
    assert covered >= 20


def test_it_is_the_formula_and_the_sample_is_counted_without_eod(tmp_path):
    scores = write_corpus(tmp_path, "c", 0.1, 0)
    with pytest.warns(UserWarning, match="those of the safe queries"):
        found = estimate_share([scores], seed=1)
    assert found.tokens == 600 * LINES * LINE and found.documents == 600
    assert found.share == pytest.approx((found.observed - FPR) / (TPR - FPR), rel=1e-12)
    assert found.low < found.share < found.high
    half, same, twice = found.budgets
    assert half["left"] > same["left"] >= twice["left"] and half["touched"] <= same["touched"] < twice["touched"]
    again = estimate_share([scores], clean=write_corpus(tmp_path, "clean", 0.0, 5), seed=1)
    assert again.false_positive_rate == pytest.approx(FPR, abs=0.01) and again.clean.endswith("clean_S")


def test_two_corpora_are_one_population(tmp_path):
    one, other = write_corpus(tmp_path, "a", 0.0, 0), write_corpus(tmp_path, "b", 0.2, 1)
    clean = write_corpus(tmp_path, "clean", 0.0, 2)
    assert estimate_share([one, other], clean=clean).share == pytest.approx(0.1, abs=0.03)


def test_a_budget_is_the_estimate_up_to_its_cap_and_refused_where_it_may_be_nothing():
    def known(share: float, low: float) -> Estimate:
        return Estimate(share, low, 2 * share, share, 1.0, 0.0, "x", 1, 1, 1, ())

    assert budget_of(known(0.05, 0.03)) == 0.05
    assert budget_of(known(0.3, 0.2)) == 0.10 and budget_of(known(0.3, 0.2), 0.2) == 0.2
    with pytest.raises(InputError, match=r"from 0 to 2.00%.*--max-fraction 0.01"):
        budget_of(known(0.01, 0.0))


def test_build_mask_takes_it(tmp_path, capsys):
    scores, clean = write_corpus(tmp_path, "c", 0.08, 0), write_corpus(tmp_path, "clean", 0.0, 5)
    tokens = tmp_path / "c"
    # lines of LINE tokens
    marks = np.tile(np.append(np.arange(LINES * LINE) % LINE == LINE - 1, True), 600).astype(np.uint8) * 3
    from ifguide.data.indexed import TokenDataset
    from ifguide.data.passages.cutting import RULES

    write_aligned(f"{tokens}.spans", TokenDataset.open(tokens), marks, np.uint8, {"rules": RULES}, "boundaries")
    words = ["build-mask", "--scores", scores, "--span", "line", "--budget", "auto", "--clean-data", clean, "--json"]
    assert main([*words, "--output", str(tmp_path / "M")]) == 0
    result = json.loads(capsys.readouterr().out)
    expected = estimate_share([scores], clean=clean).share
    assert read_sidecar(tmp_path / "M")["parameters"]["max_fraction"] == expected
    assert result["budget"] == int(expected * result["tokens"]) and result["selected"] > 0
    assert main([*words, "--output", str(tmp_path / "N"), "--tokens-within", "0.5"]) == 0
    parameters = read_sidecar(tmp_path / "N")["parameters"]
    assert (parameters["span_fraction"], parameters["tokens_within"]) == (expected, 0.5)
    capsys.readouterr()
    for more, message in (
        (["--max-fraction", "0.1"], "leave out --max-fraction"),
        (["--budget-cap", "0"], "--budget-cap 0"),
    ):
        assert main([*words, "--output", str(tmp_path / "R"), *more]) == 2
        assert message in capsys.readouterr().err


def test_mask_stats_prints_it(tmp_path, capsys):
    scores, clean = write_corpus(tmp_path, "c", 0.08, 0), write_corpus(tmp_path, "clean", 0.0, 5)
    words = ["mask-stats", "--estimate", "--scores", scores, "--clean-data", clean]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimate"]["share"] == estimate_share([scores], clean=clean).share
    assert main(words) == 0
    assert "95 % interval" in capsys.readouterr().out
    assert main(["mask-stats"]) == 2
    assert "give --mask, or --estimate" in capsys.readouterr().err


def test_refuses_scores_whose_errors_nobody_knows(tmp_path):
    scores = write_corpus(tmp_path, "c", 0.1, 0)
    other = write_corpus(tmp_path, "d", 0.1, 0, identity="b")
    with pytest.raises(MismatchError, match="another classifier"):
        estimate_share([scores, other])
    tokens = write_tokens(tmp_path / "e", [[1, 2, EOD]], tokenizer={"eod": EOD})
    write_aligned(tmp_path / "e_S", tokens, np.ones(3, np.float32), np.float32, {})
    with pytest.raises(InputError, match="how often these scores err"):
        estimate_share([tmp_path / "e_S"])
