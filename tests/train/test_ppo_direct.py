"""PPO by a judge's scores alone: what was paid is never asked again, and a resumed run is the straight one."""

import gc
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from alignment.calls import store
from alignment.train.policy_gradient import trainer
from recipes.ppo import main
from tests.calls.chat_server import ChatServer, completion
from tests.train.test_ppo_recipe import Killed, folder, write_recipe

__all__ = ["folder"]  # a fixture
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def letters(prompt, n):
    return completion(str(len(prompt) % 10))


def recipe(folder, out, reward, watch):
    def scorer(server):
        judge = {"kind": "openai", "model": "toy", "base_url": server.url, "logprobs": False, "max_retries": 0}
        return [{"kind": "judge", "name": "taste", "judge": judge}]

    keys = {"scorers": scorer(reward), "watch_scorers": scorer(watch), "watch_interval": 2}
    return write_recipe(folder, out, reward_model_path=None, **keys)


def test_a_killed_run_asks_no_judge_twice_and_ends_with_the_same_bits(folder, tmp_path, monkeypatch):
    step = trainer.PPOTrainer.training_step
    # New stores get the same fence secret here, so that the prompts of two runs can be compared.
    monkeypatch.setattr(store, "secrets", SimpleNamespace(token_hex=lambda size: "ab" * size))

    def deadly(self, *args, **kwargs):
        if self.state.global_step == 8:  # the third update's answers are scored, and the last checkpoint is 6
            raise Killed
        return step(self, *args, **kwargs)

    with ChatServer(letters) as reward, ChatServer(letters) as watch:
        main(recipe(folder, tmp_path / "straight", reward, watch))
        straight = [sorted(server.prompts) for server in (reward, watch)]
    with ChatServer(letters) as reward, ChatServer(letters) as watch:
        argv = recipe(folder, tmp_path / "killed", reward, watch)
        with monkeypatch.context() as patch:
            patch.setattr(trainer.PPOTrainer, "training_step", deadly)
            with pytest.raises(Killed):
                main(argv)
        gc.collect()  # a process that dies lets go of its stores
        asked = [len(server.prompts) for server in (reward, watch)]
        # A resumed run must use the secret that its store keeps, not a new one.
        monkeypatch.setattr(store, "secrets", SimpleNamespace(token_hex=lambda size: "cd" * size))
        main(argv)
        assert [sorted(server.prompts) for server in (reward, watch)] == straight
        assert [len(server.prompts) for server in (reward, watch)] == asked  # all three updates were paid before
    for prompts in straight:
        assert prompts
        assert len(set(prompts)) == len(prompts)
    assert {path.name for path in (tmp_path / "killed").glob("calls_*.sqlite")} == {
        "calls_taste.sqlite",
        "calls_watch_taste.sqlite",
    }
    weights = [load_file(tmp_path / name / "adapter_model.safetensors") for name in ("straight", "killed")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    logged = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    scored = [row for row in logged if "score" in row]
    assert ["watch_taste" in row for row in scored] == [True, False, True]
    assert all(row["watch_taste"] == row["score"] for row in scored if "watch_taste" in row)  # the same judge
