"""`ifguide validate-scores` from its command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned
from ifguide.influence.windows import cut, default_context
from ifguide.validation.rankings import eod_of
from ifguide.validation.subsets import Draw, subset
from tests.system.test_outputs import follow_the_rule
from tests.validation.conftest import Case


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_lds_with_controls_others_and_a_ceiling(case: Case, here: list[str], tmp_path: Path, capsys) -> None:
    out = tmp_path / "v"
    other = f"other={case.folder / 'other'}"
    words = case.words("lds", out, "--subsets", 4, "--fraction", 0.1, "--against", other, "--jobs", 1)
    words += ["--training-seeds", "7", "8", "--resamples", "200"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert len(here) == 10 and "retrain: 100% 10/10 trainings" in said.err
    found = results(out)
    assert list(found["rankings"]) == ["scores", "other", "random", "loss"]
    assert np.shape(found["margins"]) == (2, 4) and len(found["base"]) == 2
    np.testing.assert_allclose(found["changes"], np.array(found["margins"]) - np.array(found["base"])[:, None])
    assert found["repeats"] == {"exactly": True, "difference": 0.0}
    assert 0 <= found["ceiling"]["reliability"] <= found["ceiling"]["mean_of_seeds"] <= 1
    scores = load_aligned(case.folder / "scores", case.tokens, "scores").values
    draw = Draw(fraction=0.1)
    sums = [-float(scores[subset(case.tokens.starts, (0, 81), draw, k)].astype(np.float64).sum()) for k in range(4)]
    assert found["rankings"]["scores"]["prediction"] == pytest.approx(sums, rel=1e-12)
    assert "scores   " in said.out and "Two seeds of training agree" in said.out
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 4 and "Does the sum of the scores" in page and "http-equiv" in page
    assert json.loads((out / "run.json").read_text())["request"]["verb"] == "validate-scores"
    # the same command has nothing to do; further scores need no training
    assert main(words) == 0 and "nothing to do" in capsys.readouterr().out
    more = [*words, "--against", f"again={case.folder / 'scores'}"]
    assert main(more) == 2 and "--against was" in capsys.readouterr().err
    assert main([*more, "--overwrite"]) == 0 and len(here) == 10
    assert results(out)["rankings"]["again"]["rho"] == found["rankings"]["scores"]["rho"]


def test_the_control_of_losses_is_that_of_each_document_alone(case: Case, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from ifguide.validation.rankings import loss_ranking

    ranking = loss_ranking(case.run, tmp_path / "loss", "cpu", True)
    model = AutoModelForCausalLM.from_pretrained(case.run.model).eval()
    windows = cut(case.tokens, eod_of(case.run), 16, default_context(16))
    expected = np.full(case.tokens.num_tokens, np.nan)
    with torch.no_grad():
        for window in range(len(windows)):
            batch = windows.batch(np.array([window]))
            logits = model(input_ids=batch.inputs).logits[0].double()
            losses = torch.nn.functional.cross_entropy(logits, batch.labels[0], reduction="none")
            expected[windows.places(np.array([window]))] = losses[batch.labelled[0]]
    np.testing.assert_allclose(ranking.at(np.arange(len(expected))), expected, rtol=1e-4, atol=1e-5)
    before = (tmp_path / "loss.bin").stat().st_mtime_ns
    loss_ranking(case.run, tmp_path / "loss", "cpu", True)
    assert (tmp_path / "loss.bin").stat().st_mtime_ns == before


def test_topk_with_masks(case: Case, here: list[str], tmp_path: Path, capsys) -> None:
    out = tmp_path / "v"
    words = case.words("topk", out, "--shares", 0.01, 0.1, "--mask", f"d={case.folder / 'mask'}", "--jobs", 1)
    assert main(words) == 0
    found = results(out)
    assert list(found["rankings"]) == ["scores", "random", "d"] and len(here) == 6
    assert [point["tokens"] for point in found["rankings"]["scores"]] == [
        int(share * found["tokens"]) for share in (0.01, 0.1)
    ]
    (point,) = found["rankings"]["d"]
    assert point["tokens"] == int((case.tokens.tokens[: case.run.places[1]] == ord("d")).sum())
    assert "share left out" in capsys.readouterr().out and (out / "report.html").read_text().count("<svg") == 1


def test_tail_patch_from_the_command_line(case: Case, process_group: None, tmp_path: Path, capsys) -> None:
    assert main(case.words("tail-patch", tmp_path / "v", "--subsets", 5, "--fraction", 0.05, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == results(tmp_path / "v") and len(found["changes"][0]) == 5 and "idle" in found
    assert (tmp_path / "v/report.html").read_text().count("<svg") == 3


def test_nothing_is_replaced_in_silence(case: Case, process_group: None, tmp_path: Path, capsys) -> None:
    command = case.words("tail-patch", tmp_path / "v", "--subsets", 4, "--fraction", 0.05)
    follow_the_rule(command, ["--seed", "1"], "--seed was 0, is 1", tmp_path, capsys)


def test_a_dry_run_says_what_it_takes_and_writes_nothing(case: Case, tmp_path: Path, capsys) -> None:
    assert main(case.words("lds", tmp_path / "v", "--dry-run", "--jobs", 4, "--training-seeds", 1, 2)) == 0
    assert "66 trainings, 0 of them kept, 4 at a time: about" in capsys.readouterr().out
    assert main([*case.words("topk", tmp_path / "v", "--dry-run", "--jobs", 1), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trainings"] == 9 and found["seconds"] == pytest.approx(9 * found["seconds_of_the_run"], abs=0.1)
    assert not (tmp_path / "v").exists() and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "more", "fault"),
    [
        ("lds", ["--mask", "a=b"], "--mask belongs to --method topk"),
        ("topk", ["--subsets", "9"], "--subsets belongs to --method lds and tail-patch"),
        ("tail-patch", ["--training-seeds", "1"], "--training-seeds belongs to --method lds and topk"),
        ("lds", ["--subsets", "2"], "--subsets 2: give at least 4"),
        ("lds", ["--fraction", "2"], "--fraction 2: must lie between 0 and 1"),
        ("lds", ["--against", "other"], "--against other: expected NAME=PREFIX"),
        ("lds", ["--against", "loss=other"], "there is a ranking named 'loss' already"),
        ("lds", ["--against", "a=/nowhere/s"], "/nowhere/s.idx"),
        ("lds", ["--training-seeds", "3", "3"], "--training-seeds: give each once"),
        ("topk", ["--shares", "0.1", "0.01"], "--shares: give each once, the smallest first"),
        ("topk", ["--shares", "0.00001"], "is less than one"),
        ("lds", ["--toxic-queries", "/nowhere.jsonl"], "/nowhere.jsonl"),
    ],
)
def test_bad_input_is_told_before_anything_is_trained(
    case: Case, tmp_path: Path, capsys, method: str, more: list[str], fault: str
) -> None:
    assert main([*case.words(method, tmp_path / "v"), *more]) == 2
    assert fault in capsys.readouterr().err and not (tmp_path / "v").exists()
