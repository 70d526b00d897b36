"""Every shipped configuration: valid, combinable as its header says, of the size that its name says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ifguide.config.yaml_files import merge_files, numbers_as_text
from ifguide.engine.settings import load_config
from ifguide.errors import ConfigError
from tests.support.datasets import write_mask, write_tokens

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
# plans of experiments are files of another kind: tests/experiments/plans/test_job.py
PLANS = CONFIGS / "experiments"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yml") if path.parent != PLANS)
WHOLE = ("models/proxy.yml", "models/tiny.yml")  # with a schedule of their own, and for no hardware in particular
MODELS = [name for name in FILES if name.startswith("models/") and name not in WHOLE]

# as published with the models
PARAMETERS = {
    "models/pythia-70m.yml": 70_426_624,
    "models/pythia-160m.yml": 162_322_944,
    "models/pythia-410m.yml": 405_334_016,
    "models/pythia-1b.yml": 1_011_781_632,
    "models/pythia-2.8b.yml": 2_775_208_960,
    "models/pythia-12b.yml": 11_846_072_320,
    "models/llama-3.2-1b.yml": 1_235_814_400,
}
TOKENS = {"pythia": 50_277, "llama": 128_256}
NEOX_ONLY = ("models/pythia-12b.yml",)

# every model with every training file; every data file with every penalty that is made for it
TRAINING = ("training/pretrain.yml", "training/finetune.yml")
DATA = (
    ("data/corpus.yml",),
    ("data/corpus.yml", "ifguide/clipped.yml"),
    ("data/corpus.yml", "ifguide/unlikelihood.yml"),
    ("data/corpus.yml", "ifguide/drop.yml"),
    ("data/corpus.yml", "ifguide/hide.yml"),
    ("data/blend.yml",),
    ("data/blend.yml", "ifguide/ascent-blend.yml"),
)
COMBINATIONS = [
    *((model, training, "data/corpus.yml", "ifguide/ascent.yml") for model in MODELS for training in TRAINING),
    *((model, "training/pretrain.yml", "training/kernels.yml", "data/corpus.yml") for model in MODELS),
    *(("models/pythia-160m.yml", "training/pretrain.yml", *data) for data in DATA),
    *((whole, *data) for whole in WHOLE for data in DATA[:2]),
]


@cache
def values(*names: str) -> dict[str, Any]:
    merged, faults = merge_files([CONFIGS / name for name in names])
    assert not faults
    return merged


@cache
def header(name: str) -> str:
    """The comment above the first key, without its marks."""
    lines = (CONFIGS / name).read_text(encoding="utf-8").split("{", 1)[0].splitlines()
    return "\n".join(line.removeprefix("#").strip() for line in lines)


@cache
def launches(name: str) -> list[list[str]]:
    """The files of every launch command in the header; those with a placeholder (DATA.yml) are left out."""
    text = header(name).replace("\\\n", " ")
    found = re.findall(r"^(?:DLTS_HOSTFILE=\S+ +)?python deepy\.py train\.py -d configs (.*)$", text, re.MULTILINE)
    commands = [line.split("--")[0].split() for line in found]
    assert commands, f"{name}: the header does not say how to launch it"
    return [files for files in commands if not any(Path(file).stem.isupper() for file in files)]


LAUNCHES = sorted({tuple(files) for name in FILES for files in launches(name)})


def parameters(name: str) -> int:
    """Counted from the NeoX keys: biases and the padding of the vocabulary included."""
    config = values(name)
    hidden, layers, heads = config["hidden_size"], config["num_layers"], config["num_attention_heads"]
    kv_width = config.get("num_kv_heads", heads) * (hidden // heads)
    gated = config.get("activation") == "swiglu"
    # NeoX: intermediate_size * 2/3 feeds both halves of a gated MLP
    inner = config.get("intermediate_size", 4 * hidden) // (3 if gated else 1)
    linear = [(hidden, hidden + 2 * kv_width), (hidden, hidden), (hidden, inner * (2 if gated else 1)), (inner, hidden)]
    biases = [config.get(key, True) for key in ("use_bias_in_attn_linear",) * 2 + ("use_bias_in_mlp",) * 2]
    norm = hidden * (2 if config.get("norm") == "layernorm" else 1)
    layer = sum(width * out + out * bias for (width, out), bias in zip(linear, biases)) + 2 * norm
    embeddings = hidden * vocabulary(name) * (2 if config["no_weight_tying"] else 1)
    return layers * layer + embeddings + norm


def vocabulary(name: str) -> int:
    tokens = next(size for family, size in TOKENS.items() if family in name)
    multiple = 128 * values(name)["model_parallel_size"]
    return -(-tokens // multiple) * multiple


def gpus(name: str) -> int:
    """What the header means the model for."""
    found = re.search(r"^hardware: +(?:(\d+) nodes? of )?(\d+) GPUs? of 80 GB$", header(name), re.MULTILINE)
    assert found, f"{name}: the header does not say on what hardware"
    return int(found[1] or 1) * int(found[2])


@pytest.mark.parametrize("name", ["model.yml", "penalty.yml"])
def test_the_quickstarts_files_are_those_of_the_package(name: str) -> None:
    assert (CONFIGS / "quickstart" / name).samefile(ROOT / "ifguide/quickstart/configs" / name)


@pytest.mark.parametrize("name", FILES)
def test_is_a_valid_file_without_numbers_as_text(name: str) -> None:
    merged, faults = merge_files([CONFIGS / name])
    assert faults == []
    assert [fault for key, value in merged.items() for fault in numbers_as_text(key, value)] == []


@pytest.mark.parametrize("name", FILES)
def test_header_says_what_it_is_and_how_to_launch_it(name: str) -> None:
    assert len(header(name).splitlines()[0]) > 20
    for files in launches(name):
        assert name in files or name.startswith("quickstart/")
        assert [file for file in files if not (CONFIGS / file).is_file()] == []


@pytest.mark.parametrize("name", FILES)
def test_readme_names_it(name: str) -> None:
    assert f"`{name}`" in (CONFIGS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("files", LAUNCHES, ids=" ".join)
def test_files_of_a_launch_command_share_no_key(files: tuple[str, ...]) -> None:
    assert merge_files([CONFIGS / file for file in files])[1] == []


@pytest.mark.parametrize("names", COMBINATIONS, ids=" ".join)
def test_embedded_engine_loads_every_combination_or_says_which_engine_can(names: tuple[str, ...]) -> None:
    paths = [CONFIGS / name for name in names]
    if not set(names) & set(NEOX_ONLY):
        load_config(paths, check_files=False)
        return
    with pytest.raises(ConfigError, match="the embedded engine cannot do") as refusal:
        load_config(paths, check_files=False)
    assert all("the neox engine can" in fault for fault in refusal.value.faults)


@pytest.mark.parametrize("files", LAUNCHES, ids=" ".join)
def test_embedded_engine_loads_what_the_header_says_it_does(files: tuple[str, ...]) -> None:
    if not set(files) & set(NEOX_ONLY):
        load_config([CONFIGS / file for file in files], check_files=False)


@pytest.mark.parametrize("model", MODELS)
def test_model_says_its_engine(model: str) -> None:
    engine = re.search(r"^engine: +(.*)$", header(model), re.MULTILINE)
    assert engine and ("embedded" in engine[1]) == (model not in NEOX_ONLY)


@pytest.mark.parametrize("model", MODELS)
def test_model_has_the_parameters_of_its_name(model: str) -> None:
    assert parameters(model) == PARAMETERS[model]
    assert re.search(rf"^parameters: +{PARAMETERS[model]:,}$", header(model), re.MULTILINE)


@pytest.mark.parametrize("model", [name for name in MODELS if name not in NEOX_ONLY])
def test_transformers_counts_the_same_parameters(model: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from ifguide.engine.model import transformers_config

    config = load_config([CONFIGS / model, CONFIGS / "training/pretrain.yml", CONFIGS / "data/corpus.yml"], False)
    tokens = next(size for family, size in TOKENS.items() if family in model)
    with torch.device("meta"):
        built = transformers.AutoModelForCausalLM.from_config(transformers_config(config, tokens, eod=0))
    assert built.num_parameters() == PARAMETERS[model]


@pytest.mark.parametrize("model", MODELS)
def test_time_in_the_header_is_what_its_arithmetic_gives(model: str) -> None:
    number = r"([\d.,e]+)"
    pattern = rf"time: +6 x {number} x {number} FLOP / \({number} x {number} FLOP/s x {number}\) = {number} hours"
    found = re.search(pattern, header(model))
    assert found
    count, tokens, counted_on, peak, share, hours = (float(group.replace(",", "")) for group in found.groups())
    assert count == PARAMETERS[model]
    assert hours == pytest.approx(6 * count * tokens / (counted_on * peak * share) / 3600, abs=0.05)
    training = values("training/pretrain.yml")
    trained = training["train_iters"] * training["train_batch_size"] * values(model)["seq_length"]
    assert tokens == pytest.approx(trained, rel=1e-3)
    assert counted_on == gpus(model)


@pytest.mark.parametrize("model", MODELS)
def test_batch_divides_over_the_hardware_of_the_header(model: str) -> None:
    config = values(model)
    replicas = gpus(model) / config["model_parallel_size"]
    batch = values("training/pretrain.yml")["train_batch_size"]
    assert batch % (replicas * config["train_micro_batch_size_per_gpu"]) == 0


def test_iterations_of_pretraining_are_four_passes_over_a_billion_tokens() -> None:
    training = values("training/pretrain.yml")
    assert training["train_iters"] == 4 * (10**9 // (training["train_batch_size"] * 2048))


# ---- in a GPT-NeoX checkout ----


@pytest.fixture(scope="module")
def loaded(neox: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What GPT-NeoX makes of every combination of files, and the parameters of its layers: one process for all."""
    folder = tmp_path_factory.mktemp("neox")
    (folder / "data").mkdir()
    _write_tokens(folder / "data/corpus_text_document", mask=folder / "data/mask")
    _write_tokens(folder / "data/web_text_document", mask=folder / "data/web_mask")
    for name in ("books", "valid", "test"):
        _write_tokens(folder / f"data/{name}_text_document")
    tokenizer = {"added_tokens": [{"content": "<|padding|>", "id": 1}], "model": {"vocab": {"<|endoftext|>": 0}}}
    (folder / "data/tokenizer.json").write_text(json.dumps(tokenizer))  # where the hidden token is named
    plan = {"configs": str(CONFIGS), "combinations": COMBINATIONS, "gpus": {name: gpus(name) for name in MODELS}}
    worker = Path(__file__).with_name("neox") / "configs_worker.py"
    result = subprocess.run(
        [sys.executable, str(worker), str(neox)], cwd=folder, input=json.dumps(plan), capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


def test_neox_loads_every_combination(loaded: dict[str, Any]) -> None:
    faults = {names: fault for names, fault in loaded["combinations"].items() if fault}
    assert loaded["combinations"] and faults == {}


@pytest.mark.parametrize("model", MODELS)
def test_neox_builds_layers_of_the_size_that_we_count(loaded: dict[str, Any], model: str) -> None:
    config = values(model)
    norm = config["hidden_size"] * (2 if config["norm"] == "layernorm" else 1)
    embeddings = config["hidden_size"] * vocabulary(model) * (2 if config["no_weight_tying"] else 1)
    assert loaded["layers"][model] * config["num_layers"] + embeddings + norm == PARAMETERS[model]


def _write_tokens(prefix: Path, mask: Path | None = None) -> None:
    ids = np.random.default_rng(0).integers(0, 300, (200, 20))
    tokens = write_tokens(prefix, [*ids])
    if mask:
        write_mask(mask, tokens, ids.ravel() % 7 == 0)
