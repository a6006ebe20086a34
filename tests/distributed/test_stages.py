"""All four training stages under every file of launch/accelerate: what one process learns, saved whole, resumed."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import AutoPeftModelForCausalLM, AutoPeftModelForSequenceClassification
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alignment.run.files import read_jsonl
from tests.distributed.launch import ROOT, finish
from tests.distributed.stage import make_inputs

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(1200)]

STAGES = ("sft", "reward", "dpo", "ppo")
ADAM = {"learning_rate": 1e-3, "lora_r": 4}
# Adam divides a gradient by its own size; with an epsilon this large the rounding errors of one near zero stay small.
FULL = {"peft_method": "full", "learning_rate": 1e-2, "adam_epsilon": 1e-3}
HELD = {"lora": ADAM, "full": FULL, "nf4": {**ADAM, "load_in_4bit": True}}
RUNS = {f"{stage}-{held}": (stage, keys) for stage in STAGES for held, keys in HELD.items()}
DEEPSPEED = ("zero1", "zero2", "zero3", "zero3-offload")
missing = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="pip install '.[deepspeed]'")
LAUNCHERS = [
    "cpu",
    *(pytest.param(name, marks=missing) for name in DEEPSPEED),
    "fsdp2",
]


def write_recipe(inputs: Path, out: Path, stage: str, *, processes: int, **keys: Any) -> dict[str, Any]:
    """One job of `tests.distributed.stages`; a step learns from the same rows on however many processes."""
    recipe = {
        "stage": stage, "output_dir": str(out), "model_name_or_path": str(inputs / "base"), "save_steps": 3,
        "save_total_limit": 3,
        "per_device_train_batch_size": 2 if stage == "ppo" else 4 // processes, **keys,
    }  # fmt: skip
    if stage == "ppo":
        recipe |= {
            "reward_model_path": str(inputs / "reward"), "datasets": [{"path": str(inputs / "prompts.jsonl")}],
            "total_episodes": 24, "rollout_batch_size": 8, "max_new_tokens": 6, "num_ppo_epochs": 1,
            "num_mini_batches": 2,
        }  # fmt: skip
    else:
        data = "demonstrations" if stage == "sft" else "pairs"
        recipe |= {
            "datasets": [{"path": str(inputs / f"{data}.jsonl")}], "max_length": 64, "max_steps": 6,
            "gradient_accumulation_steps": 2, "test_split_size": 0.2, "eval_strategy": "steps", "eval_steps": 3,
            "logging_steps": 1,
        }  # fmt: skip
    file = Path(f"{out}.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(recipe))
    return {"stage": stage, "recipe": str(file), "out": str(out)}


def launch(launcher: str, jobs: list[dict[str, Any]], folder: Path, *, processes: int, nodes: int = 1) -> None:
    """Start the jobs as a user does, on each of several nodes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "jobs.json").write_text(json.dumps(jobs))
    own = {"DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started, port = [], free_port()
    for node in range(nodes):
        command = [
            *("accelerate.commands.launch", "--config_file", ROOT / "launch" / "accelerate" / f"{launcher}.yaml"),
            *("--num_processes", processes, "--num_machines", nodes, "--machine_rank", node),
            *("--main_process_ip", "127.0.0.1", "--main_process_port", port),
            *("-m", "tests.distributed.stages", folder / "jobs.json"),
        ]
        with (folder / f"log.{node}.log").open("ab") as log:
            arguments = [sys.executable, "-m", *map(str, command)]
            started.append(subprocess.Popen(arguments, cwd=ROOT, env={**os.environ, **own}, stdout=log, stderr=log))
    finish(started, folder / "log", timeout_seconds=900)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a reward adapter, prompts, demonstrations and pairs."""
    folder = make_inputs(tmp_path_factory.mktemp("inputs"), hidden_size=64)
    rows = [{"prompt": f"tell me {n}", "completion": "a b c " * (1 + n % 3)} for n in range(24)]
    pairs = [{"prompt": f"tell me {n}", "chosen": "a b " * (1 + n % 3), "rejected": "c"} for n in range(24)]
    (folder / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


@pytest.fixture(scope="module")
def one_process(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run on one process."""
    folder = tmp_path_factory.mktemp("one")
    jobs = [write_recipe(inputs, folder / name, stage, processes=1, **keys) for name, (stage, keys) in RUNS.items()]
    launch("single", jobs, folder / "work", processes=1)
    return folder


@pytest.fixture(scope="module", params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ran(launcher: str, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run on two processes, straight, and again from its checkpoint at step 3; then that on one process."""
    folder = tmp_path_factory.mktemp(launcher)
    jobs, alone = [], []
    for name, (stage, keys) in RUNS.items():
        out = folder / name
        jobs.append(write_recipe(inputs, out, stage, processes=2, **keys))
        again = write_recipe(inputs, folder / f"{name}-again", stage, processes=2, **keys)
        jobs.append({**again, "copy_of": str(out)})
        if name.endswith("-lora"):
            job = write_recipe(inputs, folder / f"{name}-alone", stage, processes=1, **keys)
            alone.append({**job, "copy_of": str(out), "may_be_refused": True})
    if launcher in DEEPSPEED:
        for stage in STAGES:
            job = write_recipe(inputs, folder / f"{stage}-planted", stage, processes=2, **ADAM)
            copy_of = str(folder / f"{stage}-lora")
            jobs.append({**job, "copy_of": copy_of, "planted": True, "may_be_refused": True})
    launch(launcher, jobs, folder / "work", processes=2)
    launch(launcher, alone, folder / "work1", processes=1)
    return folder


def weights(run: Path) -> dict[str, Any]:
    files = list(run.glob("*.safetensors"))
    assert len(files) == 1, files
    return load_file(files[0])


def worst_difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def losses(run: Path) -> list[float]:
    rows = read_jsonl(run / "metrics.jsonl")
    return [row[key] for row in rows for key in ("loss", "eval_loss", "score", "kl") if key in row]


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_learn_what_one_does(launcher: str, one_process: Path, ran: Path, name: str) -> None:
    assert worst_difference(one_process / name, ran / name) < 5e-6
    ours, theirs = losses(one_process / name), losses(ran / name)
    assert len(ours) >= 6
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_from_its_checkpoint_to_the_same_bits(launcher: str, ran: Path, name: str) -> None:
    assert worst_difference(ran / name, ran / f"{name}-again") == 0
    assert json.loads((ran / f"{name}-again" / "manifest.json").read_text())["status"] == "finished"
    assert losses(ran / name) == losses(ran / f"{name}-again")


@pytest.mark.parametrize("stage", STAGES)
def test_another_number_of_processes_goes_on_or_is_refused_with_the_reason(
    launcher: str, ran: Path, stage: str
) -> None:
    run = ran / f"{stage}-lora-alone"
    refused = Path(f"{run}.refused")
    if stage == "ppo" or launcher in DEEPSPEED:
        keeps = "each process of PPO keeps" if stage == "ppo" else "DeepSpeed keeps the optimizer in as many parts"
        assert f"it began on 2 processes, this start has 1, and {keeps}" in refused.read_text()
        assert (run / "checkpoint-3" / "whole.json").is_file()
    else:
        assert not refused.exists()
        assert worst_difference(ran / f"{stage}-lora", run) < 1e-6


@pytest.mark.parametrize("stage", STAGES)
def test_an_object_in_a_deepspeed_checkpoint_runs_no_code(launcher: str, ran: Path, stage: str) -> None:
    if launcher not in DEEPSPEED:
        pytest.skip("no DeepSpeed")
    run = ran / f"{stage}-planted"
    refused = Path(f"{run}.refused").read_text()
    assert refused.startswith(f"{run / 'checkpoint-3'} holds the object "), refused
    assert not Path(f"{run}.ran").exists()


@pytest.mark.parametrize("name", RUNS)
def test_the_launched_processes(launcher: str, ran: Path, name: str) -> None:
    facts = json.loads((ran / f"{name}.facts.json").read_text())
    assert facts["processes"] == 2
    assert facts["engine"] == {"cpu": "MULTI_CPU", "fsdp2": "FSDP"}.get(launcher, "DEEPSPEED")
    cut = launcher == "fsdp2" or launcher.startswith("zero3")
    assert facts["held"] == pytest.approx(0.5 if cut else 1, abs=0.02)


@pytest.mark.parametrize("name", RUNS)
def test_saved_models_load_without_this_project(launcher: str, ran: Path, name: str) -> None:
    full, scalar = name.endswith("-full"), name.startswith("reward")
    if full:
        cls = AutoModelForSequenceClassification if scalar else AutoModelForCausalLM
    else:
        cls = AutoPeftModelForSequenceClassification if scalar else AutoPeftModelForCausalLM
    model = cls.from_pretrained(ran / name, **({"num_labels": 1} if scalar else {}))
    loaded = {key.replace(".default.", ".").replace(".modules_to_save.", "."): p for key, p in model.named_parameters()}
    for key, weight in weights(ran / name).items():
        assert (loaded[key].float() == weight.float()).all(), key


def test_two_nodes_find_each_other_and_learn_what_one_process_does(
    inputs: Path, one_process: Path, tmp_path: Path
) -> None:
    jobs = [write_recipe(inputs, tmp_path / stage, stage, processes=2, **ADAM) for stage in ("sft", "ppo")]
    launch("cpu", jobs, tmp_path / "work", processes=2, nodes=2)
    for stage in ("sft", "ppo"):
        assert worst_difference(one_process / f"{stage}-lora", tmp_path / stage) < 5e-6
