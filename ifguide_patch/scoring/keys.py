"""The YAML keys of ``deepy.py score.py``, and what of a GPT-NeoX configuration cannot be scored.

They are NeoX arguments while that script runs, and unknown keys to every other. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ifguide.penalties.keys import missing_files
from ifguide.system.files import folder_faults


@dataclass
class ScoreKeys:
    """The keys of scoring."""

    # ---- Scoring ----
    score_data: str | None = None
    """Prefix of the indexed dataset whose tokens are scored; required."""
    score_output: str | None = None
    """Prefix of the scores (aligned float32); required."""
    score_toxic_queries: str | None = None
    """JSONL of what the model shall not learn; the direction (M1) is taken by GPT-NeoX's own backward."""
    score_safe_queries: str | None = None
    """JSONL of what it may go on learning."""
    score_direction: str | None = None
    """Prefix of a direction that exists (the output of an `ifguide score`), in place of queries and factors."""
    score_factors: str | None = None
    """Curvature in Hugging Face layout (`ifguide fit-factors`, `ifguide convert --adam-factors`); default: the Adam
    second moments that the checkpoint holds."""
    score_damping: float = 0.1
    """Added to the curvature before it is inverted, times its mean over a layer."""
    score_absolute_damping: bool = False
    """Take score_damping as the number itself."""
    score_step: float = 0.003
    """|εv| / |θ|, over the tracked weights together."""
    score_seq_length: int | None = None
    """Window in tokens; default: the factors', else seq_length, at most 2048."""
    score_context: int | None = None
    """Overlap of the windows of a longer document; default: the factors', else a quarter of the window."""
    score_batch_size: int = 16
    """Tokens in a batch of a replica: as many full windows."""
    score_shard_tokens: int = 262144
    """What a kill can cost, in tokens."""
    score_documents: str | None = None
    """FIRST:LAST, the documents whose shards this call scores; default: all."""
    score_eod_token: str | None = None
    """What separates documents; default: as the data records it."""


KEYS = tuple(field.name for field in fields(ScoreKeys))
DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(ScoreKeys)}
# GPT-NeoX's key -> its one value that can be scored, and why
_ONLY: Mapping[str, tuple[Any, str]] = {
    "moe_num_experts": (1, "the influence of a mixture's experts cannot be scored"),
    "train_impl": ("normal", "scores are of next-token losses; convert the checkpoint of a normal run"),
    "use_mup": (False, "muP scales layers by width, which the direction does not know"),
}


def score_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the keys ``config`` of a scoring run, one line each. Types are right already."""
    keys = {**DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
    yield from _file_faults(keys)
    if not keys.get("load") and not keys.get("save"):
        yield "load: names no checkpoint; give the save folder of the run, or what `ifguide convert --to neox` wrote"
    if not 0 < keys["score_step"] < math.inf:
        yield f"score_step: must be a positive number, got {keys['score_step']}"
    if not 0 <= keys["score_damping"] < math.inf:
        yield f"score_damping: must be a number of at least 0, got {keys['score_damping']}"
    for key in ("score_batch_size", "score_shard_tokens"):
        if keys[key] < 1:
            yield f"{key}: must be at least 1, got {keys[key]}"
    for key, (only, why) in _ONLY.items():
        if (config.get(key) if config.get(key) is not None else only) != only:
            yield f"{key}: {config[key]}: {why}"
    stage = (config.get("zero_optimization") or {}).get("stage", 0)
    if stage > 1:
        yield f"zero_optimization: stage {stage} cuts weights or gradients; scoring knows stages 0 and 1 alone"
    precision = _precision(config)
    if precision != "fp32":
        yield (
            f"precision: {precision} rounds away the difference of two losses; set precision: fp32 (and leave out fp16 "
            "and bf16) for score.py, whatever the run was trained in"
        )


def _file_faults(keys: Mapping[str, Any]) -> Iterator[str]:
    """Of what the keys name: what is not there, and what does not go together."""
    if keys["score_data"]:
        yield from missing_files("score_data", keys["score_data"])
    else:
        yield "score_data: required: the indexed dataset to score, without .bin/.idx"
    if keys["score_output"]:
        yield from folder_faults("score_output", keys["score_output"])
    else:
        yield "score_output: required: the prefix of the scores"
    direction = keys["score_direction"]
    queries = {key: keys[key] for key in ("score_toxic_queries", "score_safe_queries") if keys[key]}
    if direction and (queries or keys["score_factors"]):
        named = ", ".join([*queries, *(["score_factors"] if keys["score_factors"] else [])])
        yield f"score_direction: is the direction itself, so {named} would have no effect; leave out one or the other"
    if not direction and not keys["score_toxic_queries"]:
        yield "score_toxic_queries: required (or score_direction, a direction that exists)"
    for key, path in queries.items():
        if not Path(path).is_file():
            yield f"{key}: {path} does not exist or is not a file"
    if direction:
        for end in (".direction.safetensors", ".direction.json"):
            if not Path(f"{direction}{end}").is_file():
                yield f"score_direction: {direction}{end} does not exist; give the --output of an `ifguide score`"
    if keys["score_factors"] and not (Path(keys["score_factors"]) / "factors.json").is_file():
        named = keys["score_factors"]
        yield f"score_factors: {named} holds no factors.json; run fit-factors, or convert --adam-factors"


def _precision(config: Mapping[str, Any]) -> str:
    """As GPT-NeoX derives it: the key, else a block that is enabled, else fp32."""
    for block in ("fp16", "bf16"):
        if (config.get(block) or {}).get("enabled"):
            return "bfloat16" if block == "bf16" else block
    return str(config.get("precision") or "fp32").lower()


def overrides(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the configuration of a training becomes for scoring it: key -> value.

    None of it changes the function of the weights: no optimizer, no random state, no step.
    """
    changed: dict[str, Any] = {
        "load": config.get("load") or config.get("save"),
        "no_load_optim": True,
        "no_load_rng": True,
        "finetune": False,
        "zero_optimization": {"stage": 0},
        "sequence_parallel": False,
        "train_label_data_paths": None,
        "curriculum_learning": None,
        "checkpoint_validation_with_forward_pass": False,
    }
    return {key: value for key, value in changed.items() if config.get(key) != value}
