"""A cascade through the command: exact scores where it says so, one mask nearly like the other, and it resumes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned
from ifguide.errors import ConfigError, InputError
from ifguide.influence.behaviours import QueryFiles
from ifguide.influence.cascade import run as cascade_run
from ifguide.influence.cascade.choice import REJECTED, Choice, states_from_text
from ifguide.influence.cascade.run import score_cascade
from ifguide.influence.curvature.job import fit_factors
from ifguide.influence.job import Inputs
from ifguide.influence.options import Cascade, CascadeSettings, FitOptions, Method, Options
from ifguide.influence.score import score
from ifguide.selection import SelectionSettings
from ifguide.verbs import make_parser
from tests.influence.conftest import WINDOW, save_tiny_model
from tests.support.datasets import random_documents, write_tokens

JVP = Options(Method(method="jvp"), shard_tokens=300)
SETTINGS = CascadeSettings(keep=0.4, audit=0.2)


@pytest.fixture(scope="session")
def proxy(tmp_path_factory) -> tuple[Path, Path]:
    """A narrower model with factors of its own."""
    root = tmp_path_factory.mktemp("proxy")
    folder = save_tiny_model(root / "m", "neox", hidden=8)
    dataset = write_tokens(root / "d_text_document", random_documents([30] * 6))
    fit_factors(folder, dataset.prefix, root / "f", FitOptions(strategy="kfac"), quiet=True)
    return folder, root / "f"


@pytest.fixture
def job(tmp_path, model_folders, query_files, fitted) -> Inputs:
    lengths = np.random.default_rng(3).integers(3, 2 * WINDOW, 60).tolist()
    dataset = write_tokens(tmp_path / "c_text_document", random_documents(lengths, seed=4))
    return Inputs(model_folders["neox"], dataset.prefix, fitted, [QueryFiles(*query_files)], tmp_path / "s")


def _cascade(proxy) -> Cascade:
    return Cascade(*proxy, settings=SETTINGS)


def test_chosen_documents_have_their_exact_scores(job, proxy):
    exact_job = replace(job, output=f"{job.output}-whole")
    score(exact_job, JVP, quiet=True)
    exact = load_aligned(exact_job.output, None, "scores").values
    result = score_cascade(job, JVP, _cascade(proxy), quiet=True)
    found = load_aligned(job.output, None, "scores")
    states = states_from_text(found.sidecar["cascade"]["exact_units"])
    known = Choice(found.starts, states).exact_tokens(0, len(exact))
    np.testing.assert_allclose(found.values[known], exact[known], rtol=1e-4, atol=1e-6 * np.abs(exact).max())
    assert 0 < (states == REJECTED).sum() < len(states) and 0.4 < known.mean() < 0.75
    assert np.isfinite(found.values).all() and np.abs(found.values[~known]).max() <= np.abs(exact[known]).max()
    assert result["cascade"]["tokens"]["total"] == len(exact) and result["finished"]
    assert result["outputs"][0]["scores"]["max"] == found.values.max()
    left = {path.name for path in Path(job.output).parent.glob("s.*")}
    assert not {name for name in left if name.endswith((".lock", ".parts", ".combined", ".cheap.bin", ".exact.bin"))}


def test_scores_that_exist_choose_as_well(job, proxy):
    """A perfect first pass: the order of the exact scores themselves."""
    exact_job = replace(job, output=f"{job.output}-whole")
    score(exact_job, JVP, quiet=True)
    cascade = Cascade(scores=exact_job.output, settings=SETTINGS)
    result = score_cascade(job, JVP, cascade, quiet=True)
    assert result["cascade"]["calibration"]["correlation"] == pytest.approx(1)
    exact = load_aligned(exact_job.output, None, "scores").values
    found = load_aligned(job.output, None, "scores").values
    assert np.corrcoef(found, exact)[0, 1] > 0.99


def test_it_goes_on_after_a_kill_and_is_not_repeated(job, proxy, monkeypatch):
    whole = replace(job, output=f"{job.output}-whole")
    score_cascade(whole, JVP, _cascade(proxy), quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(cascade_run, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            score_cascade(job, JVP, _cascade(proxy), quiet=True)
    resumed = score_cascade(job, JVP, _cascade(proxy), quiet=True)
    assert resumed["resumed_tokens"] > 0 and not resumed["nothing_left"]
    again = score_cascade(job, JVP, _cascade(proxy), quiet=True)
    assert again["nothing_left"] and (again["scored_tokens"], again["tokens_per_second"]) == (0, None)
    assert Path(f"{job.output}.bin").read_bytes() == Path(f"{whole.output}.bin").read_bytes()
    monkeypatch.setattr(cascade_run, "run", lambda *_: pytest.fail("already done"))
    assert score_cascade(job, JVP, _cascade(proxy), quiet=True)["finished"]


def test_what_does_not_go_together(job, proxy):
    with pytest.raises(ConfigError) as caught:
        score_cascade(job, replace(JVP, documents="0:3", per_category=True), Cascade(proxy[0]), quiet=True)
    assert len(caught.value.faults) == 3
    with pytest.raises(ConfigError, match="needs --cascade-model"):
        score_cascade(job, JVP, Cascade(), quiet=True)


def test_the_command_has_the_librarys_defaults():
    parser = make_parser("score")
    found = {name: parser.get_default(f"cascade_{name}") for name in ("keep", "audit", "seed")}
    assert CascadeSettings(**found) == CascadeSettings()


def test_the_command(job, proxy, capsys):
    files = job.queries[0]
    options = {
        "--model": job.model, "--data": job.data, "--factors": job.factors, "--toxic-queries": files.toxic,
        "--safe-queries": files.safe, "--output": job.output, "--method": "jvp", "--cascade-model": proxy[0],
        "--cascade-factors": proxy[1], "--cascade-keep": 0.4, "--cascade-audit": 0.2,
    }  # fmt: skip
    command = ["score", *(str(part) for pair in options.items() for part in pair)]
    assert main(command) == 0
    assert "overlap with the exact mask (Jaccard)" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cascade"]["missed"]["interval"]
    assert main([*command, "--cascade-keep", "2", "--overwrite"]) == 2
    assert "--cascade-keep 2" in capsys.readouterr().err


def test_the_mask_that_it_is_for_is_an_option(job, proxy, tmp_path, capsys):
    """From `score` to `build-mask`: the same mask is built; one beyond the plan only where it is all exact."""
    files = job.queries[0]
    options = {
        "--model": job.model, "--data": job.data, "--factors": job.factors, "--toxic-queries": files.toxic,
        "--safe-queries": files.safe, "--output": job.output, "--method": "jvp", "--cascade-model": proxy[0],
        "--cascade-factors": proxy[1], "--cascade-keep": 0.3, "--cascade-audit": 0.1,
        "--cascade-threshold-quantile": 0.9, "--cascade-window": 0, "--cascade-max-fraction": 0.05,
        "--cascade-unit-tokens": 16,
    }  # fmt: skip
    command = ["score", *(str(part) for pair in options.items() for part in pair), "--cascade-include-eod"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "tokens above the 0.9 quantile (window 0, units of 16, EOD included)" in shown
    found = load_aligned(job.output, None, "scores").sidecar["cascade"]
    assert found["unit_tokens"] == 16 and found["report"]["settings"]["selection"] == {
        "threshold_quantile": 0.9, "window": 0, "max_fraction": 0.05, "max_tokens": None, "unit_tokens": 16,
        "include_eod": True,
    }  # fmt: skip
    mask = ["build-mask", "--scores", str(job.output), "--output", str(tmp_path / "m"), "--threshold-quantile", "0.9"]
    mask += ["--window", "0", "--unit-tokens", "16", "--include-eod"]
    assert main([*mask, "--max-fraction", "0.05"]) == 0
    capsys.readouterr()
    assert main([*mask, "--max-fraction", "0.9", "--overwrite"]) == 2
    assert "--max-fraction 0.9" in capsys.readouterr().err
    # the command of the refusal: no cascade can serve that
    assert main([*command, "--cascade-max-fraction", "0.9", "--overwrite"]) == 2
    assert "--cascade-max-fraction 0.9: must be below --cascade-keep 0.3" in capsys.readouterr().err


def test_the_command_plans_build_masks_default_mask():
    score, mask = make_parser("score"), make_parser("build-mask")
    for name in ("threshold_quantile", "window", "unit_tokens", "include_eod", "max_fraction", "max_tokens"):
        assert score.get_default(f"cascade_{name}") == mask.get_default(name), name


def test_options_of_a_cascade_need_one(job, capsys):
    command = ["score", "--model", str(job.model), "--data", job.data, "--factors", str(job.factors)]
    command += ["--toxic-queries", str(job.queries[0].toxic), "--safe-queries", str(job.queries[0].safe)]
    command += ["--output", str(job.output), "--cascade-keep", "0.3", "--cascade-include-eod"]
    assert main(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("belongs to a cascade" in line for line in lines)
    assert "--cascade-keep" in lines[0] and "--cascade-include-eod" in lines[1]


def test_a_budget_in_tokens_must_fit_too(job, proxy):
    selection = SelectionSettings(max_fraction=None, max_tokens=10_000)
    cascade = Cascade(*proxy, settings=replace(SETTINGS, selection=selection))
    with pytest.raises(InputError, match=r"--cascade-max-tokens 10000: must be below --cascade-keep 0\.4 of"):
        score_cascade(job, JVP, cascade, quiet=True)
