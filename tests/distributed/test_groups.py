"""GRPO and RLOO on two processes do what they do on one: groups, dynamic sampling, resume."""

import json

import pytest
from safetensors.torch import load_file

from tests.distributed.engines import environment, needs_deepspeed, worst_difference
from tests.distributed.launch import run_jobs
from tests.models import save_tiny_model
from tests.train.ppo_runs import make_trainer, trained_weights

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(900)]

# 24 answers in groups of 4 and 8: a group lies on both processes, and each of two minibatches has parts of groups
BATCH = {"rollout_batch_size": 24, "total_episodes": 72, "num_mini_batches": 2, "per_device": 2}
ADAM, SGD = {"learning_rate": 1e-3}, {"learning_rate": 0.1, "optim": "sgd"}  # as in test_ddp
GRPO, RLOO = {"stage": "grpo", "num_generations": 8}, {"stage": "rloo", "num_generations": 4}
RUNS = {
    "grpo": {**GRPO, "arguments": ADAM},
    "grpo-kl": {**GRPO, "arguments": ADAM, "beta": 0.1, "num_iterations": 2, "importance_sampling_level": "sequence"},
    "grpo-full": {**GRPO, "arguments": SGD, "peft_method": "full"},
    "grpo-dynamic": {**GRPO, "arguments": ADAM, "dynamic_sampling": True, "mask_truncated_completions": True},
    "rloo": {**RLOO, "arguments": ADAM},
    "rloo-dynamic": {**RLOO, "arguments": ADAM, "dynamic_sampling": True, "beta": 0.0},
}
SAVING = {"save_strategy": "steps", "save_steps": 3}  # in the middle of an update
TIMES = ("seconds", "tokens_per_second", "peak_memory", "train_", "total_flos")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("groups") / "base", initializer_range=0.3)


@pytest.fixture(scope="module")
def alone(base, tmp_path_factory):
    """The same runs on one process: name → weights before and after, log."""
    found = {}
    for name, keys in RUNS.items():
        trainer = make_trainer(base, tmp_path_factory.mktemp("alone"), **BATCH, **keys)
        start = trained_weights(trainer)
        trainer.train()
        found[name] = (start, trained_weights(trainer), trainer.state.log_history)
    return found


@pytest.fixture(
    scope="module", params=["ddp", *(pytest.param(f"zero{n}", marks=needs_deepspeed) for n in (2, 3)), "fsdp2"]
)
def ran(request, base, tmp_path_factory):
    """All runs under an engine, each straight and again from a checkpoint: folder."""
    engine = request.param
    folder = tmp_path_factory.mktemp(engine)
    jobs = []
    for name, keys in RUNS.items():
        keys = {**BATCH, **keys, "arguments": {**keys["arguments"], **SAVING}}
        job = {"base": base, "out": folder / name, "keys": keys}
        jobs += [job, {**job, "resume": folder / name / "checkpoint-3", "result": "resumed.safetensors"}]
    run_jobs(jobs, folder / "work", **environment(engine))
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_agree_with_one(ran, alone, name):
    start, end, log = alone[name]
    assert worst_difference(start, end) > 1e-3
    assert worst_difference(load_file(ran / name / "trained.safetensors"), end) < 1e-6
    logs = json.loads((ran / name / "log.json").read_text())
    assert any(row.get("rollouts_sampled", 0) > 1 for row in log) == ("dynamic" in name)
    for ours, theirs in zip(logs, log, strict=True):
        compared = [key for key in theirs if not key.startswith(TIMES)]
        assert [ours[key] for key in compared] == pytest.approx([theirs[key] for key in compared], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_from_its_checkpoint_to_the_same_bits(ran, name):
    straight, resumed = (load_file(ran / name / f"{which}.safetensors") for which in ("trained", "resumed"))
    assert worst_difference(straight, resumed) == 0
