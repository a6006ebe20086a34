"""How axolotl's values become those of a recipe here."""

from typing import Any

from alignment.config.library import trainer_keys
from alignment.config.schema import STAGES
from alignment.importing import training
from alignment.importing.chat_templates import by_name
from alignment.importing.conversion import Conversion
from alignment.importing.keys import (
    OFF_HERE,
    Convert,
    Drop,
    Key,
    Notice,
    Ours,
    Refuse,
    converted,
)
from alignment.importing.values import (
    FASTER,
    attention,
    eight_bits,
    target_modules,
)

RL = {"dpo": "dpo", "ipo": "dpo", "orpo": "dpo", "simpo": "dpo", "kto": "kto", "grpo": "grpo"}
LOSSES = {"dpo": "sigmoid", "ipo": "ipo", "orpo": "orpo", "simpo": "simpo"}
FAST_PLUGINS = (
    "cut_cross_entropy",
    "liger",
    "kernels",
    "lm_eval",
    "expert_parallel",
    "swanlab",
)  # of axolotl.integrations
CODE = "names code that axolotl runs; nothing in a recipe runs code but functions of scorers"
OPTIMIZERS = {"adamw_torch_8bit": "adamw_bnb_8bit", "adamw_8bit": "adamw_bnb_8bit"}
QUANTIZED = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True}
OF_TRL = {
    "beta": "beta",
    "max_completion_length": "max_new_tokens",
    "num_generations": "num_generations",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "num_iterations": "num_iterations",
    "epsilon": "epsilon",
    "epsilon_high": "epsilon_high",
    "loss_type": "loss_type",
    "importance_sampling_level": "importance_sampling_level",
    "scale_rewards": "scale_rewards",
    "mask_truncated_completions": "mask_truncated_completions",
}
UNREAD = (
    "vllm_",
    "reward_",
    "use_vllm",
    "log_completions",
    "num_completions",
    "ref_model_",
)  # beginnings of other keys


def rl(_: Conversion, value: Any) -> Ours:
    """Convert `rl`."""
    if value is None:
        raise Drop(OFF_HERE)
    if value not in RL:
        raise Refuse(f"{value} has no counterpart; there are {', '.join(RL)}")
    return {"loss_type": LOSSES[value]} if value in LOSSES else {}


def adapter(conversion: Conversion, value: Any) -> Ours:
    """Convert `adapter`."""
    if not value:
        return {"peft_method": "full"}
    if value not in ("lora", "qlora"):
        raise Refuse("is none of lora and qlora")
    ours: dict[str, Any] = {"peft_method": "dora" if conversion.get("peft_use_dora") else "lora"}
    if value == "qlora" and not conversion.get("gptq"):
        ours |= QUANTIZED
    return ours


def lora(name: str, ours: str, note: str = "", convert: Convert | None = None, **options: Any) -> Key:
    """A key that an adapter alone reads."""

    def convert_with_adapter(conversion: Conversion, value: Any) -> Ours:
        if not conversion.get("adapter"):
            raise Drop("has no effect without an adapter")
        if value is None:
            raise Drop(OFF_HERE)
        return convert(conversion, value) if convert else {ours: value}

    return converted(name, ours, note, convert_with_adapter, **options)


def field(field: str) -> Convert:
    """Convert `lora_target_parameters`, `peft_layers_to_transform`, `peft_layers_pattern`."""
    return lambda _, value: {"peft_config": {field: value}}


def linear(_: Conversion, value: Any) -> Ours:
    """Convert `lora_target_linear`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"lora_target_modules": "all-linear"}


def targets(conversion: Conversion, value: Any) -> Ours:
    """Convert `lora_target_modules`."""
    if not value:
        raise Drop(OFF_HERE)
    found = target_modules(value)
    if conversion.get("lora_target_linear") and found != "all-linear":
        raise Drop("lora_target_linear takes all linear layers")
    return {"lora_target_modules": found}


def eight(_: Conversion, value: Any) -> Ours:
    """Convert `load_in_8bit`."""
    return eight_bits(value)


def four(conversion: Conversion, value: Any) -> Ours:
    """Convert `load_in_4bit`."""
    if conversion.get("adapter") == "qlora" or not value:
        raise Drop("it follows from adapter" if value else OFF_HERE)
    return QUANTIZED


def quantizer(_: Conversion, value: Any) -> Ours:
    """Convert `bnb_config_kwargs`."""
    names = {"bnb_4bit_use_double_quant": "use_bnb_nested_quant", "bnb_4bit_quant_type": "bnb_4bit_quant_type"}
    if not value:
        raise Drop(OFF_HERE)
    known = {"llm_int8_has_fp16_weight", "bnb_4bit_compute_dtype", "load_in_4bit"}
    if unknown := [key for key in value if key not in names and key not in known]:
        raise Refuse(f"{unknown[0]} is not read")
    return {names[key]: each for key, each in value.items() if key in names}


def plugins(_: Conversion, value: Any) -> Ours:
    """Convert `plugins`."""
    names = [str(name) for name in (value if isinstance(value, list) else [value])] if value else []
    for name in names:
        parts = name.split(".")
        if parts[:2] != ["axolotl", "integrations"] or len(parts) < 3 or parts[2] not in FAST_PLUGINS:
            raise Refuse(f"{name} {CODE}")
    raise Drop("these plugins change nothing that is trained")


def batch(conversion: Conversion, value: Any) -> Ours:
    """Convert `batch_size`."""
    if value is None:
        raise Drop(OFF_HERE)
    if "gradient_accumulation_steps" in conversion.given:
        raise Drop("gradient_accumulation_steps is given too")
    return {"gradient_accumulation_steps": max(1, int(value) // conversion.get("micro_batch_size"))}


def micro(conversion: Conversion, value: Any) -> Ours:
    """Convert `micro_batch_size`."""
    ours = {"per_device_train_batch_size": value}
    if conversion.given.get("eval_batch_size") is None and evaluates(conversion):
        ours["per_device_eval_batch_size"] = value
    return ours


def evaluates(conversion: Conversion) -> bool:
    """Whether a file has data to evaluate on."""
    return bool(conversion.get("val_set_size") or conversion.get("test_datasets"))


def epochs(conversion: Conversion, value: Any) -> Ours:
    """Convert `num_epochs`."""
    if conversion.stage in training.ONLINE:
        raise Drop("it is a factor of total_episodes")
    return {"num_train_epochs": float(value)}


def per_epoch(kind: str) -> Convert:
    """Return the conversion of a number of times per epoch into a share of all steps."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if not value:
            raise Drop(OFF_HERE)
        if conversion.given.get(f"{kind}_steps"):
            raise Drop(f"{kind}_steps is given too")
        if value == 1:
            return {f"{kind}_strategy": "epoch"}
        share = 1.0 / (float(value) * float(conversion.get("num_epochs")))
        return {f"{kind}_strategy": "steps", f"{kind}_steps": round(share, 9)}

    return convert


def every(kind: str) -> Convert:
    """Convert `save_steps`, `eval_steps`."""

    def convert(_: Conversion, value: Any) -> Ours:
        if not value:
            raise Drop(OFF_HERE)
        return {f"{kind}_strategy": "steps", f"{kind}_steps": value}

    return convert


def when(kind: str) -> Convert:
    """Return the conversion of a strategy: the file's, else once an epoch unless a number of steps is given."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if any(conversion.given.get(key) for key in (f"{kind}_steps", f"{kind}s_per_epoch")):
            raise Drop(f"{kind}_steps or {kind}s_per_epoch is given")
        if value is None:
            value = "epoch"
        return {f"{kind}_strategy": "no" if value is False else value}

    return convert


def scheduler(conversion: Conversion, value: Any) -> Ours:
    """Convert `lr_scheduler`."""
    if value in ("one_cycle", "rex"):
        raise Refuse(f"{value} is no scheduler of transformers")
    ratio = conversion.given.get("cosine_min_lr_ratio")
    if value in (None, "cosine") and ratio:
        return {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": ratio}}
    return {"lr_scheduler_type": value or "cosine"}


def scheduler_options(_: Conversion, value: Any) -> Ours:
    """Convert `lr_scheduler_kwargs`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"lr_scheduler_kwargs": value}


def optimizer(_: Conversion, value: Any) -> Ours:
    """Convert `optimizer`."""
    known = trainer_keys(str(STAGES["sft"].TRAINER_CONFIG))["optim"].choices
    name = OPTIMIZERS.get(value, value)
    if name not in known:
        raise Refuse(f"{value} is no optimizer of transformers")
    if name.endswith("_4bit"):
        raise Refuse(f"{value} has its states in 4 bits, which needs torchao; write adamw_bnb_8bit")
    return {"optim": name}


def optimizer_options(_: Conversion, value: Any) -> Ours:
    """Convert `optim_args`."""
    if not value:
        raise Drop(OFF_HERE)
    if isinstance(value, dict):
        value = ",".join(f"{key}={each}" for key, each in value.items())
    return {"optim_args": value}


def warmup(conversion: Conversion, value: Any) -> Ours:
    """Convert `warmup_steps`."""
    if value is None:
        return {}
    return {"warmup_steps": value}


def warmup_ratio(conversion: Conversion, value: Any) -> Ours:
    """Convert `warmup_ratio`."""
    if conversion.given.get("warmup_steps") is not None:
        raise Drop("warmup_steps is given too")
    return {"warmup_steps": value or 0}


def bf16(_: Conversion, value: Any) -> Ours:
    """Convert `bf16`."""
    if not value:
        return {"bf16": False}
    more = {"bf16_full_eval": True} if value == "full" else {}
    return {"bf16": True, "dtype": "bfloat16", **more}


def pure(dtype: str) -> Convert:
    """Convert `bfloat16`, `float16`, `float32`."""

    def convert(_: Conversion, value: Any) -> Ours:
        if not value:
            raise Drop(OFF_HERE)
        return {"dtype": dtype}

    return convert


def fp16(conversion: Conversion, value: Any) -> Ours:
    """Convert `fp16`."""
    if not value or conversion.get("bf16"):
        raise Drop("bf16 is on" if value else OFF_HERE)
    return {"fp16": True, "dtype": "float16"}


def tf32(_: Conversion, value: Any) -> Ours:
    """Convert `tf32`."""
    if value is True:
        return {"tf32": True}
    raise Drop("it is off unless it is true")


def checkpointing(_: Conversion, value: Any) -> Ours:
    """Convert `gradient_checkpointing`."""
    return {"gradient_checkpointing": bool(value)}


def model(conversion: Conversion, value: Any) -> Ours:
    """Convert `base_model`."""
    if conversion.given.get("lora_model_dir"):
        raise Drop("the adapter in lora_model_dir names its base")
    return {"model_name_or_path": value}


def adapter_path(_: Conversion, value: Any) -> Ours:
    """Convert `lora_model_dir`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"model_name_or_path": value}


def of_the_model(conversion: Conversion, value: Any) -> Ours:
    """Convert `base_model_config`, `tokenizer_config`."""
    if value in (None, "", conversion.get("base_model")):
        raise Drop("it is of the model's folder")
    raise Refuse("configuration and tokenizer are those of the model's folder; put them there")


def special(_: Conversion, value: Any) -> Ours:
    """Convert `special_tokens`."""
    if not value:
        raise Drop(OFF_HERE)
    if not isinstance(value, dict):
        raise Refuse("must be a mapping")
    if more := [key for key in value if key not in ("pad_token", "eos_token", "bos_token", "unk_token")]:
        raise Refuse(f"{', '.join(more)}: only the end of an answer can be named, with eos_token")
    if value.get("eos_token"):
        return {"eos_token": value["eos_token"]}
    raise Drop("padding is masked, whatever its token; BOS is the tokenizer's")


def tokens(conversion: Conversion, value: Any) -> Ours:
    """Convert `tokens`."""
    if not value:
        raise Drop(OFF_HERE)
    if isinstance(value, dict):
        return special(conversion, value)
    return {"add_tokens": value}


def template(conversion: Conversion, value: Any) -> Ours:
    """Convert `chat_template`."""
    jinja = conversion.given.get("chat_template_jinja")
    if value == "jinja" or (jinja and not value):
        return {"chat_template": jinja}
    name = str(value or "").removeprefix("tokenizer_default_fallback_")
    if value and value != "alpaca" and name != value:
        raise Drop(f"the tokenizer's own chat template is used; without one, write chat_template: {name}")
    return by_name(conversion, value)


def jinja(conversion: Conversion, value: Any) -> Ours:
    """Convert `chat_template_jinja`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"chat_template": value}


def packing(conversion: Conversion, value: Any) -> Ours:
    """Convert `sample_packing`."""
    return {"packing": bool(value)}


def eval_packing(conversion: Conversion, value: Any) -> Ours:
    """Convert `eval_sample_packing`."""
    if value is None:
        raise Drop(OFF_HERE)
    return {"eval_packing": bool(value)}


def lengths(_: Conversion, value: Any) -> Ours:
    """Convert `excess_length_strategy`."""
    if value == "raise":
        raise Refuse("raise: longer rows are cut in sft and pretrain, and follow on_bad_row elsewhere")
    if value in (None, "drop"):
        raise Notice("longer rows are cut at max_length, not left out")
    raise Drop("longer rows are cut at max_length")


def length(conversion: Conversion, value: Any) -> Ours:
    """Convert `sequence_len`."""
    if conversion.stage in training.ONLINE:
        raise Drop("max_prompt_len and max_completion_length are the bounds")
    return {"max_length": value}


def by_length(_: Conversion, value: Any) -> Ours:
    """Convert `group_by_length`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"train_sampling_strategy": "group_by_length"}


def streaming(_: Conversion, value: Any) -> Ours:
    """Convert `streaming`."""
    raise Drop("data are read whole; local files of JSON lines stream with streaming: true in stage pretrain")


def from_scratch(conversion: Conversion, value: Any) -> Ours:
    """Convert `reinit_weights`."""
    if not value:
        raise Drop(OFF_HERE)
    if conversion.stage != "pretrain":
        raise Refuse("random weights are trained in stage pretrain alone")
    return {"from_scratch": True}


def tracker(name: str) -> Convert:
    """Convert `use_wandb`, `use_tensorboard`, `use_mlflow`."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if not value:
            raise Drop(OFF_HERE)
        known = conversion.recipe.get("report_to")
        names = [*(known if isinstance(known, list) else [known] if known else []), name]
        return {"report_to": list(dict.fromkeys(names))}

    return convert


def project(conversion: Conversion, value: Any) -> Ours:
    """Convert `wandb_project`, `project_name`."""
    if not value:
        raise Drop(OFF_HERE)
    if conversion.given.get("use_wandb") is False:
        raise Drop("use_wandb is off")
    return {**tracker("wandb")(conversion, value), "project": value}


def named(ours: str) -> Convert:
    """Convert `wandb_name`, `wandb_run_id`, `trackio_run_name`."""

    def convert(_: Conversion, value: Any) -> Ours:
        if not value:
            raise Drop(OFF_HERE)
        return {ours: value}

    return convert


def watch(_: Conversion, value: Any) -> Ours:
    """Convert `wandb_log_model`."""
    if value in (None, False, "", "false"):
        raise Drop(OFF_HERE)
    return {"log_model": True}


def early(_: Conversion, value: Any) -> Ours:
    """Convert `early_stopping_patience`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"early_stopping_patience": value, "load_best_model_at_end": True}


def compile(conversion: Conversion, value: Any) -> Ours:
    """Convert `torch_compile`."""
    if value is not True or conversion.stage in training.ONLINE:
        raise Drop(FASTER)
    return {"torch_compile": True}


def attention_named(name: str) -> Convert:
    """Return the conversion of a switch that names an attention implementation."""

    def convert(_: Conversion, value: Any) -> Ours:
        return attention(name if value else None)

    return convert


def reward(_: Conversion, value: Any) -> Ours:
    """Convert `reward_model`."""
    raise Drop("the stage is reward" if value else OFF_HERE)


def grpo(conversion: Conversion, value: Any) -> Ours:
    """Convert `trl`, the mapping of TRL's keys that GRPO reads."""
    if conversion.stage != "grpo" or not value:
        raise Drop("has no effect without rl: grpo")
    for key, each in value.items():
        if key not in OF_TRL and not key.startswith(UNREAD) and each not in (None, False):
            raise Refuse(f"{key} is not read in stage grpo")
    ours = {OF_TRL[key]: each for key, each in value.items() if key in OF_TRL and each is not None}
    functions = [str(name) for name in value.get("reward_funcs") or []]
    weights = value.get("reward_weights") or [1.0] * len(functions)
    if len(weights) != len(functions):
        raise Refuse(f"has {len(functions)} of reward_funcs and {len(weights)} of reward_weights")
    ours["scorers"] = [scorer(name, weight) for name, weight in zip(functions, weights, strict=True)]
    if value.get("use_vllm"):
        ours |= {"rollout_engine": "vllm", "vllm_mode": value.get("vllm_mode") or "server"}
        if ours["vllm_mode"] == "server":
            host, port = value.get("vllm_server_host") or "127.0.0.1", value.get("vllm_server_port") or 8000
            ours["vllm_server_base_url"] = f"http://{host}:{port}"
    return ours


def scorer(name: str, weight: float) -> dict[str, Any]:
    """Return the scorer of a function, which axolotl names by dots."""
    module, _, function = name.rpartition(".")
    return {"kind": "function", "name": function, "function": f"{module}:{function}", "weight": float(weight)}
