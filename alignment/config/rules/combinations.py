"""The table of combinations of quantisation, method, stage and strategy that cannot work.

`alignment check` refuses what needs no strategy to be known, `alignment doctor --strategy` the rest, and PPO what comes
of the strategy that really runs. docs/planning.md shows the table; tests/doctor/test_combinations.py tries each entry
for real, and beside it what is said to work.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from alignment.config.engines import WHOLE_WEIGHTS
from alignment.config.methods import TUNING_METHODS, TuningMethod, methods_where
from alignment.config.schema import STAGES, Stage
from alignment.config.schema.keys import QUANTISING

Get = Callable[[str], Any]  # returns a recipe's value, or its default, by key; None: neither exists
DEEPSPEED = ("zero1", "zero2", "zero3", "zero3-offload", "zero3-nvme")
SEVERAL = ("ddp", *DEEPSPEED, "fsdp2")


def _stages(which: Callable[[Stage], bool]) -> tuple[str, ...]:
    return tuple(name for name, cls in STAGES.items() if which(cls.STAGE))


ONE_PROCESS = _stages(lambda stage: stage.one_process)
TRAINING = _stages(lambda stage: stage.trains)
ON_DEMONSTRATIONS = _stages(lambda stage: stage.trains and stage.rows == "demonstrations")
WITH_REFERENCE = _stages(lambda stage: stage.reference)
ONLINE = _stages(lambda stage: stage.is_online)


@dataclass(frozen=True, slots=True)
class Combination:
    """One that cannot work."""

    key: str  # of the recipe, for the location of the fault
    what: str  # the combination, in words
    stages: tuple[str, ...]
    applies: Callable[[Get], bool]
    reason: str
    remedy: str
    strategies: tuple[str, ...] = ()  # (): whatever the strategy
    on_cpu_alone: bool = False


def _is(get: Get, fact: Callable[[TuningMethod], bool]) -> bool:
    """Whether the recipe's tuning method has a fact; without a method it has none."""
    method = TUNING_METHODS.get(get("peft_method"))
    return method is not None and fact(method)


def _stays_apart(method: TuningMethod) -> bool:
    """Whether an adapter can be merged into no base; a soft prompt has an entry of its own."""
    return not (method.merges or method.merges_biases) and method.has_adapter and method.family != SOFT_PROMPTS


def _merges_in_floats(method: TuningMethod) -> bool:
    """Whether an adapter is merged by PEFT, which puts the sum into the base's own type; LoRA's sum is ours."""
    return (method.merges or method.merges_biases) and method.has_adapter and not method.is_lora


SOFT_PROMPTS = "soft_prompts"  # family of the tuning methods that put a prompt before the inputs
COMBINATIONS = (
    Combination(
        "load_in_4bit",
        "`load_in_4bit` and a `peft_method` that needs the base in floating point",
        TRAINING,
        lambda get: bool(get("load_in_4bit")) and _is(get, lambda method: not method.allows_4bit),
        "the method trains the base's weights or computes with them, and 4 bits hold none to compute with",
        f"use peft_method {methods_where(lambda method: method.allows_4bit)}",
    ),
    Combination(
        "load_in_8bit",
        "`load_in_8bit` and a `peft_method` that needs the base in floating point",
        TRAINING,
        lambda get: bool(get("load_in_8bit")) and _is(get, lambda method: not method.allows_8bit),
        "the method trains the base's weights or computes with them, and 8 bits hold none to compute with",
        f"use peft_method {methods_where(lambda method: method.allows_8bit)}",
    ),
    Combination(
        "load_in_8bit",
        "`load_in_8bit` and weights in shards (ZeRO-3, FSDP2)",
        TRAINING,
        lambda get: bool(get("load_in_8bit")),
        "a shard of the integers lacks the constants of its rows, which bitsandbytes keeps beside the weight",
        "use load_in_4bit, or strategy ddp or zero2",
        ("zero3", "zero3-offload", "zero3-nvme", "fsdp2"),
    ),
    Combination(
        "packing_strategy",
        "`packing` and `packing_strategy: wrapped`",
        ON_DEMONSTRATIONS,
        lambda get: bool(get("packing")) and get("packing_strategy") == "wrapped",
        "wrapped lets answers see other rows' text and cuts rows in two",
        "use bfd",
    ),
    Combination(
        "packing",
        "`packing` and a soft prompt",
        ON_DEMONSTRATIONS,
        lambda get: bool(get("packing")) and _is(get, lambda method: method.family == SOFT_PROMPTS),
        "the rows of a pack would share one soft prompt",
        "set packing: false, or use peft_method lora",
    ),
    Combination(
        "gradient_checkpointing_kwargs",
        "`use_reentrant` and a prefix",
        TRAINING,
        lambda get: (
            bool((get("gradient_checkpointing_kwargs") or {}).get("use_reentrant"))
            and get("peft_method") in ("prefix_tuning", "p_tuning_v2")
        ),
        "torch would go through the prefix's graph a second time",
        "take use_reentrant out",
    ),
    Combination(
        "peft_method",
        "a soft prompt and weights in shards (ZeRO-3, FSDP2)",
        TRAINING,
        lambda get: _is(get, lambda method: method.family == SOFT_PROMPTS),
        "the soft prompt is computed outside the layers that gather their shards",
        "use strategy ddp or zero2, or peft_method lora",
        ("zero3", "zero3-offload", "zero3-nvme", "fsdp2"),
    ),
    Combination(
        "sync_ref_model",
        "`sync_ref_model` and an adapter",
        WITH_REFERENCE,
        lambda get: bool(get("sync_ref_model")) and _is(get, lambda method: not method.copies_reference),
        "an adapter's reference is no model of its own that could be moved towards the policy",
        f"take it out, or use peft_method {methods_where(lambda method: method.copies_reference)}",
    ),
    Combination(
        "value_warmup_updates",
        "`value_warmup_updates`, `value_model: head` and DeepSpeed",
        ONLINE,
        lambda get: bool(get("value_warmup_updates")) and get("value_model") == "head",
        "DeepSpeed keeps the gradients to itself, and warming up a head on the policy's trunk would move the policy",
        "use value_model adapter, or strategy ddp or fsdp2",
        DEEPSPEED,
    ),
    Combination(
        "peft_method",
        "AdaLoRA, or another method that reads gradients or changes the optimizer's steps, and DeepSpeed or FSDP2",
        TRAINING,
        lambda get: _is(get, lambda method: method.reads_gradients or method.samples_ranks),
        "the method reads each gradient before the optimizer's step, or weights after it, and they lie in shards",
        "use strategy ddp, or peft_method lora",
        (*DEEPSPEED, "fsdp2"),
    ),
    Combination(
        "torch_compile",
        "`torch_compile` and a stage that trains on scores of sampled answers",
        ONLINE,
        lambda get: any(get(key) for key in ("torch_compile", "torch_compile_backend", "torch_compile_mode")),
        "the training pass alone would be compiled: it would round otherwise than the passes before the update, so the "
        "first ratio would not be 1, and it would be compiled anew for roles and lengths",
        "take the keys out; stages sft, reward, dpo and kto compile",
    ),
    Combination(
        "rollout_engine",
        "`rollout_engine: vllm` or `merged`, and DyLoRA",
        ONLINE,
        lambda get: get("rollout_engine") in WHOLE_WEIGHTS and _is(get, lambda method: method.samples_ranks),
        "each update computes at a rank of its own, and merged weights would sample its answers at the full rank",
        "use rollout_engine transformers, or peft_method lora",
    ),
    Combination(
        "cache_implementation",
        "`cache_implementation: static` and a soft prompt",
        ONLINE,
        lambda get: get("cache_implementation") == "static" and _is(get, lambda method: method.family == SOFT_PROMPTS),
        "a step of fixed shapes puts no soft prompt before the decoder's inputs",
        "use cache_implementation dynamic, or peft_method lora",
    ),
    Combination(
        "rollout_engine",
        "`rollout_engine: merged` and weights in shards (ZeRO-3, FSDP2)",
        ONLINE,
        lambda get: get("rollout_engine") == "merged",
        "each process would hold a whole copy of the policy beside its shards",
        "use strategy ddp or zero2, or rollout_engine transformers",
        ("zero3", "zero3-offload", "zero3-nvme", "fsdp2"),
    ),
    Combination(
        "rollout_engine",
        "a `rollout_engine` that is not transformers, and a soft prompt",
        ONLINE,
        lambda get: get("rollout_engine") != "transformers" and _is(get, lambda method: method.family == SOFT_PROMPTS),
        "only this project's engine puts a soft prompt before the decoder's inputs",
        "use rollout_engine transformers, or peft_method lora",
    ),
    Combination(
        "rollout_engine",
        "`rollout_engine: vllm` or `merged`, and an adapter that cannot be merged",
        ONLINE,
        lambda get: get("rollout_engine") in WHOLE_WEIGHTS and _is(get, _stays_apart),
        "the engine samples from whole weights, and the adapter cannot be added to the base's",
        "use rollout_engine transformers, or peft_method lora",
    ),
    Combination(
        "rollout_engine",
        "`rollout_engine: vllm` or `merged`, and `new_biases` of BitFit",
        ONLINE,
        lambda get: get("rollout_engine") in WHOLE_WEIGHTS and bool((get("peft_config") or {}).get("new_biases")),
        "the engine samples from whole weights, which have no place for biases that the architecture lacks",
        "take new_biases out, or use rollout_engine transformers, or peft_method lora",
    ),
    Combination(
        "load_in_4bit",
        "`rollout_engine: vllm` or `merged`, `load_in_4bit` or `load_in_8bit`, and an adapter that is not LoRA",
        ONLINE,
        lambda get: (
            get("rollout_engine") in WHOLE_WEIGHTS and any(map(get, QUANTISING)) and _is(get, _merges_in_floats)
        ),
        "the engine is given merged weights, and PEFT would round the sum of quantised weights and this adapter again",
        "hold the base in floating point, or use rollout_engine transformers, or peft_method lora",
    ),
    Combination(
        "lora_modules_to_save",
        "`lora_modules_to_save` and weights in shards (ZeRO-3, FSDP2)",
        WITH_REFERENCE,
        lambda get: bool(get("lora_modules_to_save")) and _is(get, lambda method: method.has_adapter),
        "the reference has copies of these modules that do not train: DeepSpeed leaves them out of what is saved, "
        "where PEFT looks for them, and FSDP2 gives the trained ones gradients in another dtype",
        "use strategy zero2 or ddp; or merge the model that comes from SFT (alignment merge) and leave them out",
        ("zero3", "zero3-offload", "zero3-nvme", "fsdp2"),
    ),
    Combination(
        "optim",
        "an `optim` that is not AdamW and offloading to the host or a disk",
        TRAINING,
        lambda get: get("optim") not in (None, "adamw_torch", "adamw_torch_fused"),
        "Accelerate puts DeepSpeed's Adam in its place without a word",
        "take optim out, or use a strategy that does not offload",
        ("zero3-offload", "zero3-nvme"),
    ),
    Combination(
        "stage",
        "labels or an evaluation, and several processes",
        ONE_PROCESS,
        lambda get: True,
        "the stage runs in one process",
        "run it on one device: in a pipeline only training stages are launched",
        SEVERAL,
    ),
    Combination(
        "stage",
        "FSDP2 and processes on CPU",
        TRAINING,
        lambda get: True,
        "Accelerate has no FSDP on CPU and would run plain data parallelism instead",
        "use strategy ddp or zero3, or GPUs",
        ("fsdp2",),
        on_cpu_alone=True,
    ),
)


def values_of(recipe: Any) -> Get:
    """A loaded recipe's values by key, the trainer's own keys among them."""
    return lambda key: getattr(recipe, key, recipe.library.get(key))


def broken_by_itself(stage: str, get: Get) -> Iterator[Combination]:
    """What cannot work under any strategy."""
    for one in COMBINATIONS:
        if not one.strategies and stage in one.stages and one.applies(get):
            yield one


def broken_under(stage: str, get: Get, strategy: str, *, gpu: bool) -> Iterator[Combination]:
    """What cannot work under a strategy; `gpu`: whether the processes have GPUs."""
    for one in COMBINATIONS:
        if strategy in one.strategies and stage in one.stages and not (one.on_cpu_alone and gpu) and one.applies(get):
            yield one


def markdown() -> str:
    """The table, as docs/planning.md shows it."""
    lines = ["| what goes together | in | reason | what to do |", "|---|---|---|---|"]
    for one in COMBINATIONS:
        stages = "every training stage" if one.stages == TRAINING else ", ".join(one.stages)
        lines.append(f"| {one.what} | {stages} | {one.reason} | {one.remedy} |")
    return "\n".join(lines)
