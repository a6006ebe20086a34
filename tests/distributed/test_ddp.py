"""Two processes under plain data parallelism do what one does."""

import json

import pytest
from safetensors.torch import load_file

from tests.distributed.launch import run_jobs
from tests.models import save_tiny_model
from tests.train.ppo_runs import make_trainer, trained_weights

pytestmark = pytest.mark.distributed

BATCH = {"rollout_batch_size": 32, "total_episodes": 96, "num_ppo_epochs": 2}
# Adam divides a gradient by its own size, so that the rounding errors of one near zero become a share of the rate.
ADAM, SGD = {"learning_rate": 1e-3}, {"learning_rate": 0.1, "optim": "sgd"}
RUNS = {  # PPO's keys, and the answers of a minibatch: 32 or 16, on one process at once, cut in 4, or on two processes
    "one-minibatch": ({"num_mini_batches": 1, "normalize_scores": "running", "arguments": ADAM}, 32),
    "two-minibatches": ({"num_mini_batches": 2, "loss_aggregation": "seq-mean-token-mean", "arguments": ADAM}, 16),
    "full": ({"num_mini_batches": 2, "peft_method": "full", "value_model": "head", "arguments": SGD}, 16),
    "stopped": ({"num_mini_batches": 2, "value_warmup_updates": 1, "target_kl": 1e-3, "arguments": ADAM}, 16),
}
TIMES = ("seconds", "tokens_per_second", "peak_memory", "train_", "total_flos")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("ddp") / "base", initializer_range=0.3)


@pytest.fixture(scope="module")
def two_processes(base, tmp_path_factory):
    """The runs on two processes, half of a minibatch's answers on each: run name → folder."""
    folder = tmp_path_factory.mktemp("two")
    jobs = [
        {
            "base": base,
            "out": folder / name,
            "keys": {**BATCH, **keys, "per_device": answers // 2},
        }
        for name, (keys, answers) in RUNS.items()
    ]
    run_jobs(jobs, folder / "work")
    return {name: folder / name for name in RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_one_process_accumulation_and_two_processes_end_with_the_same_weights(base, tmp_path, two_processes, name):
    keys, answers = RUNS[name]
    ends = {}
    for split in (1, 4):
        trainer = make_trainer(base, tmp_path / str(split), per_device=answers // split, **BATCH, **keys)
        start = trained_weights(trainer)
        trainer.train()
        ends[f"1 process, {split} microbatches"] = trained_weights(trainer)
    one = ends.pop("1 process, 1 microbatches")
    ends["2 processes"] = load_file(two_processes[name] / "trained.safetensors")
    assert any(float((one[key] - start[key]).abs().max()) > 1e-3 for key in one)
    for how, end in ends.items():
        assert end.keys() == one.keys()
        worst = max(float((end[key] - one[key]).abs().max()) for key in one)
        assert worst < 1e-6, f"{how}: {worst}"
    logs = json.loads((two_processes[name] / "log.json").read_text())
    for ours, theirs in zip(logs, trainer.state.log_history, strict=True):
        compared = [key for key in theirs if not key.startswith(TIMES)]
        assert [ours[key] for key in compared] == pytest.approx([theirs[key] for key in compared], rel=1e-3, abs=1e-4)
