"""axolotl's keys of the model, of adapters and of quantised weights."""

from alignment.importing import axolotl_training as run
from alignment.importing import axolotl_values as to
from alignment.importing.keys import converted, dropped, each, refused, renamed, same
from alignment.importing.values import FASTER, NOT_ROUNDED, REMOTE_CODE, attention, eight_bits, from_scratch

MULTIMODAL = "is of images and sound; text alone is trained here"
MODEL = (
    converted("base_model", "model_name_or_path", "", to.model),
    converted("lora_model_dir", "model_name_or_path", "an adapter that goes on training", to.adapter_path),
    renamed("revision_of_model", "model_revision"),
    same("model_revision"),
    *each(converted, "base_model_config tokenizer_config", "", "it is of the model's folder", to.of_the_model),
    *each(
        dropped, "model_type type_of_model tokenizer_type cls_model_config is_llama_derived_model "
        "is_falcon_derived_model is_mistral_derived_model is_qwen_derived_model tokenizer_use_fast tokenizer_legacy "
        "tokenizer_save_jinja_files tokenizer_use_mistral_common base_model_ignore_patterns",
        "it follows from the model's folder",
    ),
    dropped("trust_remote_code", REMOTE_CODE),
    converted("bf16", "bf16", "`dtype: bfloat16` too", run.bf16, default="auto"),
    converted("fp16", "fp16", "`dtype: float16` too", run.fp16),
    converted("bfloat16", "dtype", "", run.pure("bfloat16")),
    converted("float16", "dtype", "", run.pure("float16")),
    converted("float32", "dtype", "", run.pure("float32")),
    renamed("torch_dtype", "dtype"),
    converted("tf32", "tf32", "", run.tf32),
    converted("attn_implementation", "attn_implementation", "", lambda _, value: attention(value)),
    converted("flash_attention", "attn_implementation", "flash_attention_2", to.attention_named("flash_attention_2")),
    converted("sdp_attention", "attn_implementation", "sdpa", to.attention_named("sdpa")),
    converted("eager_attention", "attn_implementation", "eager", to.attention_named("eager")),
    converted("flex_attention", "attn_implementation", "flex_attention", to.attention_named("flex_attention")),
    *each(dropped, "xformers_attention sage_attention", "the implementation is chosen by the machine"),
    converted("gradient_checkpointing", "gradient_checkpointing", "", run.checkpointing, default=False),
    *each(
        dropped, "gradient_checkpointing_kwargs selective_checkpointing activation_offloading layer_offloading "
        "low_cpu_mem_usage pad_to_sequence_len flash_attn_cross_entropy flash_attn_rms_norm flash_attn_fuse_mlp "
        "flash_attn_fuse_qkv flash_optimum unsloth_cross_entropy_loss unsloth_lora_mlp unsloth_lora_qkv "
        "unsloth_lora_o unsloth_rms_norm unsloth_rope chunked_cross_entropy chunked_cross_entropy_num_chunks "
        "cut_cross_entropy fused_attn_kernel use_kernels use_scattermoe use_sonicmoe experts_implementation "
        "llama4_linearized_experts flex_attn_compile_kwargs torch_compile_options deepcompile tiled_mlp "
        "tiled_mlp_num_shards tiled_mlp_use_original_mlp experimental_skip_move_to_device gemma4_hybrid_attn_impl "
        "large_head_attention flash_attn_d512 sdpa_varlen lora_mlp_kernel lora_qkv_kernel lora_o_kernel "
        "lora_embedding_kernel embeddings_skip_upcast torch_empty_cache_steps gc_steps gc_collect_steps "
        "dsv4_fp4_grouped_mode use_dsv4_kernels use_glm_dsa_kernels expert_parallel_num_nvl_bytes "
        "expert_parallel_token_capacity xformers_attention_kwargs dataloader_pin_memory dataloader_prefetch_factor "
        "use_otel_metrics otel_metrics_host otel_metrics_port", FASTER,
    ),
    *each(
        dropped,
        "liger_rope liger_rms_norm liger_layer_norm liger_glu_activation liger_rms_norm_gated liger_cross_entropy "
        "liger_fused_linear_cross_entropy liger_use_token_scaling swiglu_use_kernel liger_swiglu "
        "pad_to_multiple_of collator_pad_to_longest qlora_fsdp_alt_loader", FASTER,
    ),
    converted("torch_compile", "torch_compile", "", run.compile),
    *each(
        converted, "model_config overrides_of_model_config", "router_aux_loss_coef",
        "`sft`: the load-balancing loss of experts; other keys are refused", to.configuration,
    ),
    *each(dropped, "torch_compile_backend torch_compile_mode", FASTER),
    *each(
        refused,
        "s2_attention use_pose overrides_of_model_kwargs rope_scaling use_onebitllms scaling_softmax "
        "added_tokens_overrides shrink_embeddings fix_untrained_tokens",
        "it changes the model, which is trained as its folder describes it",
    ),
    *each(
        dropped,
        "resize_token_embeddings_to_32x mean_resizing_embeddings scaling_softmax_factor scaling_softmax_bias",
        "new rows of the embeddings are the mean of their pieces",
    ),
    *each(
        refused, "model_quantization_config model_quantization_config_kwargs",
        "a checkpoint of quantised weights is not dequantised; name a copy of the model in 16 bits",
    ),
    converted("reinit_weights", "from_scratch", "stage `pretrain`", from_scratch),
    *each(refused, "processor_type image_size image_resize_algorithm freeze_mm_modules", MULTIMODAL),
    *each(dropped, "skip_prepare_dataset processor_kwargs", "rows are read anew at each start"),
)  # fmt: skip
TUNING = (
    converted("adapter", "peft_method", "qlora is lora with load_in_4bit", to.adapter, default=None),
    converted("load_in_8bit", "load_in_8bit", NOT_ROUNDED, eight_bits),
    converted("load_in_4bit", "load_in_4bit", "", to.four),
    converted("bnb_config_kwargs", "use_bnb_nested_quant", "and bnb_4bit_quant_type", to.quantizer),
    to.lora("lora_r", "lora_r"),
    to.lora("lora_alpha", "lora_alpha"),
    to.lora("lora_dropout", "lora_dropout", default=0.0),
    to.lora("lora_target_linear", "lora_target_modules", "all-linear", to.linear),
    to.lora("lora_target_modules", "lora_target_modules", "", to.targets),
    to.lora("lora_modules_to_save", "lora_modules_to_save"),
    to.lora("lora_target_parameters", "peft_config", "target_parameters", to.field("target_parameters")),
    to.lora("peft_layers_to_transform", "peft_config", "layers_to_transform", to.field("layers_to_transform")),
    to.lora("peft_layers_pattern", "peft_config", "layers_pattern", to.field("layers_pattern")),
    to.lora("lora_rank_pattern", "peft_config", "rank_pattern", to.field("rank_pattern")),
    to.lora("lora_alpha_pattern", "peft_config", "alpha_pattern", to.field("alpha_pattern")),
    to.lora("peft_init_lora_weights", "peft_config", "init_lora_weights", to.field("init_lora_weights")),
    to.lora("peft_use_rslora", "use_rslora"),
    to.lora("peft_use_dora", "peft_method", "dora", lambda _, value: {"peft_method": "dora" if value else "lora"}),
    to.lora("loraplus_lr_ratio", "loraplus_lr_ratio"),
    *each(
        dropped,
        "lora_fan_in_fan_out lora_on_cpu qlora_sharded_model_loading loraplus_lr_embedding merge_lora merge_method "
        "peft_autocast_adapter_dtype gptq_groupsize gptq_model_v1 gptq_disable_exllama nvfp4_merge_aware",
        "it does not change what is trained",
    ),
    *each(
        refused,
        "gptq peft_layer_replication peft_trainable_token_indices peft_ensure_weight_tying qat quantization",
        "it is not supported",
    ),
    refused("quantize_moe_experts", "load_in_4bit and load_in_8bit hold linear layers, and experts stay in 16 bits; "
            "give the key up where memory allows it"),
    refused("peft", "starts from LoftQ, which is not supported; init_lora_weights: pissa is"),
    converted("unfrozen_parameters", "", "refused: patterns of parameters", to.unfrozen),
    *each(
        refused, "relora lisa_n_layers spectrum_top_fraction", "restarts or layers that alternate are not supported",
    ),
    *each(
        dropped, "relora_steps relora_warmup_steps relora_anneal_steps relora_prune_ratio relora_cpu_offload "
        "jagged_restart_steps jagged_restart_warmup_steps jagged_restart_anneal_steps lisa_step_interval "
        "lisa_layers_attribute spectrum_model_name relora_prune_method pose_split_on_token_ids pose_max_context_len "
        "pose_num_chunks", "it is of a key that is refused where it is on",
    ),
    *each(refused, "fp8 fp8_enable_fsdp_float8_all_gather", "computation in 8 bits is not supported"),
    converted("plugins", "", "those that make the same computation faster are dropped, others refused", to.plugins),
    *each(refused, "trainer_cls diffusion ebft llmcompressor nemo_gym_enabled", to.CODE),
    dropped("full_finetune", "it follows from adapter"),
)  # fmt: skip
