"""SFT, reward model, DPO and KTO, killed at random moments and started again by the same command: the same bits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from alignment.run.files import read_jsonl
from tests.distributed.test_kill import TIMES, run_through, run_with_kills, same
from tests.models import save_tiny_model

pytestmark = pytest.mark.timeout(600)
STEPS = 18


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with dropout, so that random states matter; demonstrations and soft rankings."""
    folder = tmp_path_factory.mktemp("killed")
    save_tiny_model(folder / "base", initializer_range=0.3, attention_dropout=0.1)
    rows = [{"prompt": f"tell me {number}", "completion": "a b c " * (1 + number % 3)} for number in range(24)]
    (folder / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [
        {"prompt": f"tell me {number}", "chosen": "a b " * (1 + number % 3), "rejected": "c", "margin": 1.0}
        for number in range(24)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


def write(folder: Path, out: Path, stage: str, **keys: Any) -> list[str]:
    data = "sft.jsonl" if stage == "sft" else "pairs.jsonl"
    recipe = {
        "stage": stage,
        "output_dir": str(out),
        "model_name_or_path": str(folder / "base"),
        "datasets": [{"path": str(folder / data)}],
        "test_split_size": 0.2,
        "max_length": 64,
        "max_steps": STEPS,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "logging_steps": 2,  # no divisor of save_steps: some means are of steps before and after a kill
        "save_steps": 3,
        "eval_strategy": "steps",
        "eval_steps": 6,
        **keys,
    }
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    return ["--config", str(file)]


@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        ("sft", {"lora_dropout": 0.1}),
        ("reward", {"lora_dropout": 0.1}),
        ("dpo", {}),
        ("kto", {}),
        pytest.param("sft", {"peft_method": "full"}, marks=pytest.mark.slow),
        pytest.param("reward", {"peft_method": "full", "save_total_limit": 1}, marks=pytest.mark.slow),
        pytest.param("dpo", {"peft_method": "full", "precompute_ref_log_probs": True}, marks=pytest.mark.slow),
        pytest.param("kto", {"peft_method": "full", "precompute_ref_log_probs": True}, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_with_the_same_bits(folder: Path, tmp_path: Path, stage: str, keys: dict[str, Any]) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run_through(write(folder, straight, stage, **keys), tmp_path / "straight.log", stage=stage)
    left = run_with_kills(
        write(folder, killed, stage, **keys),
        killed,
        tmp_path / "killed.log",
        kills=3,
        seed=1,
        last_step=STEPS,
        stage=stage,
    )
    assert len(left) == 3, left
    last = f"checkpoint-{STEPS}"
    weights = [*straight.glob("*.safetensors"), *(straight / last).glob("*.safetensors")]
    assert len(weights) == 2, weights
    for file in weights:
        assert same(load_file(file), load_file(killed / file.relative_to(straight))), file.name
    for name in ("optimizer.pt", "scheduler.pt"):
        assert same(*(torch.load(run / last / name, weights_only=True) for run in (straight, killed))), name
    random = [torch.load(run / last / "rng_state.pth", weights_only=False) for run in (straight, killed)]
    assert same(*random)
    logs = [read_jsonl(run / "metrics.jsonl") for run in (straight, killed)]
    kept = [[{k: v for k, v in row.items() if not is_time(k)} for row in log] for log in logs]
    assert kept[0] == kept[1]
    assert {path.name for path in straight.iterdir()} == {path.name for path in killed.iterdir()}


def is_time(name: str) -> bool:
    """Whether a number says how fast the machine was."""
    return name.removeprefix("eval_").startswith((*TIMES, "runtime", "samples_per_second", "steps_per_second"))
