"""How TRL's values become those of a recipe here."""

from typing import Any

from alignment.config.schema import STAGES
from alignment.importing.chat_templates import by_name
from alignment.importing.conversion import Conversion
from alignment.importing.keys import (
    OFF_HERE,
    Drop,
    Key,
    Ours,
    Refuse,
    converted,
)
from alignment.importing.values import FASTER, SAMPLING_CAP, held_out

EVALUATED_TOO = ("datasets", "eval_datasets")
SAMPLED = ("grpo", "rloo", "ppo")


def method(conversion: Conversion, value: Any) -> Ours:
    """Convert `use_peft`."""
    if not value:
        return {"peft_method": "full"}
    return {"peft_method": "dora" if conversion.given.get("use_dora") else "lora"}


def lora(name: str, ours: str, note: str = "", convert: Any = None, **options: Any) -> Key:
    """A key that use_peft alone reads."""

    def convert_with_adapter(conversion: Conversion, value: Any) -> Ours:
        if not conversion.get("use_peft"):
            raise Drop("has no effect without use_peft: true")
        found: Ours = convert(conversion, value) if convert else {ours: value}
        return found

    return converted(name, ours, note, convert_with_adapter, **options)


def four(conversion: Conversion, value: Any) -> Ours:
    """Convert `load_in_4bit`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"load_in_4bit": True}


def of_four(ours: str) -> Any:
    """Convert `bnb_4bit_quant_type`, `use_bnb_nested_quant`."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if not conversion.get("load_in_4bit"):
            raise Drop("has no effect without load_in_4bit: true")
        return {ours: value}

    return convert


def dtype(conversion: Conversion, value: Any) -> Ours:
    """Convert `dtype`."""
    if conversion.given.get("torch_dtype") and "dtype" not in conversion.given:
        return {}
    return {"dtype": value}


def older_dtype(_: Conversion, value: Any) -> Ours:
    """Convert `torch_dtype`."""
    return {"dtype": value}


def text_field(conversion: Conversion, value: Any) -> Ours:
    """Convert `dataset_text_field`, `text_column`."""
    entries = conversion.recipe.get("datasets")
    if value in (None, "", "text", "messages") or not entries or any(entry.get("columns") for entry in entries):
        raise Drop("layouts are recognised; name one with format in an entry of datasets")
    texts = {"format": "text", "columns": {"text": value}}
    ours = {key: [{**entry, **texts} for entry in conversion.recipe[key]] for key in EVALUATED_TOO
            if conversion.recipe.get(key)}  # fmt: skip
    return ours


def template(conversion: Conversion, value: Any) -> Ours:
    """Convert `chat_template`."""
    text = str(value)
    if "{%" in text or "{{" in text:
        return {"chat_template": text}
    return by_name(conversion, value)


def template_path(_: Conversion, value: Any) -> Ours:
    """Convert `chat_template_path`."""
    if str(value).endswith(".jinja"):
        return {"chat_template": value}
    raise Refuse(f"{value} is a tokenizer; save its chat template as a .jinja file and name that")


def tests(conversion: Conversion, value: Any) -> Ours:
    """Convert `test_split_size`."""
    return held_out(conversion, value)


def funcs(conversion: Conversion, value: Any) -> Ours:
    """Return the scorers of `reward_funcs`: functions of the user's, reward models, and none of TRL's own."""
    names = value if isinstance(value, list) else [value]
    weights = conversion.given.get("reward_weights") or [1.0] * len(names)
    if len(weights) != len(names):
        raise Refuse(f"has {len(names)} rewards for {len(weights)} of reward_weights")
    scorers = []
    for name, weight in zip(map(str, names), weights, strict=True):
        module, _, function = name.rpartition(".")
        if not module and "/" not in name:
            module = "trl.rewards"  # TRL's own, by name
        if module and "/" not in module:
            entry = {"kind": "function", "name": function, "function": f"{module}:{function}"}
        else:
            entry = {"kind": "reward_model", "model_name_or_path": name}
        scorers.append({**entry, "weight": float(weight)})
    return {"scorers": scorers}


def reward_model(conversion: Conversion, value: Any) -> Ours:
    """Convert `reward_model_path`."""
    if conversion.given.get("reward_funcs"):
        raise Drop("reward_funcs are given, which TRL takes instead")
    return {"reward_model_path": value}


def vllm(_: Conversion, value: Any) -> Ours:
    """Convert `use_vllm`."""
    return {"rollout_engine": "vllm"} if value else {}


def of_vllm(name: str) -> Key:
    """Return a key that has an effect with use_vllm alone."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if not conversion.given.get("use_vllm"):
            raise Drop("has no effect without use_vllm: true")
        return {name: value}

    return converted(name, name, "", convert, stages=SAMPLED)


BY_TOKEN = "the ratio of training to sampling is capped by token, as token_truncate has it"


def cap(conversion: Conversion, value: Any) -> Ours:
    """Convert `vllm_importance_sampling_clip_max`."""
    if not conversion.given.get("use_vllm"):
        raise Drop("has no effect without use_vllm: true")
    return {"importance_sampling_cap": value}


def corrected(conversion: Conversion, value: Any) -> Ours:
    """Convert `vllm_importance_sampling_correction`."""
    if value is False and conversion.given.get("use_vllm"):
        return {"importance_sampling_cap": None}
    raise Drop("it is on" if conversion.given.get("use_vllm") else "has no effect without use_vllm: true")


def sampling_mode(_: Conversion, value: Any) -> Ours:
    """Convert `vllm_importance_sampling_mode`."""
    raise Drop(BY_TOKEN)


def correct_sampling(conversion: Conversion) -> None:
    """Set TRL's cap of the ratio of training to sampling, and tell where its mode is another."""
    if conversion.recipe.get("rollout_engine") != "vllm":
        return
    if "importance_sampling_cap" not in conversion.recipe:
        conversion.recipe["importance_sampling_cap"] = SAMPLING_CAP
        conversion.note("importance_sampling_cap", "default of TRL")
    mode = conversion.given.get("vllm_importance_sampling_mode") or "sequence_mask"
    if mode != "token_truncate" and conversion.recipe["importance_sampling_cap"] is not None:
        conversion.differences["vllm_importance_sampling_mode"] = f"{BY_TOKEN}; TRL's is {mode}"


def dataset_options(_: Conversion, value: Any) -> Ours:
    """Convert `dataset_kwargs`."""
    if isinstance(value, dict) and value.get("skip_prepare_dataset"):
        raise Refuse("rows that are tokenised beforehand are not read; name the data set of their texts")
    raise Drop("the chat template writes all tokens of a row")


def server(conversion: Conversion, value: Any) -> Ours:
    """Convert `vllm_server_host`."""
    if conversion.given.get("vllm_mode") != "server" or not conversion.given.get("use_vllm"):
        raise Drop("has no effect without vllm_mode: server")
    port = conversion.given.get("vllm_server_port", 8000)
    return {"vllm_server_base_url": f"http://{value}:{port}"}


def loss(conversion: Conversion, value: Any) -> Ours:
    """Convert `loss_type`."""
    if conversion.stage == "sft" and value == "chunked_nll":
        raise Drop(FASTER)
    if value == "kto_pair":
        raise Refuse("TRL took it out of DPO; stage kto trains such rows, each answer with its label")
    return {"loss_type": value}


def rpo(conversion: Conversion, value: Any) -> Ours:
    """Convert `rpo_alpha`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"loss_type": [conversion.given.get("loss_type", "sigmoid"), "sft"], "loss_weights": [1.0, float(value)]}


def whole(name: str, what: str) -> Key:
    """A key that says whether the loss is on answers alone."""

    def convert(_: Conversion, value: Any) -> Ours:
        if value is False and name == "completion_only_loss":
            raise Refuse("loss is always on answers alone")
        raise Drop("loss is always on answers alone")

    return converted(name, "", what, convert, stages=("sft",))


def max_prompt(conversion: Conversion, value: Any) -> Ours:
    """Convert `max_prompt_length`."""
    if conversion.stage in SAMPLED:
        return {"max_prompt_length": value}
    raise Drop("max_length bounds prompt and answer together")


def of_moving_reference(name: str, note: str) -> Key:
    """A key of a reference that follows the policy, which the stages of pairs and labels have."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if conversion.stage in ("dpo", "kto"):
            return {name: value}
        if conversion.given.get("sync_ref_model") is not True:
            raise Drop("has no effect without sync_ref_model: true")
        raise Refuse("the reference is the model that training starts from, and does not move")

    return converted(name, name, note, convert)


def dropout(conversion: Conversion, value: Any) -> Ours:
    """Convert `disable_dropout`."""
    about = STAGES[conversion.stage].STAGE
    if about.ratio:
        raise Drop(f"dropout is off in {about.title}: with it {about.ratio}")
    raise Drop("lora_dropout stays" if value is False else "lora_dropout is 0")


def ppo_model(conversion: Conversion, value: Any) -> Ours:
    """Convert `sft_model_path`."""
    return {"model_name_or_path": value}


def model(conversion: Conversion, value: Any) -> Ours:
    """Convert `model_name_or_path`."""
    if conversion.stage == "ppo" and conversion.given.get("sft_model_path"):
        raise Drop("sft_model_path names the policy")
    return {"model_name_or_path": value}


def stop(_: Conversion, value: Any) -> Ours:
    """Convert `stop_token`."""
    if value in (None, "eos"):
        raise Drop("an answer ends with the stop tokens of its chat template")
    raise Refuse("an answer ends with the stop tokens of its chat template; name one with eos_token")


def steps_per_generation(conversion: Conversion, value: Any) -> Ours:
    """Convert `steps_per_generation`, `generation_batch_size`."""
    raise Drop("it is a factor of rollout_batch_size")
