"""ZeRO-1, -2, -3 and FSDP2 on two processes do what one process does, save what plain peft loads, and resume."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.distributed.engines import environment, needs_deepspeed, worst_difference
from tests.distributed.launch import FSDP2, run_jobs
from tests.models import save_tiny_model
from tests.train.ppo_runs import make_trainer, trained_weights

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(900)]

BATCH = {"rollout_batch_size": 16, "total_episodes": 48, "num_ppo_epochs": 2, "num_mini_batches": 2, "per_device": 4}
ADAM, SGD = {"learning_rate": 1e-3}, {"learning_rate": 0.1, "optim": "sgd"}  # as in test_ddp
RUNS = {
    "lora": ("base", {"arguments": ADAM}),
    "tied": ("tied", {"arguments": ADAM, "lora_target_modules": ["q_proj", "v_proj"], "value_model": "head"}),
    "full": ("base", {"arguments": SGD, "peft_method": "full"}),
    "full-tied": ("tied", {"arguments": SGD, "peft_method": "full", "value_model": "head"}),
    "4bit": ("base", {"arguments": ADAM, "load_in_4bit": True}),
    "sharded-sampling": ("base", {"arguments": ADAM, "ds3_gather_for_generation": False}),
    "trunk": ("base", {"arguments": ADAM, "lora_layers": 1}),
    "trunk-sharded-sampling": ("base", {"arguments": ADAM, "lora_layers": 1, "ds3_gather_for_generation": False}),
}
SAVING = {"save_strategy": "steps", "save_steps": 5, "save_total_limit": 2}  # step 5 is in the middle of an update


def kinds(engine: str) -> list[str]:
    return [name for name in RUNS if not name.endswith("sharded-sampling") or engine in ("zero3", "fsdp2")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_tiny_model(folder / "base", initializer_range=0.3, hidden_size=64)
    save_tiny_model(folder / "tied", initializer_range=0.3, tie_word_embeddings=True)
    return folder


@pytest.fixture(scope="module", params=[*(pytest.param(f"zero{n}", marks=needs_deepspeed) for n in (1, 2, 3)), "fsdp2"])
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def ran(engine, models, tmp_path_factory):
    """All runs under an engine, each straight and then again from its checkpoint at step 10: folder."""
    folder = tmp_path_factory.mktemp(engine)
    jobs = []
    for name in kinds(engine):
        base, keys = RUNS[name]
        keys = {**BATCH, **keys, "arguments": {**keys["arguments"], **SAVING}}
        job = {"base": models / base, "out": folder / name, "keys": keys}
        again = {"resume": folder / name / "checkpoint-10", "result": "resumed.safetensors"}
        jobs += [job, {**job, **again}]
    run_jobs(jobs, folder / "work", **environment(engine))
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_agree_with_one(engine, ran, models, tmp_path, name):
    if name not in kinds(engine):
        pytest.skip(f"{name} is not for {engine}")
    base, keys = RUNS[name]
    trainer = make_trainer(models / base, tmp_path, **BATCH, **keys)
    start = trained_weights(trainer)
    trainer.train()
    end = trained_weights(trainer)
    assert worst_difference(start, end) > 1e-3
    assert worst_difference(load_file(ran / name / "trained.safetensors"), end) < 1e-6


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_from_its_checkpoint_to_the_same_bits(engine, ran, name):
    if name not in kinds(engine):
        pytest.skip(f"{name} is not for {engine}")
    straight, resumed = (load_file(ran / name / f"{which}.safetensors") for which in ("trained", "resumed"))
    assert worst_difference(straight, resumed) == 0
    assert {path.name for path in (ran / name).glob("checkpoint-*")} == {"checkpoint-10", "checkpoint-12"}


def test_the_engine_really_ran(engine, ran):
    facts = json.loads((ran / "lora" / "facts.json").read_text())
    assert facts["distributed_type"] == ("FSDP" if engine == "fsdp2" else "DEEPSPEED")
    if engine == "fsdp2":
        assert facts["held"] == pytest.approx(0.5, abs=0.01)
        assert facts["fsdp_units"] == 2 + 1  # each of two layers, and what is around them
    if engine == "zero3":
        assert facts["held"] < 0.01


def test_the_policy_is_a_plain_adapter_or_model(ran, models):
    trained = load_file(ran / "lora" / "trained.safetensors")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(models / "base"), ran / "lora" / "policy")
    loaded = dict(model.named_parameters())
    found = [name for name in loaded if "lora_" in name]
    assert len(found) == 2 * 7 * 2  # A and B of 7 projections in 2 layers
    for name in found:
        place = name.removeprefix("base_model.model.").replace(".lora_", ".policy.lora_")
        assert torch.equal(loaded[name], trained[f"base.{place}"])
    for which, base in (("full", "base"), ("full-tied", "tied")):
        trained = load_file(ran / which / "trained.safetensors")
        for name, loaded in AutoModelForCausalLM.from_pretrained(ran / which / "policy").named_parameters():
            assert torch.equal(loaded, trained["policy_model." + name]), base


def test_accelerate_on_cpu_runs_no_fsdp_and_that_is_refused(models, tmp_path):
    job = {"base": models / "base", "out": tmp_path / "out", "keys": BATCH}
    with pytest.raises(AssertionError, match="the launcher asks for FSDP, but Accelerate runs"):
        run_jobs([job], tmp_path / "work", **FSDP2, FSDP_AS_IT_IS="1")
