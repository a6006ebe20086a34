"""How LLaMA-Factory's values become those of a recipe here."""

from typing import Any

from alignment.config.schema import STAGES as STAGES_HERE
from alignment.importing import training
from alignment.importing.chat_templates import by_name
from alignment.importing.conversion import Conversion
from alignment.importing.keys import OFF_HERE, Drop, Key, Ours, Refuse, converted
from alignment.importing.values import attention, listed, new_tokens, target_modules

STAGES = {"pt": "pretrain", "sft": "sft", "rm": "reward", "dpo": "dpo", "kto": "kto", "ppo": "ppo", "orpo": "dpo"}


def stage_key(_: Conversion, value: Any) -> Ours:
    """Convert `stage`."""
    if value not in STAGES:
        raise Refuse(f"is none of {', '.join(STAGES)}")
    return {"stage": STAGES[value], **({"loss_type": "orpo"} if value == "orpo" else {})}


def method(conversion: Conversion, value: Any) -> Ours:
    """Convert `finetuning_type`."""
    if value == "lora":
        return {"peft_method": "dora" if conversion.get("use_dora") else "lora"}
    if value in ("full", "freeze", "oft"):
        return {"peft_method": value}
    raise Refuse("is none of lora, oft, freeze and full")


def only_for(method: str, convert: Any) -> Any:
    """Return a conversion that holds for one finetuning_type."""

    def converted_with(conversion: Conversion, value: Any) -> Ours:
        if conversion.get("finetuning_type") != method:
            raise Drop(f"has no effect without finetuning_type: {method}")
        found: Ours = convert(conversion, value)
        return found

    return converted_with


def lora(name: str, ours: str, note: str = "", convert: Any = None, **options: Any) -> Key:
    """A key of LoRA, which has no effect on other methods."""
    return converted(name, ours, note, only_for("lora", convert or (lambda _, value: {ours: value})), **options)


def alpha(conversion: Conversion, value: Any) -> Ours:
    """Convert `lora_alpha`."""
    return {"lora_alpha": value or 2 * conversion.get("lora_rank")}


def pissa(conversion: Conversion, value: Any) -> Ours:
    """Convert `pissa_init`."""
    if not value:
        raise Drop(OFF_HERE)
    steps = conversion.get("pissa_iter")
    return {"peft_config": {"init_lora_weights": "pissa" if steps == -1 else f"pissa_niter_{steps}"}}


def mixing(_: Conversion, value: Any) -> Ours:
    """Convert `mix_strategy`."""
    if value == "interleave_over":
        raise Refuse("rows are not repeated; interleave_under stops where the first data set ends")
    if value not in ("concat", "interleave_under", "interleave_once"):
        raise Refuse("is none of concat, interleave_under and interleave_once")
    raise Drop("data sets are joined and shuffled; those of interleave_under have fractions")


def cutoff(conversion: Conversion, value: Any) -> Ours:
    """Convert `cutoff_len`."""
    packing = conversion.given.get("packing")
    if conversion.stage == "pretrain":
        told = ("packing", "documents of a sequence do not attend to each other; LLaMA-Factory's do")
        if packing is False:
            told = ("cutoff_len", "longer documents are split; LLaMA-Factory takes their beginning")
        conversion.differences[told[0]] = told[1]
    if conversion.stage == "sft" and not (packing or conversion.given.get("neat_packing")):
        conversion.differences["cutoff_len"] = (
            "longer rows are cut at their end; LLaMA-Factory shortens prompts and answers in proportion"
        )
    return {"max_prompt_length" if conversion.stage == "ppo" else "max_length": value}


def modules(conversion: Conversion, value: Any) -> Ours:
    """Convert `additional_target`."""
    words = listed(value) if value else []
    if not words:
        raise Drop(OFF_HERE)
    if conversion.get("finetuning_type") == "oft":
        return {"peft_config": {"modules_to_save": words}}
    if conversion.get("finetuning_type") != "lora":
        raise Drop("has no effect without an adapter")
    return {"lora_modules_to_save": words}


def oft(field: str) -> Any:
    """Convert `oft_rank`, `oft_block_size`, `module_dropout`."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if field == "oft_block_size" and conversion.get("oft_rank"):
            raise Drop("oft_rank gives the size of the blocks")
        if field == "r":
            return {"peft_config": {"r": value, "oft_block_size": 0}} if value else {}
        if field == "target_modules":
            return {"peft_config": {field: target_modules(value)}}
        return {"peft_config": {field: value}}

    return only_for("oft", convert)


def frozen(conversion: Conversion, value: Any) -> Ours:
    """Convert `freeze_trainable_modules`."""
    names = listed(value) if value else []
    if names not in ([], ["all"]):
        raise Refuse("parts of a layer cannot be chosen; all of each layer is trained")
    raise Drop("all of each layer is trained")


def layers(_: Conversion, value: Any) -> Ours:
    """Convert `freeze_trainable_layers`."""
    return {"peft_config": {"trainable_layers": value}}


def bits(_: Conversion, value: Any) -> Ours:
    """Convert `quantization_bit`."""
    if value is None:
        raise Drop(OFF_HERE)
    if value == 4:
        return {"load_in_4bit": True}
    if value == 8:
        return {"load_in_8bit": True}
    raise Refuse(f"weights of {value} bits are not supported; 4 and 8 are")


def of_bits(ours: str) -> Any:
    """Convert `quantization_type`, `double_quantization`."""

    def convert(conversion: Conversion, value: Any) -> Ours:
        if conversion.get("quantization_bit") != 4:
            raise Drop("has no effect without quantization_bit: 4")
        return {ours: value}

    return convert


def quantizer(conversion: Conversion, value: Any) -> Ours:
    """Convert `quantization_method`."""
    if conversion.get("quantization_bit") and str(value) not in ("bnb", "bitsandbytes"):
        raise Refuse("only bitsandbytes quantizes here; write bnb")
    raise Drop("bitsandbytes quantizes always")


def adapter(conversion: Conversion, value: Any) -> Ours:
    """Convert `adapter_name_or_path`."""
    paths = listed(value) if value else []
    if not paths:
        raise Drop(OFF_HERE)
    if len(paths) > 1:
        raise Refuse("names several adapters; merge them first with `alignment merge`")
    free = conversion.stage == "dpo" and conversion.get("pref_loss") in ("orpo", "simpo")
    if STAGES_HERE[conversion.stage].STAGE.reference and not free and not conversion.given.get("create_new_adapter"):
        conversion.note("model_name_or_path", "also the reference; LLaMA-Factory's is the base without this adapter")
    return {"model_name_or_path": paths[0]}


def model(conversion: Conversion, value: Any) -> Ours:
    """Convert `model_name_or_path`."""
    if conversion.given.get("adapter_name_or_path"):
        raise Drop("the adapter in adapter_name_or_path names its base")
    return {"model_name_or_path": value}


def pure(_: Conversion, value: Any) -> Ours:
    """Convert `pure_bf16`."""
    return {"dtype": "bfloat16", "bf16": True} if value else {}


def order(conversion: Conversion, value: Any) -> Ours:
    """Convert `disable_shuffling`."""
    if not value:
        raise Drop(OFF_HERE)
    return training.in_order(conversion, conversion.given.get("packing") or conversion.given.get("neat_packing"))


def streaming(conversion: Conversion, value: Any) -> Ours:
    """Convert `streaming`."""
    if conversion.stage != "pretrain":
        raise Drop("data are read whole" if value else OFF_HERE)
    return {"streaming": value}


def packing(conversion: Conversion, value: Any) -> Ours:
    """Convert `packing`."""
    if value is None:
        raise Drop(OFF_HERE)
    if value and not conversion.given.get("neat_packing"):
        conversion.differences["packing"] = "rows of a sequence do not attend to each other; LLaMA-Factory's do"
    return {"packing": bool(value)}


def neat(_: Conversion, value: Any) -> Ours:
    """Convert `neat_packing`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"packing": True}


def max_samples(conversion: Conversion, value: Any) -> Ours:
    """Convert `max_samples`."""
    if value is None:
        raise Drop(OFF_HERE)
    sets = conversion.recipe.get("datasets", [])
    conversion.most_rows = value * max(len(sets), 1)
    if conversion.unsettled.get("datasets"):
        for entry in sets:
            entry["split"] = f"train[:{value}]"
    raise Drop(f"it is the slice of each data set: split: train[:{value}]")


def template(conversion: Conversion, value: Any) -> Ours:
    """Convert `template`."""
    return by_name(conversion, value)


def flash(_: Conversion, value: Any) -> Ours:
    """Convert `flash_attn`."""
    return attention(value)


def checkpointing(_: Conversion, value: Any) -> Ours:
    """Convert `disable_gradient_checkpointing`."""
    return {"gradient_checkpointing": not value}


def workers(conversion: Conversion, value: Any) -> Ours:
    """Convert `preprocessing_num_workers`."""
    return training.processes(conversion, value)


def tokens(conversion: Conversion, value: Any) -> Ours:
    """Convert `add_tokens`, `add_special_tokens`."""
    words = listed(value) if value else []
    if not words:
        raise Drop(OFF_HERE)
    return new_tokens(conversion, words)


def early(conversion: Conversion, value: Any) -> Ours:
    """Convert `early_stopping_steps`."""
    if value is None:
        raise Drop(OFF_HERE)
    return {"early_stopping_patience": value, "load_best_model_at_end": True}


def swanlab(conversion: Conversion, value: Any) -> Ours:
    """Convert `use_swanlab`."""
    if not value:
        raise Drop(OFF_HERE)
    return {"report_to": "swanlab"}
