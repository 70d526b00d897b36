from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ifguide.checkpoints.reader import NeoxCheckpoint, load_tensors
from ifguide.errors import ConfigError, InputError
from tests.checkpoints.tiny import WIDTH, architecture_of, checkpoint, keys_of, random_ranks, save


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("by_step", [True, False])
def test_finds_the_checkpoint_and_its_configuration(tmp_path: Path, sequential: bool, by_step: bool) -> None:
    folder, _, model = checkpoint(tmp_path, "pythia", ranks=2, sequential=sequential)
    saved = NeoxCheckpoint.open(folder / "global_step7" if by_step else folder)
    assert (saved.ranks, saved.sequential, saved.layers) == (2, sequential, [0, 2, 3, 5, 6])
    assert [path.name for path in saved.config_files] == ["model.yml", "parallel.yml"]
    assert saved.sizes() == (WIDTH[False], 512)
    for rank, shard in enumerate(saved.shards(3)):
        assert shard.keys() == model[rank][3].keys()
        assert all(torch.equal(shard[name], tensor) for name, tensor in model[rank][3].items())


def test_earlier_names_are_todays(tmp_path: Path) -> None:
    """GPT-NeoX-20B and Pythia call the MLP's layers dense_h_to_4h and dense_4h_to_h and store rotary frequencies; the
    first Llama models keep gate (w1) and up projection (w3) apart."""
    for style in ("pythia", "llama plain"):
        keys = keys_of(style)
        model = random_ranks(keys, 2)
        old = [{layer: earlier(state) if layer in (2, 3) else state for layer, state in rank.items()} for rank in model]
        saved = NeoxCheckpoint.open(save(tmp_path / style, keys, old, sequential=style == "pythia"))
        saved.check_shapes(architecture_of(keys))
        for rank, shard in enumerate(saved.shards(2)):
            assert all(torch.equal(shard[name], tensor) for name, tensor in model[rank][2].items())


def earlier(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state = dict(state)
    for kind in ("weight", "bias"):
        first, second = state.pop(f"mlp.linear1.{kind}"), state.pop(f"mlp.linear2.{kind}")
        if "input_layernorm.scale" in state:
            state[f"mlp.w3.{kind}"], state[f"mlp.w1.{kind}"] = first.chunk(2)
            state[f"mlp.w2.{kind}"] = second
        else:
            state[f"mlp.dense_h_to_4h.{kind}"], state[f"mlp.dense_4h_to_h.{kind}"] = first, second
    return state | {"attention.rotary_emb.inv_freq": torch.ones(2)}


class Malicious:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_pickle_never_runs(tmp_path: Path) -> None:
    torch.save({"module": Malicious(tmp_path / "made")}, tmp_path / "mp_rank_00_model_states.pt")
    with pytest.raises(InputError, match=r"holds (posix|nt)\.mkdir, which is more than tensors and numbers"):
        NeoxCheckpoint.open(tmp_path)
    assert not (tmp_path / "made").exists()


def test_numpy_random_state_of_any_numpy_is_read(tmp_path: Path) -> None:
    """numpy 1 names the function that rebuilds an array by another module than numpy 2."""
    for module in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        path = tmp_path / "state.pt"
        torch.save({"state": np.arange(3, dtype=np.uint32)}, path, _use_new_zipfile_serialization=False)
        found = path.read_bytes()
        assert b"numpy._core.multiarray" in found or b"numpy.core.multiarray" in found
        path.write_bytes(found.replace(b"numpy._core.multiarray", b"numpy.core.multiarray").replace(
            b"numpy.core.multiarray", module
        ))  # fmt: skip
        assert load_tensors(path)["state"].tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_unusable_files_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "layer_00-model_00-model_states.pt"
    torch.save({"word_embeddings.weight": torch.zeros(100, 100)}, path)
    path.write_bytes(path.read_bytes()[:-2000])
    for damage in (b"", b"not a checkpoint", path.read_bytes(), pickle.dumps({"a": 1})[:-1]):
        path.write_bytes(damage)
        with pytest.raises(InputError) as error:
            load_tensors(path)
        assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="does not exist"):
        load_tensors(tmp_path / "none.pt")
    torch.save({"word_embeddings.weight": 1}, path)
    with pytest.raises(InputError, match=r"word_embeddings\.weight is int, not a tensor"):
        NeoxCheckpoint.open(tmp_path).shards(0)
    torch.save([1], path)
    with pytest.raises(InputError, match="holds list, not named tensors"):
        NeoxCheckpoint.open(tmp_path).shards(0)


@pytest.mark.parametrize("key", ["0.word_embeddings.weight", "sequential.word_embeddings.weight", "lm_head.weight"])
def test_names_of_another_model_are_refused(key: str, tmp_path: Path) -> None:
    folder, _, _ = checkpoint(tmp_path, "pythia", ranks=1, sequential=True)
    path = folder / "global_step7" / "mp_rank_00_model_states.pt"
    states = torch.load(path, weights_only=False)
    states["module"][key] = torch.zeros(1)
    torch.save(states, path)
    with pytest.raises(InputError, match=f"parameter {key} is not one of a NeoX model"):
        NeoxCheckpoint.open(folder).shards(0)


def test_what_is_not_a_whole_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist or is not a folder"):
        NeoxCheckpoint.open(tmp_path / "none")
    with pytest.raises(InputError, match="holds no checkpoint that can be read"):
        NeoxCheckpoint.open(tmp_path)
    (tmp_path / "zero_pp_rank_0_mp_rank_00_model_states.pt").touch()
    with pytest.raises(InputError, match="ZeRO stage 3"):
        NeoxCheckpoint.open(tmp_path)
    (tmp_path / "latest").write_text("global_step9")
    with pytest.raises(InputError, match="names global_step9, which does not exist"):
        NeoxCheckpoint.open(tmp_path)

    folder, _, _ = checkpoint(tmp_path / "layers", "pythia", ranks=2)
    (folder / "global_step7" / "layer_03-model_01-model_states.pt").unlink()
    with pytest.raises(InputError, match="lacks layer_03-model_01-model_states"):
        NeoxCheckpoint.open(folder)
    for layer in (folder / "global_step7").glob("layer_*"):
        layer.unlink()
    with pytest.raises(InputError, match="holds no weights: its pipeline layers' files"):
        NeoxCheckpoint.open(folder)
    folder, _, _ = checkpoint(tmp_path / "ranks", "pythia", ranks=2, sequential=True)
    (folder / "global_step7" / "mp_rank_00_model_states.pt").unlink()
    with pytest.raises(InputError, match="lacks mp_rank_00_model_states"):
        NeoxCheckpoint.open(folder)


def test_a_configuration_of_another_model_is_told_by_shape_and_name(tmp_path: Path) -> None:
    folder, keys, _ = checkpoint(tmp_path, "pythia", ranks=2)
    saved = NeoxCheckpoint.open(folder)
    saved.check_shapes(architecture_of(keys))
    with pytest.raises(ConfigError) as error:
        saved.check_shapes(architecture_of({**keys, "num_layers": 1, "use_bias_in_attn_linear": False}))
    text = str(error.value)
    assert "pipeline layer 6: unexpected" in text and "and 1 more" in text
    assert "pipeline layer 2, rank 1: attention.dense.bias (32,) is not part of this architecture" in text
    with pytest.raises(ConfigError, match=r"query_key_value.weight has shape \(48, 32\), .* says \(24, 32\)"):
        saved.check_shapes(architecture_of({**keys, "num_kv_heads": 1, "num_attention_heads": 4}))
