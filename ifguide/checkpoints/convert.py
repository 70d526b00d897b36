"""The two conversions: everything is checked first, then weights pass through one layer at a time."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from ifguide.architectures import layout
from ifguide.architectures.architecture import Architecture, from_neox_keys, neox_faults, to_neox_keys
from ifguide.architectures.registry import Family, family_named, family_of, huggingface_config
from ifguide.checkpoints import check, special_tokens
from ifguide.checkpoints.huggingface import HuggingFaceWeights, ShardWriter
from ifguide.checkpoints.reader import NeoxCheckpoint
from ifguide.checkpoints.staging import check_output, staged_folder
from ifguide.checkpoints.vocabulary import choose_padding, pad_rows
from ifguide.checkpoints.writer import TAG, write_checkpoint
from ifguide.config.hints import is_neox_checkpoint, model_hint
from ifguide.config.yaml_files import merge_files
from ifguide.data.text.content import files_in
from ifguide.data.text.record import config_datasets, config_faults, shared_frame
from ifguide.data.text.tokenizers import EOD_TOKEN, Tokenizer, build_tokenizer, find_token
from ifguide.errors import ConfigError, IFGuideWarning, InputError, first_line
from ifguide.penalties.hiding import hidden_token
from ifguide.penalties.keys import action_of
from ifguide.system.files import read_json, write_json, write_text
from ifguide.system.progress import Progress
from ifguide.system.provenance import write_run_record

_YAML_NAME = "neox.yml"


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer as NeoX's configuration names it."""

    tokenizer_type: str
    vocab_file: str | None = None
    merge_file: str | None = None

    def __post_init__(self) -> None:
        """A folder stands for its files, which are copied."""
        for name, file in zip(("vocab_file", "merge_file"), files_in(**vars(self))):
            object.__setattr__(self, name, file)

    def build(self) -> Tokenizer:
        """Raises:
        InputError: unknown, or a file is missing.
        """
        return build_tokenizer(self.tokenizer_type, self.vocab_file, self.merge_file)

    def carry(self, folder: Path, final: Path) -> dict[str, str]:
        """Copy the files into ``folder``; returns NeoX's keys for them, once ``folder`` is named ``final``."""
        keys = {"tokenizer_type": self.tokenizer_type}
        for key, file in (("vocab_file", self.vocab_file), ("merge_file", self.merge_file)):
            if file is not None:
                shutil.copyfile(file, folder / Path(file).name)
                keys[key] = str(final.absolute() / Path(file).name)
        return keys


class _CheckFailed(Exception):
    """Leaves the staging folder, so that nothing is kept."""


def to_huggingface(
    source: str | Path,
    output: str | Path,
    configs: Sequence[str | Path] = (),
    tokenizer: TokenizerFiles | None = None,
    carry_tokenizer: bool = True,
    check_text: str | None = None,
    overwrite: bool = False,
    eod_token: str | None = None,
    also: Callable[[NeoxCheckpoint, Family, Architecture, Path, Path], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write the NeoX checkpoint ``source`` as a Hugging Face folder.

    Padding rows of the vocabulary stay: NeoX's loss counts them, so would every score after them differ.

    Args:
        source: a ``global_stepN`` folder, or a save folder whose ``latest`` names one.
        configs: the run's YAML files; default, those that NeoX stored with the checkpoint.
        tokenizer: default, the one that the configuration names.
        carry_tokenizer: also write it, in Hugging Face's format.
        check_text: compare logits on this text before the folder gets its name; needs a tokenizer.
        overwrite: replace a model or a checkpoint at ``output``.
        eod_token: the token that ends a text; default, what the checkpoint carries, else the separator of the run's
            documents (`ifguide.checkpoints.special_tokens`).
        also: writes more of the checkpoint into the folder before that gets its name: checkpoint, family, architecture,
            the folder, its name to be -> what is said of it.

    Returns:
        What was written and, under ``check``, how the comparison went (None without ``check_text``); if it failed,
        nothing was kept.

    Raises:
        ConfigError: everything about the configuration that Hugging Face cannot represent, or that is not what the
            checkpoint holds.
        InputError: the checkpoint or the tokenizer cannot be read, ``output`` exists, or the tokenizer is not the one
            that the run's data was made with.
    """
    output = Path(output)
    faults: list[str] = []
    with _collected(faults):
        check_output(output, Path(source), overwrite)
    checkpoint = NeoxCheckpoint.open(source)
    paths = [Path(path) for path in configs] or checkpoint.config_files
    if not paths:
        raise InputError(f"{checkpoint.folder} has no configs folder; name the run's YAML files by --config")
    keys, problems = merge_files(paths)
    faults += problems
    with _collected(faults):
        architecture = from_neox_keys(keys, *checkpoint.sizes())
        family = family_of(architecture)
        faults += family.faults(architecture)
    built = None
    if carry_tokenizer or check_text is not None or eod_token is not None:
        with _collected(faults):
            files = tokenizer or _configured_tokenizer(keys)
            built = files.build()
            faults += config_faults(keys | asdict(files))
            # what the run's data ends its documents with, where it lies here
            eod, built.bos = shared_frame(config_datasets(keys))
            built.eod = built.eod if eod is None else eod
            if eod_token is not None:
                built.eod = find_token(built, eod_token)
    with _collected(faults):
        hidden = _hidden_token(keys, built)
    if faults:
        raise ConfigError(faults)
    checkpoint.check_shapes(architecture)
    windows = None
    if built is not None:
        _check_vocabulary(built, architecture.padded_vocab_size)
        windows = None if check_text is None else check.text_windows(built, check_text, architecture)
    special = special_tokens.without(_special_tokens(checkpoint, keys, built, eod_token), hidden)

    dtype = checkpoint.shards(layout.EMBEDDING)[0]["word_embeddings.weight"].dtype
    result: dict[str, Any] = {
        "input": str(checkpoint.folder),
        "output": str(output),
        "architecture": family.model_type,
        "layout": "sequential" if checkpoint.sequential else "pipeline layers",
        "tensor_parallel": checkpoint.ranks,
        "dtype": str(dtype).removeprefix("torch."),
        "vocabulary": architecture.padded_vocab_size,
        "tokenizer": built.vocab_size if built is not None and carry_tokenizer else None,
        **special["config"],
        "check": None,
    }
    with contextlib.suppress(_CheckFailed), staged_folder(output) as staging:
        if built is not None and carry_tokenizer:
            built.save_pretrained(staging)
        special_tokens.write_files(staging, special, with_tokenizer=carry_tokenizer)
        write_json(staging / "config.json", huggingface_config(family, architecture, dtype, special["config"]))
        result["bytes"] = _export_weights(checkpoint, family, architecture, staging)
        if windows is not None:
            result["check"] = check.compare(staging, checkpoint, architecture, windows)
            if not result["check"]["passed"]:
                raise _CheckFailed
        if also is not None:
            result |= also(checkpoint, family, architecture, staging, output)
        write_run_record(staging, **result, configs=[str(path) for path in paths])
    return result


def to_neox(
    source: str | Path,
    output: str | Path,
    tensor_parallel: int = 1,
    pipeline_parallel: int = 0,
    divisible_by: int | None = None,
    tokenizer: TokenizerFiles | None = None,
    check_text: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the Hugging Face folder ``source`` as a NeoX checkpoint to fine-tune from, and the YAML that loads it.

    Args:
        tensor_parallel, pipeline_parallel: model_parallel_size and pipe_parallel_size of the run that will load it;
            0 stages give the sequential layout, any other number the layer files, which serve every number.
        divisible_by: make_vocab_size_divisible_by; default 128, or what keeps every row of the model.
        tokenizer: default, the folder's tokenizer.json.
        check_text: compare logits on this text before the folder gets its name.
        overwrite: replace a model or a checkpoint at ``output``.

    Returns:
        As `to_huggingface`.

    Raises:
        ConfigError: everything about the model that NeoX cannot express.
        InputError: the folder or the tokenizer cannot be read, or ``output`` exists.
    """
    source, output = Path(source), Path(output)
    faults: list[str] = []
    with _collected(faults):
        check_output(output, Path(source), overwrite)
    family, config = _load_config(source)
    original, problems = family.architecture(config)
    faults += problems + neox_faults(original) + layout.split_faults(original, tensor_parallel)
    carried = source / "tokenizer.json"
    files = tokenizer or TokenizerFiles("HFTokenizer", str(carried))
    rows, multiple = original.padded_vocab_size, 0
    with _collected(faults):
        if tokenizer is None and not carried.is_file():
            raise InputError(f"{source} has no tokenizer.json; name its tokenizer by --tokenizer-type and --vocab-file")
        built = files.build()
        _check_vocabulary(built, rows)
        try:
            multiple, rows = choose_padding(built.vocab_size, rows, tensor_parallel, divisible_by)
        except ValueError as error:
            raise InputError(str(error)) from None
    if faults:
        raise ConfigError(faults)
    weights = HuggingFaceWeights(source)
    weights.check_shapes(family, original)
    architecture = replace(original, padded_vocab_size=rows)
    special = special_tokens.of_folder(source, built)
    windows = None if check_text is None else check.text_windows(built, check_text, original)

    def whole(layer: int) -> Mapping[str, Tensor]:
        tensors = family.load(layer, {name: weights[name] for name in family.names(layer, original)}, original)
        if layer in (layout.EMBEDDING, layout.output_layer(original)):
            return {name: pad_rows(tensor, rows) for name, tensor in tensors.items()}
        return tensors

    result: dict[str, Any] = {
        "input": str(source),
        "output": str(output),
        "architecture": family.model_type,
        "layout": "pipeline layers" if pipeline_parallel else "sequential",
        "tensor_parallel": tensor_parallel,
        "pipeline_parallel": pipeline_parallel,
        "vocabulary": rows,
        "padding": rows - original.padded_vocab_size,
        "tokenizer": built.vocab_size,
        "yaml": str(output / _YAML_NAME),
        "check": None,
    }
    keys = to_neox_keys(architecture) | {
        "make_vocab_size_divisible_by": multiple,
        "model_parallel_size": tensor_parallel,
        "pipe_parallel_size": pipeline_parallel,
    }
    compared = ("num_layers", "hidden_size", "num_attention_heads", "make_vocab_size_divisible_by")
    arguments = {key: keys[key] for key in (*compared, "model_parallel_size")} | {"padded_vocab_size": rows}
    with contextlib.suppress(_CheckFailed), staged_folder(output) as staging:
        keys |= files.carry(staging, output) | {"load": str(output.absolute()), "finetune": True}
        write_checkpoint(staging, whole, architecture, tensor_parallel, pipeline_parallel, arguments)
        special_tokens.write_carried(staging / TAG, special)
        if windows is not None:
            result["check"] = check.compare(source, NeoxCheckpoint(staging / TAG), architecture, windows)
            if not result["check"]["passed"]:
                raise _CheckFailed
        text = yaml.safe_dump(keys, sort_keys=False)
        write_text(staging / _YAML_NAME, text)
        (staging / TAG / "configs").mkdir()
        write_text(staging / TAG / "configs" / _YAML_NAME, text)
        write_run_record(staging, **result)
    return result


def _export_weights(checkpoint: NeoxCheckpoint, family: Family, architecture: Architecture, folder: Path) -> int:
    """Write every tensor, a layer in memory at a time beside what waits for its file; returns the bytes of weights."""
    writer = ShardWriter(folder)
    with Progress(total=len(checkpoint.layers), unit="layers", label="convert") as progress:
        for layer in checkpoint.layers:
            tensors = checkpoint.merged(layer, architecture)
            for name, tensor in family.export(layer, tensors, architecture).items():
                writer.add(name, tensor)
            progress.update(1)
    writer.close()
    return writer.total_bytes


def _special_tokens(
    checkpoint: NeoxCheckpoint, keys: Mapping[str, Any], built: Tokenizer | None, eod_token: str | None
) -> dict[str, Any]:
    """As `special_tokens.of_checkpoint`, with the separator that the user names above all; a folder whose generation
    would not stop is told."""
    if eod_token is not None and built is not None:
        return {"config": {"bos_token_id": built.eod, "eos_token_id": built.eod}, "files": {}}
    special = special_tokens.of_checkpoint(checkpoint.folder, keys, built)
    ends = special["config"].get("eos_token_id")
    if ends is None and built is not None:
        warnings.warn(
            f"nothing says which token ends a text of {checkpoint.folder}: its tokenizer has no {EOD_TOKEN}, so "
            "generation from the folder will not stop before its limit; name the token by --eod-token",
            IFGuideWarning,
            stacklevel=3,
        )
    elif built is not None and built.eod is None and isinstance(ends, int):
        built.eod = ends
    return special


def _hidden_token(keys: Mapping[str, Any], built: Tokenizer | None) -> int | None:
    """What the run of these keys has read in place of hidden tokens, and is no text; None where nothing was hidden.

    Raises:
        InputError: the configuration names it, and its tokenizer has no such token or cannot be read.
    """
    value = keys.get("penalty_hidden_token")
    if action_of(keys) != "hide" or value is None:
        return None
    if not isinstance(value, str):
        return int(value)
    tokenizer = built or _configured_tokenizer(keys).build()
    return hidden_token(value, tokenizer.token_id, None, ())


def _configured_tokenizer(keys: Mapping[str, Any]) -> TokenizerFiles:
    if not keys.get("tokenizer_type"):
        raise InputError("tokenizer_type: not set; name the tokenizer by --tokenizer-type, or pass --no-tokenizer")
    vocab_file, merge_file = (None if keys.get(key) is None else str(keys[key]) for key in ("vocab_file", "merge_file"))
    return TokenizerFiles(str(keys["tokenizer_type"]), vocab_file, merge_file)


def _check_vocabulary(tokenizer: Tokenizer, rows: int) -> None:
    if tokenizer.vocab_size > rows:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {rows} rows; "
            "is it the tokenizer of this model?"
        )


def _load_config(folder: Path) -> tuple[Family, Any]:
    """The family and the transformers configuration, which brings the spellings of all versions into one."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        # the checkpoint's own direction is the other one
        hint = "it is a GPT-NeoX checkpoint: give --from neox --to hf" if is_neox_checkpoint(folder) else ""
        hint = hint or model_hint(folder) or "expected a Hugging Face folder"
        raise InputError(f"{folder} has no config.json; {hint}")
    described = read_json(folder / "config.json", "model configuration")
    if not isinstance(described, dict):
        raise InputError(f"{folder / 'config.json'} is not a JSON object")
    family = family_named(described.get("model_type", ""))
    try:
        return family, AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises many kinds for a malformed file
        raise InputError(f"{folder / 'config.json'} cannot be used: {first_line(error)}") from None


@contextlib.contextmanager
def _collected(faults: list[str]) -> Iterator[None]:
    """Keep the faults of bad input instead of stopping at the first."""
    try:
        yield
    except ConfigError as error:
        faults += error.faults
    except InputError as error:
        faults.append(str(error))
