"""What a scoring run reads before GPT-NeoX starts: checkpoint, data, queries and curvature, all of it checked.

The launcher reads it once and looks at all of it, so that nothing starts that cannot end; then every process reads it
without looking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ifguide.architectures.architecture import Architecture, from_neox_keys
from ifguide.architectures.registry import Family, family_of
from ifguide.checkpoints.reader import NeoxCheckpoint
from ifguide.data.indexed import TokenDataset
from ifguide.data.text.reader import TextReader
from ifguide.errors import ConfigError, InputError
from ifguide.influence.behaviours import Behaviour, QueryFiles, load_behaviours
from ifguide.influence.curvature.adam import AdamLayers, adam_factors
from ifguide.influence.curvature.store import Factors, describe_factors, load_factors
from ifguide.influence.direction import direction_paths
from ifguide.influence.neox import check_matrices
from ifguide.influence.options import Damping
from ifguide.influence.shards import parse_documents
from ifguide.influence.windows import Cutting, check_tokens, resolve_lengths
from ifguide.system.cache import file_hash
from ifguide.system.files import hash_value, read_json
from ifguide.system.provenance import file_record

_WEIGHT_FILES = ("layer_*-model_*-model_states.pt", "mp_rank_*_model_states.pt")


@dataclass(frozen=True, eq=False)
class GivenDirection(Behaviour):
    """What is scored along a direction that exists; its queries are known to its record alone.

    Attributes:
        prefix: of the direction.
    """

    prefix: str = ""

    @property
    def fingerprints(self) -> dict[str, str]:
        return {"direction": read_json(direction_paths(self.prefix)[1], "direction")["tensors"]}

    @property
    def sources(self) -> dict[str, Any]:
        return {"direction": file_record(direction_paths(self.prefix)[1])}


@dataclass(frozen=True, eq=False)
class Setup:
    """All that is scored, and along what.

    Attributes:
        checkpoint: whose weights are scored.
        config: all keys.
        damping: of the curvature.
        batch_tokens: tokens of a batch.
        documents: whose shards this call scores (None: all).
        frame: how the windows lie, for the record.
    """

    checkpoint: NeoxCheckpoint
    architecture: Architecture
    family: Family
    behaviour: Behaviour
    config: Mapping[str, Any]
    damping: Damping
    windows: Cutting
    batch_tokens: int
    documents: slice | None
    frame: dict[str, Any]

    @cached_property
    def factors(self) -> Factors:
        """Curvature, read when it is asked for: by the one process that makes the direction.

        Raises:
            InputError: it cannot be read.
        """
        named = self.config.get("score_factors")
        return load_factors(named) if named else adam_factors(self.checkpoint, self.family, self.architecture)

    def about(self) -> dict[str, Any]:
        """Whatever changes the direction; reads every weight file once."""
        about: dict[str, Any] = {"model": checkpoint_fingerprint(self.checkpoint), **self.behaviour.fingerprints}
        if not isinstance(self.behaviour, GivenDirection):
            named = self.config.get("score_factors")
            known = describe_factors(named) if named else self.factors
            about |= {"factors": known.fingerprint, "damping": asdict(self.damping)}
        return about


def read_setup(config: Mapping[str, Any], look: bool = False) -> Setup:
    """What the keys ``config`` of a scoring run name.

    Args:
        look: also read all tokens and the shapes of all weights.

    Raises:
        ConfigError: of the architecture, all that cannot be scored.
        InputError: files that cannot be used (`MismatchError` where two do not belong together).
    """
    path = Path(str(config["load"]))
    iteration = config.get("iteration")
    checkpoint = NeoxCheckpoint.open(path if iteration is None else path / f"global_step{iteration}")
    architecture = from_neox_keys(config, *checkpoint.sizes())
    family = family_of(architecture)
    faults = family.faults(architecture)
    if faults:
        raise ConfigError(faults)
    dataset = TokenDataset.open(config["score_data"], mapped=True)
    reader = TextReader.of_data(config["score_data"], eod_token=config.get("score_eod_token"))
    record: dict[str, Any] = {}
    if config.get("score_direction"):
        behaviour: Behaviour = _given(str(config["score_direction"]), family, architecture)
    else:
        files = QueryFiles(config["score_toxic_queries"], config.get("score_safe_queries"))
        (behaviour,) = load_behaviours([files], False, reader, architecture.max_position_embeddings)
        record = _factors_record(config, checkpoint, family, architecture, look)
    seq_length, context = config.get("score_seq_length"), config.get("score_context")
    if seq_length is None and record:
        seq_length = record["seq_length"]
        context = record["context"] if context is None else context
    seq_length, context = resolve_lengths(architecture.max_position_embeddings, seq_length, context)
    if look:
        checkpoint.check_shapes(architecture)
        check_tokens(dataset, architecture.padded_vocab_size)
    asked = config.get("score_documents")
    return Setup(
        checkpoint,
        architecture,
        family,
        behaviour,
        config,
        Damping(config["score_damping"], not config["score_absolute_damping"]),
        Cutting(dataset, reader.eod, seq_length, context),
        config["score_batch_size"] * seq_length,
        None if asked is None else parse_documents(asked, dataset.num_documents),
        {"eod": reader.eod, "seq_length": seq_length, "context": context},
    )


def checkpoint_fingerprint(checkpoint: NeoxCheckpoint) -> str:
    """Hash of the files that hold the weights."""
    pattern = _WEIGHT_FILES[1 if checkpoint.sequential else 0]
    files = sorted(checkpoint.folder.glob(pattern))
    return hash_value({path.name: file_hash(path) for path in files})


def _given(prefix: str, family: Family, architecture: Architecture) -> GivenDirection:
    """
    Raises:
        MismatchError: the direction belongs to another model.
    """
    from safetensors import safe_open

    tensors = str(direction_paths(prefix)[0])
    with safe_open(tensors, framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (no mapping)
    check_matrices(tensors, shapes, family, architecture)
    return GivenDirection("", (), (), QueryFiles("", None), None, prefix)


def _factors_record(
    config: Mapping[str, Any], checkpoint: NeoxCheckpoint, family: Family, architecture: Architecture, look: bool
) -> dict[str, Any]:
    """The record of the curvature that is named; {} where it is the checkpoint's own, whose parts are looked for.

    Raises:
        InputError: there is none that can be used (`MismatchError` where it is another model's).
    """
    named = config.get("score_factors")
    if not named:
        if look:
            AdamLayers(checkpoint, family, architecture)
        return {}
    record = describe_factors(named).record
    if not isinstance(record.get("modules"), dict):
        raise InputError(f"{Path(named) / 'factors.json'} is no record of factors; run fit-factors again")
    check_matrices(named, record["modules"], family, architecture)
    return record
