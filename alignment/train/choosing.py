"""Chooses the weights that train by the training examples, for the methods that do so, before training begins."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alignment.config.launched import is_sharded
from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.errors import RecipeError
from alignment.meter import say
from alignment.policy.methods import optional
from alignment.policy.model_source import model_of


def choose_weights(trainer: Any, recipe: Any) -> None:
    """Choose the weights of a new adapter, if the recipe's method chooses weights; a continued one has its own.

    Every process measures the same examples, and so chooses the same weights. A run that resumes chooses them again
    from its start, and then reads its checkpoint.

    Raises: RecipeError if the weights are sharded.
    """
    choose = optional(recipe, "choose_weights")
    if choose is None or not is_new_adapter(recipe, recipe):
        return
    if is_sharded():
        raise RecipeError(
            [f"peft_method {recipe.peft_method} measures whole weights, which lie in shards here; use data parallelism"]
        )
    kept = trainer.own_counters()
    count = choose(trainer.model, recipe, lambda number: example_losses(trainer, number, recipe.seed))
    trainer.restore_own(kept, 1.0)
    say(f"{recipe.peft_method}: {count:,} weights have the most Fisher information and train")


def is_new_adapter(model: ModelKeys, keys: AdapterKeys) -> bool:
    """Whether a recipe's adapter is a new one, not that of an earlier stage."""
    source = model_of(model)
    return keys.method.has_adapter and source.adapter is None


def example_losses(trainer: Any, number: int, seed: int) -> Iterator[Callable[[], Tensor]]:
    """Yield functions that compute the stage's loss of one training example each, drawn without replacement."""
    rows = trainer.train_dataset
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:number]
    for place in order.tolist():
        inputs = trainer._prepare_inputs(trainer.data_collator([rows[place]]))
        yield partial(trainer.compute_loss, trainer.model, inputs)
