"""Every fault of a configuration is reported, at once, in a line that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ifguide.config.yaml_files import config_paths
from ifguide.engine.arguments import TrainConfig, batch_sizes
from ifguide.engine.settings import load_config
from ifguide.errors import ConfigError
from tests.engine.tiny import MODEL, ROOT, write_configuration

SHIPPED = [
    ["quickstart/model.yml", "quickstart/data.yml"],
    ["quickstart/model.yml", "quickstart/data.yml", "ifguide/penalty.yml"],
]


def faults(folder: Path, check_files: bool = False, **values: Any) -> list[str]:
    write_configuration(folder, **values)
    try:
        load_config(config_paths(["model", "data"], str(folder)), check_files)
    except ConfigError as error:
        return error.faults
    return []


@pytest.mark.parametrize("files", SHIPPED, ids="+".join)
def test_shipped_files_are_valid(files: list[str]) -> None:
    load_config(config_paths(files, str(ROOT / "configs")), check_files=False)


def test_a_good_configuration_has_no_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, data_path="d") == []


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        data_path="d",
        num_layer=3,
        hidden_size=15,
        seq_length="16",
        log_interval=True,
        model_parallel_size=2,
        norm="scalenorm",
        zero_optimization={"stage": 3},
        optimizer={"type": "Adam", "params": {"lr": "1e-3", "betas": [0.9, 0.95]}},
        penalty_form="clip",
        lr_decay_style="cosin",
        penalty_lambda=2.0,
        save="out",
    )
    expected = [
        "num_layer: unknown key; did you mean 'num_layers'?",
        "seq_length: expected an integer, got '16' (str)",
        "log_interval: expected an integer, got True (bool)",
        "model_parallel_size: the embedded engine cannot do 2; the neox engine can",
        "norm: the embedded engine cannot do 'scalenorm' (it has layernorm, rmsnorm); the neox engine can",
        "optimizer.params.lr: YAML reads 1e-3 as text, not as a number; write 1.0e-3",
        "penalty_form: 'clip' is not a choice; did you mean 'clipped'?",
        "lr_decay_style: 'cosin' is not a choice; did you mean 'cosine'?",
        "hidden_size: 15 is not divisible by num_attention_heads 2",
        "zero_optimization.stage: the embedded engine cannot do 3 (it has 0, 1, 2); the neox engine can",
        "checkpoint_factor: required with save (or extra_save_iters)",
        "penalty_lambda: has no effect without penalty_data_path or train_penalty_data_paths",
    ]
    assert set(expected) <= set(found)
    # nothing is said about a key whose value could not be read but that it could not be read
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"penalty_data_path": "m"}, "penalty_data_path: goes with data_path"),
        ({"data_path": "d", "train_penalty_data_paths": ["m"]}, "train_penalty_data_paths: goes with train_data_paths"),
        ({"data_path": "d", "penalty_data_path": "m", "penalty_form": "clipped"}, "penalty_clip: penalty_form clipped"),
        ({"data_path": "d", "penalty_data_path": "m", "penalty_clip": 5.0}, "penalty_clip: has no effect"),
        ({"data_path": "d", "train_epochs": 2}, "train_iters: set exactly one"),
        ({"data_path": "d", "finetune": True}, "finetune: needs load"),
        ({"data_path": "d", "split": "0,1"}, "split: must be"),
        ({"data_path": "d", "lr": 1.0}, "lr: is derived; set optimizer.params.lr"),
        ({"data_path": "d", "num_gpus": 3}, "train_batch_size: train_batch_size (8) must be"),
        ({"data_path": "d", "pos_emb": "learned"}, "pos_emb: the embedded engine cannot do 'learned'"),
        ({"data_path": "d", "attention_config": [[["local"], 2]]}, "attention_config: the embedded engine cannot"),
        ({"data_path": "d", "fp16": {"enabled": True}, "bf16": {"enabled": True}}, "bf16: fp16 and bf16"),
        ({"data_path": "d", "tokenizer_type": "HFTokenizer"}, "vocab_file: required by HFTokenizer"),
        ({"train_data_paths": ["a", "b"], "valid_data_paths": ["a"]}, "test_data_paths: required"),
        ({"data_path": "d", "warmup": 5}, "warmup: is a share"),
    ],
)
def test_fault(tmp_path: Path, values: dict[str, Any], fault: str) -> None:
    assert any(line.startswith(fault) for line in faults(tmp_path, **values)), faults(tmp_path, **values)


def test_missing_files_are_named(tmp_path: Path) -> None:
    found = faults(tmp_path, check_files=True, data_path=str(tmp_path / "d"), penalty_data_path=str(tmp_path / "m"))
    assert [line.split(":")[0] for line in found] == ["data_path", "penalty_data_path"]
    assert "d.bin" in found[0] and "d.idx" in found[0] and "m.json" in found[1]


def test_harmless_neox_keys_and_neutral_values_are_accepted(tmp_path: Path) -> None:
    accepted = {
        "pipe_parallel_size": 1, "model_parallel_size": 1, "scaled_upper_triang_masked_softmax_fusion": True,
        "checkpoint_activations": True, "data_impl": "mmap", "launcher": "slurm", "wall_clock_breakdown": True,
        "attention_config": [[["flash"], 2]], "log-interval": 5,
    }  # fmt: skip
    model = {key: value for key, value in MODEL.items() if key != "log_interval"}
    path = tmp_path / "one.yml"
    import yaml

    path.write_text(yaml.safe_dump({**model, "data_path": "d", **accepted}))
    assert load_config([path], check_files=False).log_interval == 5


def test_choices_ignore_case_as_in_neox(tmp_path: Path) -> None:
    path = tmp_path / "one.yml"
    path.write_text(repr({**MODEL, "data_path": "d", "tokenizer_type": "charleveltokenizer"}).replace("True", "true"))
    assert load_config([path], check_files=False).tokenizer_type == "CharLevelTokenizer"


def test_files_themselves(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("num_layers: 2\nnum_layers: 3\n")
    (tmp_path / "b.yml").write_text("num-layers: 2\n")
    (tmp_path / "c.yml").write_text("[1, 2\n")
    (tmp_path / "d.yml").write_text("")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.yml").write_text("seed: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config([tmp_path / name for name in ("a.yml", "b.yml", "c.yml", "d.yml", "e.yml", "sub/a.yml")])
    text = str(caught.value)
    for part in (
        "a.yml: key 'num_layers (line 2)' appears twice",
        "b.yml: key 'num_layers' is already set in",
        "c.yml: not valid YAML",
        "d.yml: is empty",
        "e.yml: does not exist",
        "has the same file name as",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("given", "settled"),
    [
        ((1, 8, None, None), (8, 8, 1)),
        ((2, 8, None, None), (8, 4, 1)),
        ((2, None, 4, None), (8, 4, 1)),
        ((2, None, 4, 3), (24, 4, 3)),
        ((2, 16, 4, None), (16, 4, 2)),
        ((2, 16, None, 4), (16, 2, 4)),
    ],
)
def test_batch_sizes(given: tuple[int, ...], settled: tuple[int, int, int]) -> None:
    assert batch_sizes(*given) == settled


@pytest.mark.parametrize("given", [(1, None, None, 4), (3, 8, None, None), (1, 8, 4, 4), (1, 2, 4, None)])
def test_batch_sizes_that_contradict(given: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="train_batch_size"):
        batch_sizes(*given)


def test_every_key_is_documented() -> None:
    from ifguide.config.key_reference import documented_keys
    from ifguide.engine.arguments import ObjectiveKeys, PenaltyKeys

    keys = documented_keys(TrainConfig, PenaltyKeys, ObjectiveKeys)
    assert set(keys) == set(TrainConfig.__dataclass_fields__)
    assert all(entry.text for entry in keys.values())


def test_the_reference_is_up_to_date() -> None:
    """Made by: python -m ifguide.engine.arguments > configs/ifguide_arguments.md"""
    from ifguide.engine.arguments import reference

    assert (ROOT / "configs" / "ifguide_arguments.md").read_text() == reference()
