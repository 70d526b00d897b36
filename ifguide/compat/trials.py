"""Small trials of the parts in `ifguide.compat.registry`: each is given one and returns what is wrong, None if nothing.

A trial takes milliseconds once its library is imported, writes nothing but into a temporary folder, and changes nothing
in the library. It may raise: whoever runs it takes that for a fault.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import tempfile
from pathlib import Path
from typing import Any

_WIDTH, _ROWS = 4, 2


def _wrong(what: str, found: Any, expected: Any) -> str | None:
    return None if found == expected else f"{what} is {found!r}, not {expected!r}"


def _states(tokens: int) -> Any:
    """Keys or values ``[2, 1, tokens, 4]``, all different."""
    import torch

    return torch.arange(_ROWS * tokens * _WIDTH, dtype=torch.float32).view(_ROWS, 1, tokens, _WIDTH)


# --- transformers -----------------------------------------------------------------------------------------------------


def a_cache_of_our_layers(_: Any) -> str | None:
    """A cache of our layers holds what it is given and tells its length."""
    import torch
    from transformers.cache_utils import Cache

    from ifguide.compat.transformers_cache import RoomyLayer

    given, more = _states(3), -_states(1)
    room = torch.cat([given, torch.zeros(_ROWS, 1, 2, _WIDTH)], dim=2)
    cache = Cache(layers=[RoomyLayer(room, room.clone(), 3)])
    keys, values = cache.update(more, more, 0)
    expected = torch.cat([given, more], dim=2)
    if not torch.equal(keys, expected) or not torch.equal(values, expected):
        return "a cache of our layers does not return what it was given"
    return _wrong("the length of a cache of our layers", cache.get_seq_length(), 4)


def layers_of_a_new_cache(kind: Any) -> str | None:
    """GPT-NeoX has as many plain layers as the model has; Mistral's windows are none."""
    from transformers import GPTNeoXConfig, MistralConfig

    from ifguide.compat.transformers_cache import plain_layers

    plain = plain_layers(kind(config=GPTNeoXConfig(num_hidden_layers=2)))
    windows = plain_layers(kind(config=MistralConfig(num_hidden_layers=2, sliding_window=8)))
    return _wrong("the plain layers of GPT-NeoX and of Mistral", (plain, windows), ([0, 1], []))


def a_plain_layer_keeps_all(kind: Any) -> str | None:
    """Its `keys` are all that it was given."""
    import torch

    layer, given = kind(), _states(3)
    layer.update(given, given)
    return None if torch.equal(layer.keys, given) and torch.equal(layer.values, given) else "it keeps something else"


def names_its_cache(forward: Any) -> str | None:
    """A cache is among the parameters, under a name that we know."""
    from ifguide.compat.transformers_cache import name_of_cache

    return None if name_of_cache(forward) else "its cache has a name that is not known here"


def names_of_classes(names: Any) -> str | None:
    """It maps model types to names of classes."""
    found = names.get("gpt_neox")
    return None if found == "GPTNeoXForCausalLM" else f"gives {found!r} for gpt_neox"


def rope_parameters(kind: Any) -> str | None:
    """The kind of rotary embedding is told."""
    return _wrong("the kind of rotary embedding", kind().rope_parameters.get("rope_type"), "default")


def fused_attention(_: Any) -> str | None:
    """The fused kernel takes its arguments in our order."""
    from ifguide.compat.transformers import fused_attention as kernel

    expected = ["module", "query", "key", "value", "attention_mask", "dropout", "scaling"]
    return _wrong("what the fused kernel takes", list(inspect.signature(kernel()).parameters)[:7], expected)


def masks_of_fused_attention(kind: Any) -> str | None:
    """There is a function of masks for the fused kernel."""
    return None if callable(kind()["sdpa"]) else "it has no masks for sdpa"


def switched_attention(_: Any) -> str | None:
    """A configuration takes another attention, and the first one back."""
    from transformers import GPTNeoXConfig

    from ifguide.compat.transformers import attention_of

    config: Any = GPTNeoXConfig()
    config._attn_implementation = "eager"
    with attention_of(config, "sdpa"):
        inside = config._attn_implementation
    return _wrong("the attention inside and after", (inside, config._attn_implementation), ("sdpa", "eager"))


def transposed_weight(kind: Any) -> str | None:
    """``Conv1D(outputs, inputs)`` has a weight [inputs, outputs]."""
    layer = kind(3, 2)
    return _wrong("its weight and bias", (tuple(layer.weight.shape), tuple(layer.bias.shape)), ((2, 3), (3,)))


def snapshot_folder(find: Any) -> str | None:
    """The file of a cached snapshot lies in the folder of its revision; of what is not cached there is no path."""
    revision = "0123456789abcdef0123456789abcdef01234567"
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models--a--b"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(revision)
        snapshot = repository / "snapshots" / revision
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        found, absent = (find(name, "config.json", cache_dir=folder) for name in ("a/b", "a/c"))
    return _wrong("what it finds", (found, absent), (str(snapshot / "config.json"), None))


# --- kronfluence ------------------------------------------------------------------------------------------------------


def factor_arguments(kind: Any) -> str | None:
    """Every argument that we set exists."""
    known = {field.name for field in dataclasses.fields(kind)}
    set_here = {"strategy", "use_empirical_fisher", "covariance_max_examples", "lambda_max_examples", "lambda_dtype",
                "activation_covariance_dtype", "gradient_covariance_dtype", "per_sample_gradient_dtype"}  # fmt: skip
    return _wrong("what it does not take", sorted(set_here - known), [])


def names_of_factors(constants: Any) -> str | None:
    """The keys under which factors are found."""
    known = {value for name, value in vars(constants).items() if name.isupper() and isinstance(value, str)}
    read = {"activation_eigenvectors", "gradient_eigenvectors", "activation_eigenvalues", "gradient_eigenvalues",
            "lambda_matrix", "num_lambda_processed"}  # fmt: skip
    return _wrong("factors that it does not name", sorted(read - known), [])


# --- megatron-core ----------------------------------------------------------------------------------------------------


def import_megatron() -> None:
    """As packing does: without the rest of it."""
    from ifguide.compat.megatron import light_megatron

    with light_megatron():
        importlib.import_module("megatron.core.datasets.gpt_dataset")


def packing(module: Any) -> str | None:
    """The configuration has our fields, and the dataset the method through which it reads documents."""
    known = {field.name for field in dataclasses.fields(module.GPTDatasetConfig)}
    set_here = {"random_seed", "sequence_length", "eod_mask_loss", "drop_last_partial_validation_sequence", "blend",
                "blend_per_split", "split", "mid_level_dataset_surplus", "tokenizer", "path_to_cache", "split_matrix",
                "reset_position_ids", "reset_attention_mask", "create_attention_mask"}  # fmt: skip
    reads = list(inspect.signature(module.GPTDataset.build_low_level_dataset).parameters)
    return _wrong("fields that it does not have", sorted(set_here - known), []) or _wrong(
        "what the low-level dataset is built from", reads, ["dataset_path", "config"]
    )


def builder_of_splits(module: Any) -> str | None:
    """It takes the class, the sizes, which ranks build, and the configuration, in this order."""
    found = list(inspect.signature(module.BlendedMegatronDatasetBuilder).parameters)[:4]
    return _wrong("what it takes", found, ["cls", "sizes", "is_built_on_rank", "config"])


def writer_of_tokens(kind: Any) -> str | None:
    """Two documents are written, and told of."""
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        writer = kind(str(Path(folder) / "a.bin"), dtype=np.uint16)
        for tokens in ([1, 2, 3], [4]):
            writer.add_document(np.array(tokens, dtype=np.uint16), [len(tokens)])
        writer.data_file.flush()
        written = (Path(folder) / "a.bin").read_bytes()
        lengths, documents = list(writer.sequence_lengths), list(writer.document_indices)
        writer.finalize(str(Path(folder) / "a.idx"))
    return _wrong(
        "what it wrote",
        (np.frombuffer(written, dtype=np.uint16).tolist(), lengths, documents),
        ([1, 2, 3, 4], [3, 1], [0, 1, 2]),
    )


# --- DeepSpeed --------------------------------------------------------------------------------------------------------


def launcher(module: Any) -> str | None:
    """It reads its command line itself, with the options that we give."""
    source = inspect.getsource(module)
    missing = [name for name in ("world_info", "master_addr", "master_port", "log_level") if f"--{name}" not in source]
    return _wrong("options that it does not take", missing, [])


def exported_variables(module: Any) -> str | None:
    """A list of names."""
    return _wrong("the kind of EXPORT_ENVS", type(module.EXPORT_ENVS), list)


def compatible_operators(operators: Any) -> str | None:
    """Operator -> whether it may be compiled, the one that is struck out among them."""
    return None if "deepspeed_shm_comm" in operators else "there is no deepspeed_shm_comm"


def instructions_of_a_pipeline(instructions: Any) -> str | None:
    """A function for each kind of instruction, looked up in the engine itself."""
    from deepspeed.runtime.pipe import engine, schedule

    left_out = (schedule.OptimizerStep, schedule.ReduceGrads, schedule.ReduceTiedGrads)
    lacking = [kind.__name__ for kind in left_out if kind not in instructions]
    looked_up = "self._INSTRUCTION_MAP" in inspect.getsource(engine.PipelineEngine._exec_schedule)
    return _wrong("its instructions, and where they are looked up", (lacking, looked_up), ([], True))


def asks_for_a_loss(kind: Any) -> str | None:
    """An engine's forward pass asks its `_compute_loss` whether to call the loss function."""
    asked = "self._compute_loss" in inspect.getsource(kind._exec_forward_pass)
    return None if asked else "its forward pass does not ask for it"


# --- lm-eval ----------------------------------------------------------------------------------------------------------


def batch_size_of_the_model(kind: Any) -> str | None:
    """`batch_size` is what `batch_size_per_gpu` was set to."""
    model = kind.__new__(kind)
    model.batch_size_per_gpu = 7
    return _wrong("its batch size", model.batch_size, 7)


def decoding_options(normalize: Any) -> str | None:
    """Missing options are filled in under the names that we read."""
    given = {"do_sample": True, "temperature": 0.7, "until": ["x"]}
    return _wrong("a sampled decoding", dict(normalize(dict(given), 20)), {**given, "max_gen_toks": 20})


def filters(module: Any) -> str | None:
    """Names can be looked up in it, and added through it or to it."""
    _ = "a name" in module.FILTER_REGISTRY
    return None if hasattr(module, "register_filter") else "it registers no filters"


# --- others -----------------------------------------------------------------------------------------------------------


def actions(_: Any) -> str | None:
    """Options in order, each with the name of its value."""
    from ifguide.compat.argparse import options

    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--one")
    parser.add_argument("two")
    return _wrong("its options", [action.dest for action in options(parser)], ["one", "two"])


def fingerprint(_: Any) -> str | None:
    """Other rows, another fingerprint."""
    from datasets import Dataset

    from ifguide.compat.datasets import fingerprint_of

    one, other = (fingerprint_of(Dataset.from_dict({"a": [value]})) for value in (1, 2))
    return None if isinstance(one, str) and one != other else "it does not tell data sets apart"


def every_key_is_constructed(kind: Any) -> str | None:
    """A mapping's keys are seen as they stand in the file, repeated ones included."""
    seen: list[tuple[str, int]] = []

    class Listing(kind):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen.extend((self.construct_object(key, deep=True), key.start_mark.line) for key, _ in node.value)
            return super().construct_mapping(node, deep)

    loader = Listing("a: 1\na: 2\n")
    try:
        loader.get_single_data()
    finally:
        loader.dispose()
    return _wrong("the keys that it constructs", seen, [("a", 0), ("a", 1)])
