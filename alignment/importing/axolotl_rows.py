"""How axolotl's rows, chat templates, lengths and packing become those of a recipe here."""

from typing import Any

from alignment.importing import training
from alignment.importing.axolotl_data import datasets
from alignment.importing.chat_templates import by_name
from alignment.importing.conversion import Conversion
from alignment.importing.keys import OFF_HERE, Drop, Notice, Ours, Refuse
from alignment.importing.values import new_tokens

BUFFER = 10_000  # rows, of axolotl's default, from which the next one is drawn


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
    return new_tokens(conversion, value)


def template(conversion: Conversion, value: Any) -> Ours:
    """Convert `chat_template`, which rows with prompts of their own do not read."""
    ours = _template(conversion, value)
    if conversion.recipe.get("chat_template", ours["chat_template"]) != ours["chat_template"]:
        raise Drop("the type of datasets has a chat template of its own")
    return ours


def _template(conversion: Conversion, value: Any) -> Ours:
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
    if conversion.recipe.get("chat_template", value) != value:
        raise Drop("chat_template, or the type of datasets, names another")
    return {"chat_template": value}


def documents(conversion: Conversion, value: Any) -> Ours:
    """Convert `pretraining_dataset`."""
    conversion.differences["sequence_len"] = "longer documents are split; axolotl takes their beginning"
    ours = datasets("datasets")(conversion, value)
    steps = conversion.given.get("max_steps")
    if not isinstance(steps, int) or steps <= 0 or conversion.get("val_set_size"):
        return ours
    sizes = (conversion.given.get(f"{name}_multipack_buffer_size") for name in ("streaming", "pretrain"))
    buffer = next((size for size in sizes if size), BUFFER)
    conversion.note("streaming", "axolotl reads pretraining_dataset while it trains")
    ordered = conversion.given.get("shuffle_merged_datasets") is False
    return {**ours, "streaming": True, "shuffle_buffer_size": 1 if ordered else buffer}


def joined(conversion: Conversion, value: Any) -> Ours:
    """Convert `pretraining_sample_concatenation`, which axolotl reads where samples are not packed."""
    if not value or conversion.get("sample_packing"):
        raise Drop(OFF_HERE)
    conversion.differences["pretraining_sample_concatenation"] = (
        "documents of a sequence do not attend to each other; axolotl's do"
    )
    return {"packing": True}


def packing(conversion: Conversion, value: Any) -> Ours:
    """Convert `sample_packing`."""
    if not value and conversion.given.get("pretraining_sample_concatenation"):
        raise Drop("pretraining_sample_concatenation joins documents")
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


def inputs(conversion: Conversion, value: Any) -> Ours:
    """Convert `train_on_inputs`."""
    if not value or conversion.stage != "sft":
        raise Drop(OFF_HERE if not value else "has no effect in this stage")
    raise Refuse("loss is on answers alone")


def length(conversion: Conversion, value: Any) -> Ours:
    """Convert `sequence_len`."""
    if conversion.stage in training.ONLINE:
        raise Drop("max_prompt_len and max_completion_length are the bounds")
    return {"max_length": value}


def streaming(_: Conversion, value: Any) -> Ours:
    """Convert `streaming`."""
    raise Drop("data are read whole, but those of stage pretrain with max_steps")
