"""GPT-NeoX keys that the embedded engine does not honour, and what becomes of each.

`HARMLESS` changes how NeoX computes, never what, or belongs to another program: accepted, without effect.
`NEOX_ONLY` changes the result: accepted at its neutral value, refused at any other, because
silently training something else would be worse.
"""

from __future__ import annotations

from typing import Any

HARMLESS = frozenset(
    """
    deepspeed wall_clock_breakdown steps_per_print dump_state flops_profiler comms_logger
    communication_data_type fp32_allreduce prescale_gradients gradient_predivide_factor checkpoint
    activation_checkpointing data_types deepspeed_extra_args autotuning tensorboard wandb csv_monitor
    zero_stage zero_reduce_scatter zero_contiguous_gradients zero_reduce_bucket_size zero_allgather_bucket_size
    launcher master_addr no_ssh_check comment account distributed_backend use_shared_fs force_multi
    pipe_partition_method is_pipe_parallel output_layer_parallelism lazy_mpu_init
    layernorm_fusion rmsnorm_fusion rope_fusion bias_dropout_fusion
    scaled_upper_triang_masked_softmax_fusion scaled_masked_softmax_fusion fused_kernels_build_path
    attention_softmax_in_fp32 use_cpu_initialization rotary_save_freqs_buffer fp16_lm_cross_entropy
    use_bias_in_norms scalenorm_epsilon rpe_num_buckets rpe_max_distance param_sharing_style gmlp_attn_dim
    mamba_selective_scan_fusion mamba_causal_conv_fusion mamba_inner_func_fusion mamba_selective_fp32_params
    mamba_use_bias_in_conv mamba_use_bias_in_linears dim_att head_size ffn_dim use_flashattn_swiglu
    weight_server_port online_dataserver_ips online_dataserver_ports
    te_fp8_format te_fp8_wgrad te_fp8_amax_history_len te_fp8_amax_compute_algo te_fp8_margin
    checkpoint_activations checkpoint_num_layers deepspeed_activation_checkpointing contiguous_checkpointing
    checkpoint_in_cpu synchronize_each_layer profile_backward partition_activations
    data_impl mmap_warmup num_workers short_seq_prob weighted_sampler_alpha allow_chopped
    hysteresis dynamic_loss_scale loss_scale loss_scale_window min_scale
    checkpoint_validation_with_forward_pass s3_chunk_size config_files
    override_lr_scheduler use_checkpoint_lr_scheduler
    wandb_init_all_ranks git_hash log_dir
    use_comet comet_workspace comet_project comet_experiment_name comet_tags comet_others
    peak_theoretical_tflops log_grad_pct_zeros log_param_norm log_grad_norm log_optimizer_states
    log_gradient_noise_scale gradient_noise_scale_n_batches gradient_noise_scale_cpu_offload
    memory_profiling memory_profiling_path profile profile_step_start profile_step_stop
    onnx_safe deepscale deepscale_config adlr_autoresume adlr_autoresume_interval user_script char_level_ppl
    text_gen_type temperature top_p top_k return_logits maximum_tokens prompt_end sample_input_file
    sample_output_file num_samples recompute eval_results_prefix eval_tasks
    moe_expert_interval moe_top_k moe_router_type moe_lbl_in_fp32 moe_jitter_eps
    dpo_fp32 dpo_reference_free kto_fp32 kto_desirable_weight kto_undesirable_weight kto_beta
    fp32_reinforce kl_impl kl_div_beta reinforce_leave_one_out
    coord_check save_base_shapes base_shapes_file mup_init_scale mup_attn_temp mup_output_temp
    mup_embedding_mult mup_rp_embedding_mult mup_width_scale
    """.split()  # noqa: SIM905 (one key a line would bury the table below)
)

_UNSET: tuple[Any, ...] = (None, False)

# key -> the values at which NeoX does what the embedded engine does
NEOX_ONLY: dict[str, tuple[Any, ...]] = {
    "model_parallel_size": (0, 1),
    "pipe_parallel_size": (0, 1),
    "sequence_parallel": _UNSET,
    "moe_num_experts": (0, 1),
    "hostfile": _UNSET,
    "include": _UNSET,
    "exclude": _UNSET,
    "num_nodes": (None, -1, 1),
    "deepspeed_mpi": _UNSET,
    "deepspeed_slurm": _UNSET,
    "autotuning_run": _UNSET,
    "mlp_multiple_of": (None, 1),
    "expansion_factor": (None, 4),
    "sliding_window_width": _UNSET,
    "use_qk_layernorm": _UNSET,
    "opt_pos_emb_offset": (None, 0),
    "sparsity_config": (None, {}),
    "sparse_attention": (None, {}),
    "num_unique_layers": _UNSET,
    "apply_query_key_layer_scaling": _UNSET,
    "gpt_j_tied": _UNSET,
    "soft_prompt_tuning": (None, {}),
    "serve_model_weights": _UNSET,
    "te_columnparallel": _UNSET,
    "te_rowparallel": _UNSET,
    "te_layernorm_mlp": _UNSET,
    "te_mha": _UNSET,
    "te_fp8_mha": _UNSET,
    "use_bnb_optimizer": _UNSET,
    "scheduler": _UNSET,
    "sparse_gradients": _UNSET,
    "amp": _UNSET,
    "curriculum_learning": _UNSET,
    "curriculum_seqlen": (None, 0),
    "data_efficiency": _UNSET,
    "elasticity": _UNSET,
    "compression_training": _UNSET,
    "use_mup": _UNSET,
    "z_loss": (None, 0),
    "train_label_data_paths": _UNSET,
    "valid_label_data_paths": _UNSET,
    "test_label_data_paths": _UNSET,
    "train_reward_data_paths": _UNSET,
    "valid_reward_data_paths": _UNSET,
    "test_reward_data_paths": _UNSET,
    "pos_train_data_paths": _UNSET,
    "neg_train_data_paths": _UNSET,
    "pos_valid_data_paths": _UNSET,
    "neg_valid_data_paths": _UNSET,
    "pos_test_data_paths": _UNSET,
    "neg_test_data_paths": _UNSET,
    "pos_train_label_data_paths": _UNSET,
    "neg_train_label_data_paths": _UNSET,
    "pos_valid_label_data_paths": _UNSET,
    "neg_valid_label_data_paths": _UNSET,
    "pos_test_label_data_paths": _UNSET,
    "neg_test_label_data_paths": _UNSET,
    "precompute_model_name": _UNSET,
    "weight_by_num_documents": _UNSET,
    "pack_impl": (None, "packed"),
    "dataset_impl": (None, "gpt2"),
    "train_impl": (None, "normal"),
    "s3_path": _UNSET,
    "no_save_optim": _UNSET,
    "no_save_rng": _UNSET,
    "no_load_optim": _UNSET,
    "no_load_rng": _UNSET,
}

# NeoX derives these itself; in a YAML they would be ignored
DERIVED = {
    "lr": "optimizer.params.lr",
    "optimizer_type": "optimizer.type",
    "batch_size": "train_micro_batch_size_per_gpu",
    "clip_grad": "gradient_clipping",
    "padded_vocab_size": "make_vocab_size_divisible_by",
    "world_size": "num_gpus",
    "global_num_gpus": "num_gpus",
    "iteration": "load",
}

# choices of NeoX beyond those of TrainConfig's Literal, so that the message can say who has them
NEOX_CHOICES: dict[str, frozenset[str]] = {
    "norm": frozenset(["non_parametric_layernorm", "scalenorm", "te_rmsnorm", "te_layernorm"]),
    "pos_emb": frozenset(["sinusoidal", "rpe", "alibi", "none"]),
    "activation": frozenset(["softsign"]),
    "tokenizer_type": frozenset(["HFGPT2Tokenizer", "TiktokenTokenizer"]),
    "init_method": frozenset(["orthogonal", "scaled_orthogonal"]),
    "output_layer_init_method": frozenset(["orthogonal", "scaled_orthogonal"]),
}
