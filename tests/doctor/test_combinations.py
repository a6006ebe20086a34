"""The table of combinations that cannot work: each is told, fails in earnest, and what stands beside it works."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from alignment.config.loading import check_recipe
from alignment.config.rules.combinations import COMBINATIONS, markdown
from alignment.doctor.recipe import examine
from alignment.errors import RecipeError
from alignment.planner.machine import Machine
from tests.doctor.trying import attempt, recipe_for, write_inputs

ROOT = Path(__file__).parents[2]
FOUR, EIGHT = {"load_in_4bit": True}, {"load_in_8bit": True}
SYNC = {"sync_ref_model": True}
WARM = {"value_warmup_updates": 1, "value_model": "head"}
WHOLE = {"lora_modules_to_save": ["lm_head"], "save_strategy": "steps", "save_steps": 2}
VLLM = {"rollout_engine": "vllm"}
BIASES = {"peft_method": "bitfit", "peft_config": {"new_biases": True}}
SOFT, PREFIX = {"peft_method": "prompt_tuning"}, {"peft_method": "prefix_tuning"}
REENTRANT = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}
PACK = {"packing": True, "packing_strategy": "wrapped"}


@dataclass
class Try:
    """One combination and its neighbour, each as stage, strategy and keys."""

    what: str  # as the table names it
    fails: tuple[str, str, dict[str, Any]]
    works: tuple[str, str, dict[str, Any]]
    said: str  # of what really happens, whoever says it
    environment: dict[str, str] = field(default_factory=dict)
    unguarded: bool = True  # with nobody to refuse it, it fails by itself


NO_CPU = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}  # with use_cpu, as a launcher's file may have it
TRIES = [
    Try(
        "`load_in_4bit` and a `peft_method` that needs the base in floating point",
        ("sft", "single", {**FOUR, "peft_method": "full"}),
        ("sft", "single", FOUR),
        "cannot train",
    ),
    Try(
        "`load_in_8bit` and a `peft_method` that needs the base in floating point",
        ("sft", "single", {**EIGHT, "peft_method": "full"}),
        ("sft", "single", EIGHT),
        "cannot train",
    ),
    Try(
        "`load_in_8bit` and weights in shards (ZeRO-3, FSDP2)",
        ("sft", "zero3", EIGHT),
        ("sft", "ddp", EIGHT),
        "cannot go together",
        unguarded=False,
    ),
    Try(
        "`packing` and `packing_strategy: wrapped`",
        ("sft", "single", PACK),
        ("sft", "single", {**PACK, "packing_strategy": "bfd"}),
        "wrapped",
    ),
    Try(
        "`packing` and a soft prompt",
        ("sft", "single", {"packing": True, **SOFT}),
        ("sft", "single", SOFT),
        "the rows of a pack would share one soft prompt",  # it would run
        unguarded=False,
    ),
    Try(
        "`use_reentrant` and a prefix",
        ("sft", "single", {**PREFIX, **REENTRANT}),
        ("sft", "single", {**SOFT, **REENTRANT}),
        "through the prefix's graph a second time",
        unguarded=False,
    ),
    Try(
        "a soft prompt and weights in shards (ZeRO-3, FSDP2)",
        ("sft", "zero3", SOFT),
        ("sft", "ddp", SOFT),
        "cannot go together",
        unguarded=False,
    ),
    Try(
        "`sync_ref_model` and an adapter",
        ("dpo", "single", SYNC),
        ("dpo", "single", {**SYNC, "peft_method": "full"}),
        "currently not supported",
    ),
    Try(
        "`value_warmup_updates`, `value_model: head` and DeepSpeed",
        ("ppo", "zero1", WARM),
        ("ppo", "ddp", WARM),
        "cannot go together",  # it would run, and move the policy
        unguarded=False,
    ),
    Try(
        "AdaLoRA, or another method that reads gradients or changes the optimizer's steps, and DeepSpeed or FSDP2",
        ("sft", "zero2", {"peft_method": "adalora"}),
        ("sft", "ddp", {"peft_method": "adalora"}),
        "cannot go together",  # it would run, and never prune
        unguarded=False,
    ),
    Try(
        "`torch_compile` and a stage that trains on scores of sampled answers",
        ("ppo", "single", {"torch_compile_backend": "eager"}),
        ("sft", "single", {"torch_compile_backend": "eager"}),
        "the training pass alone would be compiled",  # it would run, with other ratios
        unguarded=False,
    ),
    Try(
        "`rollout_engine: vllm` or `merged`, and DyLoRA",
        ("ppo", "single", {"peft_method": "dylora", "rollout_engine": "vllm"}),
        ("ppo", "single", {"peft_method": "dylora"}),
        "cannot go together",  # it would run, and learn from answers of another policy
        unguarded=False,
    ),
    Try(
        "`cache_implementation: static` and a soft prompt",
        ("ppo", "single", {**SOFT, "cache_implementation": "static"}),
        ("ppo", "single", {"cache_implementation": "static"}),
        "cannot decode with fixed shapes: it has a soft prompt",
    ),
    Try(
        "`rollout_engine: merged` and weights in shards (ZeRO-3, FSDP2)",
        ("ppo", "zero3", {"rollout_engine": "merged"}),
        ("ppo", "zero2", {"rollout_engine": "merged"}),
        "each process would hold a whole copy of the policy beside its shards",
    ),
    Try(
        "a `rollout_engine` that is not transformers, and a soft prompt",
        ("ppo", "single", {**SOFT, "rollout_engine": "continuous_batching"}),
        ("ppo", "single", SOFT),
        "which only this project's engine puts before the decoder's inputs",
    ),
    Try(
        "`rollout_engine: vllm` or `merged`, and an adapter that cannot be merged",
        ("ppo", "single", {"peft_method": "bottleneck", **VLLM}),
        ("ppo", "single", {"peft_method": "bottleneck"}),
        "samples from whole weights",
    ),
    Try(
        "`rollout_engine: vllm` or `merged`, and `new_biases` of BitFit",
        ("ppo", "single", {**BIASES, **VLLM}),
        ("ppo", "single", BIASES),
        "samples from whole weights",
    ),
    Try(
        "`rollout_engine: vllm` or `merged`, `load_in_4bit` or `load_in_8bit`, and an adapter that is not LoRA",
        ("ppo", "single", {**FOUR, "peft_method": "ia3", **VLLM}),
        ("ppo", "single", {**FOUR, "peft_method": "ia3"}),
        "would round the sum",
    ),
    Try(
        "`lora_modules_to_save` and weights in shards (ZeRO-3, FSDP2)",
        ("dpo", "zero3", WHOLE),
        ("dpo", "zero2", WHOLE),
        "KeyError: 'modules_to_save.ref.weight'",
    ),
    Try(
        "an `optim` that is not AdamW and offloading to the host or a disk",
        ("sft", "zero3-offload", {"optim": "sgd"}),
        ("sft", "zero3-offload", {"optim": "adamw_torch"}),
        "cannot go together",  # it would run, with Adam
        unguarded=False,
    ),
    Try(
        "labels or an evaluation, and several processes",
        ("label", "ddp", {}),
        ("label", "single", {}),
        "runs in one process",
    ),
    Try(
        "FSDP2 and processes on CPU",
        ("sft", "ddp", {}),
        ("sft", "ddp", {}),
        "Accelerate has no FSDP on CPU",
        environment=NO_CPU,
    ),
]
BY_WHAT = {one.what: one for one in TRIES}
SEVERAL = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(600)]


def marked(which: str) -> list[Any]:
    marks = [[] if getattr(one, which)[1] == "single" else SEVERAL for one in TRIES]
    names = [re.sub(r"\W+", "-", one.what).strip("-") for one in TRIES]
    return [pytest.param(one, id=name, marks=mark) for one, name, mark in zip(TRIES, names, marks, strict=True)]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("combinations")
    write_inputs(folder)
    return folder


def test_every_entry_is_tried() -> None:
    assert list(BY_WHAT) == [one.what for one in COMBINATIONS]


def test_the_documented_table_is_the_one_in_the_code() -> None:
    assert markdown() in (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("entry", COMBINATIONS, ids=lambda one: one.what)
def test_check_and_doctor_report_it_with_its_remedy(entry: Any, inputs: Path, tmp_path: Path) -> None:
    one = BY_WHAT[entry.what]
    strategy = "fsdp2" if one.environment else one.fails[1]
    assert told(inputs, tmp_path, *one.fails[::2], strategy) == [(entry.reason, entry.remedy)]
    assert told(inputs, tmp_path, *one.works[::2], one.works[1]) == []


def told(inputs: Path, tmp_path: Path, stage: str, keys: dict[str, Any], strategy: str) -> list[tuple[str, str]]:
    """What is said of combinations, by either command."""
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe_for(stage, inputs, tmp_path / "run", keys)))
    machine = Machine(gpus=1 if strategy == "single" else 2, strategy=strategy, gpu=False)
    try:
        recipe = check_recipe(str(file))
    except RecipeError as error:
        broken = [one for one in COMBINATIONS for text in error.faults if f"{one.reason}; {one.remedy}" in text]
        return [(one.reason, one.remedy) for one in broken]
    found = [finding for finding in examine(recipe, machine) if finding.about == "combination"]
    named = [(one, finding.remedy) for finding in found for one in COMBINATIONS if finding.found.endswith(one.reason)]
    assert len(named) == len(found)
    return [(one.reason, remedy) for one, remedy in named]


@pytest.mark.parametrize("one", marked("fails"))
def test_it_cannot_work_in_earnest(one: Try, inputs: Path) -> None:
    if "vllm" in one.what:
        pytest.skip("vLLM needs a GPU; tests/rollout/test_vllm_engine.py has what refuses its weights")
    outcome = attempt(*one.fails, inputs, more=one.environment, shard=False, unguarded=one.unguarded)
    assert not outcome.works
    assert one.said in outcome.said


@pytest.mark.parametrize("one", marked("works"))
def test_the_remedy_of_each_combination_works(one: Try, inputs: Path) -> None:
    outcome = attempt(*one.works, inputs)
    assert outcome.works, outcome.said
