"""Prompts that hold every character which ends a line for somebody: a killed PPO run resumes to the same bits."""

import json

import pytest
import torch
from safetensors.torch import load_file

from alignment.run.files import read_jsonl
from alignment.train.policy_gradient import trainer
from recipes.ppo import main
from tests.train.test_ppo_recipe import Killed, folder, write_recipe

__all__ = ["folder"]  # a fixture
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
ENDS = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


@pytest.mark.parametrize("escaped", [True, False], ids=["as it writes", "as an earlier version wrote"])
def test_a_killed_run_with_such_prompts_resumes_to_the_same_bits(folder, tmp_path, monkeypatch, escaped):
    prompts = [{"prompt": [{"role": "user", "content": f"tell{end}me{end}"}]} for end in ENDS]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in prompts), newline="\n")
    keys = {"datasets": [{"path": str(file)}], "num_sample_generations": 8}
    step = trainer.PPOTrainer.training_step

    def deadly(self, *args, **kwargs):
        if self.state.global_step == 8:
            raise Killed
        return step(self, *args, **kwargs)

    main(write_recipe(folder, tmp_path / "straight", **keys))
    argv = write_recipe(folder, tmp_path / "killed", **keys)
    with monkeypatch.context() as patch:
        patch.setattr(trainer.PPOTrainer, "training_step", deadly)
        with pytest.raises(Killed):
            main(argv)
    if not escaped:
        samples = tmp_path / "killed" / "samples.jsonl"
        rows = [json.dumps(row, ensure_ascii=False) + "\n" for row in read_jsonl(samples)]
        samples.write_text("".join(rows), encoding="utf-8", newline="\n")
    main(argv)
    straight, killed = (read_jsonl(tmp_path / name / "samples.jsonl") for name in ("straight", "killed"))
    assert killed == straight
    assert {row["prompt"][4] for row in straight} >= set("\x85\u2028\u2029")
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("straight", "killed")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
