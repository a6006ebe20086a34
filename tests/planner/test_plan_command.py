"""`alignment plan` as its user sees it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import LoraConfig
from transformers import LlamaConfig
from typer.testing import CliRunner

from alignment.cli import app
from alignment.config.schema import (
    DatasetEntry,
    DPORecipe,
    JudgeEntry,
    KTORecipe,
    LabelRecipe,
    PPORecipe,
    Recipe,
    RewardRecipe,
    SFTRecipe,
    judge_entry,
)
from alignment.errors import AlignmentError, ModelError, RecipeError
from alignment.planner.advice import changes, cheapest_strategy, largest_microbatch, solutions
from alignment.planner.calls import INSTRUCTIONS, calls_of
from alignment.planner.hours import time_of
from alignment.planner.machine import GIB, Machine, machine, parse_bytes
from alignment.planner.memory import plan_stage
from alignment.planner.optimizers import optimizer
from alignment.planner.rows import rows_of
from alignment.planner.settings import Lengths

MIB = 2**20


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing but a configuration: no weights, no tokenizer."""
    folder = tmp_path_factory.mktemp("planned") / "base"
    LlamaConfig(
        vocab_size=1000,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=12,
        num_attention_heads=8,
        max_position_embeddings=512,
        dtype="bfloat16",
    ).save_pretrained(folder)
    return folder


def sft(base: Path, **keys: Any) -> SFTRecipe:
    library = {"per_device_train_batch_size": 16, **keys.pop("library", {})}
    return SFTRecipe(
        stage="sft",
        output_dir="runs/sft",
        model_name_or_path=str(base),
        datasets=[DatasetEntry(path="unused")],
        library=library,
        **keys,
    )


def ppo(base: Path, **keys: Any) -> PPORecipe:
    ours = {"total_episodes": 128, "rollout_batch_size": 64, "max_prompt_length": 64, "max_new_tokens": 64, **keys}
    return PPORecipe(
        stage="ppo",
        output_dir="runs/ppo",
        model_name_or_path=str(base),
        datasets=[DatasetEntry(path="unused")],
        **ours,
    )


def write(folder: Path, name: str, recipe: dict[str, Any]) -> str:
    (folder / name).write_text(yaml.safe_dump(recipe))
    return str(folder / name)


@pytest.fixture(autouse=True)
def _no_end_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let errors through, which the command would print before it ends the whole process."""
    monkeypatch.setattr("alignment.run.script.script", lambda main: main())


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["plan", *arguments])
    if isinstance(result.exception, AlignmentError):
        return 1, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def sft_file(tmp_path: Path, base: Path, **keys: Any) -> str:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"q{i}", "completion": "a"}) + "\n" for i in range(10)))
    recipe = {
        "stage": "sft",
        "output_dir": str(tmp_path / "sft"),
        "model_name_or_path": str(base),
        "datasets": [{"path": str(data)}],
        "per_device_train_batch_size": 2,
        "num_train_epochs": 1,
        **keys,
    }
    return write(tmp_path, "sft.yaml", recipe)


def test_it_reports_the_memory_and_that_it_fits(tmp_path: Path, base: Path) -> None:
    out = tmp_path / "plan.json"
    code, text = run(sft_file(tmp_path, base), "--json", str(out), "--memory", "2GiB")
    assert code == 0, text
    assert "sft: fits," in text
    assert "10 rows, 5 steps" in text
    stage = json.loads(out.read_text())["stages"][0]
    assert stage["fits"] is True
    assert stage["peak_bytes"] == sum(v for k, v in stage["phases"][stage["peak_phase"]].items() if k != "total")
    assert stage["spare_bytes"] == 2 * GIB - stage["peak_bytes"]
    assert stage["time"]["steps"] == 5


def test_a_plan_that_does_not_fit_ends_with_3_and_its_advice_fits(tmp_path: Path, base: Path) -> None:
    file = sft_file(tmp_path, base, gradient_checkpointing=False, per_device_train_batch_size=16)
    out = tmp_path / "plan.json"
    code, text = run(file, "--memory", "900MiB", "--json", str(out))
    assert code == 3
    assert "does not fit" in text
    stage = json.loads(out.read_text())["stages"][0]
    assert [change["fits"] for change in stage["changes"]] == [False] * (len(stage["changes"]) - 1) + [True]
    told = [word for change in stage["changes"] for word in change["what"].split()]
    code, text = run(file, "--memory", "900MiB", *told)
    assert code == 0, text


def test_a_pipeline_is_planned_before_anything_of_it_has_run(tmp_path: Path, base: Path) -> None:
    sft_file(tmp_path, base)
    prompts = {"datasets": [{"path": str(tmp_path / "none.jsonl")}]}
    judge = {"kind": "rules", "function": "operator:gt"}
    after = {"model_name_or_path": str(tmp_path / "sft"), **prompts}
    write(tmp_path, "label.yaml", {"stage": "label", "output_dir": str(tmp_path / "label"), "judge": judge, **after})
    write(tmp_path, "reward.yaml", {"stage": "reward", "output_dir": str(tmp_path / "reward"), **after})
    write(
        tmp_path,
        "ppo.yaml",
        {
            "stage": "ppo",
            "output_dir": str(tmp_path / "ppo"),
            "reward_model_path": str(tmp_path / "reward"),
            "total_episodes": 64,
            **after,
        },
    )
    stages = [{"name": name, "recipe": f"{name}.yaml"} for name in ("sft", "label", "reward", "ppo")]
    pipeline = write(tmp_path, "pipeline.yaml", {"name": "p", "output_dir": str(tmp_path), "stages": stages})
    out = tmp_path / "plan.json"
    code, text = run(pipeline, "--json", str(out))
    assert code == 0, text
    assert "all stages: peak" in text
    found = {stage["stage"]: stage for stage in json.loads(out.read_text())["stages"]}
    assert list(found) == ["sft", "label", "reward", "ppo"]
    ppo_parts = found["ppo"]["phases"]["optimizer step"]
    # the policy and the value train, in float32; the reference is frozen in float32, the reward model in bfloat16
    assert ppo_parts["adapters, frozen"] == pytest.approx(0.75 * ppo_parts["adapters, trained"], rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--memory", "lots"], "is not a size; write it like 80GiB"),
        (["--memory", "0GiB"], "is not a size"),
        (["--gpus", "0"], "at least one device"),
        (["--strategy", "zero9"], "is not known; give one of single, ddp"),
        (["--gpus", "2", "--strategy", "single"], "is one process"),
        (["--tflops", "-1"], "give a number above 0"),
        (["--learning_rat", "1"], "learning_rate"),
        (["--model_name_or_path", "./absent/model"], "does not exist"),
    ],
)
def test_faults_are_reported(arguments: list[str], words: str, tmp_path: Path, base: Path) -> None:
    out = tmp_path / "plan.json"
    code, text = run(sft_file(tmp_path, base), "--json", str(out), *arguments)
    assert code not in (0, 3)
    assert words in " ".join(text.split())
    assert not out.exists()


def test_a_broken_configuration_is_named(tmp_path: Path, base: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        plan_stage(sft(tmp_path / "model"), Machine())


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_two_small_microbatches_stand_for_a_large_one(base: Path, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    rows = {"library": {"per_device_train_batch_size": 512}}
    batches = {"rollout_batch_size": 512, "total_episodes": 512}
    recipe = sft(base, max_length=512, **rows) if stage == "sft" else ppo(base, **rows, **batches)
    exact = plan_stage(recipe, Machine(gpus=1), {})
    monkeypatch.setattr("alignment.planner.memory.TRACED_TOKENS", 256 * exact.lengths.whole)
    for phase, traced in zip(plan_stage(recipe, Machine(gpus=1), {}).phases, exact.phases, strict=True):
        assert phase.parts.keys() == traced.parts.keys()
        for name, size in traced.parts.items():
            assert phase.parts[name] == pytest.approx(size, rel=0.01), (phase.name, name)


@pytest.mark.timeout(120)
def test_the_largest_microbatch_is_planned_as_quickly_as_a_small_one(base: Path) -> None:
    """A row more holds as much as any other: 10^6 rows hold 10^6/512 times what 512 do."""
    small, large = (
        plan_stage(sft(base, max_length=512, library={"per_device_train_batch_size": rows}), Machine(gpus=1), {})
        for rows in (512, 10**6)
    )
    moving = [plan.phases[0].parts["activations"] for plan in (small, large)]
    assert moving[1] == pytest.approx(moving[0] / 512 * 10**6, rel=0.05)


def test_a_configuration_of_100000_layers_is_refused_before_a_skeleton_is_made(tmp_path: Path, base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 100_000}))
    with pytest.raises(ModelError, match="num_hidden_layers is 100000"):
        plan_stage(sft(tmp_path / "model"), Machine())


def test_shards_are_cut_among_processes(base: Path) -> None:
    """Per device with AdamW in mixed precision: gradients whole in ZeRO-1, cut in 2, weights too in 3."""
    recipe = sft(base, peft_method="full")
    parts = {
        name: plan_stage(recipe, Machine(gpus=4, strategy=name)).phases[-1].parts
        for name in ("ddp", "zero1", "zero2", "zero3", "fsdp2")
    }
    numbers = parts["zero1"]["gradients"] // 2
    assert parts["ddp"]["optimizer states"] == 8 * numbers
    for name in ("zero1", "zero2", "zero3"):
        assert parts[name]["optimizer states"] == 12 * numbers // 4
    assert parts["zero2"]["gradients"] == parts["zero3"]["gradients"] == 2 * numbers // 4
    assert parts["zero2"]["weights, trained"] == 2 * numbers
    assert parts["zero3"]["weights, trained"] == 2 * numbers // 4
    assert parts["fsdp2"]["weights, trained"] == 4 * numbers // 4


def test_solving_finds_the_largest_and_the_cheapest(base: Path) -> None:
    sizes = [plan_stage(sft(base, library={"per_device_train_batch_size": n}), Machine()).peak.total for n in (6, 8)]
    given = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 12}  # 48 rows a step
    best = largest_microbatch(plan_stage(sft(base, library=given), Machine(memory=sum(sizes) // 2)), {})
    assert best is not None
    assert best.what == "--per_device_train_batch_size 6 --gradient_accumulation_steps 8"
    assert best.plan.spare >= 0

    full = sft(base, peft_method="full", library={"per_device_train_batch_size": 1})
    many = Machine(gpus=8, strategy="ddp")
    sizes = {name: plan_stage(full, many.using(name)).peak.total for name in ("ddp", "zero1", "zero2", "zero3")}
    assert sizes["ddp"] > sizes["zero1"] > sizes["zero2"] > sizes["zero3"]
    between = Machine(gpus=8, strategy="ddp", memory=(sizes["zero1"] + sizes["zero2"]) // 2)
    cheapest = cheapest_strategy(plan_stage(full, between), {})
    assert cheapest is not None
    assert cheapest.plan.machine.strategy == "zero2"
    assert cheapest.what.startswith("--strategy zero2 --per_device_train_batch_size ")
    both = solutions(plan_stage(full, dataclasses.replace(between, strategy="zero3")), {})
    assert [one.plan.machine.strategy for one in both] == ["zero2", "zero3"]
    assert solutions(plan_stage(full, dataclasses.replace(between, memory=MIB)), {}) == []


def test_solving_takes_strategy_and_microbatch_together(base: Path) -> None:
    """Under DDP one row fits where four do not: nothing need be cut."""
    keys = {"per_device_train_batch_size": 8, "gradient_checkpointing": False}
    many = Machine(gpus=2, strategy="ddp")
    sizes = [
        plan_stage(sft(base, library={**keys, "per_device_train_batch_size": rows}), many).peak.total for rows in (1, 2)
    ]
    between = dataclasses.replace(many, strategy="zero3", memory=sum(sizes) // 2)
    cheapest = cheapest_strategy(plan_stage(sft(base, library=keys), between), {})
    assert cheapest is not None
    assert cheapest.what == "--strategy ddp --per_device_train_batch_size 1 --gradient_accumulation_steps 8"


def test_solving_finds_how_many_answers_are_sampled_together(base: Path) -> None:
    label = labels(base, judge_entry(**PAID), max_new_tokens=64, max_prompt_length=64)
    rows = {
        n: plan_stage(label.model_copy(update={"per_device_eval_batch_size": n}), Machine()).peak.total for n in (8, 16)
    }
    tight = Machine(memory=sum(rows.values()) // 2)
    [best] = solutions(plan_stage(label, tight), {})
    assert best.what == "--per_device_eval_batch_size 8"


def test_changes_come_in_order_of_harm(base: Path) -> None:
    recipe = sft(base, library={"gradient_checkpointing": False, "per_device_train_batch_size": 4})
    plan = plan_stage(recipe, Machine(memory=1))
    found = changes(plan, {})
    told = [change.what for change in found]
    assert told[0] == "--gradient_checkpointing true"
    assert told[1] == "--per_device_train_batch_size 2 --gradient_accumulation_steps 2"
    assert told[-1] == "--load_in_4bit true"
    assert not found[-1].fits


def test_advice_is_nothing_that_the_stage_refuses(base: Path) -> None:
    """Of the other ideas each is exhausted: the smallest microbatch, with gradient checkpointing."""
    library = {"gradient_checkpointing": True, "per_device_train_batch_size": 1}
    in_floats_alone = sft(base, peft_method="hra", library=library)
    assert changes(plan_stage(in_floats_alone, Machine(memory=1)), {}) == []  # 4 bits
    eight = sft(base, load_in_8bit=True, library=library)
    plan = plan_stage(eight, Machine(gpus=2, strategy="zero2", memory=1))
    assert changes(plan, {}) == []  # shards
    short = dataclasses.replace(plan.machine, memory=plan.peak.total - 1)
    assert cheapest_strategy(dataclasses.replace(plan, machine=short), {}) is None


def test_a_plan_names_what_its_stage_refuses(tmp_path: Path, base: Path) -> None:
    out = tmp_path / "plan.json"
    file = sft_file(tmp_path, base, load_in_8bit=True, per_device_train_batch_size=1)
    code, text = run(file, "--gpus", "2", "--strategy", "zero3", "--json", str(out))
    assert code == 0, text
    assert "load_in_8bit and weights in shards (ZeRO-3, FSDP2) is refused: a shard of the integers lacks" in text
    assert json.loads(out.read_text())["stages"][0]["refused"] == ["load_in_8bit"]
    code, text = run(file, "--gpus", "2", "--strategy", "zero2")
    assert "is refused" not in text


def test_a_ppo_batch_is_what_fits_a_minibatch(base: Path) -> None:
    recipe = ppo(base, rollout_batch_size=16, num_mini_batches=4)
    best = largest_microbatch(plan_stage(recipe, Machine()), {})
    assert best is not None
    assert best.plan.microbatch == 4  # 16 answers in 4 minibatches
    assert (
        largest_microbatch(plan_stage(recipe, Machine(gpus=8, strategy="ddp")), {}) is None
    )  # 4 answers for 8 devices


def test_a_reward_model_of_its_own_is_held_beside_the_base(base: Path) -> None:
    """12 layers of 4·256² + 3·256·512 weights and two norms, a table of 1000·256, a last norm and a head; bfloat16."""
    alone = plan_stage(ppo(base), Machine()).phases[-1].parts
    beside = plan_stage(ppo(base, reward_model_path=str(base)), Machine()).phases[-1].parts
    layer = 4 * 256**2 + 3 * 256 * 512 + 2 * 256
    assert beside.pop("weights, reward models") == 2 * (12 * layer + 1000 * 256 + 256 + 256)
    assert beside == alone


def test_a_reward_adapter_that_plain_peft_saved_is_planned_for(base: Path, tmp_path: Path) -> None:
    """PEFT names the heads `classifier` and `score` in every sequence classifier's configuration."""
    names = ["classifier", "score"]
    config = LoraConfig(task_type="SEQ_CLS", r=16, target_modules=["q_proj"], modules_to_save=names)
    config.base_model_name_or_path = str(base)
    config.save_pretrained(str(tmp_path))
    parts = plan_stage(ppo(base, reward_model_path=str(tmp_path)), Machine()).phases[-1].parts
    assert "weights, reward models" not in parts  # it lies on the base


def test_time_follows_the_arithmetic(base: Path) -> None:
    """6 operations a weight and token where all train, 4 with an adapter, 2 more where activations are recomputed."""
    keys: dict[str, Any] = {"num_train_epochs": 2, "gradient_checkpointing": False}
    full = plan_stage(sft(base, peft_method="full", max_length=512, library=keys), Machine())
    time = time_of(full, 100)
    assert (time.steps, time.tokens) == (14, 200 * 512)  # twice 6 batches of 16 rows and one of 4
    per_token = 6 * (full.parameters + 256 * 12 * 512)
    assert time.flops == pytest.approx(per_token * 200 * 512)
    assert time.hours == pytest.approx(time.flops / (312e12 * 0.4) / 3600)
    adapter = plan_stage(sft(base, max_length=512, library=keys), Machine())
    assert time_of(adapter, 100).flops == pytest.approx(time.flops * 4 / 6, rel=0.001)
    again = plan_stage(sft(base, max_length=512, library={**keys, "gradient_checkpointing": True}), Machine())
    assert time_of(again, 100).flops == pytest.approx(time.flops, rel=0.001)
    assert time_of(full, None).hours is None
    limited = plan_stage(sft(base, max_length=512, library={**keys, "max_steps": 5}), Machine())
    assert (time_of(limited, 100).steps, time_of(limited, 100).tokens) == (5, 5 * 16 * 512)
    unlimited = plan_stage(sft(base, library={**keys, "max_steps": -1}), Machine())
    assert time_of(unlimited, 100).steps == 14


def test_a_reward_model_reads_every_answer_of_the_label_stage(base: Path) -> None:
    label = labels(base, judge_entry(**PAID), num_generations=4)
    reward = RewardRecipe(
        stage="reward", output_dir="x", model_name_or_path=str(base), datasets=label.datasets, max_length=64,
        library={"num_train_epochs": 1},
    )  # fmt: skip
    assert time_of(plan_stage(reward, Machine(), {"runs/label": label}), 100).tokens == 100 * 4 * 64
    assert time_of(plan_stage(reward, Machine()), 100).tokens == 100 * 2 * 64


def test_a_stage_of_one_process_has_one_device(base: Path) -> None:
    label = labels(base, judge_entry(**PAID))
    one, eight = (plan_stage(label, Machine(gpus=n, strategy=s)) for n, s in ((1, "single"), (8, "zero3")))
    assert eight.phases == one.phases
    assert time_of(eight, 100).hours == time_of(one, 100).hours


@pytest.mark.parametrize(
    ("name", "numbers", "expected"),
    [
        ("adamw_torch_fused", 8192, 8 * 8192),
        ("adamw_bnb_8bit", 8192, 2 * (8192 + 4 * 32)),
        ("adamw_bnb_8bit", 512, 8 * 512),
        ("paged_lion_8bit", 8192, 8192 + 4 * 32),
        ("sgd", 8192, 0),
        ("adafactor", 8192, 4 * (64 + 128)),
    ],
)
def test_optimizer_states(name: str, numbers: int, expected: int) -> None:
    import torch

    weight = torch.empty(64, numbers // 64, device="meta")
    assert optimizer(name).bytes_for([weight]) == expected


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GiB", 80 * GIB), ("24 GB", 24 * 10**9), ("1.5gib", 3 * GIB // 2), ("x", None), ("-1GB", None)],
)
def test_sizes(text: str, size: int | None) -> None:
    assert parse_bytes(text) == size


def test_a_size_without_its_unit_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"--memory '80' is 80 bytes; write it like 80GiB"):
        machine(gpus=1, memory="80", strategy=None)


def test_a_stage_without_a_model_is_refused(base: Path) -> None:
    with pytest.raises(RecipeError, match="no model"):
        plan_stage(Recipe(stage="none", output_dir="x"), machine(gpus=1, memory="1GiB", strategy=None))


def test_a_disk_takes_what_the_host_would_hold(base: Path) -> None:
    """DeepSpeed's buffers on the way there: 5 of 10^8 weights, and 4 of a process's states, of 4 bytes each."""
    recipe, four = sft(base, peft_method="full"), Machine(gpus=4, strategy="zero3-offload")
    host, disk = plan_stage(recipe, four), plan_stage(recipe, four.using("zero3-nvme"))
    assert host.disk == {}
    assert disk.disk == host.host
    assert {"weights", "optimizer states"} <= disk.disk.keys()
    assert disk.peak.total == host.peak.total
    assert disk.host == {"buffers for the disk": 4 * 5 * 10**8 * 2 + 4 * 4 * disk.trainable}


PAID = {"kind": "openai", "model": "toy", "prices": {"prompt": 2.0, "completion": 10.0}}


@pytest.mark.parametrize(
    ("judge", "calls", "shown", "reply"),
    [  # 4 answers have 6 pairs; 100 prompts
        ({}, 1200, 2, 16),
        ({"asks": "listwise"}, 200, 4, 96),
        ({"asks": "pointwise"}, 400, 1, 16),
        ({"samples": 3, "temperature": 1.0}, 3600, 2, 16),
        ({"reasoning": True}, 1200, 2, 512),
        ({"max_tokens": 5}, 1200, 2, 5),
    ],
)
def test_labels_have_their_price(base: Path, judge: dict[str, Any], calls: int, shown: int, reply: int) -> None:
    """400 tokens of instructions, a prompt of 64, answers of 32; 2 and 10 a million."""
    entry = judge_entry(**{**PAID, **judge})
    found = calls_of(labels(base, entry), 100, Lengths(64, 32))
    assert found is not None
    tokens = calls * (400 + 64 + shown * 32)
    assert (found.number, found.prompt_tokens, found.reply_tokens) == (calls, tokens, calls * reply)
    assert found.cost == pytest.approx((tokens * 2 + calls * reply * 10) / 1e6)


def labels(base: Path, judge: JudgeEntry, **keys: Any) -> LabelRecipe:
    data = [DatasetEntry(path="some/prompts", split="train[100:400]")]
    return LabelRecipe(
        stage="label", output_dir="runs/label", model_name_or_path=str(base), datasets=data, judge=judge, **keys
    )


def test_a_jury_costs_what_its_members_do_and_rules_cost_nothing(base: Path) -> None:
    rules = {"kind": "rules", "function": "operator:gt"}
    jury = judge_entry(kind="jury", members=[PAID, {**PAID, "name": "other"}, rules])
    alone = calls_of(labels(base, judge_entry(**PAID)), 10, Lengths(64, 32))
    found = calls_of(labels(base, jury), 10, Lengths(64, 32))
    assert alone is not None
    assert found is not None
    assert alone.cost is not None
    assert found.cost == pytest.approx(2 * alone.cost)
    assert found.number == 3 * alone.number
    unpriced = calls_of(labels(base, judge_entry(kind="openai", model="toy")), 10, Lengths(64, 32))
    assert unpriced is not None
    assert unpriced.cost is None


def test_the_instructions_that_are_counted_are_more_than_any_prompt_has() -> None:
    prompts = list((Path(__file__).parents[2] / "reward" / "judges" / "prompts").glob("*.txt"))
    assert len(prompts) >= 8
    assert max(file.stat().st_size for file in prompts) / 3 < INSTRUCTIONS  # a token has three bytes and more


def test_rows_that_are_not_here_are_bounded_by_the_recipes(base: Path) -> None:
    label = labels(base, judge_entry(**PAID), max_samples=200, pairs_per_prompt=4)
    before: dict[str, Recipe] = {"runs/label": label}
    assert rows_of(label, {}) == 200  # of 300 in the slice
    assert rows_of(labels(base, judge_entry(**PAID)), {}) == 300
    reads = {"model_name_or_path": str(base), "datasets": [DatasetEntry(path="runs/label/labels.jsonl")]}
    dpo = DPORecipe(stage="dpo", output_dir="runs/dpo", test_split_size=0.1, **reads)
    assert rows_of(dpo, before) == 720  # 200 prompts of 4 pairs, a tenth held out
    assert rows_of(RewardRecipe(stage="reward", output_dir="runs/reward", **reads), before) == 200
    assert rows_of(dpo, {}) is None
    kto = KTORecipe(stage="kto", output_dir="runs/kto", test_split_size=0.1, **reads)
    assert rows_of(kto, before) == 720  # 200 prompts of 4 answers, a tenth held out


def test_the_passes_of_kto_are_counted(base: Path) -> None:
    reads = {"model_name_or_path": str(base), "datasets": [DatasetEntry(path="unused")], "max_length": 64}
    recipes = [KTORecipe(stage="kto", output_dir="o", loss_type=loss, **reads) for loss in ("kto", "apo_zero_unpaired")]
    kto, apo = (time_of(plan_stage(recipe, Machine(gpu=False)), 80).flops for recipe in recipes)
    # forward and backward of an adapter 4, the reference's pass 2; with a KL two passes of the mismatched answers too
    assert kto / apo == pytest.approx((4 + 3 * 2) / (4 + 2))
