"""The whole pass: right scores in the right places, resumable, and clear about bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ifguide.cli import main
from ifguide.data.aligned import load_aligned
from ifguide.errors import InputError, MismatchError, NumericsError
from ifguide.influence import score as score_module
from ifguide.influence.direction import Damping, compute_direction
from ifguide.influence.documents import cut
from ifguide.influence.factors import fit_factors, load_factors
from ifguide.influence.modules import load_model
from ifguide.influence.queries import load_query_sets
from ifguide.influence.score import score

from . import reference
from .conftest import EOD, WINDOW, load_exact, random_documents, write_queries, write_tokens


@pytest.fixture
def job(tmp_path, model_folders, dataset, query_files, fitted):
    """Arguments of `score` for a fitted tiny model."""
    return {
        "model_dir": model_folders["neox"],
        "data_prefix": dataset.prefix,
        "factors_dir": fitted,
        "toxic_queries": query_files[0],
        "safe_queries": query_files[1],
        "output": tmp_path / "s",
        "quiet": True,
    }


def _bytes(prefix: Path) -> bytes:
    return Path(f"{prefix}.bin").read_bytes()


def test_every_token_gets_its_score(job, dataset):
    """The file against one backward per token of each window, in fp64."""
    result = score(**job)
    scores = load_aligned(job["output"], dataset, "scores")
    model = load_exact(job["model_dir"])
    toxic, safe = load_query_sets(job["toxic_queries"], job["safe_queries"], model.encode, EOD, WINDOW)
    direction = compute_direction(model, load_factors(job["factors_dir"]), toxic, safe, Damping(0.1), 1000)
    windows = cut(dataset, EOD, WINDOW, 4)
    reference.track(model)
    expected = np.zeros(dataset.num_tokens)
    for window in range(len(windows)):
        batch = windows.batch(np.array([window]))
        labels = batch.labels[0]
        losses = reference.losses(model, batch.inputs[0], labels.clamp(min=0))[batch.labelled[0]]
        for place, loss in zip(windows.places(np.array([window])), losses):
            expected[place] = reference.dot(direction, reference.gradient(model, loss))
    np.testing.assert_allclose(scores.values, expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())
    assert result["tokens"] == dataset.num_tokens and result["scores"]["max"] == scores.values.max()
    assert scores.sidecar["run"]["damping"] == {"value": 0.1, "relative": True}


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_and_part_size_do_not_matter(job, dataset, monkeypatch, batch_size):
    score(**job)
    expected = np.array(load_aligned(job["output"], dataset, "scores").values)
    monkeypatch.setattr(score_module, "PART_TOKENS", 20)
    score(**{**job, "output": f"{job['output']}2", "batch_size": batch_size})
    found = load_aligned(f"{job['output']}2", dataset, "scores").values
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_a_killed_job_resumes_to_the_same_bytes(job, monkeypatch):
    monkeypatch.setattr(score_module, "PART_TOKENS", 20)
    whole = score(**{**job, "output": f"{job['output']}-whole"})
    original, calls = score_module._score_part, []

    def fail_at_the_fourth(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(score_module, "_score_part", fail_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        score(**job)
    assert not Path(f"{job['output']}.bin").exists()
    with pytest.raises(MismatchError, match="damping"):
        score(**job, damping=Damping(0.5))
    resumed = score(**job)
    assert resumed["resumed_tokens"] >= 3 * 20 - WINDOW and resumed["scores"] == whole["scores"]
    assert _bytes(job["output"]) == _bytes(f"{job['output']}-whole")
    assert not Path(f"{job['output']}.parts").exists()


def test_a_finished_job_is_not_repeated(job, monkeypatch):
    score(**job)
    monkeypatch.setattr(score_module, "_score_part", lambda *_: pytest.fail("already done"))
    assert score(**job)["resumed_tokens"] == load_aligned(job["output"], None, "scores").values.size


def test_another_damping_is_another_run(job):
    score(**job)
    before = _bytes(job["output"])
    score(**job, damping=Damping(10.0))
    assert _bytes(job["output"]) != before


def test_without_eod_first_tokens_score_zero(tmp_path, job, dataset, model_folders):
    folder = shutil.copytree(model_folders["neox"], tmp_path / "no-eod")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    fit_factors(folder, dataset.prefix, tmp_path / "f2", strategy="identity", quiet=True)
    score(**{**job, "model_dir": folder, "factors_dir": tmp_path / "f2"})
    values = load_aligned(job["output"], dataset, "scores").values
    first = np.zeros(dataset.num_tokens, dtype=bool)
    first[dataset.starts[:-1][dataset.lengths > 0]] = True
    assert (values[first] == 0).all() and (values[~first] != 0).all()


def test_planted_tokens_score_high(tmp_path, model_folders):
    """Documents that repeat the toxic query raise its margin, those that repeat the safe one lower it."""
    toxic = write_queries(tmp_path / "t.jsonl", [{"prompt": "you", "completion": " xx"}])
    safe = write_queries(tmp_path / "q.jsonl", [{"prompt": "you", "completion": " yy"}])
    texts = [b"you xx", b"you yy"]
    dataset = write_tokens(tmp_path / "p_text_document", [np.frombuffer(text, np.uint8) for text in texts])
    fit_factors(model_folders["neox"], dataset.prefix, tmp_path / "f", strategy="identity", quiet=True)
    score(model_folders["neox"], dataset.prefix, tmp_path / "f", toxic, safe, tmp_path / "s", quiet=True)
    values = load_aligned(tmp_path / "s", dataset, "scores").values
    assert values[4] > 0 and values[5] > 0 and values[10] < 0 and values[11] < 0


def test_nan_weights_are_an_error_with_a_name(tmp_path, job, dataset, monkeypatch):
    """A NaN in the middle of the run names token, document and layer."""
    original = score_module.token_scores

    def broken(model, tangents, batch):
        scores = original(model, tangents, batch)
        scores[batch.labels == int(dataset.document(9)[3])] = float("nan")
        return scores

    monkeypatch.setattr(score_module, "_try_one_batch", lambda *_: None)
    monkeypatch.setattr(score_module, "token_scores", broken)
    with pytest.raises(NumericsError, match=r"token \d+ of document \d+ is not finite; .* the head"):
        score(**job)


def test_broken_models_fail_before_the_run(tmp_path, job, dataset, model_folders):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(model_folders["neox"], tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("mlp.dense_h_to_4h.weight"))
    weights[name][0, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    fit_factors(folder, dataset.prefix, tmp_path / "f3", strategy="identity", quiet=True)
    with pytest.raises(NumericsError, match="finite"):
        score(**{**job, "model_dir": folder, "factors_dir": tmp_path / "f3"})
    with pytest.raises(NumericsError, match="finite"):
        fit_factors(folder, dataset.prefix, tmp_path / "f4", quiet=True)


def test_wrong_partners_are_refused(tmp_path, job, dataset, model_folders):
    with pytest.raises(MismatchError, match="another model"):
        score(**{**job, "model_dir": model_folders["gpt2"]})
    sidecar = {"format_version": 1, "kind": "tokens", "tokenizer": {"identity": "f" * 64}}
    Path(f"{dataset.prefix}.json").write_text(json.dumps(sidecar))
    with pytest.raises(MismatchError, match="tokenizer"):
        score(**job)
    other = write_tokens(tmp_path / "big_text_document", random_documents([30], vocab=3000))
    with pytest.raises(InputError, match="512 logits"):
        score(**{**job, "data_prefix": other.prefix})
    assert load_model(model_folders["neox"]).tokenizer_identity is not None


def _fit_command(job, **changes) -> list[str]:
    output = Path(job["output"]).parent / "f"
    options = {"--model": job["model_dir"], "--data": job["data_prefix"], "--output": output, **changes}
    return ["fit-factors", *(str(part) for pair in options.items() for part in pair)]


def _score_command(job, **changes) -> list[str]:
    options = {
        "--model": job["model_dir"], "--data": job["data_prefix"], "--factors": job["factors_dir"],
        "--toxic-queries": job["toxic_queries"], "--safe-queries": job["safe_queries"], "--output": job["output"],
        **changes,
    }  # fmt: skip
    return ["score", *(str(part) for pair in options.items() for part in pair)]


def test_the_commands_work(tmp_path, job, capsys, dataset):
    job["factors_dir"] = tmp_path / "f"
    assert main([*_fit_command(job), "--strategy", "diagonal", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["strategy"] == "diagonal"
    assert main([*_score_command(job), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == dataset.num_tokens


def test_bad_input_is_one_line_and_exit_2(tmp_path, job, capsys):
    empty = write_queries(tmp_path / "empty.jsonl", [])
    cases = [
        (_fit_command(job, **{"--model": tmp_path / "none"}), "no config.json"),
        (_fit_command(job, **{"--data": tmp_path / "none"}), "does not exist"),
        (_fit_command(job, **{"--seq-length": 99}), "max_position_embeddings 16"),
        (_fit_command(job, **{"--max-tokens": 0}), "--max-tokens 0"),
        (_fit_command(job, **{"--batch-size": 0}), "--batch-size 0"),
        (_fit_command(job, **{"--modules": "nothing"}), "no linear layer"),
        (_fit_command(job, **{"--modules": "("}), "regular expression"),
        (_score_command(job, **{"--toxic-queries": empty}), "no toxic queries"),
        (_score_command(job, **{"--factors": tmp_path}), "factors.json does not exist"),
        (_score_command(job, **{"--damping": -1}), "--damping -1"),
        (_score_command(job, **{"--context": 16}), "--context 16"),
        (_score_command(job, **{"--output": tmp_path / "no" / "s"}), "does not exist"),
    ]
    for command, message in cases:
        capsys.readouterr()
        assert main(command) == 2, command
        error = capsys.readouterr().err
        assert message in error and len(error.strip().splitlines()) == 1, error
