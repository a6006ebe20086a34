"""DyLoRA: LoRA whose rank is sampled for each step; see `nested_ranks`. What is saved is a plain LoRA adapter."""

from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.config.schema import AdapterKeys
from alignment.policy.methods import lora
from alignment.policy.methods.nested_ranks import NestedRanks
from alignment.policy.model_files import Fault

PEFT_TYPE, PREFIX = lora.PEFT_TYPE, lora.PREFIX
ROLES = ("policy", "reference")  # of PPO, that compute at the sampled rank


def new_config(keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> LoraConfig:
    """Return the configuration of a new adapter."""
    return lora.new_config(keys, task=task, modules_to_save=modules_to_save)


def recipe_keys(config: LoraConfig) -> dict[str, Any]:
    """Return the recipe keys that an existing adapter determines; one of plain LoRA is continued too."""
    return {**lora.recipe_keys(config), "peft_method": "dora" if config.use_dora else "dylora"}


def faults(found: dict[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with a saved configuration."""
    yield from lora.faults(found)


def callbacks(model: Any, keys: Any) -> list[TrainerCallback]:
    """Return the callback that samples ranks."""
    updates = getattr(keys, "num_ppo_epochs", None)
    steps = 1 if updates is None else updates * keys.num_mini_batches
    return [RankSampling(model, seed=keys.seed, steps=steps, on_policy=updates is not None)]


class RankSampling(TrainerCallback):
    """Samples the rank of each step; of PPO, of each update, which samples answers and learns at one rank.

    A step changes no direction past its rank. The reference computes at the policy's rank: DPO's first loss is ln 2,
    and PPO's first KL is 0, at every rank. Evaluation and the saved adapter have the full rank.

    Args:
        steps: with one rank.
        on_policy: the rank also holds while the model is in evaluation mode, in which PPO samples.
    """

    def __init__(self, model: Any, *, seed: int, steps: int, on_policy: bool) -> None:
        roles = getattr(model, "adapters", None) if on_policy else None
        if roles is None:
            layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
        else:
            layers = [layer for role in ROLES if role in roles for layer in roles[role].lora_layers]
        self.ranks = NestedRanks(layers, while_evaluating=on_policy)
        self.seed, self.steps = seed, steps
        self._held: list[tuple[Tensor, Tensor]] = []  # directions past the rank, and copies from before the step

    def _next(self, state: TrainerState) -> None:
        self.ranks.sample(seed=self.seed, step=state.global_step // self.steps)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Sample the first step's rank."""
        self._next(state)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Copy the directions that the step must not change."""
        self._held = [(unused, unused.clone()) for unused in self.ranks.unused()]

    @torch.no_grad()
    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Put them back: Adam has moved them by its averages of earlier gradients."""
        for unused, before in self._held:
            unused.copy_(before)
        self._held = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Sample the next step's rank: PPO samples answers before that step begins."""
        self._next(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Return to the full rank."""
        self.ranks.rank = None
