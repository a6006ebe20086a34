"""TRL: the keys of its scripts' YAML, and those of the alignment-handbook (TRL 1.16; PPO as of TRL 1.12)."""

from typing import Any

from alignment.importing import training
from alignment.importing import trl_values as to
from alignment.importing.chat_templates import with_values
from alignment.importing.conversion import Conversion, Outcome, Peer
from alignment.importing.keys import (
    converted,
    dropped,
    each,
    noticed,
    refused,
    renamed,
    same,
)
from alignment.importing.trl_data import of_list, of_mixer, of_mixture, of_name
from alignment.importing.trl_stage import names_of, stage_of, words_of
from alignment.importing.values import FASTER, NOT_ROUNDED, eight_bits, target_modules

RATES = {"sft": 2e-5, "dpo": 1e-6, "kto": 1e-6, "reward": 1e-4, "grpo": 1e-6, "rloo": 1e-6, "ppo": 3e-6}
DEFAULTS: dict[str, dict[str, Any]] = {  # of keys whose defaults depend on the script
    "dpo": {"beta": 0.1},
    "kto": {"beta": 0.1},
    "grpo": {"num_generations": 8, "beta": 0.0, "loss_type": "dapo"},
    "rloo": {"num_generations": 2, "beta": 0.05},
}
SCRIPTS = ("orpo", "simpo", "cpo")  # losses with a script and a configuration of their own
MODEL = (
    converted("model_name_or_path", "model_name_or_path", "", to.model),
    same("model_revision"),
    converted("dtype", "dtype", "", to.dtype, default="float32"),
    converted("torch_dtype", "dtype", "", to.older_dtype),
    same("attn_implementation"),
    converted(
        "use_flash_attention_2", "attn_implementation", "flash_attention_2",
        lambda _, value: {"attn_implementation": "flash_attention_2"} if value else {},
    ),
    converted("load_in_4bit", "load_in_4bit", "", to.four),
    converted("load_in_8bit", "load_in_8bit", NOT_ROUNDED, eight_bits),
    converted("bnb_4bit_quant_type", "bnb_4bit_quant_type", "", to.of_four("bnb_4bit_quant_type"), default="nf4"),
    converted("use_bnb_nested_quant", "use_bnb_nested_quant", "", to.of_four("use_bnb_nested_quant"), default=False),
    dropped("bnb_4bit_quant_storage", "it follows from the type"),
    dropped("model_code_revision", "code of a model's repository does not run"),
    *each(dropped, "tokenizer_name_or_path tokenizer_name", "the tokenizer is that of the model's folder"),
    converted("chat_template", "chat_template", "Jinja text, or one of this package", to.template),
    converted("chat_template_path", "chat_template", "a file of Jinja", to.template_path),
    converted("chat_template_kwargs", "chat_template", "set at the head of `chat_template`", with_values),
    same("eos_token"),
)  # fmt: skip
TUNING = (
    converted("use_peft", "peft_method", "lora or full", to.method, default=False),
    to.lora("lora_r", "lora_r", default=16),
    to.lora("lora_alpha", "lora_alpha", default=32),
    to.lora("lora_dropout", "lora_dropout", default=0.05),
    to.lora(
        "lora_target_modules", "lora_target_modules", "absent: PEFT's default for the architecture",
        lambda _, value: {"lora_target_modules": target_modules(value)},
    ),
    to.lora(
        "lora_target_parameters", "peft_config", "target_parameters",
        lambda _, value: {"peft_config": {"target_parameters": value}},
    ),
    to.lora("lora_modules_to_save", "lora_modules_to_save"),
    to.lora("use_rslora", "use_rslora", default=False),
    to.lora("use_dora", "peft_method", "dora", lambda _, value: {"peft_method": "dora" if value else "lora"}),
    dropped("lora_task_type", "the task follows from the stage"),
)  # fmt: skip
DATA = (
    converted("dataset_name", "datasets", "and `eval_datasets`, if eval_strategy is on", of_name),
    dropped("dataset_config", "it is name in an entry of datasets"),
    dropped("dataset_train_split", "it is split in an entry of datasets", default="train"),
    dropped("dataset_test_split", "it is split in an entry of eval_datasets", default="test"),
    dropped("dataset_streaming", "data are read whole"),
    converted("datasets", "datasets", "", of_list),
    converted("dataset_mixture", "datasets", "a weight below 1 is a slice: `split: train[:50%]`", of_mixture),
    converted("dataset_mixer", "datasets", "and `eval_datasets`, with dataset_splits", of_mixer),
    *each(dropped, "dataset_splits dataset_configs", "it is a part of datasets"),
    converted("dataset_kwargs", "", "the chat template writes all tokens of a row", to.dataset_options),
    converted("test_split_size", "test_split_size", "a share; of a number of rows, slices of `split`", to.tests),
    converted("preprocessing_num_workers", "dataset_num_proc", "", training.processes),
    dropped("streaming", "data are read whole"),
    *each(
        converted, "dataset_text_field text_column", "datasets", "`format: text`, of a column not called text",
        to.text_field, stages=("sft",),
    ),
    dropped("auto_insert_empty_system_msg", "the chat template decides about system messages"),
    renamed("max_seq_length", "max_length"),
    converted(
        "max_prompt_length", "max_prompt_length", "`grpo`, `rloo`, `ppo`; elsewhere max_length bounds both",
        to.max_prompt,
    ),
    same("max_length", "null: no bound", default=1024, nullable=True, stages=("sft", "dpo", "kto", "reward")),
    *each(dropped, "max_target_length max_source_length", "max_length bounds prompt and answer together"),
    dropped("truncation_mode", "rows are cut at their end in sft, and follow on_bad_row elsewhere"),
    to.whole("completion_only_loss", "loss is on answers alone"),
    noticed(
        "assistant_only_loss", "loss is always on answers alone; TRL trains all turns of messages if it is false",
        default=False, stages=("sft",),
    ),
)  # fmt: skip
LOSSES = (
    converted("loss_type", "loss_type", "", to.loss),
    same("beta"),
    converted("rpo_alpha", "loss_type", "`[LOSS, sft]` with `loss_weights`", to.rpo, stages=("dpo",)),
    same("simpo_gamma", stages=("dpo",)),
    same("cpo_alpha", stages=("dpo",)),
    same("desirable_weight", default=1.0, stages=("kto",)),
    same("undesirable_weight", default=1.0, stages=("kto",)),
    same("center_rewards_coefficient", stages=("reward",)),
    *each(
        dropped,
        "padding_free generate_during_eval is_encoder_decoder use_logits_to_keep label_pad_token_id padding_value "
        "use_num_logits_to_keep", FASTER,
    ),
    converted("disable_dropout", "lora_dropout", "`reward`: 0 unless false; elsewhere dropout is off", to.dropout,
              stages=("reward", "dpo", "kto", "grpo", "rloo")),
    *each(
        refused, "ref_model_init_kwargs force_use_ref_model reference_free",
        "the reference is the model that training starts from",
    ),
    dropped("max_pairs", "all pairs of a row are trained"),
)  # fmt: skip
SAMPLING = (
    renamed("max_completion_length", "max_new_tokens", default=512, stages=("grpo", "rloo")),
    renamed("response_length", "max_new_tokens", default=53, stages=("ppo",)),
    same("num_generations", stages=("grpo", "rloo")),
    renamed("rloo_k", "num_generations", stages=("rloo",)),
    same("temperature", stages=to.SAMPLED),
    same("top_p", stages=to.SAMPLED),
    same("top_k", stages=to.SAMPLED),
    *each(
        refused, "min_p repetition_penalty generation_kwargs",
        "answers are sampled from the policy itself", off=(None, 0, 0.0, 1, 1.0, {}),
    ),
    converted("reward_funcs", "scorers", "of kind function or reward_model", to.funcs, stages=("grpo", "rloo")),
    dropped("reward_weights", "it is the weight of each scorer"),
    converted("reward_model_path", "reward_model_path", "", to.reward_model, stages=to.SAMPLED),
    renamed("reward_model_name_or_path", "reward_model_path", stages=to.SAMPLED),
    converted("sft_model_path", "model_name_or_path", "", to.ppo_model, stages=("ppo",)),
    converted("stop_token", "", "the stop tokens of the chat template", to.stop),
    refused("stop_token_id", "an answer ends with the stop tokens of its chat template; name one with eos_token"),
    renamed("local_rollout_forward_batch_size", "rollout_eval_batch_size", stages=("ppo",)),
    same("total_episodes", stages=("ppo", "rloo")),
    same("num_mini_batches", default=1, stages=("ppo",)),
    converted("steps_per_generation", "rollout_batch_size", "a factor", to.steps_per_generation),
    converted("generation_batch_size", "rollout_batch_size", "", to.steps_per_generation),
    same("num_ppo_epochs", default=4, stages=("ppo",)),
    same("kl_coef", default=0.05, stages=("ppo",)),
    same("kl_estimator", stages=("ppo",)),
    same("cliprange", default=0.2, stages=("ppo",)),
    same("vf_coef", default=0.1, stages=("ppo",)),
    same("cliprange_value", default=0.2, stages=("ppo",)),
    same("gamma", default=1.0, stages=("ppo",)),
    same("lam", default=0.95, stages=("ppo",)),
    refused("whiten_rewards", "advantages are whitened, not rewards"),
    same("missing_eos_penalty", stages=("ppo",)),
    *each(refused, "model_adapter_name ref_adapter_name", "roles are adapters on one base by themselves"),
    converted("use_vllm", "rollout_engine", "vllm", to.vllm, stages=to.SAMPLED),
    to.of_vllm("vllm_mode"),
    to.of_vllm("vllm_server_base_url"),
    to.of_vllm("vllm_gpu_memory_utilization"),
    to.of_vllm("vllm_tensor_parallel_size"),
    to.of_vllm("vllm_enable_sleep_mode"),
    *each(converted, "vllm_importance_sampling_cap vllm_importance_sampling_clip_max", "importance_sampling_cap",
          "default 3.0", to.cap, stages=to.SAMPLED),
    converted("vllm_importance_sampling_correction", "importance_sampling_cap", "false is null", to.corrected,
              stages=to.SAMPLED),
    converted("vllm_importance_sampling_mode", "", to.BY_TOKEN, to.sampling_mode, stages=to.SAMPLED),
    refused("vllm_importance_sampling_clip_min", "ratios have no lower bound", stages=to.SAMPLED),
    converted("vllm_max_model_len", "vllm_max_model_length", "", lambda _, value: {"vllm_max_model_length": value}),
    same("vllm_max_model_length"),
    converted("vllm_server_host", "vllm_server_base_url", "`http://HOST:PORT`", to.server, stages=to.SAMPLED),
    *each(
        dropped, "vllm_server_port vllm_server_timeout vllm_group_port vllm_model_impl vllm_device vllm_dtype "
        "vllm_enable_prefix_caching vllm_guided_decoding_regex", "it is a part of vLLM's start, or of its address",
    ),
    *each(
        dropped, "log_completions num_completions_to_print wandb_log_unique_prompts log_unique_prompts log_multimodal "
        "log_completions_hub_repo shuffle_dataset", "samples.jsonl holds sampled answers",
    ),
    *each(
        dropped, "use_liger_loss use_transformers_paged use_transformers_continuous_batching cast_lm_head_to_fp32",
        FASTER,
    ),
    *each(
        refused,
        "multi_objective_aggregation top_entropy_quantile entropy_coef off_policy_mask_threshold",
        "no loss here is the same", off=(None, False, 0, 0.0, 1.0, "sum_then_normalize"), stages=to.SAMPLED,
    ),
    *each(
        to.of_moving_reference, "sync_ref_model ref_model_mixup_alpha ref_model_sync_steps",
        "`dpo`, `kto`; elsewhere the reference does not move",
    ),
)  # fmt: skip
TRAINER = (
    *training.batches(8),
    same("learning_rate", "the stage's in TRL", default=None),
    same("lr_scheduler_type", default="linear"),
    same("warmup_steps"),
    same("weight_decay", default=0.0),
    same("max_grad_norm", default=1.0),
    same("seed", default=42),
    same("bf16", default=None),
    same("fp16"),
    same("gradient_checkpointing", default=True),
    same("output_dir", default="trainer_output"),
    same("save_total_limit", "absent: all are kept", default=None),
    dropped("env", "set environment variables where the command starts"),
    *training.OLDER_NAMES,
)  # fmt: skip


def _finish(conversion: Conversion) -> None:
    recipe, stage = conversion.recipe, conversion.stage
    if recipe.get("learning_rate") is None:
        recipe["learning_rate"] = RATES[stage]
        conversion.note("learning_rate", "default of TRL")
    if recipe.get("bf16") is None:
        recipe["bf16"] = not recipe.get("fp16")
        conversion.note("bf16", "default of TRL")
    for key, value in DEFAULTS.get(stage, {}).items():
        if key not in recipe:
            recipe[key] = value
            conversion.note(key, "default of TRL")
    if conversion.get("use_peft") and "lora_target_modules" not in recipe:
        training.library_targets(conversion)
    if stage == "reward" and conversion.given.get("disable_dropout") is not False and recipe.get("lora_dropout"):
        conversion.take_out("lora_dropout", "TRL turns dropout off in this stage unless disable_dropout is false")
        recipe["lora_dropout"] = 0.0
    if stage == "dpo":
        _loss_of_the_script(conversion)
    if stage == "ppo":
        _finish_ppo(conversion)
    if stage in ("grpo", "rloo"):
        to.correct_sampling(conversion)
        per_process = conversion.get("per_device_train_batch_size") * _per_generation(conversion)
        given = conversion.given.get("generation_batch_size")
        processes = conversion.processes
        steps = recipe.get("num_mini_batches", 1) * recipe.get("num_iterations", 1)
        per_process = given // processes if given else per_process
        training.rollouts(conversion, per_process, recipe.get("num_generations", 2), steps=steps)
        if "scorers" not in recipe and "reward_model_path" not in recipe:
            _ask_for_rewards(conversion)
    training.finish(conversion)


def _ask_for_rewards(conversion: Conversion) -> None:
    """Leave the scorers to the user, where the rewards are in the script and not in the file."""
    scorers = [{"kind": "function", "name": "reward", "function": "rewards:reward", "weight": 1.0}]
    told = "the rewards are not in the file: name the function of each, as MODULE:FUNCTION"
    conversion.recipe["scorers"], conversion.unsettled["scorers"] = scorers, told
    conversion.outcomes.append(Outcome("reward_funcs", None, "set by you", (("scorers", scorers),), told))


def _loss_of_the_script(conversion: Conversion) -> None:
    """Set the loss of a script of its own (ORPO, SimPO, CPO), which only names in the file tell."""
    names = names_of(conversion.path, conversion.given)
    found = next((loss for loss in SCRIPTS for name in names if loss in words_of(name)), None)
    if found and "loss_type" not in conversion.recipe:
        conversion.recipe["loss_type"] = found
        conversion.unsettled["loss_type"] = f"{found} by the names in the file"
        ours = (("loss_type", found),)
        conversion.outcomes.append(Outcome("loss_type", None, "set by you", ours, conversion.unsettled["loss_type"]))
    if conversion.recipe.get("loss_type") == "simpo":
        conversion.recipe.setdefault("cpo_alpha", 1.0)


def _per_generation(conversion: Conversion) -> int:
    given = conversion.given.get("steps_per_generation")
    accumulated = int(conversion.get("gradient_accumulation_steps"))
    if not given:
        return accumulated
    conversion.recipe["num_mini_batches"] = max(1, int(given) // accumulated)
    return int(given)


def _finish_ppo(conversion: Conversion) -> None:
    recipe = conversion.recipe
    own = {"cliprange_high": recipe["cliprange"], "dual_clip": None, "temperature": 0.7, "lam_value": recipe["lam"]}
    for key, value in own.items():
        recipe.setdefault(key, value)
        conversion.note(key, "of TRL's PPO")
    if recipe.get("reward_model_path"):
        recipe |= {"value_model": "model", "value_model_path": recipe["reward_model_path"], "value_peft_method": "full"}
        conversion.note(
            "value_model", "a model of its own that starts as the reward model, as in TRL; adapter is smaller"
        )
    per_process = conversion.get("per_device_train_batch_size") * conversion.get("gradient_accumulation_steps")
    training.rollouts(conversion, per_process, 1)


TRL = Peer(
    name="trl",
    title="TRL",
    table=(*MODEL, *TUNING, *DATA, *TRAINER, *LOSSES, *SAMPLING),
    stage=stage_of,
    finish=_finish,
    same_names=True,
)  # fmt: skip
