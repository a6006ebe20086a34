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
