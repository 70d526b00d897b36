"""The YAML keys that the embedded engine honours: GPT-NeoX's names, types and defaults, and ours.

A field is a key; the string under it is its documentation (the Markdown reference is made from it).
What the keys leave open, `ifguide.engine.settings.resolve` settles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ifguide.objectives.keys import ObjectiveKeys
from ifguide.penalties.keys import PenaltyKeys

InitMethod = Literal[
    "normal", "scaled_normal", "single_residual_scaled_normal", "small_init", "wang_init", "xavier_uniform",
    "xavier_normal",
]  # fmt: skip
TokenizerType = Literal["GPT2BPETokenizer", "HFTokenizer", "SPMTokenizer", "CharLevelTokenizer"]

REQUIRED = ("num_layers", "hidden_size", "num_attention_heads", "seq_length", "max_position_embeddings")


@dataclass
class TrainConfig(ObjectiveKeys, PenaltyKeys):
    """One training run. Sizes are in the units that the docstring of each field names."""

    # ---- model ----
    num_layers: int | None = None
    """Number of transformer layers. Required."""
    hidden_size: int | None = None
    """Width of the residual stream. Required."""
    num_attention_heads: int | None = None
    """Attention heads; must divide hidden_size. Required."""
    seq_length: int | None = None
    """Tokens per training sample. Required."""
    max_position_embeddings: int | None = None
    """Longest sequence the model is built for, in tokens; at least seq_length. Required."""
    num_kv_heads: int | None = None
    """Key/value heads of grouped-query attention; must divide num_attention_heads. Default: one per attention head."""
    intermediate_size: int | None = None
    """Width of the MLP; default 4 * hidden_size. A gated MLP is a third as wide, as in NeoX."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation layer; `rmsnorm` makes a Llama-style model, which needs a gated activation."""
    rms_norm_epsilon: float = 1.0e-8
    """Epsilon of norm rmsnorm."""
    layernorm_epsilon: float = 1.0e-5
    """Epsilon of the layer norms."""
    pos_emb: Literal["learned", "rotary"] = "learned"
    """Positions. NeoX's default is `learned`; the embedded engine has `rotary`, so set it."""
    rotary_pct: float = 1.0
    """Share of each head's dimensions that rotary embedding turns, in (0, 1]."""
    rotary_emb_base: int = 10000
    """Base of the rotary frequencies."""
    no_weight_tying: bool = False
    """true: input embedding and output layer are two matrices; false: one."""
    gpt_j_residual: bool = False
    """true: x + attn(ln1(x)) + mlp(ln2(x)) in parallel; false: attention first, MLP after."""
    activation: Literal["gelu", "relu", "silu", "swish", "mish", "swiglu", "geglu", "reglu", "glu", "bilinear"] = "gelu"
    """Activation of the MLP; the last five are gated and go with norm rmsnorm."""
    bias_gelu_fusion: bool = False
    """true: activation gelu is its tanh approximation, which NeoX's fused kernel computes; false: the exact one."""
    use_bias_in_attn_linear: bool = True
    """Biases in the attention's linear layers."""
    use_bias_in_mlp: bool = True
    """Biases in the MLP's linear layers; false only with norm rmsnorm."""
    make_vocab_size_divisible_by: int = 128
    """The vocabulary is padded up to a multiple of this."""
    init_method: InitMethod = "normal"
    """Initialisation of every weight but the two residual outputs of a layer."""
    output_layer_init_method: InitMethod = "scaled_normal"
    """Initialisation of the residual outputs: attention's and the MLP's last linear layer."""
    init_method_std: float = 0.02
    """Standard deviation of `normal`, and the base of `scaled_normal`."""
    hidden_dropout: float = 0.0
    """Dropout probability of hidden states."""
    attention_dropout: float = 0.0
    """Dropout probability of attention weights."""

    # ---- data ----
    data_path: str | None = None
    """Prefix of one token dataset, cut into training, validation and test by `split`."""
    split: str = "969, 30, 1"
    """Shares of the documents of data_path for training, validation, test."""
    train_data_paths: list[str] | None = None
    """Prefixes of the training datasets; together with valid_data_paths and test_data_paths."""
    valid_data_paths: list[str] | None = None
    """Prefixes of the validation datasets."""
    test_data_paths: list[str] | None = None
    """Prefixes of the test datasets."""
    train_data_weights: list[float] | None = None
    """How often to draw from each training dataset, relative; default equal."""
    valid_data_weights: list[float] | None = None
    """The same for validation."""
    test_data_weights: list[float] | None = None
    """The same for test."""
    tokenizer_type: TokenizerType = "GPT2BPETokenizer"
    """Tokenizer that made the datasets."""
    vocab_file: str | None = None
    """Vocabulary file of the tokenizer. Required except for CharLevelTokenizer."""
    merge_file: str | None = None
    """Merges of a GPT2BPETokenizer."""
    eod_mask_loss: bool = False
    """true: no loss where the input token is the end-of-document token."""

    # ---- optimisation ----
    objective: str = "lm"
    """What training minimises. `lm`: cross-entropy, with IF-Guide's penalty where a dataset has a mask; `dpo`, `npo`,
    `rmu` and `repo` read pairs of texts (docs/objectives.md)."""
    train_iters: int | None = None
    """Optimizer steps. One of train_iters and train_epochs is required."""
    train_epochs: int | None = None
    """Passes over the training data, instead of train_iters."""
    train_batch_size: int | None = None
    """Samples per optimizer step, over all processes."""
    train_micro_batch_size_per_gpu: int | None = None
    """Samples that one process handles at once."""
    gradient_accumulation_steps: int | None = None
    """Micro-batches per optimizer step and process; follows from the other two, else 1."""
    optimizer: dict[str, Any] | None = None
    """`type` (Adam or AdamW; both decouple weight decay, as NeoX's Adam) and `params` (lr, betas, eps). Required."""
    weight_decay: float = 0.1
    """Decoupled weight decay of matrices; layer norms and biases have none."""
    gradient_clipping: float = 1.0
    """Largest global L2 norm of the gradient; 0 turns it off."""
    lr_decay_style: Literal["constant", "linear", "cosine", "exponential"] = "linear"
    """Shape of the learning rate after the warm-up."""
    lr_decay_iters: int | None = None
    """Iterations over which it decays; default all of them."""
    lr_decay_fraction: float | None = None
    """The same as a share of train_iters."""
    min_lr: float = 0.0
    """Lowest learning rate after the warm-up."""
    warmup: float = 0.01
    """Share of the decay iterations over which the learning rate rises."""
    precision: Literal["fp32", "bfloat16", "fp16"] | None = None
    """Arithmetic; default fp32, or what fp16/bf16 enable."""
    fp16: dict[str, Any] | None = None
    """DeepSpeed's fp16 section; `enabled: true` means precision fp16 (needs a GPU)."""
    bf16: dict[str, Any] | None = None
    """DeepSpeed's bf16 section; `enabled: true` means precision bfloat16."""
    zero_optimization: dict[str, Any] | None = None
    """DeepSpeed's ZeRO section; stage 0, 1 or 2."""
    seed: int = 1234
    """Seed of initialisation, sample order and dropout."""

    # ---- run ----
    num_gpus: int | None = None
    """Processes to start on this machine (one a GPU, or so many on the CPU); default 1."""
    master_port: int | None = None
    """Port for the processes to meet; default a free one."""
    save: str | None = None
    """Folder for checkpoints, the Hugging Face export, train_log.jsonl and run.json."""
    load: str | None = None
    """Folder to continue from (its `latest` checkpoint); with `finetune` also a Hugging Face folder."""
    finetune: bool = False
    """true: take only the weights from `load` and start at iteration 0."""
    checkpoint_factor: int | float | None = None
    """Save every so many iterations (`linear`), or at powers of it (`log`). Required with save."""
    checkpoint_scale: Literal["linear", "log"] = "linear"
    """How checkpoint_factor counts."""
    extra_save_iters: list[int] | None = None
    """Further iterations to save at."""
    keep_last_n_checkpoints: int | None = None
    """Delete older checkpoints; default keep all."""
    log_interval: int = 100
    """Iterations per logged line."""
    eval_interval: int = 1000
    """Iterations between validations."""
    eval_iters: int = 100
    """Most batches of a validation; 0 turns it off."""
    exit_interval: int | None = None
    """Stop (after saving) at the first iteration that this divides, as if interrupted."""
    tensorboard_dir: str | None = None
    """Write TensorBoard logs here, under the names that GPT-NeoX logs with. Needs the package tensorboard."""
    use_wandb: bool = False
    """true: log to Weights & Biases too, from the first process. Needs the package wandb."""
    wandb_project: str = "neox"
    """Project of the W&B run."""
    wandb_group: str | None = None
    """Group of the W&B run."""
    wandb_run_name: str | None = None
    """Name of the W&B run."""
    wandb_team: str | None = None
    """Team (entity) of the W&B run."""
    wandb_host: str = "https://api.wandb.ai"
    """Address of the W&B server."""


def batch_sizes(
    world_size: int, batch: int | None, micro_batch: int | None, accumulation: int | None
) -> tuple[int, int, int]:
    """Settle (train_batch_size, micro-batch per process, accumulation steps) from what is given, as NeoX does.

    Raises:
        ValueError: nothing to start from, or batch != micro * accumulation * world_size.
    """
    given = (batch, micro_batch, accumulation)
    if batch is None and micro_batch is None:
        raise ValueError("train_batch_size or train_micro_batch_size_per_gpu is required")
    if micro_batch is None:
        accumulation = accumulation or 1
        micro_batch = (batch or 0) // world_size // accumulation
    elif accumulation is None:
        accumulation = 1 if batch is None else batch // micro_batch // world_size
    if batch is None:
        batch = micro_batch * accumulation * world_size
    if min(batch, micro_batch, accumulation) < 1 or batch != micro_batch * accumulation * world_size:
        raise ValueError(
            f"train_batch_size ({batch}) must be train_micro_batch_size_per_gpu ({micro_batch}) * "
            f"gradient_accumulation_steps ({accumulation}) * processes ({world_size}); given: {given}"
        )
    return batch, micro_batch, accumulation


def split_shares(split: str) -> tuple[float, ...]:
    """The shares that ``split`` names ("969, 30, 1", with commas or slashes).

    Raises:
        ValueError: not numbers.
    """
    return tuple(float(share) for share in split.replace("/", ",").split(","))


def reference() -> str:
    """The Markdown reference of these keys: ``python -m ifguide.engine.arguments > configs/ifguide_arguments.md``."""
    from ifguide.config.key_reference import markdown

    return markdown(TrainConfig, PenaltyKeys, ObjectiveKeys)


if __name__ == "__main__":
    print(reference(), end="")
