"""PPO with an engine that is not the model's own loop."""

import pytest
import torch

from tests.models import save_tiny_model
from tests.train.ppo_runs import make_trainer, trained_weights

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def test_ppo_learns_with_continuous_batching(tmp_path):
    base = save_tiny_model(tmp_path / "base", initializer_range=0.3)
    trainer = make_trainer(
        base, tmp_path / "run", updates=6, rollout_engine="continuous_batching", many_stops=False, kl_coef=0.0,
        rollout_batch_size=32, total_episodes=32 * 6,
    )  # fmt: skip
    before = trained_weights(trainer)
    trainer.train()
    scores = [entry["score"] for entry in trainer.state.log_history if "score" in entry]
    assert len(scores) == 6
    assert sum(scores[-2:]) > sum(scores[:2])
    assert any(not torch.equal(weight, before[name]) for name, weight in trained_weights(trainer).items())


@pytest.mark.parametrize("keys", [{}, {"peft_method": "full"}], ids=str)
def test_answers_are_sampled_in_the_precision_that_training_computes_in(tmp_path, keys):
    base = save_tiny_model(tmp_path / "base", initializer_range=0.3)
    trainer = make_trainer(base, tmp_path / "run", updates=1, arguments={"bf16": True}, **keys)
    seen, sample = [], trainer.engine.generate

    def watched(prompt_ids, sampling):
        seen.append((torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")))
        layer = trainer.roles.causal_lm("policy").model.layers[0].self_attn.q_proj
        assert not getattr(layer, "merged", False)  # bfloat16 would round away what the adapter has learned
        return sample(prompt_ids, sampling)

    trainer.engine.generate = watched
    trainer.train()
    assert seen == [(True, torch.bfloat16)]
