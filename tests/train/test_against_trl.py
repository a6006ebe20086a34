"""Loss and gradients of GRPO and RLOO equal those of TRL's trainers, in float64."""

import collections
import itertools
import types

import pytest
import torch
from accelerate import Accelerator
from trl import GRPOConfig, GRPOTrainer, RLOOTrainer

from alignment.config.schema import DatasetEntry, GRPORecipe, RLOORecipe
from alignment.config.schema.grpo import LOSSES
from alignment.train.policy_gradient.objective import Counts, minibatch_share, token_losses
from alignment.train.policy_gradient.statistics import UpdateStatistics

COMMON = {"output_dir": "x", "model_name_or_path": "x", "datasets": [DatasetEntry(path="x")], "total_episodes": 64}
ANSWERS, LONGEST = 8, 7
KEYS = {"cispo": {"epsilon_high": 1.2}}
DEFAULTS = GRPOConfig.__dataclass_fields__


def numbers(seed: int, *, empty: bool = False) -> dict[str, torch.Tensor]:
    """One minibatch: log-probabilities, advantages and a mask, whose first row is empty if `empty`."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, LONGEST + 1, (ANSWERS,), generator=g)
    mask = torch.arange(LONGEST) < lengths.unsqueeze(-1)
    loss_mask = mask.clone()
    if empty:
        loss_mask[0] = False
    logp, old, ref = (-torch.rand(ANSWERS, LONGEST, generator=g, dtype=torch.float64) * 2 for _ in range(3))
    old = logp + 0.4 * (old - logp)
    ref[1] = logp[1] + 4.5  # where a bound of the KL would show
    advantages = torch.randn(ANSWERS, generator=g, dtype=torch.float64)
    return {"logp": logp, "old": old, "ref": ref, "advantages": advantages, "mask": mask, "loss_mask": loss_mask}


def of_trl(cls: type, x: dict[str, torch.Tensor], **settings: object) -> tuple[float, torch.Tensor]:
    """Call the trainer's own `_compute_loss` with log-probabilities in place of a model."""
    trainer = object.__new__(cls)
    logp = x["logp"].clone().requires_grad_()
    arguments = {
        name: DEFAULTS[name].default
        for name in DEFAULTS
        if name.startswith(("sapo", "vespo", "delta", "use_bias", "entropy"))
    }
    arguments |= {"steps_per_generation": 1, "delta": settings.pop("delta", None)}
    attributes = {
        "aux_loss_enabled": False,
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "use_vllm": False,
        "current_gradient_accumulation_steps": 1,
        "max_completion_length": 16,
        "_entropy_bonus_enabled": False,
        "args": types.SimpleNamespace(**arguments),
        "accelerator": Accelerator(cpu=True),
        "model": types.SimpleNamespace(training=True),
        "_metrics": {"train": collections.defaultdict(list)},
        "_get_per_token_logps_and_entropies": lambda *_, **__: (logp, torch.zeros_like(logp), None),
        **settings,
    }
    for name, value in attributes.items():
        setattr(trainer, name, value)
    prompts = torch.ones(ANSWERS, 2, dtype=torch.long)
    inputs = {
        "prompt_ids": prompts,
        "prompt_mask": prompts,
        "completion_ids": torch.ones(ANSWERS, LONGEST, dtype=torch.long),
        "completion_mask": x["loss_mask"].long(),
        "advantages": x["advantages"],
        "old_per_token_logps": x["old"],
        "old_logps": (x["old"] * x["loss_mask"]).sum(1),
        "ref_per_token_logps": x["ref"],
        "num_items_in_batch": x["loss_mask"].sum(),
    }
    loss = trainer._compute_loss(None, inputs)
    loss.backward()
    return float(loss.detach()), logp.grad


def ours(recipe: GRPORecipe | RLOORecipe, x: dict[str, torch.Tensor], size: int) -> tuple[float, torch.Tensor]:
    """The trainer's loss of a minibatch in microbatches of `size` answers."""
    rule = recipe.update_rule()
    logp = x["logp"].clone().requires_grad_()
    sequences = ANSWERS if rule.counts_masked_answers else int(x["loss_mask"].any(1).sum())
    tokens = x["loss_mask"].sum()
    batch = {"logp": x["old"], "ref_logp": x["ref"], "loss_mask": x["loss_mask"]}
    batch["advantages"] = torch.where(x["mask"], x["advantages"].unsqueeze(-1), 0.0)
    total = torch.zeros((), dtype=torch.float64)
    for start in range(0, ANSWERS, size):
        rows = slice(start, start + size)
        losses = token_losses(logp[rows], None, {name: tensor[rows] for name, tensor in batch.items()}, rule)
        counts = Counts(tokens, torch.tensor(sequences), tokens)
        total = total + minibatch_share(losses, x["loss_mask"][rows], rule, counts, kl_coef=rule.kl_coef)
    total.backward()
    return float(total.detach()), logp.grad


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_the_clipped_shares_are_those_that_trl_logs(loss_type):
    recipe = GRPORecipe(stage="grpo", loss_type=loss_type, epsilon=0.1, epsilon_high=0.2, max_new_tokens=16, **COMMON)
    seen = collections.Counter({"clip_ratio/low_mean": 0.0, "clip_ratio/high_mean": 0.0})
    for seed in range(5):
        x, logged = numbers(seed), collections.defaultdict(list)
        settings = {"importance_sampling_level": "token", "beta": 0.0, "epsilon_low": 0.1, "epsilon_high": 0.2}
        of_trl(GRPOTrainer, x, loss_type=loss_type, _metrics={"train": logged}, **settings)
        batch = {"logp": x["old"], "loss_mask": x["loss_mask"]}
        batch["advantages"] = torch.where(x["mask"], x["advantages"].unsqueeze(-1), 0.0)
        statistics = UpdateStatistics()
        statistics.add(token_losses(x["logp"], None, batch, recipe.update_rule()), batch["advantages"], x["loss_mask"])
        found = statistics.means(lambda tensor: tensor, torch.device("cpu"))
        for name in seen:
            assert found[name] == pytest.approx(logged[name][0], abs=1e-6)
            seen[name] += found[name]
    assert all(0 < total < 5 for total in seen.values())


CASES = list(itertools.product(LOSSES, ["token", "sequence"], [0.0, 0.1], [None, 1.5]))


@pytest.mark.parametrize(("loss_type", "level", "beta", "delta"), CASES)
def test_grpo(loss_type, level, beta, delta):
    """Every loss, with the ratio of tokens and of sequences, with and without KL, bound and masked answers."""
    clips = LOSSES[loss_type][0] == "clip"
    keys = {"epsilon": 0.1, "epsilon_high": 0.2} if clips else KEYS.get(loss_type, {})
    keys |= {"delta": delta} if clips else {}
    recipe = GRPORecipe(
        stage="grpo",
        loss_type=loss_type,
        beta=beta,
        importance_sampling_level=level,
        max_new_tokens=16,
        **COMMON,
        **keys,
    )
    for seed, empty in itertools.product(range(3), [False, True]):
        x = numbers(seed, empty=empty)
        loss, gradient = of_trl(
            GRPOTrainer,
            x,
            loss_type=loss_type,
            importance_sampling_level=level,
            beta=beta,
            epsilon_low=recipe.epsilon,
            epsilon_high=recipe.epsilon if recipe.epsilon_high is None else recipe.epsilon_high,
            delta=delta if clips else None,
        )
        for size in (ANSWERS, 2):
            found, found_gradient = ours(recipe, x, size)
            assert found == pytest.approx(loss, abs=1e-9)
            torch.testing.assert_close(found_gradient, gradient, rtol=0, atol=1e-9)
        assert float(gradient.abs().max()) > 1e-3


@pytest.mark.parametrize("epsilon_high", [None, 0.4])
def test_rloo(epsilon_high):
    recipe = RLOORecipe(stage="rloo", epsilon=0.3, epsilon_high=epsilon_high, **COMMON)
    for seed, empty in itertools.product(range(5), [False, True]):
        x = numbers(seed, empty=empty)
        loss, gradient = of_trl(RLOOTrainer, x, epsilon_low=0.3, epsilon_high=epsilon_high or 0.3, beta=0.05)
        if empty:  # TRL adds the advantage of an answer without a trained token, a constant
            loss += float(x["advantages"][0]) / ANSWERS
        for size in (ANSWERS, 2):
            found, found_gradient = ours(recipe, x, size)
            assert found == pytest.approx(loss, abs=1e-9)
            torch.testing.assert_close(found_gradient, gradient, rtol=0, atol=1e-9)
