"""The shape of a PPO update, and the numbers that its optimizer steps leave."""

import math
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignment.config.schema import PPORecipe
from alignment.errors import RecipeError
from alignment.ops.masking import masked_sum
from alignment.train.objective import Losses


@dataclass(frozen=True, slots=True)
class UpdateShape:
    """How many of what there are in an update."""

    updates: int
    steps_per_update: int  # optimizer steps
    gradient_accumulation_steps: int

    @classmethod
    def of(cls, recipe: PPORecipe, *, per_device_train_batch_size: int, world_size: int) -> "UpdateShape":
        """Work out the numbers that follow from a recipe's.

        Raises: RecipeError naming every number that does not divide the one it must.
        """
        batch, minibatches = recipe.rollout_batch_size, recipe.num_mini_batches
        per_step, rest = divmod(batch, minibatches * world_size)
        faults = []
        if rest:
            faults.append(
                f"ppo.num_mini_batches {minibatches} on {world_size} processes does not divide rollout_batch_size "
                f"{batch}; use {_divisors(batch, world_size)}"
            )
        elif per_step % per_device_train_batch_size:
            faults.append(
                f"ppo.per_device_train_batch_size {per_device_train_batch_size} does not divide the {per_step} answers "
                f"of a minibatch on one process; use {_divisors(per_step, 1)}"
            )
        if recipe.total_episodes < batch:
            faults.append(f"ppo.total_episodes {recipe.total_episodes} is less than rollout_batch_size {batch}")
        if faults:
            raise RecipeError(faults)
        return cls(
            updates=recipe.total_episodes // batch,
            steps_per_update=recipe.num_ppo_epochs * minibatches,
            gradient_accumulation_steps=per_step // per_device_train_batch_size,
        )

    def forced_arguments(self) -> dict[str, Any]:
        """Trainer arguments that follow from the shape, and those without which the stream would not be read right."""
        return {
            "max_steps": self.updates * self.steps_per_update,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "logging_strategy": "steps",
            "logging_steps": self.steps_per_update,  # one log per update
            "ignore_data_skip": True,  # the stream resumes by its own state, it is never replayed
            "remove_unused_columns": False,
            "ddp_find_unused_parameters": False,
            "include_num_input_tokens_seen": "no",
        }


def _divisors(number: int, factor: int) -> str:
    found = [str(n) for n in range(1, number + 1) if number % (n * factor) == 0]
    return " or ".join(found[-4:]) if found else f"a rollout_batch_size that {factor} divides"


class UpdateStatistics:
    """Sums over the microbatches of one update, for the log."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.tokens = 0.0
        self.step_kl, self.step_tokens = 0.0, 0.0  # sum of old_kl_k3 since the last look, and over how many tokens
        self.stopped = False  # the policy moved past target_kl
        self.steps_skipped = 0.0
        self.ratio_min, self.ratio_max = math.inf, 0.0
        self.started = time.perf_counter()

    @torch.no_grad()
    def add(self, losses: Losses, mask: Tensor) -> None:
        """Take in one microbatch."""
        policy, value = losses.policy, losses.value
        parts = {
            "policy_loss": policy.loss,
            "value_loss": value.loss,
            "clip_fraction": policy.clipped,
            "dual_clip_fraction": policy.dual_clipped,
            "value_clip_fraction": value.clipped,
            "old_kl": -policy.ratio.log(),
            "old_kl_k3": policy.ratio - 1 - policy.ratio.log(),
        }
        if losses.kl is not None:
            parts["kl_loss"] = losses.kl
        numbers = torch.stack([masked_sum(part.float(), mask) for part in parts.values()]).tolist()
        sums = dict(zip(parts, numbers, strict=True))
        for name, number in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + number
        tokens = float(mask.sum())
        self.tokens += tokens
        self.step_kl += sums["old_kl_k3"]
        self.step_tokens += tokens
        self.ratio_min = min(self.ratio_min, float(torch.where(mask, policy.ratio, math.inf).min()))
        self.ratio_max = max(self.ratio_max, float(torch.where(mask, policy.ratio, 0.0).max()))

    def stop_past(self, target_kl: float, kl: float, tokens: float) -> None:
        """Look at the last step's minibatch, on all processes: far from the policy that sampled, the update ends.

        The numbers are those of its forward pass, so of the policy as the step before it left it.

        Args:
            kl: sum of old_kl_k3 over `tokens`, the minibatch's tokens.
        """
        self.stopped = self.stopped or kl > target_kl * tokens
        self.steps_skipped += self.stopped
        self.step_kl = self.step_tokens = 0.0

    def means(self, gather: Any, device: torch.device) -> dict[str, float]:
        """Per-token means and the ratio's extremes over all processes, and the most memory that one of them held."""
        extremes = {
            "ratio_min": -self.ratio_min,
            "ratio_max": self.ratio_max,
            "peak_memory_gib": peak_memory(device) / 2**30,
        }
        own = torch.tensor([*self.sums.values(), self.tokens, *extremes.values()], dtype=torch.float64)
        rows = gather(own.float().to(device)).view(-1, len(own)).cpu()
        *sums, tokens = rows[:, : -len(extremes)].sum(0).tolist()
        found = {name: total / max(tokens, 1.0) for name, total in zip(self.sums, sums, strict=True)}
        found |= dict(zip(extremes, rows[:, -len(extremes) :].amax(0).tolist(), strict=True))
        ratios = {"ratio_min": -found["ratio_min"], "ratio_max": found["ratio_max"]}
        return found | (ratios if tokens else dict.fromkeys(ratios, 1.0))  # nothing trained, so no ratio moved


def peak_memory(device: torch.device) -> int:
    """Most bytes held since the process began: of tensors on a GPU, of everything on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
