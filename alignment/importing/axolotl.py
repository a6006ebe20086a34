"""axolotl: its keys, as its schemas define them (`src/axolotl/utils/schemas`, July 2026)."""

from typing import Any

from alignment.importing import axolotl_rows as rows
from alignment.importing import axolotl_training as run
from alignment.importing import axolotl_values as to
from alignment.importing import training
from alignment.importing.axolotl_data import TEXT, datasets
from alignment.importing.axolotl_model import MODEL, TUNING
from alignment.importing.chat_templates import with_values
from alignment.importing.conversion import Conversion, Peer
from alignment.importing.keys import (
    converted,
    dropped,
    each,
    refused,
    renamed,
    same,
)
from alignment.importing.values import (
    FASTER,
    LAUNCHER,
    TRACKING,
    by_length,
    held_out,
)

DATA = (
    converted("datasets", "datasets", "by the `type` of each", datasets("datasets")),
    converted("test_datasets", "eval_datasets", "by the `type` of each", datasets("eval_datasets")),
    converted("pretraining_dataset", "datasets", "stage `pretrain`; with max_steps `streaming: true`", rows.documents),
    converted(
        "val_set_size", "test_split_size", "a share; of a number of rows, slices of `split`", held_out, default=0.0,
    ),
    converted("sequence_len", "max_length", "not in `grpo`, whose prompts and answers have bounds of their own",
              rows.length, default=512),
    converted("excess_length_strategy", "", "longer rows are cut", rows.lengths, default=None, stages=("sft",)),
    dropped("eval_sequence_len", "max_length holds for evaluation too"),
    converted("sample_packing", "packing", "", rows.packing, default=False, stages=("sft", "pretrain")),
    converted("eval_sample_packing", "eval_packing", "", rows.eval_packing, stages=("sft",)),
    *each(
        dropped,
        "sample_packing_group_size sample_packing_bin_size sample_packing_eff_est sample_packing_seq_len_multiplier "
        "sample_packing_sequentially sample_packing_mp_start_method pretrain_multipack_attn "
        "total_num_tokens total_supervised_tokens multipack_real_batches batch_flattening",
        "packing needs no such key",
    ),
    *each(
        dropped, "pretrain_multipack_buffer_size streaming_multipack_buffer_size",
        "it is the shuffle_buffer_size of rows that are streamed",
    ),
    converted("pretraining_sample_concatenation", "packing", "documents do not attend to each other", rows.joined,
              stages=("pretrain",)),
    converted("chat_template", "chat_template", "the tokenizer's own, or one of this package", rows.template),
    converted("chat_template_jinja", "chat_template", "", rows.jinja),
    converted("chat_template_kwargs", "chat_template", "set at the head of `chat_template_jinja`", with_values),
    refused("default_system_message", "write the system message into the rows, or a chat_template with it"),
    dropped("eot_tokens", "the chat template decides which tokens end an answer"),
    converted("special_tokens", "eos_token", "padding and BOS are the tokenizer's", rows.special),
    converted("tokens", "add_tokens", "stage `sft`", rows.tokens),
    converted("train_on_inputs", "", "refused: loss is on answers alone; texts have no prompts", rows.inputs),
    *each(refused, "roles_to_train train_on_eos", "is of an entry of datasets"),
    converted("group_by_length", "train_sampling_strategy", "", by_length),
    converted("curriculum_sampling", "train_sampling_strategy", "sequential", run.order),
    dropped("shuffle_merged_datasets", "rows are shuffled in each epoch, unless curriculum_sampling is on"),
    *each(
        dropped, "shuffle_before_merging_datasets dataset_prepared_path push_dataset_to_hub dataset_keep_in_memory "
        "num_dataset_shards_to_save hf_use_auth_token is_preprocess preprocess_iterable",
        "rows are read anew at each start",
    ),
    *each(refused, "dataset_shard_num dataset_shard_idx", "a part of a data set is a slice: split: train[:10%]"),
    *each(
        refused, "dataset_exact_deduplication min_sample_len",
        "do it in stage prepare, with steps exact_duplicates and length",
    ),
    converted("streaming", "", "data are read whole", rows.streaming),
    *each(converted, "dataset_processes dataset_num_proc", "dataset_num_proc", "", training.processes),
    renamed("max_prompt_len", "max_prompt_length", stages=("grpo",)),
)  # fmt: skip
TRAINER = (
    converted("micro_batch_size", "per_device_train_batch_size", "", run.micro, default=1),
    converted("gradient_accumulation_steps", "gradient_accumulation_steps", "", training.accumulation, default=1),
    converted("batch_size", "gradient_accumulation_steps", "divided by micro_batch_size", run.batch),
    renamed("eval_batch_size", "per_device_eval_batch_size"),
    converted("num_epochs", "num_train_epochs", "", run.epochs, default=1.0),
    converted("max_steps", "max_steps", "", training.steps),
    same("learning_rate"),
    converted("lr_scheduler", "lr_scheduler_type", "", run.scheduler, default="cosine"),
    converted("lr_scheduler_kwargs", "lr_scheduler_kwargs", "", run.scheduler_options),
    dropped("eta_min", "is no key of axolotl's schema, which ignores it"),
    dropped("cosine_min_lr_ratio", "it is min_lr_rate of lr_scheduler_kwargs"),
    *each(
        refused,
        "cosine_constant_lr_ratio lr_quadratic_warmup lr_div_factor lr_groups embedding_lr embedding_lr_scale",
        "no scheduler of transformers does this",
    ),
    converted("warmup_steps", "warmup_steps", "", run.warmup),
    converted("warmup_ratio", "warmup_steps", "a share of all steps", run.warmup_ratio, default=0.03),
    converted("optimizer", "optim", "", run.optimizer, default="adamw_torch_fused"),
    converted("optim_args", "optim_args", "", run.optimizer_options),
    same("optim_target_modules"),
    same("weight_decay", default=0.0),
    same("adam_beta1"),
    same("adam_beta2"),
    same("adam_epsilon"),
    renamed("adam_eps", "adam_epsilon"),
    *each(refused, "adam_epsilon2 adam_beta3 dion_lr dion_momentum", "it is of an optimizer that is not supported"),
    same("max_grad_norm", default=1.0),
    same("neftune_noise_alpha"),
    renamed("noisy_embedding_alpha", "neftune_noise_alpha"),
    same("auto_find_batch_size"),
    same("seed", default=42),
    converted("logging_steps", "logging_steps", "", training.logging),
    converted("save_steps", "save_steps", "and save_strategy", run.every("save")),
    converted("saves_per_epoch", "save_steps", "a share of steps; 1: `save_strategy: epoch`", run.per_epoch("save")),
    converted("save_strategy", "save_strategy", "", run.when("save"), default=None),
    converted("eval_steps", "eval_steps", "and eval_strategy", run.every("eval")),
    converted("evals_per_epoch", "eval_steps", "a share of steps; 1: `eval_strategy: epoch`", run.per_epoch("eval")),
    converted("eval_strategy", "eval_strategy", "", run.when("eval"), default=None),
    converted("evaluation_strategy", "eval_strategy", "", run.when("eval")),
    same("save_total_limit", default=4),
    same("save_only_model"),
    dropped("save_safetensors", "weights are safetensors always"),
    dropped("save_first_step", "checkpoints are written as save_steps has it"),
    same("load_best_model_at_end"),
    same("metric_for_best_model"),
    same("greater_is_better"),
    converted("early_stopping_patience", "early_stopping_patience", "", run.early),
    same("output_dir", default="./model-out"),
    same("dataloader_num_workers"),
    same("dataloader_drop_last"),
    dropped("remove_unused_columns", "columns that no layout reads are refused or ignored by ignore_columns"),
    *training.STRATEGIES,
    *each(
        dropped,
        "fsdp_version fsdp_final_state_dict_type fp32_norms fp32_norm_classes dp_shard_size dp_replicate_size ddp "
        "ddp_timeout ddp_bucket_cap_mb ddp_broadcast_buffers ddp_find_unused_parameters local_rank world_size "
        "device device_map max_memory gpu_memory_limit accelerator_config use_ray ray_num_workers ray_run_name "
        "resources_per_worker", LAUNCHER,
    ),
    *each(
        refused, "context_parallel_size sequence_parallel_degree tensor_parallel_size expert_parallel_size "
        "context_parapllel_size", "sequences, tensors and experts are not split over devices", off=(None, 0, 1),
    ),
    *each(dropped, "heads_k_stride ring_attn_func", "it is of a key that is refused where it is on"),
    *each(
        dropped, "resume_from_checkpoint auto_resume_from_checkpoints",
        "a run resumes from its last complete checkpoint by itself",
    ),
    *each(
        dropped, "hub_model_id hub_strategy hub_revision push_to_hub save_model_to_hub",
        "a run does not wait for the Hub; upload its folder once it is finished: hf upload ID FOLDER",
    ),
    converted("wandb_project", "project", "and `report_to: [wandb]`", run.project),
    converted("project_name", "project", "and `report_to: [wandb]`", run.project),
    converted("use_wandb", "report_to", "wandb", run.tracker("wandb")),
    *each(converted, "wandb_name wandb_run_id trackio_run_name mlflow_run_name", "run_name", "", run.named("run_name")),
    converted("wandb_log_model", "log_model", "", run.watch),
    *each(
        dropped,
        "wandb_entity wandb_mode wandb_watch swanlab_workspace swanlab_description swanlab_mode swanlab_log_model "
        "swanlab_log_completions swanlab_completion_log_interval swanlab_completion_max_buffer "
        "swanlab_experiment_name swanlab_project trackio_space_id mlflow_tracking_uri mlflow_experiment_name "
        "hf_mlflow_log_artifacts comet_api_key comet_workspace comet_experiment_key comet_mode comet_online "
        "comet_experiment_config comet_project_name", TRACKING,
    ),
    converted("use_tensorboard", "report_to", "tensorboard", run.tracker("tensorboard")),
    converted("use_mlflow", "report_to", "mlflow", run.tracker("mlflow")),
    converted("use_comet", "report_to", "comet_ml", run.tracker("comet_ml")),
    converted("use_trackio", "report_to", "trackio", run.tracker("trackio")),
    converted("trackio_project_name", "project", "", run.named("project")),
    converted("use_swanlab", "report_to", "swanlab", run.tracker("swanlab")),
    *each(
        dropped, "strict debug axolotl_config_path profiler_steps profiler_steps_start include_tokens_per_second "
        "include_tkps test_value dynamic_checkpoint generate_samples num_generation_samples "
        "generation_max_new_tokens generation_temperature generation_top_p generation_top_k generation_prompt_ratio "
        "generation_do_sample eval_table_size eval_table_max_new_tokens eval_max_new_tokens do_bench_eval "
        "bench_dataset bench_split do_causal_lm_eval eval_causal_lm_metrics max_packed_sequence_len torchdistx_path "
        "gradio_title gradio_share gradio_server_name gradio_server_port gradio_max_new_tokens gradio_temperature "
        "dpo_generate_during_eval inference", "it does not change what is trained",
    ),
    *each(dropped, "loss_watchdog_threshold loss_watchdog_patience", "a loss that is not finite ends the run"),
)  # fmt: skip
PREFERENCES = (
    converted("rl", "stage", "and `loss_type`", to.rl),
    converted("reward_model", "stage", "reward", to.reward),
    refused("process_reward_model", "steps are not rewarded here"),
    dropped("num_labels", "a reward model has one score"),
    same("center_rewards_coefficient", stages=("reward",)),
    renamed("rl_beta", "beta", "absent: 0.1 in `dpo` and `kto`", stages=("dpo", "kto", "grpo")),
    renamed("dpo_beta", "beta", stages=("dpo", "kto")),
    renamed("orpo_alpha", "beta", stages=("dpo",)),
    same("simpo_gamma", stages=("dpo",)),
    same("cpo_alpha", stages=("dpo",)),
    renamed("dpo_loss_type", "loss_type", stages=("dpo",)),
    renamed("dpo_loss_weights", "loss_weights", stages=("dpo",)),
    renamed("dpo_label_smoothing", "label_smoothing", stages=("dpo",)),
    renamed("dpo_use_weighting", "use_weighting", stages=("dpo",)),
    same("precompute_ref_log_probs", stages=("dpo", "kto")),
    *each(dropped, "dpo_use_liger_kernel dpo_padding_free dpo_use_logits_to_keep", FASTER),
    *each(refused, "dpo_norm_loss rpo_alpha use_eaft", "no loss here is the same"),
    *each(dropped, "eaft_alpha eaft_k", "it is of a loss that is refused where it is on"),
    renamed("kto_desirable_weight", "desirable_weight", default=1.0, stages=("kto",)),
    renamed("kto_undesirable_weight", "undesirable_weight", default=1.0, stages=("kto",)),
    converted("trl", "scorers", "and the keys of GRPO", to.grpo),
    dropped("vllm", "a server of vLLM is started by itself"),
)  # fmt: skip


def _stage(_: str, given: dict[str, Any]) -> str:
    if given.get("reward_model"):
        return "reward"
    if given.get("rl"):
        return to.RL.get(str(given["rl"]), "dpo")
    sets = given.get("datasets")
    entries = [entry for entry in sets if isinstance(entry, dict)] if isinstance(sets, list) else []
    kinds = [str(entry.get("type")).partition(".")[0] for entry in entries]
    plain = bool(kinds) and all(kind in TEXT for kind in kinds)
    return "pretrain" if given.get("pretraining_dataset") or plain else "sft"


def _balances(conversion: Conversion) -> bool:
    """Whether the file turns the load-balancing loss of experts on, with the coefficient of the model."""
    configured = conversion.get("model_config") or conversion.get("overrides_of_model_config")
    return bool(isinstance(configured, dict) and configured.get("output_router_logits"))


def _finish(conversion: Conversion) -> None:
    recipe = conversion.recipe
    if conversion.stage in ("dpo", "kto"):
        recipe.setdefault("beta", 0.1)
    if recipe.get("loss_type") == "simpo":
        recipe.setdefault("simpo_gamma", 0.5)
        recipe.setdefault("cpo_alpha", 1.0)
    if "dtype" not in recipe:
        recipe["dtype"] = "float16" if conversion.get("load_in_8bit") else "float32"
        conversion.note("dtype", "default of axolotl without bf16 and fp16")
    run.best_model(conversion)
    if conversion.stage == "sft" and not _balances(conversion):
        training.no_loss_of_experts(conversion)
    if conversion.get("adapter") and "lora_target_modules" not in recipe:
        training.library_targets(conversion)
    if conversion.stage == "grpo":
        per_process = conversion.get("micro_batch_size") * conversion.get("gradient_accumulation_steps")
        answers, times = recipe.get("num_generations", 8), recipe.get("num_iterations", 1)
        training.rollouts(conversion, per_process, answers, epochs="num_epochs", steps=times)
    training.finish(conversion)


AXOLOTL = Peer(
    name="axolotl",
    title="axolotl",
    table=(*TRAINER, *MODEL, *DATA, *TUNING, *PREFERENCES),
    stage=_stage,
    finish=_finish,
    trainer_keys=False,
)  # fmt: skip
