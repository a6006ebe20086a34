"""From the rewards of a rollout to advantages as in TRL's GRPO and RLOO trainers, in float64.

TRL's own `_generate_and_score_completions` runs, with given answers, rewards and log-probabilities in place of a model.
"""

import collections
import types

import pytest
import torch
from accelerate import Accelerator
from trl import GRPOConfig, GRPOTrainer, RLOOTrainer

from alignment.config.schema import STAGES, DatasetEntry
from alignment.train.policy_gradient.experience import RoleOutputs
from alignment.train.policy_gradient.trainer import PPOTrainer
from alignment.train.policy_gradient.trunk_states import TrunkStates

GROUPS, SIZE, LONGEST = 6, 4, 7
ANSWERS = GROUPS * SIZE
DEFAULTS = GRPOConfig.__dataclass_fields__


def numbers(seed: int) -> dict[str, torch.Tensor]:
    """Rewards with two groups of equal ones, lengths, and log-probabilities of policy and reference."""
    g = torch.Generator().manual_seed(seed)
    rewards = torch.randn(ANSWERS, generator=g, dtype=torch.float64)
    rewards[:SIZE] = 0.1
    rewards[SIZE : 2 * SIZE] = torch.tensor([1.0, 0.0, 1.0, 1.0])
    lengths = torch.randint(1, LONGEST + 1, (ANSWERS,), generator=g)
    lengths[0] = LONGEST
    logp, ref = (-torch.rand(ANSWERS, LONGEST, generator=g, dtype=torch.float64) * 2 for _ in range(2))
    return {"rewards": rewards, "mask": torch.arange(LONGEST) < lengths.unsqueeze(-1), "logp": logp, "ref": ref}


def of_trl(cls: type, x: dict[str, torch.Tensor], **settings: object) -> torch.Tensor:
    """Advantages of the answers, (answers,)."""
    trainer = object.__new__(cls)
    answers = [[5] * int(length) for length in x["mask"].sum(1)]
    given = ([[3]] * ANSWERS, answers, None, [""] * ANSWERS, None, {}, None, [])
    policy = types.SimpleNamespace(training=True, is_gradient_checkpointing=False)
    reference = types.SimpleNamespace()
    attributes = {
        "accelerator": Accelerator(cpu=True),
        "args": types.SimpleNamespace(
            per_device_train_batch_size=ANSWERS,
            gradient_accumulation_steps=1,
            steps_per_generation=1,
            gradient_checkpointing_kwargs=None,
        ),
        "model": policy,
        "ref_model": reference,
        "beta": 0.0,
        "num_generations": SIZE,
        "num_iterations": 1,
        "reward_weights": torch.ones(1, dtype=torch.float64),
        "reward_funcs": [None],
        "reward_func_names": ["reward"],
        "_tokenizer": types.SimpleNamespace(pad_token_id=0),
        "_metrics": {"train": collections.defaultdict(list)},
        "_logs": {"rewards": collections.defaultdict(list), **{k: [] for k in ("prompt", "completion", "advantages")}},
        "_pending_extra_logs": {},
        "_pending_metrics": {},
        "_generate": lambda _: given if cls is GRPOTrainer else (given[0], given[1], given[3]),
        "_calculate_rewards": lambda *_: x["rewards"].unsqueeze(1),
        "_get_per_token_logps_and_entropies": lambda model, *_, **__: (
            x["ref"] if model is reference else x["logp"],
            None,
            None,
        ),
        **dict.fromkeys(["environment_factories", "environments", "tools", "pad_to_multiple_of", "reward_clip_range"]),
        **dict.fromkeys(["mask_truncated_completions", "use_vllm", "log_multimodal", "_is_vlm"], False),
        "multi_objective_aggregation": DEFAULTS["multi_objective_aggregation"].default,
        **settings,
    }
    for name, value in attributes.items():
        setattr(trainer, name, value)
    torch.set_default_dtype(torch.float64)  # TRL's `nanstd` divides counts, which gives numbers of the default dtype
    try:
        found: torch.Tensor = trainer._generate_and_score_completions([{"prompt": "x"}] * ANSWERS)["advantages"]
    finally:
        torch.set_default_dtype(torch.float32)
    return found


def ours(stage: str, x: dict[str, torch.Tensor], **keys: object) -> torch.Tensor:
    """Advantages by the trainer's own `make_experience`, (answers, time)."""
    recipe = STAGES[stage](
        stage=stage,
        output_dir="x",
        model_name_or_path="x",
        datasets=[DatasetEntry(path="x")],
        total_episodes=64,
        num_generations=SIZE,
        **keys,
    )
    trainer = object.__new__(PPOTrainer)
    trainer.recipe, trainer.rule = recipe, recipe.update_rule()
    trainer.kl_coef = trainer.rule.kl_coef
    rollout = types.SimpleNamespace(
        trunk=TrunkStates(),
        mask=x["mask"],
        stopped=torch.ones(ANSWERS, dtype=torch.bool),
        groups=[row // SIZE for row in range(ANSWERS)],
        engine_logp=None,
        prompt_ids=[],
        answer_ids=[],
    )
    outputs = RoleOutputs(logp=x["logp"], entropy=None, ref_logp=x["ref"], values=None, last_values=None)
    return trainer.make_experience(rollout, outputs, x["rewards"]).advantages


def require_equal(found: torch.Tensor, expected: torch.Tensor, mask: torch.Tensor) -> None:
    assert found.dtype == torch.float64
    assert float(expected.abs().max()) > 0.5
    torch.testing.assert_close(found, torch.where(mask, expected.unsqueeze(1), 0.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale_rewards", ["group", "batch", "none"])
def test_grpo(scale_rewards):
    for seed in range(5):
        x = numbers(seed)
        expected = of_trl(GRPOTrainer, x, scale_rewards=scale_rewards)
        require_equal(ours("grpo", x, scale_rewards=scale_rewards), expected, x["mask"])


@pytest.mark.parametrize(("beta", "normalize"), [(0.0, False), (0.0, True), (0.3, False), (0.3, True)])
def test_rloo(beta, normalize):
    for seed in range(5):
        x = numbers(seed)
        expected = of_trl(RLOOTrainer, x, beta=beta, normalize_advantages=normalize)
        require_equal(ours("rloo", x, beta=beta, normalize_advantages=normalize), expected, x["mask"])
