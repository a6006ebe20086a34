"""LLaMA-Factory: its keys, as its classes of arguments define them (`src/llamafactory/hparams`, August 2026)."""

from typing import Any

from alignment.errors import RecipeError
from alignment.importing import llamafactory_losses as losses
from alignment.importing import llamafactory_values as to
from alignment.importing import training
from alignment.importing.conversion import Conversion, Peer
from alignment.importing.keys import converted, dropped, each, refused, renamed, same
from alignment.importing.llamafactory_data import datasets
from alignment.importing.values import FASTER, NOT_ROUNDED, TRACKING, from_scratch, held_out, target_modules

OTHER_LOSS = "no loss here is the same"
OTHER_OPTIMIZER = "no optimizer of transformers' Trainer is the same; name one in optim"
PARALLEL = "tensor, pipeline and expert parallelism are not supported; ZeRO-3 and FSDP2 shard the weights"
MULTIMODAL = "is of images, video and audio; text alone is trained here"
KL = {"kl_coef": 0.2, "kl_estimator": "k1", "kl_placement": "reward", "adaptive_kl_horizon": 10_000}
LOSS = {"cliprange": 0.2, "cliprange_high": 0.2, "dual_clip": None, "vf_coef": 0.1, "cliprange_value": 0.2,
        "gamma": 1.0, "lam": 0.95, "lam_value": 0.95, "value_model": "head", "advantage_estimator": "gae"}  # fmt: skip
MODEL = (
    converted("model_name_or_path", "model_name_or_path", "", to.model),
    converted("adapter_name_or_path", "model_name_or_path", "one adapter, which goes on training", to.adapter),
    same("model_revision"),
    converted("flash_attn", "attn_implementation", "fa2, fa3, sdpa, disabled by their names here", to.flash),
    converted(
        "disable_gradient_checkpointing", "gradient_checkpointing", "the opposite", to.checkpointing, default=False,
    ),
    converted("quantization_bit", "load_in_4bit", f"8 is `load_in_8bit`: {NOT_ROUNDED}", to.bits),
    converted("quantization_type", "bnb_4bit_quant_type", "", to.of_bits("bnb_4bit_quant_type"), default="nf4"),
    converted("double_quantization", "use_bnb_nested_quant", "", to.of_bits("use_bnb_nested_quant"), default=True),
    converted("quantization_method", "", "bitsandbytes alone", to.quantizer),
    converted("pure_bf16", "dtype", "bfloat16", to.pure),
    converted("add_tokens", "add_tokens", "stage `sft`", to.tokens),
    converted("add_special_tokens", "add_tokens", "stage `sft`", to.tokens),
    converted("train_from_scratch", "from_scratch", "stage `pretrain`", from_scratch),
    *each(
        dropped, "use_fast_tokenizer low_cpu_mem_usage cache_dir adapter_folder use_kv_cache offload_folder",
        "it does not change what is trained",
    ),
    *each(dropped, "use_unsloth use_unsloth_gc use_reentrant_gc use_v1_kernels use_kernels", FASTER),
    *each(
        dropped, "upcast_layernorm upcast_lmhead_output",
        "computation is in bf16 or float32, as dtype and bf16 have it",
    ),
    *each(
        dropped, "resize_vocab print_param_status split_special_tokens",
        "add_tokens resizes the vocabulary; it needs no key",
    ),
    *each(dropped, "hf_hub_token ms_hub_token om_hub_token", "the Hub's client reads HF_TOKEN"),
    *each(
        dropped,
        "infer_dtype vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank vllm_config sglang_maxlen "
        "sglang_mem_fraction sglang_tp_size sglang_config sglang_lora_backend",
        "it is of inference; see `alignment serve`",
    ),
    *each(
        refused, "rope_scaling shift_attn mixture_of_depths",
        "it changes the model, which is trained as its folder describes it",
    ),
    converted("moe_aux_loss_coef", training.EXPERTS, "absent: 0", losses.experts, stages=("sft", "pretrain")),
    *each(
        refused, "new_special_tokens_config init_special_tokens", "tokens start as the mean of their pieces",
        off=(None, "noise_init"),
    ),
    refused("quantization_device_map", "the launcher places the model"),
    *each(
        refused,
        "use_kt kt_config kt_cpu_activation kt_weight_path kt_non_expert_weight_path kt_expert_checkpoint_path "
        "kt_use_lora_experts kt_lora_expert_num kt_lora_expert_intermediate_size",
        "experts on the processor (KTransformers) are not supported",
    ),
    *each(
        dropped,
        "image_max_pixels image_min_pixels image_do_pan_and_scan crop_to_patches video_max_pixels video_min_pixels "
        "video_fps video_maxlen use_audio_in_video audio_sampling_rate freeze_vision_tower "
        "freeze_multi_modal_projector media_dir image_resolution video_resolution image_max_resolution "
        "video_max_resolution", MULTIMODAL,
    ),
    refused("visual_inputs", "text alone is trained here, no images"),
    refused("train_mm_proj_only", "trains a part of a multimodal model"),
    refused("freeze_language_model", "trains a part of a multimodal model"),
)  # fmt: skip
DATA = (
    converted("dataset", "datasets", "by `dataset_info.json`", datasets("datasets")),
    converted("eval_dataset", "eval_datasets", "by `dataset_info.json`", datasets("eval_datasets")),
    dropped("dataset_dir", "it is a part of each path", default="data"),
    converted("template", "chat_template", "the tokenizer's own, or one of this package", to.template),
    converted("cutoff_len", "max_length", "`ppo`: `max_prompt_length`", to.cutoff, default=2048),
    converted("max_samples", "datasets", "`split`, of each data set: `train[:N]`", to.max_samples),
    converted("val_size", "test_split_size", "a share; of a number of rows, slices of `split`", held_out),
    converted("packing", "packing", "documents do not attend to each other", to.packing, stages=("sft", "pretrain")),
    converted("neat_packing", "packing", "", to.neat, stages=("sft",)),
    converted("preprocessing_num_workers", "dataset_num_proc", "", to.workers),
    converted("streaming", "streaming", "`pretrain`; elsewhere data are read whole", to.streaming),
    renamed("buffer_size", "shuffle_buffer_size", stages=("pretrain",)),
    converted(
        "mix_strategy", "datasets", "interleaved: `fraction`, equal ones without interleave_probs", to.mixing,
        default="concat",
    ),
    dropped("interleave_probs", "they are the fraction of each data set"),
    refused("train_on_prompt", "loss is always on answers alone"),
    refused("mask_history", "earlier answers are trained too; mark those to leave out with weight: 0 in the data"),
    *each(
        dropped, "overwrite_cache preprocessing_batch_size data_shared_file_system tokenized_path",
        "rows are read anew at each start",
    ),
    *each(dropped, "ignore_pad_token_for_loss eval_num_beams eval_on_each_dataset", "padding is never trained"),
    dropped("tool_format", "the chat template writes tools and calls"),
    refused("default_system", "write the system message into the rows, or a chat_template with it"),
    dropped("enable_thinking", "the chat template decides about reasoning"),
    *each(refused, "preserve_thinking", "the chat template decides about reasoning"),
)  # fmt: skip
TUNING = (
    converted("stage", "stage", "pt is pretrain, rm is reward", to.stage_key),
    converted("finetuning_type", "peft_method", "", to.method, default="lora"),
    to.lora("lora_rank", "lora_r", default=8),
    to.lora("lora_alpha", "lora_alpha", "absent: twice lora_rank", to.alpha, default=None),
    to.lora("lora_dropout", "lora_dropout", default=0.0),
    to.lora(
        "lora_target", "lora_target_modules", "`all` is `all-linear`",
        lambda _, value: {"lora_target_modules": target_modules(value)}, default="all",
    ),
    to.lora("use_rslora", "use_rslora"),
    to.lora("use_dora", "peft_method", "dora", lambda _, value: {"peft_method": "dora" if value else "lora"}),
    to.lora("loraplus_lr_ratio", "loraplus_lr_ratio"),
    dropped("loraplus_lr_embedding", "embeddings get no adapter"),
    to.lora("pissa_init", "peft_config", "init_lora_weights", to.pissa),
    dropped("pissa_iter", "it is a part of init_lora_weights", default=16),
    dropped("pissa_convert", "an adapter that starts with PiSSA is always saved as plain LoRA"),
    converted("additional_target", "lora_modules_to_save", "", to.modules),
    dropped("create_new_adapter", "an adapter that is named goes on training, else a new one starts"),
    converted("oft_rank", "peft_config", "r", to.oft("r"), default=0),
    converted("oft_block_size", "peft_config", "oft_block_size", to.oft("oft_block_size"), default=32),
    converted("module_dropout", "peft_config", "module_dropout", to.oft("module_dropout"), default=0.0),
    converted("oft_target", "peft_config", "target_modules", to.oft("target_modules"), default="all"),
    converted(
        "freeze_trainable_layers", "peft_config", "trainable_layers", to.only_for("freeze", to.layers), default=2,
    ),
    converted("num_layer_trainable", "peft_config", "trainable_layers", to.only_for("freeze", to.layers)),
    *each(
        converted, "freeze_trainable_modules name_module_trainable", "", "all of each layer",
        to.only_for("freeze", to.frozen),
    ),
    refused("freeze_extra_modules", "name the modules in peft_config: {modules_to_save: [...]}"),
    refused("use_llama_pro", "trains new layers of an expanded model"),
    *each(
        refused, "use_galore use_apollo",
        "give the key up, and name galore_adamw or apollo_adamw in optim, with optim_target_modules and optim_args",
    ),
    *each(refused, "use_badam use_adam_mini use_muon", OTHER_OPTIMIZER),
    *each(
        dropped, "galore_target galore_rank galore_update_interval galore_scale galore_proj_type galore_layerwise "
        "apollo_target apollo_rank apollo_update_interval apollo_scale apollo_proj apollo_proj_type "
        "apollo_scale_type apollo_layerwise apollo_scale_front badam_mode badam_start_block badam_switch_mode "
        "badam_switch_interval badam_update_ratio badam_mask_mode badam_verbose",
        "it is of an optimizer that is refused where it is on",
    ),
    converted("use_dft_loss", "loss_type", "dft", losses.dft, stages=("sft",)),
    *each(refused, "use_asft_loss use_eaft_loss", OTHER_LOSS),
    *each(dropped, "asft_alpha eaft_alpha", "it is of a loss that is refused where it is on"),
    *each(refused, "use_mca use_megatron_bridge use_hyper_parallel", PARALLEL),
    *each(
        refused,
        "tensor_model_parallel_size pipeline_model_parallel_size context_parallel_size expert_model_parallel_size "
        "hyper_parallel_cp_size", PARALLEL, off=(None, 1),
    ),
    *each(
        dropped,
        "sequence_parallel bias_activation_fusion apply_rope_fusion use_distributed_optimizer overlap_param_gather "
        "overlap_grad_reduce moe_grouped_gemm moe_token_dispatcher_type recompute_granularity mixed_precision "
        "use_packed_sequences export_hf_on_finish hyper_parallel_args", "it is of Megatron's engine",
    ),
    *each(refused, "fp8 fp8_enable_fsdp_float8_all_gather", "computation in 8 bits is not supported"),
    dropped("fp8_backend", "it is of fp8, which is refused where it is on"),
    converted("disable_shuffling", "train_sampling_strategy", "sequential", to.order),
    converted("early_stopping_steps", "early_stopping_patience", "", to.early),
    dropped("plot_loss", "`alignment report` draws the curves"),
    dropped("compute_accuracy", "accuracy is logged always"),
    *each(
        dropped, "enable_torch_profiler profiler_output_dir profiler_wait_steps profiler_warmup_steps "
        "profiler_active_steps profiler_repeat profiler_record_shapes profiler_profile_memory profiler_with_stack "
        "profile_modules", "it does not change what is trained",
    ),
    *each(dropped, "include_effective_tokens_per_second include_tokens_per_second", "speed is logged always"),
    converted("use_swanlab", "report_to", "swanlab", to.swanlab),
    renamed("swanlab_project", "project"),
    renamed("swanlab_run_name", "run_name"),
    *each(
        dropped,
        "swanlab_workspace swanlab_mode swanlab_api_key swanlab_logdir swanlab_lark_webhook_url swanlab_lark_secret",
        TRACKING,
    ),
    *each(
        dropped, "ray_run_name ray_storage_path ray_storage_filesystem ray_num_workers resources_per_worker "
        "placement_strategy ray_init_kwargs master_addr master_port", "jobs start with `alignment launch`",
    ),
)  # fmt: skip
PREFERENCES = (
    converted("pref_loss", "loss_type", "", losses.loss, default="sigmoid", stages=("dpo",)),
    converted("dpo_loss", "loss_type", "", losses.loss, stages=("dpo",)),
    renamed("dpo_beta", "beta", stages=("dpo",)),
    renamed("orpo_beta", "beta", stages=("dpo",)),
    converted("dpo_ftx", "loss_type", "`[LOSS, sft]` with `loss_weights`", losses.ftx, stages=("dpo",)),
    refused("kto_ftx", "KTO's loss is not mixed with that of answers"),
    renamed("pref_beta", "beta", default=0.1, stages=("dpo", "kto")),
    converted("pref_ftx", "loss_type", "`[LOSS, sft]` with `loss_weights`", losses.ftx, stages=("dpo", "kto")),
    refused("pref_bco_weight", OTHER_LOSS),
    converted("dpo_label_smoothing", "label_smoothing", "", losses.smoothing, stages=("dpo",)),
    converted("simpo_gamma", "simpo_gamma", "", losses.gamma, default=0.5, stages=("dpo",)),
    same("ld_alpha", stages=("dpo",)),
    renamed("kto_chosen_weight", "desirable_weight", default=1.0, stages=("kto",)),
    renamed("kto_rejected_weight", "undesirable_weight", default=1.0, stages=("kto",)),
    converted("ref_model", "", "the reference is the model that training starts from", losses.reference),
    refused("ref_model_adapters", "the reference is the model that training starts from"),
    *each(
        refused, "ref_model_quantization_bit reward_model_quantization_bit",
        "roles stand on one base, as load_in_4bit or load_in_8bit holds it",
    ),
)  # fmt: skip
PPO = (
    converted("reward_model", "reward_model_path", "", losses.reward, stages=("ppo",)),
    converted("reward_model_type", "", "it follows from the model", losses.reward_kind, stages=("ppo",)),
    refused("reward_model_adapters", "name the adapter in reward_model"),
    renamed("ppo_epochs", "num_ppo_epochs", default=4, stages=("ppo",)),
    renamed("ppo_buffer_size", "num_mini_batches", "and a factor of `rollout_batch_size`", default=1, stages=("ppo",)),
    converted("ppo_score_norm", "normalize_scores", "running", losses.normal, default=False, stages=("ppo",)),
    renamed("ppo_target", "adaptive_kl_target", default=6.0, stages=("ppo",)),
    refused("ppo_whiten_rewards", "advantages are whitened, not rewards"),
    same("max_new_tokens", default=1024, stages=("ppo",)),
    same("temperature", default=0.95, stages=("ppo",)),
    same("top_p", default=0.7, stages=("ppo",)),
    same("top_k", default=50, stages=("ppo",)),
    *each(
        refused, "num_beams repetition_penalty length_penalty", "answers are sampled from the policy itself",
        off=(None, 1, 1.0), stages=("ppo",),
    ),
    *each(
        dropped, "do_sample max_length skip_special_tokens generation_max_length generation_num_beams",
        "answers are always sampled, in `ppo` alone",
    ),
)  # fmt: skip
TRAINER = (
    *training.batches(8),
    same("learning_rate", default=5e-05),
    same("lr_scheduler_type", default="linear"),
    same("warmup_steps"),
    same("weight_decay", default=0.0),
    same("max_grad_norm", default=1.0),
    same("optim", default="adamw_torch_fused"),
    same("seed", default=42),
    same("bf16", default=False),
    same("fp16"),
    same("save_steps", default=500),
    same("save_total_limit", "absent: all are kept", default=None),
    same("output_dir", default="saves"),
    *training.OLDER_NAMES,
)  # fmt: skip


def _stage(_: str, given: dict[str, Any]) -> str:
    return to.STAGES.get(str(given.get("stage", "sft")), "sft")


def _finish(conversion: Conversion) -> None:
    recipe = conversion.recipe
    if conversion.stage == "ppo":
        for key, value in {**KL, **LOSS}.items():
            recipe.setdefault(key, value)
            conversion.note(key, "of LLaMA-Factory's PPO, which has no key for it")
        steps = conversion.get("gradient_accumulation_steps") * conversion.get("ppo_buffer_size")
        training.rollouts(conversion, conversion.get("per_device_train_batch_size") * steps, 1)
    training.no_loss_of_experts(conversion)
    training.finish(conversion)


def _refuse_others(_: str, given: dict[str, Any]) -> str:
    """Return the stage here.

    Raises: RecipeError for a file that does not train.
    """
    if given.get("export_dir"):
        raise RecipeError(["export_dir: merges an adapter; run `alignment merge`, or `alignment export`"])
    if "task" in given and "dataset" not in given:
        raise RecipeError(["task: evaluates a model; run `alignment evaluate` with tasks"])
    if given.get("do_train") is not True and (given.get("do_predict") or given.get("do_eval")):
        raise RecipeError(["do_predict: answers prompts without training; run `alignment evaluate`"])
    if not given.get("dataset") and ("infer_backend" in given or "template" in given):
        raise RecipeError(["infer_backend: talks to a model; run `alignment chat` or `alignment serve`"])
    return _stage("", given)


LLAMAFACTORY = Peer(
    name="llamafactory",
    title="LLaMA-Factory",
    table=(*TRAINER, *MODEL, *DATA, *TUNING, *PREFERENCES, *PPO),
    stage=_refuse_others,
    finish=_finish,
)  # fmt: skip
