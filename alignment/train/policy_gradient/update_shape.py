"""How many updates, optimizer steps and microbatches a policy gradient run has."""

from dataclasses import dataclass
from typing import Any

from alignment.config.schema import PolicyGradientRecipe
from alignment.errors import RecipeError


@dataclass(frozen=True, slots=True)
class UpdateShape:
    """The counts that follow from the batch sizes of a recipe."""

    updates: int
    steps_per_update: int  # optimizer steps
    gradient_accumulation_steps: int

    @classmethod
    def of(cls, recipe: PolicyGradientRecipe, *, per_device_train_batch_size: int, world_size: int) -> "UpdateShape":
        """Compute the counts.

        Raises: RecipeError with every number that does not divide the one it must divide.
        """
        batch, minibatches = recipe.rollout_batch_size, recipe.num_mini_batches
        per_step, rest = divmod(batch, minibatches * world_size)
        faults, stage = [], recipe.stage
        if rest:
            faults.append(
                f"{stage}.num_mini_batches {minibatches} on {world_size} processes does not divide rollout_batch_size "
                f"{batch}; use {_divisors(batch, world_size)}"
            )
        elif per_step % per_device_train_batch_size:
            faults.append(
                f"{stage}.per_device_train_batch_size {per_device_train_batch_size} does not divide the {per_step} "
                f"answers of a minibatch on one process; use {_divisors(per_step, 1)}"
            )
        if recipe.total_episodes < batch:
            faults.append(f"{stage}.total_episodes {recipe.total_episodes} is less than rollout_batch_size {batch}")
        if faults:
            raise RecipeError(faults)
        return cls(
            updates=recipe.total_episodes // batch,
            steps_per_update=recipe.update_rule().num_epochs * minibatches,
            gradient_accumulation_steps=per_step // per_device_train_batch_size,
        )

    def forced_arguments(self) -> dict[str, Any]:
        """Trainer arguments that follow from the counts, and those that `ExperienceStream` requires."""
        return {
            "max_steps": self.updates * self.steps_per_update,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            "logging_strategy": "steps",
            "logging_steps": self.steps_per_update,  # one log per update
            "ignore_data_skip": True,  # the stream resumes from its own state and is never replayed
            "remove_unused_columns": False,
            "ddp_find_unused_parameters": False,
            "include_num_input_tokens_seen": "no",
        }


def _divisors(number: int, factor: int) -> str:
    found = [str(n) for n in range(1, number + 1) if number % (n * factor) == 0]
    return " or ".join(found[-4:]) if found else f"a rollout_batch_size that {factor} divides"
