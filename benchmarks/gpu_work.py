"""Sections of `gpu.py` beside scoring: training steps, generation, classifiers, and other projects where they are."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from attribution_flops import multiplied
from common import REPOSITORY, time_alternating
from gpu_case import TF32, Case, Rows, configuration, weights_in, write_corpus

MASKED = 0.02
_STEPS = 5
_PROMPTS, _SAMPLES, _NEW_TOKENS = 64, 25, 20
# of the classifier: BERT-base as Detoxify's `original` has it
_BERT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_TINY_BERT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def training(case: Case, rows: Rows) -> None:
    """A step of the penalised objective against one of the stock objective: the embedded engine's own loss functions on
    one model with AdamW, in turn, so that what slows one slows the other."""
    import torch
    from transformers import AutoModelForCausalLM

    from ifguide.objectives.base import Batch, TokenBatch
    from ifguide.objectives.keys import ObjectiveKeys
    from ifguide.objectives.registry import build_objective
    from ifguide.penalties.keys import PenaltyKeys

    shape = case.shape("pythia-160m")
    with torch.device(case.device):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(configuration(shape))
    if case.device == "cuda":
        model = weights_in(model, "bfloat16")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    windows = 1 if case.tiny else 8
    stream = torch.randint(1, shape.vocabulary, (windows, shape.window + 1), device=case.device)
    mask = torch.ones(windows, shape.window, device=case.device)
    codes = (torch.rand_like(mask) < MASKED).to(torch.uint8) * 255
    config = SimpleNamespace(**{**vars(ObjectiveKeys()), **vars(PenaltyKeys()), "objective": "lm"})

    def step_of(penalised: bool) -> Callable[[], None]:
        objective = build_objective(config, penalised)
        batch = Batch(TokenBatch(stream[:, :-1], stream[:, 1:], mask, codes if penalised else torch.zeros_like(codes)))

        def step() -> None:
            objective.begin([batch], 1)
            loss, _ = objective.loss(model, batch, 1)
            loss.backward()
            objective.finish(1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            case.synchronize()

        return step

    works = {"penalised": step_of(True), "stock": step_of(False)}
    with multiplied(TF32):
        times = time_alternating(works, 1 if case.tiny else 2 * case.repeats)
    tokens = windows * shape.window
    for name, time in times.items():
        rows.put(name, {"seconds": round(time.median, 6), "tokens_per_second": round(tokens / time.median, 1)})
    rows.put("penalised_to_stock", round(times["penalised"].median / times["stock"].median, 4))


def engine(case: Case, rows: Rows) -> None:
    """The embedded engine as a user starts it, penalised and stock: tokens/s of its log without the first steps."""
    import numpy as np

    from ifguide.data.aligned import write_aligned
    from ifguide.data.indexed import TokenDataset

    shape = case.shape("pythia-160m")
    prefix = write_corpus(case.folder / f"engine-{shape.hidden}", shape, 64)
    tokens = TokenDataset.open(prefix)
    codes = (np.random.default_rng(0).random(tokens.num_tokens) < MASKED).astype(np.uint8)
    write_aligned(f"{prefix}_mask", tokens, codes, np.uint8, {"encoding": "binary"})
    iterations = 3 * _STEPS
    keys: dict[str, Any] = {
        "num_layers": shape.layers, "hidden_size": shape.hidden, "num_attention_heads": shape.heads,
        "seq_length": shape.window, "max_position_embeddings": shape.window, "pos_emb": "rotary", "rotary_pct": 0.25,
        "gpt_j_residual": True, "no_weight_tying": True, "optimizer": {"type": "Adam", "params": {"lr": 1e-4}},
        "train_batch_size": 4, "train_iters": iterations, "log_interval": _STEPS, "eval_interval": iterations,
        "eval_iters": 0, "checkpoint_factor": iterations, "seed": 7,
        "tokenizer_type": "CharLevelTokenizer", "data_path": str(prefix),
        "make_vocab_size_divisible_by": shape.vocabulary,
    }  # fmt: skip
    if case.device == "cuda":
        keys["precision"] = "bfloat16"
    for name, own in (("stock", {}), ("penalised", {"penalty_data_path": f"{prefix}_mask"})):
        folder = case.folder / f"engine-{name}"
        folder.mkdir()
        (folder / "run.yml").write_text(json.dumps({**keys, **own, "save": str(folder / "out")}), encoding="utf-8")
        command = ["deepy.py", "train.py", "-d", str(folder), "run.yml"]
        if error := _run(command, case.left, DS_ACCELERATOR=case.device):
            rows.put(name, {"left_out": error})
            return
        log = (folder / "out" / "train_log.jsonl").read_text(encoding="utf-8").splitlines()
        rates = [row["tokens_per_second"] for row in map(json.loads, log) if "tokens_per_second" in row]
        rows.put(name, {"tokens_per_second": round(statistics.median(rates[1:]), 1)})
    found = rows.found
    rows.put(
        "penalised_to_stock", round(found["stock"]["tokens_per_second"] / found["penalised"]["tokens_per_second"], 4)
    )


def neox(case: Case, rows: Rows) -> None:
    """A patched GPT-NeoX checkout, penalised and stock, by `neox_overhead.py`."""
    if not case.neox:
        rows.put("neox", {"left_out": "no checkout was given (--neox)"})
        return
    output = case.folder / "neox.json"
    command = ["benchmarks/neox_overhead.py", "--neox", case.neox, "--device", case.device, "--output", str(output)]
    if case.tiny:
        command += ["--tokens", "40000", "--batches", "2", "--repeats", "1", "--step-seq-length", "32"]
    else:
        command += ["--tokens", "5000000", "--batches", "100", "--repeats", "5", "--step-seq-length", "2048"]
    if error := _run(command, case.left):
        rows.put("neox", {"left_out": error})
        return
    found = json.loads(output.read_text(encoding="utf-8"))
    for key in ("versions_of_the_run", "step", "loader"):
        rows.put(key, found[key])


def generation(case: Case, rows: Rows) -> None:
    """Continuations/s of the language model's own sampler: 25 of 20 tokens for each prompt, by nucleus."""
    import torch
    from generation import pieces

    from ifguide.generation.draw import Sampling, prompt_contexts, sample_continuations
    from ifguide.models.language_model import load_language_model

    folder = case.model_folder("pythia-160m")
    prompts, samples, new_tokens = (2, 2, 4) if case.tiny else (_PROMPTS, _SAMPLES, _NEW_TOKENS)
    for dtype in ("bfloat16", "float32"):
        lm = load_language_model(folder, getattr(torch, dtype), case.device)
        lengths = [6 + place % 8 for place in range(prompts)]
        contexts = prompt_contexts(lm, pieces(lm.reader, lengths), new_tokens)
        sampling = Sampling(samples, new_tokens, 0.9)
        seconds = case.seconds_of(partial(sample_continuations, lm, contexts, sampling))
        rows.put(
            dtype,
            {
                "continuations_per_second": round(prompts * samples / seconds, 1),
                "prompts": prompts,
                "samples": samples,
                "new_tokens": new_tokens,
            },
        )


def classifiers(case: Case, rows: Rows) -> None:
    """Texts/s of a Detoxify classifier with random weights, on pieces of the documentation of mixed length."""
    sys.path.insert(0, str(REPOSITORY))  # the checkpoint is made as the tests make theirs
    from scoring import mixed_texts

    from ifguide.scorers.detoxify import DetoxifyScorer
    from tests.support.tiny_scorers import save_detoxify

    folder = case.folder / "detoxify"
    size = _TINY_BERT if case.tiny else _BERT
    save_detoxify(folder, "original", model_type=str(folder), max_position_embeddings=512, **size)
    scorer = DetoxifyScorer("original", folder, device=case.device)
    texts = mixed_texts(8 if case.tiny else 2000)
    seconds = case.seconds_of(lambda: scorer.score(texts))
    rows.put("detoxify original", {"texts": len(texts), "texts_per_second": round(len(texts) / seconds, 1)})


def others(case: Case, rows: Rows) -> None:
    """kronfluence and bergson beside every way of this project in fp32, as `attribution.py` times them."""
    try:
        from attribution_kronfluence import Kronfluence
        from attribution_speed import Setting, speed
    except ImportError as error:
        rows.put("kronfluence", {"left_out": f"not importable: {error}"})
        return
    from attribution_case import open_model, random_direction
    from attribution_direction import three_more

    folder, shape = case.model_folder("pythia-160m"), case.shape("pythia-160m")
    setting = Setting(folder, shape, case.device, 1 if case.tiny else 2, 1 if case.tiny else 3, 8 if case.tiny else 64)
    directions = three_more(random_direction(open_model(folder, case.device), seed=0))
    theirs = Kronfluence(open_model(folder, case.device), None, setting.synchronize)
    found = speed(setting, directions, theirs)
    for key in ("batch", "tokens_per_second", "forwards", "agreement", "bergson"):
        rows.put(key, found[key])


def _run(command: list[str], seconds: float, **environment: str) -> str | None:
    """Run a Python command from the repository; why it failed, in a line, or None."""
    given = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *_python_path()])}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):
        given.pop(name, None)
    try:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=REPOSITORY,
            env=given,
            capture_output=True,
            text=True,
            timeout=None if math.isinf(seconds) else max(1.0, seconds),
        )
    except subprocess.TimeoutExpired:
        return "the section's time was over"
    if not done.returncode:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return f"{Path(command[0]).name} ended with {done.returncode}: {lines[-1].strip() if lines else 'no message'}"


def _python_path() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
