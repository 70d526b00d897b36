"""Scores inside a real GPT-NeoX are those of ``ifguide score --method jvp`` on the converted weights."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ifguide.checkpoints.convert import to_huggingface
from ifguide.data.aligned import load_aligned
from ifguide.data.indexed import TokenDataset
from ifguide.data.preprocess import PreprocessOptions, preprocess
from ifguide.data.sidecar import SCORES
from ifguide.influence.behaviours import QueryFiles
from ifguide.influence.curvature.adam import FOLDER, write_adam_factors
from ifguide.influence.job import Inputs
from ifguide.influence.options import Method, Options
from ifguide.influence.passes.step_search import correlation, top_overlap
from ifguide.influence.score import score
from tests.neox.harness import PIPE, PLAIN, TENSOR, Outcome, deepy, environment_of, run_scenarios, scenario

pytestmark = pytest.mark.slow

ITERATIONS = 20
_LLAMA = {
    "norm": "rmsnorm", "rms_norm_epsilon": 1e-5, "activation": "swiglu", "intermediate_size": 144, "rotary_pct": 1.0,
    "mlp_multiple_of": 8, "num_kv_heads": 2, "use_bias_in_attn_linear": False, "use_bias_in_mlp": False,
}  # fmt: skip
# layout -> processes and keys; the biases of parallel residuals add up over slices, other ones are copies
LAYOUTS: dict[str, tuple[int, dict[str, Any]]] = {
    "plain": (2, PLAIN),
    "tp2": (2, TENSOR),
    "pp2": (2, PIPE),
    "zero1": (2, {**PLAIN, "zero_optimization": {"stage": 1}}),
    "tp2-llama": (2, {**TENSOR, **_LLAMA}),
    "tp2-pp2": (4, {**TENSOR, "pipe_parallel_size": 2, "gpt_j_residual": True}),
}
STEPPED = ("plain", "tp2", "pp2", "tp2-pp2")
WORDS = ["the", "sun", "rises", "over", "a", "quiet", "town", "and", "every", "road", "leads", "to", "its", "bridge"]
RUDE = ["you", "stupid", "awful", "worthless", "fool"]


def texts(count: int, seed: int) -> list[str]:
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        length = int(generator.integers(2, 14))
        words = [str(generator.choice(RUDE if generator.random() < 0.15 else WORDS)) for _ in range(length)]
        found.append(" ".join(words))
    return found


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def inputs(neox: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_inputs(tmp_path_factory.mktemp("scoring-inputs"))


def write_inputs(folder: Path) -> dict[str, str]:
    """A corpus, toxic and safe queries."""
    lines = write_lines(folder / "texts.jsonl", [{"text": text} for text in texts(150, 0)])
    options = PreprocessOptions(append_eod=True)
    found = preprocess([lines], folder / "d", "CharLevelTokenizer", None, None, options, False)
    toxic = [{"prompt": "the", "completion": f" {word} fool", "weight": 1.0 + i} for i, word in enumerate(RUDE)]
    safe = [{"prompt": "the", "completion": f" {word} road"} for word in WORDS[:6]]
    return {
        "data": found["output"],
        "toxic": write_lines(folder / "toxic.jsonl", toxic),
        "safe": write_lines(folder / "safe.jsonl", safe),
    }


def keys_of(inputs: Mapping[str, str], output: Path) -> dict[str, Any]:
    """What ``score.yml`` says."""
    return {
        "score_data": inputs["data"], "score_toxic_queries": inputs["toxic"], "score_safe_queries": inputs["safe"],
        "score_output": str(output), "score_batch_size": 8, "score_shard_tokens": 2000, "score_context": 8,
    }  # fmt: skip


def given(keys: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """The same scores along the direction that ``keys`` has made."""
    queries = ("score_toxic_queries", "score_safe_queries")
    kept = {key: value for key, value in keys.items() if key not in queries}
    return {**kept, "score_direction": keys["score_output"], "score_output": str(output)}


@pytest.fixture(scope="module")
def scored(neox: Path, inputs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    return score_layouts(neox, inputs, tmp_path_factory.mktemp("scoring"), LAYOUTS)


def score_layouts(
    neox: Path, inputs: dict[str, str], folder: Path, layouts: Mapping[str, tuple[int, dict[str, Any]]]
) -> dict[str, Outcome]:
    """Each layout is trained, scored, and steps are taken on single tokens."""
    paths = {f"{split}_data_paths": [inputs["data"]] for split in ("train", "valid", "test")}
    found: dict[str, Outcome] = {}
    for processes in sorted({count for count, _ in layouts.values()}):
        runs = []
        for name, (count, layout) in layouts.items():
            if count == processes:
                run = {**paths, **layout, "save": str(folder / name), "checkpoint_factor": ITERATIONS}
                keys = keys_of(inputs, folder / f"{name}-scores")
                runs += [scenario(name, run), scenario(f"{name}-score", run, keys)]
                runs += [scenario(f"{name}-probe", run, keys)] if name in STEPPED else []
                if name == "pp2":
                    runs.append(scenario("given", run, given(keys, folder / "given-scores")))
        found |= run_scenarios(neox, folder / str(processes), runs, patched=True, processes=processes)
    return found


def values(prefix: str, inputs: Mapping[str, str]) -> torch.Tensor:
    found = load_aligned(prefix, TokenDataset.open(inputs["data"]), SCORES)
    return torch.from_numpy(np.array(found.values, dtype=np.float64))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_are_those_of_jvp_on_converted_weights(
    scored: dict[str, Outcome], inputs: dict[str, str], layout: str, tmp_path: Path
) -> None:
    config = scored[f"{layout}-score"].config
    converted = tmp_path / "hf"
    to_huggingface(config["save"], converted, also=write_adam_factors)
    asked = Options(method=Method(method="jvp"), context=8, seq_length=32)
    files = QueryFiles(inputs["toxic"], inputs["safe"])
    score(Inputs(converted, inputs["data"], converted / FOLDER, [files], tmp_path / "jvp"), asked, quiet=True)
    found, exact = values(config["score_output"], inputs), values(str(tmp_path / "jvp"), inputs)
    print(f"{layout}: correlation {correlation(found, exact):.9f}, top 1 % {top_overlap(found, exact):.3f}")
    assert correlation(found, exact) >= 0.9999
    assert top_overlap(found, exact) >= 0.98
    # one scale, too: a correlation does not see it
    assert float((found - exact).norm() / exact.norm()) < 1e-3


def test_a_direction_that_exists_gives_the_same_scores(scored: dict[str, Outcome]) -> None:
    prefixes = [scored[name].config["score_output"] for name in ("pp2-score", "given")]
    first, second = (Path(f"{prefix}.bin").read_bytes() for prefix in prefixes)
    assert first == second
    sidecar = json.loads(Path(f"{prefixes[1]}.json").read_text())
    assert sidecar["run"].keys().isdisjoint({"toxic_queries", "factors"}) and "direction" in sidecar["sources"]


@pytest.mark.parametrize("layout", STEPPED)
def test_a_real_step_on_a_token_moves_the_queries_as_its_score_says(scored: dict[str, Outcome], layout: str) -> None:
    """(M2): θ - ε H~^-1 ∇l of a token raises the toxic-minus-safe log-likelihood by ε times its score."""
    tokens = next(rank["scored"] for rank in scored[f"{layout}-probe"].ranks if rank["scored"])
    assert len(tokens) == 4 and tokens[0]["score"] > 0 > tokens[-1]["score"]
    for token in tokens:
        assert token["margin"] == pytest.approx(token["score"], rel=0.02), token


def test_the_command_continues_where_it_ended(
    neox: Path, scored: dict[str, Outcome], inputs: dict[str, str], tmp_path: Path
) -> None:
    """``deepy.py score.py`` itself, first for some of the documents, then for all: the bytes of one run."""
    once = scored["tp2-score"].config
    run = {key: value for key, value in once.items() if not key.startswith("score_")} | {"num_gpus": 2}
    keys = keys_of(inputs, tmp_path / "s")
    printed = []
    for documents in ({"score_documents": "0:60"}, {}):
        command = deepy(neox, tmp_path, {"run": run, "score": {**keys, **documents}}, script="score.py")
        result = subprocess.run(command, cwd=tmp_path, env=environment_of(2), capture_output=True, text=True)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
        printed.append(result.stdout)
    total = TokenDataset.open(inputs["data"]).num_tokens
    assert "tokens are left to other calls" in printed[0]
    (line,) = (line for line in printed[1].splitlines() if line.startswith("scores: "))
    assert 0 < int(line.split(" documents, ")[1].split()[0]) < total
    assert (tmp_path / "s.bin").read_bytes() == Path(f"{once['score_output']}.bin").read_bytes()
    assert not (tmp_path / "s.parts").exists()


def test_what_cannot_be_scored_is_told_before_anything_starts(
    neox: Path, scored: dict[str, Outcome], inputs: dict[str, str], tmp_path: Path
) -> None:
    once = scored["tp2-score"].config
    run = {key: value for key, value in once.items() if not key.startswith("score_")} | {"precision": "fp16"}
    keys = keys_of(inputs, tmp_path / "s") | {"score_step": 0.0, "score_setp": 1.0}
    command = deepy(neox, tmp_path, {"run": run, "score": keys}, script="score.py")
    result = subprocess.run(command, cwd=tmp_path, env=environment_of(2), capture_output=True, text=True)
    lines = [line for line in result.stderr.splitlines() if line.startswith("deepy.py: ")]
    assert result.returncode == 2 and len(lines) == 3, result.stderr[-2000:]
    for words in ("score_setp: unknown key; did you mean 'score_step'?", "score_step: must be", "precision: fp16"):
        assert sum(words in line for line in lines) == 1, (words, lines)
    assert not list(tmp_path.glob("s.*"))
