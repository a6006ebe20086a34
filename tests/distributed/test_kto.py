"""KTO on two processes: the KL is the mean over both microbatches, and an evaluation is that of one process."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

import recipes.kto
from alignment.manifest import read_manifest
from alignment.run.files import read_jsonl
from alignment.train import kto
from tests.distributed.stage import make_inputs
from tests.distributed.test_stages import launch, missing

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

NAMES = ("loss", "kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "grad_norm")
KEYS: dict[str, dict[str, Any]] = {
    "kto": {},
    "precomputed": {"precompute_ref_log_probs": True},
    "apo": {"loss_type": "apo_zero_unpaired"},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    rows = [
        {
            "prompt": f"tell me {n}",
            "completion": "a b " * (1 + n % 3) if n % 2 else f"c {n}",
            "probability": (n % 5) / 4,
        }
        for n in range(23)
    ]
    # whole batches of training rows, as Accelerate fills the last ones with rows from the beginning
    for name, part in (("rows", rows[:16]), ("held_out", rows[16:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return folder


def write(inputs: Path, out: Path, processes: int, keys: dict[str, Any]) -> dict[str, str]:
    recipe = {
        "stage": "kto", "output_dir": str(out), "model_name_or_path": str(inputs / "base"), "max_length": 64,
        "datasets": [{"path": str(inputs / "rows.jsonl")}], "eval_datasets": [{"path": str(inputs / "held_out.jsonl")}],
        "max_steps": 4, "logging_steps": 1,
        "per_device_train_batch_size": 4 // processes, "gradient_accumulation_steps": 2, "learning_rate": 1e-2,
        "adam_epsilon": 1e-3, "save_strategy": "no", "desirable_weight": 1.2, "undesirable_weight": 1.0,
        "per_device_eval_batch_size": 3, **keys,
    }  # fmt: skip
    file = Path(f"{out}.yaml")
    file.write_text(yaml.safe_dump(recipe))
    return {"stage": "kto", "recipe": str(file), "out": str(out)}


@pytest.mark.parametrize(
    "launcher",
    ["cpu", *(pytest.param(name, marks=[missing, pytest.mark.slow]) for name in ("zero2", "zero3")),
     pytest.param("fsdp2", marks=pytest.mark.slow)],
)  # fmt: skip
def test_two_processes_learn_what_one_does_on_the_same_pairs(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launcher: str
) -> None:
    jobs = [write(inputs, tmp_path / f"{name}-2", 2, keys) for name, keys in KEYS.items()]
    launch(launcher, jobs, tmp_path / "work", processes=2)
    plain = kto.ordered  # one process exchanges answers in halves of its microbatch, as two processes do
    monkeypatch.setattr(
        kto,
        "ordered",
        lambda rows, *, seed, microbatch: plain(rows, seed=seed, microbatch=2 if microbatch == 4 else microbatch),
    )
    for name, keys in KEYS.items():
        recipes.kto.main(["--config", write(inputs, tmp_path / f"{name}-1", 1, keys)["recipe"]])
        one, two = (tmp_path / f"{name}-{processes}" for processes in (1, 2))
        logs = [[row for row in read_jsonl(run / "metrics.jsonl") if "loss" in row] for run in (one, two)]
        assert len(logs[0]) == len(logs[1]) == 4
        for ours, theirs in zip(*logs, strict=True):
            shared = [key for key in NAMES if key in ours]
            assert {key: ours[key] for key in shared} == pytest.approx({key: theirs[key] for key in shared}, abs=2e-5)
        assert name == "apo" or logs[0][-1]["kl"] > 0
        results = [read_manifest(run)["results"] for run in (one, two)]
        for key in ("eval_loss", "eval_kl", "eval_rewards/margins"):
            assert results[0][key] == pytest.approx(results[1][key], abs=2e-5), key
        for key, weight in load_file(one / "adapter_model.safetensors").items():
            assert weight.allclose(load_file(two / "adapter_model.safetensors")[key], atol=1e-4), key
