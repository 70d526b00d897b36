"""Every place where the patch touches or relies on GPT-NeoX: what it does there, and what it expects.

`TARGETS` are replaced, `RELIED_ON` are called or counted on, by ``score.py`` alone `RELIED_ON_BY_SCORING`. A target
that the patch *replaces* must be code that was read and tested: its digest is listed. One that it *wraps* must take the
parameters that the wrapper passes on. `ifguide_patch.check` prints this table for a checkout; `ifguide_patch.apply`
refuses on the same grounds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ifguide_patch import config, cpu, generation, keys
from ifguide_patch.checkout import missing_requirements
from ifguide_patch.script import is_scoring
from ifguide_patch.source import Definition, find
from ifguide_patch.training import batch, dataset, loss, metrics, pipeline_validation

PRESENT, CHANGED, UNFIT, MISSING = "present", "changed", "unfit", "missing"


@dataclass(frozen=True)
class Place:
    """A definition in the checkout.

    Attributes:
        module: as imported.
        name: ``function`` or ``Class.method``.
        why: what is done there, or counted on.
        parameters: the first parameters that it must have, in order.
        digests: of the versions that were tested (`ifguide_patch.source.digest`).
        exact: True if only a tested version will do; False if the parameters are enough.
        replace: original -> replacement; None where the patch only relies on it.
        bound_in: modules that imported it by name, and need the replacement too.
    """

    module: str
    name: str
    why: str
    parameters: tuple[str, ...]
    digests: tuple[str, ...]
    exact: bool = False
    replace: Callable[[Any], Any] | None = None
    bound_in: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.module}.{self.name}"

    def definition(self, root: Path) -> Definition | None:
        """As the checkout at ``root`` has it."""
        return find(root / f"{self.module.replace('.', '/')}.py", self.name)

    def state(self, root: Path) -> str:
        """`PRESENT` as tested, `CHANGED` but usable, `UNFIT`, or `MISSING`."""
        found = self.definition(root)
        if found is None:
            return MISSING
        if found.digest in self.digests:
            return PRESENT
        if self.exact or found.parameters[: len(self.parameters)] != self.parameters:
            return UNFIT
        return CHANGED

    def fault(self, root: Path) -> str | None:
        """Why the patch cannot be trusted here, in one line; None if it can."""
        state = self.state(root)
        if state == MISSING:
            return f"{self.label} is missing ({self.why})"
        if state == UNFIT and self.exact:
            return f"{self.label} is not a version that was tested ({self.why})"
        if state == UNFIT:
            return f"{self.label} does not take ({', '.join(self.parameters)}) ({self.why})"
        return None


TARGETS: tuple[Place, ...] = (
    Place(
        "megatron.neox_arguments.arguments", "NeoXArgs.from_ymls",
        "checks all configuration files before anything starts",
        ("cls", "paths_to_yml_files", "overwrite_values"), ("326bf9a4b97fa18c",),
        replace=config.from_ymls,
    ),
    Place(
        "megatron.neox_arguments.arguments", "NeoXArgs.validate_values",
        "checks the penalty keys, which are added to NeoXArgs",
        ("self",), ("36d11863e6112f5a",),
        replace=keys.validate_values,
    ),
    Place(
        "megatron.data.data_utils", "build_train_valid_test_data_loaders",
        "tells the datasets which configuration they are built for",
        ("neox_args",), ("93d707d581bff4c9",),
        replace=dataset.build_loaders, bound_in=("megatron.training",),
    ),
    Place(
        "megatron.data.data_utils", "build_weighted_datasets",
        "gives the datasets of train_data_paths their masks",
        ("neox_args", "train_num_samples", "valid_num_samples", "test_num_samples"), ("c78ebb818e57c657",),
        replace=dataset.build_weighted,
    ),
    Place(
        "megatron.data.data_utils", "build_train_valid_test_datasets",
        "gives the training part of data_path its mask",
        ("data_prefix",), ("cee19d54ff2a21b8",),
        replace=dataset.build_split,
    ),
    Place(
        "megatron.data.gpt2_dataset", "GPT2Dataset.__getitem__",
        "reads penalty codes from the ranges of the tokens; must take the same ranges",
        ("self", "idx"), ("5f54e1fe2b3df097",), exact=True,
        replace=dataset.getitem,
    ),
    Place(
        "megatron.training", "_get_batch",
        "signs the loss mask where a label is penalised",
        ("neox_args", "tokenizer", "keys", "data", "datatype", "label_mask_zero"), ("bdecfbe2ec59a103",),
        replace=batch.get_batch,
    ),
    Place(
        "megatron.model.gpt2_model", "cross_entropy",
        "computes the objective instead during training steps, and keeps losses by token for score.py",
        ("output", "labels", "_fp16"), ("914aa7900a73ed25",), exact=True,
        replace=loss.cross_entropy, bound_in=("megatron.training",),
    ),
    Place(
        "megatron.training", "train_step",
        "switches the objective on and adds its numbers",
        ("neox_args", "timers", "data_iterator", "model", "optimizer", "lr_scheduler"), ("9e335b1c4121c81a",),
        replace=metrics.train_step,
    ),
    Place(
        "megatron.logging", "training_log",
        "prints ratios of sums over the log interval",
        ("neox_args", "timers", "loss_dict", "total_loss_dict", "learning_rate", "iteration", "loss_scale",
         "report_memory_flag", "skipped_iter"), ("975774838ead62b7",),
        replace=metrics.training_log, bound_in=("megatron.training",),
    ),
    Place(
        "megatron.training", "forward_step",
        "returns (loss, metrics) from pipelines too, as validation expects",
        ("data_iterator", "model", "neox_args", "timers", "return_logits"), ("98365f11eeb94daf",),
        replace=pipeline_validation.forward_step,
    ),
    Place(
        "megatron.text_generation_utils", "stream_tokens",
        "leaves the hidden token out of what is generated",
        ("neox_args", "model", "context_tokens"), ("ded3aef6229ecbdb",),
        replace=generation.stream_tokens,
    ),
    Place(
        "megatron.text_generation_utils", "forward_model",
        "gives the hidden token no chance in what is generated",
        ("model", "model_inputs"), ("dd9b630014f32e3a",),
        replace=generation.forward_model,
    ),
)  # fmt: skip

CPU_TARGETS: tuple[Place, ...] = (
    Place(
        "megatron.initialize", "initialize_megatron",
        "starts without CUDA",
        ("neox_args", "allow_no_cuda"), ("b782ad953a8b42c7",),
        replace=cpu.initialize, bound_in=("megatron.training",),
    ),
)  # fmt: skip

RELIED_ON: tuple[Place, ...] = (
    Place(
        "megatron.neox_arguments.arguments", "NeoXArgs.validate_types",
        "reads the types of the added keys", ("self",), ("b441684ee0715301",),
    ),
    Place(
        "megatron.data.data_utils", "build_the_dataset",
        "makes a GPT2Dataset of one training path", ("data_prefix",), ("ffacb8d922831df5",),
    ),
    Place(
        "megatron.training", "get_batch_pipe",
        "hands (labels, loss_mask) to the last pipeline stage", ("data", "neox_args"), ("d9c91b494d5fac3d",),
    ),
    Place(
        "megatron.mpu.data", "broadcast_data",
        "carries the codes to every tensor-parallel rank", ("keys", "data", "datatype"), ("d0b77747ee9a2921",),
    ),
    Place(
        "megatron.mpu.cross_entropy", "vocab_parallel_cross_entropy",
        "returns one loss per token, whole on every tensor-parallel rank",
        ("vocab_parallel_logits", "target"), ("dea9881b8037c338",),
    ),
    Place(
        "megatron.model.gpt2_model", "GPT2ModelPipe.__init__",
        "takes cross_entropy from its module when a pipeline is built", ("self", "neox_args"), ("3c045da945c29d13",),
    ),
)  # fmt: skip

# of `deepy.py score.py` alone: a training does not mind where these change
RELIED_ON_BY_SCORING: tuple[Place, ...] = (
    Place(
        "megatron.neox_arguments.arguments", "NeoXArgs.consume_neox_args",
        "reads the keys that the launcher sent, as train.py does", ("cls",), ("e4a6e6f65070bc77",),
    ),
    Place(
        "megatron.neox_arguments.arguments", "NeoXArgs.configure_distributed_args",
        "tells a process which one it is", ("self",), ("93530ed6ba566ef9",),
    ),
    Place(
        "megatron.neox_arguments.arguments", "NeoXArgs.build_tokenizer",
        "pads the vocabulary as in training", ("self",), ("83aedfd1baef0f2b",),
    ),
    Place(
        "megatron.initialize", "initialize_megatron",
        "makes the process groups", ("neox_args",), ("b782ad953a8b42c7",),
    ),
    Place(
        "megatron.training", "setup_model_and_optimizer",
        "builds the model, loads the checkpoint, and returns DeepSpeed's engine first",
        ("neox_args", "use_cache", "iteration"), ("5a3c354f35d81241",),
    ),
    Place(
        "megatron.training", "get_optimizer",
        "makes an optimizer of one parameter where no_load_optim is set", ("model", "neox_args"), ("7669bab71f3c21ea",),
    ),
    Place(
        "megatron.checkpointing", "load_checkpoint",
        "takes the weights alone where no_load_optim is set", ("neox_args", "model"), ("9210e06598c77cec",),
    ),
    Place(
        "megatron.model.utils", "SequentialWrapper.forward",
        "runs a model without a pipeline, outside of the engine", ("self", "forward_input"), ("1ca174ef873c544b",),
    ),
    Place(
        "megatron.model.utils", "get_params_for_weight_decay_optimization",
        "numbers the parameters whose second moments are read: those with weight decay first",
        ("module", "neox_args"), ("f22ede6d384f7c55",),
    ),
    Place(
        "megatron.mpu.initialize", "get_model_parallel_rank",
        "names the slice of this process", (), ("28dfb87c16781207",),
    ),
    Place(
        "megatron.mpu.initialize", "get_model_parallel_world_size",
        "says how many slices there are", (), ("b1a072560ca2ee0e",),
    ),
    Place(
        "megatron.mpu.initialize", "get_data_parallel_rank",
        "names the replica of this process", (), ("e0030d8328930473",),
    ),
)  # fmt: skip


def faults(root: Path) -> list[str]:
    """Every reason not to patch the checkout at ``root``, one line each; those of scoring where that is launched."""
    asked = RELIED_ON_BY_SCORING if is_scoring() else ()
    reasons = [place.fault(root) for place in (*TARGETS, *CPU_TARGETS, *RELIED_ON, *asked)]
    return [reason for reason in reasons if reason] + missing_requirements()
