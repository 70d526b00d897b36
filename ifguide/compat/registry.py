"""Every use of a part of a dependency that is not public, or that moves: where, what, why, and what is expected of it.

`USES` is the table. `check` walks it against what is installed and names all that is not as expected; `report` says
the same of each entry. A dependency that is not installed is no fault. Nothing of a dependency is imported before its
entry is looked at, so this works without torch.

A use that is not in the table is a fault of ours: a test reads the code for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ifguide.compat import trials
from ifguide.compat.use import AS_EXPECTED, MISSING, NOT_INSTALLED, Use, version_of

_CACHE = "ifguide/compat/transformers_cache.py"
_ATTENTION = "ifguide/compat/transformers.py"
_KRONFLUENCE = "ifguide/compat/kronfluence.py"
_MEGATRON = "ifguide/compat/megatron.py"
_DETOXIFY = "ifguide/compat/detoxify.py"
_DEEPSPEED = "ifguide/compat/deepspeed.py"
_PIPELINE = "ifguide_patch/scoring/pipeline.py"
_LM_EVAL = "ifguide/compat/lm_eval.py"
_LM_EVAL_MODEL = "ifguide/compat/lm_eval_model.py"

USES: tuple[Use, ...] = (
    Use(
        "transformers", "transformers.cache_utils.CacheLayerMixin",
        (_CACHE,), "generation's layer of the key-value cache implements this protocol",
        behaves=trials.a_cache_of_our_layers,
    ),
    Use(
        "transformers", "transformers.cache_utils.DynamicCache",
        (_CACHE,), "makes the layers that a model needs, in `layers`, whose `keys` and `values` are read",
        parameters=("config",), behaves=trials.layers_of_a_new_cache,
    ),
    Use(
        "transformers", "transformers.cache_utils.DynamicLayer",
        (_CACHE,), "is the class, not a base, of the layers of plain full attention",
        behaves=trials.a_plain_layer_keeps_all,
    ),
    Use(
        "transformers", "transformers.cache_utils.Cache",
        (_CACHE,), "takes layers of other classes in the place of its own",
        parameters=("layers",), attributes=("update", "get_seq_length", "get_mask_sizes", "batch_repeat_interleave"),
    ),
    Use(
        "transformers", "transformers.GPTNeoXForCausalLM.forward",
        (_CACHE, "ifguide/generation/draw.py"), "is told a cache, positions, a mask and which logits to keep",
        parameters=("position_ids", "attention_mask", "use_cache", "logits_to_keep"), behaves=trials.names_its_cache,
    ),
    Use(
        "transformers", "transformers.GPTNeoXConfig",
        ("ifguide/generation/prefix_cache.py",),
        "tells of its rotary embedding in `rope_parameters`", behaves=trials.rope_parameters,
    ),
    Use(
        "transformers", "transformers.AttentionInterface",
        (_ATTENTION,), "runs forward-mode tangents through every model, and holds the fused kernel under `sdpa`",
        attributes=("register",), behaves=trials.fused_attention,
    ),
    Use(
        "transformers", "transformers.AttentionMaskInterface",
        (_ATTENTION,), "gives our attention the fused kernel's masks",
        attributes=("register",), behaves=trials.masks_of_fused_attention,
    ),
    Use(
        "transformers", "transformers.PreTrainedConfig._attn_implementation",
        (_ATTENTION,), "switches a model's attention for one batch", behaves=trials.switched_attention,
    ),
    Use(
        "transformers", "transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
        (_ATTENTION,), "names the class of a model type without loading it", behaves=trials.names_of_classes,
    ),
    Use(
        "transformers", "transformers.models.gpt_neox.modeling_gpt_neox.ALL_ATTENTION_FUNCTIONS",
        (_ATTENTION,), "stands in the module of every model whose attention can be exchanged",
    ),
    Use(
        "transformers", "transformers.pytorch_utils.Conv1D",
        (_ATTENTION,), "is GPT-2's linear layer with a transposed weight", behaves=trials.transposed_weight,
    ),
    Use(
        "huggingface_hub", "huggingface_hub.try_to_load_from_cache",
        (_ATTENTION,), "finds a snapshot, whose folder is named after its revision",
        parameters=("repo_id", "filename", "cache_dir"), behaves=trials.snapshot_folder,
    ),
    Use(
        "kronfluence", "kronfluence.Analyzer",
        (_KRONFLUENCE,), "fits the factors",
        parameters=("analysis_name", "model", "task", "cpu", "log_level", "disable_tqdm", "output_dir"),
        attributes=("set_dataloader_kwargs", "fit_all_factors", "load_all_factors"),
    ),
    Use(
        "kronfluence", "kronfluence.FactorArguments",
        (_KRONFLUENCE,), "tells how to fit them", behaves=trials.factor_arguments,
    ),
    Use(
        "kronfluence", "kronfluence.Task",
        (_KRONFLUENCE,), "asks for the loss, the layers and the padding",
        attributes=("compute_train_loss", "compute_measurement", "get_influence_tracked_modules", "get_attention_mask"),
    ),
    Use(
        "kronfluence", "kronfluence.prepare_model",
        (_KRONFLUENCE,), "wraps the tracked layers", parameters=("model", "task"),
    ),
    Use(
        "kronfluence", "kronfluence.utils.dataset.DataLoaderKwargs",
        (_KRONFLUENCE,), "lets a batch of ours be one example", parameters=("collate_fn",),
    ),
    Use(
        "kronfluence", "kronfluence.utils.constants",
        ("ifguide/influence/curvature/fit.py",), "names what it computes", behaves=trials.names_of_factors,
    ),
    Use(
        "megatron-core", "megatron.core.parallel_state",
        (_MEGATRON,), "is imported first: megatron.core.utils and it import each other",
        loads=trials.import_megatron,
    ),
    Use(
        "megatron-core", "megatron.core.datasets.gpt_dataset",
        (_MEGATRON, "ifguide/engine/packing.py"), "packs samples, from a low-level dataset of ours",
        behaves=trials.packing,
        loads=trials.import_megatron,
    ),
    Use(
        "megatron-core", "megatron.core.datasets.gpt_dataset.GPTDataset._query_document_sample_shuffle_indices",
        (_MEGATRON,), "reads a sample's values of any width, before they are taken for tokens",
        parameters=("self", "idx"),
        loads=trials.import_megatron,
    ),
    Use(
        "megatron-core", "megatron.core.datasets.blended_megatron_dataset_builder",
        (_MEGATRON,), "builds the three splits", attributes=("BlendedMegatronDatasetBuilder",),
        behaves=trials.builder_of_splits,
        loads=trials.import_megatron,
    ),
    Use(
        "megatron-core", "megatron.core.datasets.utils",
        (_MEGATRON,), "names the splits", attributes=("Split",),
        loads=trials.import_megatron,
    ),
    Use(
        "megatron-core", "megatron.core.datasets.helpers",
        (_MEGATRON,), "is compiled, and comes with wheels alone",
        loads=trials.import_megatron,
    ),
    Use(
        "megatron-core", "megatron.core.datasets.indexed_dataset.IndexedDatasetBuilder",
        (_MEGATRON, "ifguide/data/preprocess.py"), "writes token files and tells what it wrote",
        parameters=("bin_path", "dtype"), behaves=trials.writer_of_tokens,
        loads=trials.import_megatron,
    ),
    Use(
        "detoxify", "detoxify.detoxify.get_model_and_tokenizer",
        (_DETOXIFY,), "makes model and tokenizer of weights that were read without running what they contain",
        parameters=("model_type", "model_name", "tokenizer_name", "num_classes", "state_dict"),
    ),
    Use(
        "deepspeed", "deepspeed.launcher.launch",
        (_DEEPSPEED,), "starts a run's processes from this one", attributes=("main",), behaves=trials.launcher,
    ),
    Use(
        "deepspeed", "deepspeed.launcher.runner",
        ("ifguide_patch/apply.py",), "hands on the variables named in EXPORT_ENVS", attributes=("EXPORT_ENVS",),
        behaves=trials.exported_variables,
    ),
    Use(
        "deepspeed", "deepspeed.runtime.pipe.schedule",
        (_PIPELINE,), "says what a stage does for some micro-batches, forward alone or back too",
        attributes=("InferenceSchedule", "TrainSchedule", "OptimizerStep", "ReduceGrads", "ReduceTiedGrads"),
    ),
    Use(
        "deepspeed", "deepspeed.runtime.pipe.engine.PipelineEngine._exec_schedule",
        (_PIPELINE,), "does it without waiting for other replicas", parameters=("self", "pipe_schedule"),
    ),
    Use(
        "deepspeed", "deepspeed.runtime.pipe.engine.PipelineEngine._INSTRUCTION_MAP",
        (_PIPELINE,), "is where what belongs to a training step is left out", behaves=trials.instructions_of_a_pipeline,
    ),
    Use(
        "deepspeed", "deepspeed.runtime.pipe.engine.PipelineEngine._compute_loss",
        (_PIPELINE,), "is set before a schedule runs", behaves=trials.asks_for_a_loss, of_instances=True,
    ),
    Use(
        "deepspeed", "deepspeed.ops.__compatible_ops__",
        ("ifguide/compat/deepspeed.py",), "says which operators may be compiled; one that costs a minute is struck out",
        behaves=trials.compatible_operators,
    ),
    Use(
        "lm_eval", "lm_eval.models.huggingface.HFLM._loglikelihood_tokens",
        (_LM_EVAL, _LM_EVAL_MODEL), "is where its bar is silenced, and its cache of logits mended",
        parameters=("self", "requests", "disable_tqdm", "override_bs"),
    ),
    Use(
        "lm_eval", "lm_eval.models.huggingface.HFLM._create_tokenizer",
        (_LM_EVAL_MODEL,), "is where our reader of text takes the place of transformers' tokenizer",
    ),
    Use(
        "lm_eval", "lm_eval.models.huggingface.HFLM.tok_encode",
        (_LM_EVAL, "ifguide/evaluation/lm/batches.py"), "reads a text, with the template's tokens or without",
        parameters=("self", "string", "add_special_tokens", "left_truncate_len"),
    ),
    Use(
        "lm_eval", "lm_eval.models.huggingface.HFLM.tok_batch_encode",
        ("ifguide/evaluation/lm/batches.py",), "reads the prompts of a batch",
        parameters=("self", "strings", "padding_side", "left_truncate_len", "truncation"),
    ),
    Use(
        "lm_eval", "lm_eval.models.huggingface.HFLM.loglikelihood_rolling",
        (_LM_EVAL, _LM_EVAL_MODEL), "reads a text by `tok_encode` after `prefix_token_id`",
        parameters=("self", "requests", "disable_tqdm"),
    ),
    Use(
        "lm_eval", "lm_eval.models.huggingface.HFLM.loglikelihood",
        (_LM_EVAL, _LM_EVAL_MODEL), "reads context and continuation by `tok_encode`",
        parameters=("self", "requests", "disable_tqdm"),
    ),
    Use(
        "lm_eval", "lm_eval.utils.get_rolling_token_windows",
        (_LM_EVAL_MODEL,), "cuts a text into windows",
        parameters=("token_list", "prefix_token", "max_seq_len", "context_len"),
    ),
    Use(
        "lm_eval", "lm_eval.utils.make_disjoint_window",
        (_LM_EVAL_MODEL,), "leaves what a window reads again out of its context",
    ),
    Use(
        "lm_eval", "lm_eval.models.huggingface.HFLM._batch_scheduler",
        (_LM_EVAL_MODEL,), "asks for the rows of each batch", parameters=("self", "pos", "n_reordered_requests"),
    ),
    Use(
        "lm_eval", "lm_eval.models.huggingface.HFLM._detect_batch_size",
        (_LM_EVAL_MODEL,), "asks for the rows of all batches", parameters=("self", "requests", "pos"),
    ),
    Use(
        "lm_eval", "lm_eval.models.huggingface.HFLM",
        (_LM_EVAL, _LM_EVAL_MODEL), "takes a loaded model; its batch size is `batch_size_per_gpu`",
        parameters=("pretrained", "tokenizer", "backend", "max_length", "batch_size", "logits_cache"),
        behaves=trials.batch_size_of_the_model,
    ),
    Use(
        "lm_eval", "lm_eval.models.utils.normalize_gen_kwargs",
        ("ifguide/evaluation/lm/model.py",), "gives the options of a decoding one form",
        behaves=trials.decoding_options,
    ),
    Use(
        "lm_eval", "lm_eval.api.instance.Instance",
        ("ifguide/evaluation/lm/model.py", "ifguide/evaluation/lm/batches.py"), "is a request",
        parameters=("request_type", "doc", "arguments", "idx", "metadata", "task_name", "doc_id"), attributes=("args",),
    ),
    Use(
        "lm_eval", "lm_eval.api.registry",
        (_LM_EVAL,), "knows the filter of the toxicity tasks by name", attributes=("FILTER_REGISTRY",),
        behaves=trials.filters,
    ),
    Use(
        "lm_eval", "lm_eval.filters",
        (_LM_EVAL,), "knew it before 0.4.2",
    ),
    Use(
        "lm_eval", "lm_eval.tasks.TaskManager",
        (_LM_EVAL, "ifguide/evaluation/run.py"), "finds and loads tasks",
        parameters=("include_path", "include_defaults"), attributes=("load", "all_tasks"),
    ),
    Use(
        "lm_eval", "lm_eval.evaluator.evaluate",
        (_LM_EVAL, "ifguide/evaluation/run.py"), "runs them and returns every sample",
        parameters=("lm", "task_dict", "limit", "bootstrap_iters", "log_samples"),
    ),
    Use(
        "lm_eval", "lm_eval.__main__",
        (_LM_EVAL,), "is its command line", attributes=("cli_evaluate",),
    ),
    Use(
        "evaluate", "evaluate.load",
        (_LM_EVAL,), "would fetch a metric while lm-eval 0.4.1 is imported", parameters=("path",),
    ),
    Use(
        "datasets", "datasets.Dataset._fingerprint",
        ("ifguide/compat/datasets.py",), "tells one data set from another", behaves=trials.fingerprint,
        of_instances=True,
    ),
    Use(
        "argparse", "argparse.ArgumentParser._actions",
        ("ifguide/compat/argparse.py",), "lists the options that replay turns into absolute paths",
        behaves=trials.actions, of_instances=True,
    ),
    Use(
        "PyYAML", "yaml.SafeLoader",
        ("ifguide/config/yaml_files.py",), "lets us see each key, to find one that is given twice",
        attributes=("construct_mapping", "construct_object", "get_single_data", "dispose"),
        behaves=trials.every_key_is_constructed,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """What became of one entry.

    Attributes:
        use: the entry.
        version: of the dependency, None where it is not installed or belongs to Python.
        state: `AS_EXPECTED`, `CHANGED`, `MISSING` or `NOT_INSTALLED`.
        reason: what is not as expected.
    """

    use: Use
    version: str | None
    state: str
    reason: str | None

    @property
    def fault(self) -> str | None:
        """One line: the part, what is wrong, which version, what needs it. None if nothing is wrong."""
        if self.state in (AS_EXPECTED, NOT_INSTALLED):
            return None
        found = f"{self.use.dependency} {self.version}" if self.version else self.use.dependency
        what = "is missing" if self.state == MISSING else "is not as expected"
        return f"{self.use.what} {what} in {found}: {self.reason} ({self.use.why}; {', '.join(self.use.where)})"


def report(dependencies: Collection[str] | None = None) -> Iterator[Finding]:
    """The table against what is installed, entry by entry.

    Args:
        dependencies: look at these alone; None for all.
    """
    for use in USES:
        if dependencies is None or use.dependency in dependencies:
            state, reason = use.state()
            yield Finding(use, version_of(use.dependency), state, reason)


def check(dependencies: Collection[str] | None = None) -> list[str]:
    """All that is not as expected, one line each, in the table's order; imports every dependency that is looked at.

    Args:
        dependencies: look at these alone; None for all.
    """
    return [found.fault for found in report(dependencies) if found.fault]
