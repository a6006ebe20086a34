"""What a stage saves is finite, or the run ends with the step at which it stopped being so."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alignment.run.files import read_jsonl
from tests.hostile.training import STAGES, make_world, run_stage, write_recipe

pytestmark = pytest.mark.hostile


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("finite"))


def one_step(stage: str) -> dict[str, object]:
    whole = {"total_episodes": 8, "num_mini_batches": 1} if stage == "ppo" else {"max_steps": 1}
    return {**whole, "optim": "adamw_torch", "adam_epsilon": 0.0, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}


@pytest.mark.parametrize("peft_method", ["lora", "full"])
@pytest.mark.parametrize("stage", STAGES)
def test_an_update_without_finite_weights_gives_no_result(world, tmp_path, stage, peft_method):
    """A weight without a gradient becomes 0 / (sqrt(0) + 0): LoRA's A in its first step, embeddings that no row has."""
    out = tmp_path / "run"
    argv = write_recipe(world, stage, out, peft_method=peft_method, **one_step(stage))
    ended = run_stage(stage, argv, tmp_path / "log")
    assert ended.code == 1, ended.said
    assert re.search("after step 1 is not finite|the update of step 1 is larger than any float", ended.last)
    assert "No checkpoint had been written yet." in ended.last
    assert "Traceback" not in ended.said
    assert json.loads((out / "manifest.json").read_text())["status"] == "running"
    assert not list(out.rglob("*.safetensors"))


@pytest.mark.parametrize("stage", STAGES)
def test_the_last_good_checkpoint_is_kept(world, tmp_path, stage):
    """The first update makes weights so large that the next pass overflows."""
    out = tmp_path / "run"
    keys = {"optim": "sgd", "learning_rate": 1e6, "weight_decay": 1e3, "max_grad_norm": 0.0, "save_steps": 1}
    keys |= {"peft_method": "full", "lr_scheduler_type": "constant"}
    ended = run_stage(stage, write_recipe(world, stage, out, **keys), tmp_path / "log")
    assert ended.code == 1, ended.said
    found = re.search(
        r"at step (\d+); training stopped. The last good checkpoint is \S+/checkpoint-(\d+)\.", ended.last
    )
    assert found, ended.last
    stopped, kept = map(int, found.groups())
    assert 1 <= kept < stopped <= 6
    for file in out.glob("checkpoint-*/*.safetensors"):
        assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(file).values()), file
    assert all(math.isfinite(row["loss"]) for row in read_jsonl(out / "metrics.jsonl"))
