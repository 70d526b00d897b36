"""The whole pass: right scores in the right places, resumable, and clear about bad input."""

from __future__ import annotations

import gc
import json
import shutil
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ifguide.cli import main
from ifguide.data.aligned import load_aligned
from ifguide.errors import InputError, MismatchError, NumericsError
from ifguide.influence import job as job_module
from ifguide.influence import score as score_module
from ifguide.influence.behaviours import QueryFiles
from ifguide.influence.curvature.job import fit_factors
from ifguide.influence.curvature.store import load_factors
from ifguide.influence.direction import compute_directions
from ifguide.influence.job import Inputs
from ifguide.influence.options import Damping, FitOptions, Method, Options
from ifguide.influence.passes.forward_mode import ForwardModePass
from ifguide.influence.queries import load_query_sets
from ifguide.influence.score import score
from ifguide.influence.shard_store import ShardStore
from ifguide.influence.windows import cut
from ifguide.models.tracked import load_model
from tests.influence import reference
from tests.influence.conftest import EOD, WINDOW, load_exact, write_queries
from tests.support.datasets import random_documents, write_tokens


@pytest.fixture
def job(tmp_path, model_folders, dataset, query_files, fitted):
    """Inputs of `score` for a fitted tiny model."""
    return Inputs(model_folders["neox"], dataset.prefix, fitted, [QueryFiles(*query_files)], tmp_path / "s")


JVP = Options(Method(method="jvp"))


def run(job: Inputs, options: Options = JVP, **changes) -> dict:
    return score(replace(job, **changes), options, quiet=True)


def _bytes(prefix: Path) -> bytes:
    return Path(f"{prefix}.bin").read_bytes()


def test_every_token_gets_its_score(job, dataset):
    """The file against one backward per token of each window, in fp64."""
    result = run(job)
    scores = load_aligned(job.output, dataset, "scores")
    expected = _literal(job, dataset, *_query_sets(job))
    np.testing.assert_allclose(scores.values, expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())
    assert result["tokens"] == dataset.num_tokens and result["outputs"][0]["scores"]["max"] == scores.values.max()
    assert scores.sidecar["run"]["damping"] == {"value": 0.1, "relative": True}
    assert scores.sidecar["run"]["method"] == "jvp" and scores.sidecar["run"]["attribution"] == "loss-term"


def _query_sets(job: Inputs) -> tuple:
    model = load_exact(job.model)
    return load_query_sets(job.queries[0].toxic, job.queries[0].safe, model.reader, WINDOW)


def _literal(job: Inputs, dataset, toxic, safe, attribution: str = "loss-term") -> np.ndarray:
    """(M2) of every token by one backward pass each, or what each position adds to the score of its window."""
    model = load_exact(job.model)
    direction = compute_directions(model, load_factors(job.factors), [(toxic, safe)], Damping(0.1), 1000)[0]
    windows = cut(dataset, EOD, WINDOW, 4)
    reference.track(model)
    expected = np.zeros(dataset.num_tokens)
    for window in range(len(windows)):
        batch = windows.batch(np.array([window]))
        inputs, labels, labelled = batch.inputs[0], batch.labels[0].clamp(min=0), batch.labelled[0]
        if attribution == "position":
            scores = np.array(reference.position_scores(model, direction, inputs, labels))[labelled.numpy()]
        else:
            losses = reference.losses(model, inputs, labels)[labelled]
            scores = [reference.dot(direction, reference.gradient(model, loss)) for loss in losses]
        expected[windows.places(np.array([window]))] = scores
    return expected


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_and_shard_size_do_not_matter(job, dataset, batch_size):
    run(job)
    expected = np.array(load_aligned(job.output, dataset, "scores").values)
    run(job, replace(JVP, batch_size=batch_size, shard_tokens=20), output=f"{job.output}2")
    found = load_aligned(f"{job.output}2", dataset, "scores").values
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_a_finished_job_is_not_repeated(job, monkeypatch):
    run(job)
    monkeypatch.setattr(score_module, "work", lambda *_: pytest.fail("already done"))
    assert run(job)["resumed_tokens"] == load_aligned(job.output, None, "scores").values.size


def test_the_rate_is_that_of_scoring_alone(job, dataset, monkeypatch):
    """Loading takes three seconds here, and is no part of the rate."""
    original = score_module.prepare

    def slow(*args):
        found = original(*args)
        time.sleep(3)
        return found

    monkeypatch.setattr(score_module, "prepare", slow)
    result = run(job)
    assert result["seconds"] > 3 > result["scoring_seconds"] > 0
    assert result["scored_tokens"] == dataset.num_tokens and result["resumed_tokens"] == 0
    assert result["tokens_per_second"] == pytest.approx(dataset.num_tokens / result["scoring_seconds"], rel=0.05)
    again = run(job)
    assert (again["scored_tokens"], again["tokens_per_second"], again["nothing_left"]) == (0, None, True)


def test_the_command_says_what_was_left_to_do(job, capsys, dataset, monkeypatch):
    tokens = dataset.num_tokens
    command = [*_score_command(job), "--method", "jvp", "--shard-tokens", "20"]
    original, calls = ShardStore.write, []

    def stop_at_the_third(self, part, values):
        calls.append(len(values[0]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(self, part, values)

    with monkeypatch.context() as patch:
        patch.setattr(ShardStore, "write", stop_at_the_third)
        assert main(command) == 130
    capsys.readouterr()
    assert main(command) == 0
    shown = capsys.readouterr().out.splitlines()
    kept = sum(calls[:2])
    assert shown[0] == f"{job.output}: {tokens:,} tokens scored (jvp)"
    assert shown[1].startswith(f"{kept:,} tokens kept from an earlier call, {tokens - kept:,} tokens scored in ")
    assert "of loading and checks" in shown[1] and len(shown) == 3
    mask = Path(job.output).with_name("mask")
    assert shown[2] == f"next: ifguide build-mask --scores {job.output} --max-fraction 0.02 --output {mask}"
    assert main(command) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == [f"ifguide score: {job.output} is what this command makes already; nothing to do"]


def test_another_damping_is_another_run(job):
    run(job)
    before = _bytes(job.output)
    run(job, replace(JVP, damping=Damping(10.0)))
    assert _bytes(job.output) != before


def test_without_eod_first_tokens_score_zero(tmp_path, job, dataset, model_folders):
    folder = shutil.copytree(model_folders["neox"], tmp_path / "no-eod")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    vocabulary = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (folder / "tokenizer.json").write_text(vocabulary.replace("<|endoftext|>", "<|nothing|>"), encoding="utf-8")
    fit_factors(folder, dataset.prefix, tmp_path / "f2", FitOptions(strategy="identity"), quiet=True)
    run(job, model=folder, factors=tmp_path / "f2")
    values = load_aligned(job.output, dataset, "scores").values
    first = np.zeros(dataset.num_tokens, dtype=bool)
    first[dataset.starts[:-1][dataset.lengths > 0]] = True
    assert (values[first] == 0).all() and (values[~first] != 0).all()


def test_several_behaviours_are_scored_in_one_pass(job, dataset, query_files):
    """Each file equals the one of a run with that behaviour alone, whatever else is scored beside it."""
    toxic, safe = query_files
    result = run(job, queries=[QueryFiles(toxic, safe, "abuse"), QueryFiles(safe, toxic, "the reverse")])
    assert [output["output"] for output in result["outputs"]] == [f"{job.output}.abuse", f"{job.output}.the-reverse"]
    run(job)
    alone = load_aligned(job.output, dataset, "scores").values
    together = load_aligned(f"{job.output}.abuse", dataset, "scores")
    reverse = load_aligned(f"{job.output}.the-reverse", dataset, "scores").values
    np.testing.assert_allclose(together.values, alone, rtol=1e-4, atol=1e-6 * np.abs(alone).max())
    np.testing.assert_allclose(reverse, -alone, rtol=1e-4, atol=1e-6 * np.abs(alone).max())
    assert together.sidecar["behaviour"]["name"] == "abuse"


def test_categories_are_behaviours(tmp_path, job, dataset):
    rows = [
        {"prompt": "you", "completion": " bad", "category": "insult"},
        {"prompt": "you", "completion": " vile one", "category": "insult"},
        {"prompt": "a", "completion": " foul", "category": "slur: new"},
    ]
    toxic = write_queries(tmp_path / "categories.jsonl", rows)
    files = QueryFiles(toxic, job.queries[0].safe)
    run(job, replace(JVP, per_category=True), queries=[files])
    every, safe = _query_sets(replace(job, queries=[files]))
    for name, chosen in (("insult", every[:2]), ("slur-new", every[2:])):
        expected = _literal(job, dataset, chosen, safe)
        found = load_aligned(f"{job.output}.{name}", dataset, "scores").values
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    "method", [Method(method="difference"), Method(), Method(rank=16), Method(attribution="position")], ids=str
)
def test_every_method_writes_its_scores(job, dataset, method, monkeypatch):
    """Each like its literal reference: the difference within its gate (a full rank too), position within fp32."""
    monkeypatch.setattr("ifguide.influence.passes.choice.seconds_of", lambda way, *_: way.method.method == "jvp")
    result = run(job, Options(method), output=f"{job.output}2")
    found = load_aligned(f"{job.output}2", dataset, "scores")
    expected = _literal(job, dataset, *_query_sets(job), method.attribution)
    if method.attribution == "position":
        np.testing.assert_allclose(found.values, expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())
    else:
        assert np.corrcoef(found.values, expected)[0, 1] > 0.9999
    # both attributions give a document the same sum
    exact = _literal(job, dataset, *_query_sets(job))
    sums = [np.add.reduceat(values, dataset.starts[:-1][dataset.lengths > 0]) for values in (found.values, exact)]
    # a document longer than the window is cut by both, but only its first window sums alike
    short = dataset.lengths[dataset.lengths > 0] <= WINDOW
    np.testing.assert_allclose(sums[0][short], sums[1][short], rtol=1e-2, atol=1e-2 * np.abs(exact).max())
    if method.searches:
        assert result["method"]["method"] == "difference" and result["method"]["step"] > 0
        assert found.sidecar["run"]["step"] == result["method"]["step"]
    if method.rank:
        assert found.sidecar["energy"]["kept"] == pytest.approx(1, abs=1e-6)  # 16 is the whole rank


def test_half_precision_is_close(job, dataset):
    run(job)
    exact = np.array(load_aligned(job.output, dataset, "scores").values)
    run(job, Options(Method(method="jvp", dtype="bfloat16")), output=f"{job.output}2")
    found = load_aligned(f"{job.output}2", dataset, "scores").values
    assert 0.95 < np.corrcoef(found, exact)[0, 1] < 1 - 1e-7


def test_half_precision_loads_full_weights_only_for_a_missing_direction(job, monkeypatch):
    """They are gone before the pass, so a first run holds no more in its pass than its repetition."""
    loaded = []
    real = job_module.load_model

    def watched(folder, dtype, **options):
        model = real(folder, dtype, **options)
        loaded.append((dtype, weakref.ref(model.model)))
        return model

    monkeypatch.setattr(job_module, "load_model", watched)
    options = Options(Method(method="jvp", dtype="bfloat16"))
    first = job_module.prepare(job, options, quiet=True)
    gc.collect()
    assert [dtype for dtype, _ in loaded] == [torch.bfloat16, torch.float32]
    assert [model() is None for _, model in loaded] == [False, True]
    loaded.clear()
    again = job_module.prepare(job, options, quiet=True)
    assert [dtype for dtype, _ in loaded] == [torch.bfloat16]
    largest = first.windows.whole().batch(np.arange(len(first.windows)))
    assert torch.equal(first.scoring.scores(largest), again.scoring.scores(largest))


def test_a_settled_method_stays(job, monkeypatch):
    """A search is made once: a run that was killed must go on with the step that it began with."""
    from ifguide.influence.passes import choice, step_search

    first = run(job, Options())
    monkeypatch.setattr(step_search, "search_step", lambda *_: pytest.fail("searched again"))
    monkeypatch.setattr(choice, "seconds_of", lambda *_: pytest.fail("timed again"))
    assert run(job, Options())["method"] == first["method"]
    with pytest.raises(BaseException, match="searched again"):
        run(job, Options(damping=Damping(0.3)))


def test_planted_tokens_score_high(tmp_path, model_folders):
    """Documents that repeat the toxic query raise its margin, those that repeat the safe one lower it."""
    toxic = write_queries(tmp_path / "t.jsonl", [{"prompt": "you", "completion": " xx"}])
    safe = write_queries(tmp_path / "q.jsonl", [{"prompt": "you", "completion": " yy"}])
    texts = [b"you xx", b"you yy"]
    dataset = write_tokens(tmp_path / "p_text_document", [np.frombuffer(text, np.uint8) for text in texts])
    fit_factors(
        model_folders["neox"],
        dataset.prefix,
        tmp_path / "f",
        FitOptions(strategy="identity"),
        quiet=True,
    )
    run(Inputs(model_folders["neox"], dataset.prefix, tmp_path / "f", [QueryFiles(toxic, safe)], tmp_path / "s"))
    values = load_aligned(tmp_path / "s", dataset, "scores").values
    assert values[4] > 0 and values[5] > 0 and values[10] < 0 and values[11] < 0


def test_nan_weights_are_an_error_with_a_name(tmp_path, job, dataset, monkeypatch):
    """A NaN in the middle of the run names token, document and layer."""
    original = ForwardModePass.scores
    wrong = int(dataset.document(9)[3])

    def broken(self, batch):
        scores = original(self, batch)
        scores[:, batch.labels == wrong] = float("nan")
        return scores

    monkeypatch.setattr("ifguide.influence.job._try_one_batch", lambda *_: None)
    monkeypatch.setattr(ForwardModePass, "scores", broken)
    with pytest.raises(NumericsError, match=r"token \d+ of document \d+ is not finite; .* the head"):
        run(job)


def test_broken_models_fail_before_the_run(tmp_path, job, dataset, model_folders):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(model_folders["neox"], tmp_path / "nan")
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("mlp.dense_h_to_4h.weight"))
    weights[name][0, 0] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    fit_factors(folder, dataset.prefix, tmp_path / "f3", FitOptions(strategy="identity"), quiet=True)
    with pytest.raises(NumericsError, match="finite"):
        run(job, model=folder, factors=tmp_path / "f3")
    with pytest.raises(NumericsError, match="finite"):
        fit_factors(folder, dataset.prefix, tmp_path / "f4", quiet=True)


def test_wrong_partners_are_refused(tmp_path, job, dataset, model_folders):
    with pytest.raises(MismatchError, match="another model"):
        run(job, model=model_folders["gpt2"])
    sidecar = {"format_version": 1, "kind": "tokens", "tokenizer": {"identity": "f" * 64}}
    Path(f"{dataset.prefix}.json").write_text(json.dumps(sidecar))
    with pytest.raises(MismatchError, match="tokenizer"):
        run(job)
    other = write_tokens(tmp_path / "big_text_document", random_documents([30], vocab=3000))
    with pytest.raises(InputError, match="512 logits"):
        run(job, data=other.prefix)
    assert load_model(model_folders["neox"]).reader is not None


def _fit_command(job, **changes) -> list[str]:
    output = Path(job.output).parent / "f"
    options = {"--model": job.model, "--data": job.data, "--output": output, **changes}
    return ["fit-factors", *(str(part) for pair in options.items() for part in pair)]


def _score_command(job, **changes) -> list[str]:
    options = {
        "--model": job.model, "--data": job.data, "--factors": job.factors,
        "--toxic-queries": job.queries[0].toxic, "--safe-queries": job.queries[0].safe, "--output": job.output,
        **changes,
    }  # fmt: skip
    return ["score", *(str(part) for pair in options.items() for part in pair)]


def test_the_commands_work(tmp_path, job, capsys, dataset):
    job = replace(job, factors=tmp_path / "f")
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
        (_score_command(job, **{"--method": "guess"}), "--method guess: must be one of"),
        (_score_command(job, **{"--rank": 0}), "--rank 0"),
        ([*_score_command(job), "--tf32"], "--tf32 needs an NVIDIA GPU, this run is on cpu; leave it out"),
        ([*_score_command(job, **{"--attribution": "position"}), "--method", "difference"], "position has one way"),
        ([*_score_command(job, **{"--dtype": "bfloat16"}), "--method", "difference"], "rounds too much"),
        ([*_score_command(job, **{"--method": "jvp"}), "--one-sided"], "--one-sided belongs to"),
        ([*_score_command(job), "--per-category"], "no category, which --per-category needs"),
        ([*_score_command(job), "--behaviour", "a", "b", "c"], "leave out --toxic-queries"),
        (_score_command(job, **{"--documents": "3"}), "--documents 3: must be FIRST:LAST"),
        (_score_command(job, **{"--documents": "9:99"}), "LAST <= 12"),
    ]
    for command, message in cases:
        capsys.readouterr()
        assert main(command) == 2, command
        error = capsys.readouterr().err
        assert message in error and len(error.strip().splitlines()) == 1, error
