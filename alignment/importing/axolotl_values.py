"""How axolotl's values become those of a recipe here."""

from typing import Any

from alignment.importing.conversion import Conversion
from alignment.importing.keys import (
    OFF_HERE,
    Convert,
    Drop,
    Key,
    Ours,
    Refuse,
    converted,
)
from alignment.importing.values import (
    SAMPLING_CAP,
    attention,
    listed,
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
QUANTIZED = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True}
NOT_OF_ALL_LINEAR = ("lm_head", "embed", "router", "wte")  # parts of names of layers that all-linear leaves out
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
READ = ("reward_funcs", "reward_weights", "use_vllm", "vllm_mode", "vllm_server_host", "vllm_server_port",
        "vllm_importance_sampling_cap", "vllm_importance_sampling_correction")  # fmt: skip
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
        if more := [name for name in listed(found) if any(part in name for part in NOT_OF_ALL_LINEAR)]:
            raise Refuse(f"{more[0]} is none of the layers of lora_target_linear; list all layers, and take that out")
        raise Drop("lora_target_linear takes all linear layers")
    return {"lora_target_modules": found}


def unfrozen(conversion: Conversion, value: Any) -> Ours:
    """Convert `unfrozen_parameters`."""
    if not value:
        raise Drop(OFF_HERE)
    if conversion.get("adapter"):
        raise Refuse(
            "freezes the adapter too, where axolotl's patterns do not name its weights; give the key up to "
            "train the adapter"
        )
    raise Refuse("patterns of parameters are not trained; peft_method freeze trains whole layers")


def four(conversion: Conversion, value: Any) -> Ours:
    """Convert `load_in_4bit`."""
    if conversion.get("adapter") == "qlora" or not value:
        raise Drop("it follows from adapter" if value else OFF_HERE)
    return QUANTIZED


def quantizer(conversion: Conversion, value: Any) -> Ours:
    """Convert `bnb_config_kwargs`."""
    names = {"bnb_4bit_use_double_quant": "use_bnb_nested_quant", "bnb_4bit_quant_type": "bnb_4bit_quant_type"}
    if not value:
        raise Drop(OFF_HERE)
    if conversion.get("adapter") != "qlora" and not conversion.get("load_in_4bit"):
        raise Drop("has no effect without load_in_4bit: true")
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


def configuration(conversion: Conversion, value: Any) -> Ours:
    """Convert `model_config`, whose keys of the load-balancing loss of experts are those of stage sft."""
    if not value:
        raise Drop(OFF_HERE)
    known = ("output_router_logits", "router_aux_loss_coef")
    if conversion.stage != "sft" or not isinstance(value, dict) or any(key not in known for key in value):
        raise Refuse("it changes the model, which is trained as its folder describes it")
    if not value.get("output_router_logits"):
        return {"router_aux_loss_coef": 0.0}
    if value.get("router_aux_loss_coef") is not None:
        return {"router_aux_loss_coef": value["router_aux_loss_coef"]}
    raise Drop("experts have their load-balancing loss, with the coefficient of the model, without a key")


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
    if conversion.stage in ("dpo", "kto") and value and value.get("beta") is not None:
        return {"beta": value["beta"]}
    if conversion.stage != "grpo" or not value:
        raise Drop("has no effect without rl: grpo")
    for key, each in value.items():
        if key not in OF_TRL and not key.startswith(UNREAD) and each not in (None, False):
            raise Refuse(f"{key} is not read in stage grpo")
    ours = {OF_TRL[key]: each for key, each in value.items() if key in OF_TRL and each is not None}
    if unread := [key for key, each in value.items() if key.startswith(UNREAD) and key not in READ and each]:
        conversion.note("scorers", f"not read of trl: {', '.join(unread)}")
    functions = [str(name) for name in value.get("reward_funcs") or []]
    weights = value.get("reward_weights") or [1.0] * len(functions)
    if len(weights) != len(functions):
        raise Refuse(f"has {len(functions)} of reward_funcs and {len(weights)} of reward_weights")
    ours["scorers"] = [scorer(name, weight) for name, weight in zip(functions, weights, strict=True)]
    if value.get("use_vllm"):
        is_capped, cap = value.get("vllm_importance_sampling_correction"), value.get("vllm_importance_sampling_cap")
        ours["importance_sampling_cap"] = None if is_capped is False else cap or SAMPLING_CAP
        ours |= {"rollout_engine": "vllm", "vllm_mode": value.get("vllm_mode") or "server"}
        if ours["vllm_mode"] == "server":
            host, port = value.get("vllm_server_host") or "127.0.0.1", value.get("vllm_server_port") or 8000
            ours["vllm_server_base_url"] = f"http://{host}:{port}"
    return ours


def scorer(name: str, weight: float) -> dict[str, Any]:
    """Return the scorer of a function, which axolotl names by dots."""
    module, _, function = name.rpartition(".")
    return {"kind": "function", "name": function, "function": f"{module}:{function}", "weight": float(weight)}
