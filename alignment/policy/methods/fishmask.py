"""FISH masks, https://arxiv.org/abs/2111.09839, and Child-tuning D, https://arxiv.org/abs/2109.05687.

Before training, the fraction of the model's weights with the most Fisher information over N examples is chosen; only
they train. Both papers choose over all weights at once. So do we, among the targeted linear layers, and no layer gets
more than r · (in + out) of them: the format of PEFT's SHiRA has as many places, see `sparse`.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from peft import ShiraConfig
from peft.tuners.tuners_utils import _maybe_include_all_linear_layers, check_target_module_exists
from torch import Tensor, nn

from alignment.config.own_methods import FishmaskKeys
from alignment.config.schema import AdapterKeys
from alignment.errors import ModelError
from alignment.policy.methods.fisher import fisher_information, most_informative
from alignment.policy.methods.generic import Generic
from alignment.policy.methods.sparse import base_parameters, choose, hold_repeated_places, room_for, sparse_layers
from alignment.policy.model_files import Fault

PEFT_TYPE, PREFIX = "SHIRA", "shira_"


def new_config(keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> ShiraConfig:
    """Return the configuration of a new adapter; the model decides how many weights the fraction is."""
    given = FishmaskKeys(**keys.fields())
    config = ShiraConfig(
        task_type=task, target_modules=given.target_modules, modules_to_save=modules_to_save, random_seed=0
    )
    config.exclude_modules = given.exclude_modules
    config.complete = partial(_complete, given.fraction, given.r)
    return config


def _complete(fraction: float, r: int | None, config: ShiraConfig, model: nn.Module) -> ShiraConfig:
    named = _maybe_include_all_linear_layers(copy.deepcopy(config), model)
    layers = [module for name, module in model.named_modules() if check_target_module_exists(named, name)]
    for layer in layers:
        if not isinstance(layer, nn.Linear):
            raise ModelError(f"target_modules: {type(layer).__name__} is no linear layer, whose weights are chosen.")
    if layers:  # else PEFT names what is wrong
        config.r = room_for(count_of(fraction, model), layers, r)
    return config


def recipe_keys(config: ShiraConfig) -> dict[str, Any]:
    """Return the recipe keys that an existing adapter determines."""
    return {"peft_method": "fishmask"}


def faults(found: dict[str, Any]) -> Iterator[Fault]:
    """Yield the keys of a saved configuration that have impossible values."""
    yield from Generic("shira").faults(found)


def callbacks(model: Any, keys: AdapterKeys) -> list[Any]:
    """Keep what was not chosen from training; no callback is needed for it."""
    hold_repeated_places(model)
    return []


def choose_weights(model: Any, keys: AdapterKeys, losses: Callable[[int], Iterable[Callable[[], Tensor]]]) -> int:
    """Choose the weights of a new adapter with a stage's own loss; return how many they are.

    Args:
        losses: returns the losses of so many examples, each a function that computes one.
    """
    given = FishmaskKeys(**keys.fields())
    return choose_by_fisher(model, losses(given.num_samples), fraction=given.fraction)


def count_of(fraction: float, model: nn.Module) -> int:
    """Return how many weights a fraction of a model is, rounded down, but one at least."""
    return max(1, int(fraction * base_parameters(model)))


def choose_by_fisher(
    model: Any, losses: Iterable[Callable[[], Tensor]], *, fraction: float, adapter: str = "default"
) -> int:
    """Make a new SHiRA adapter one on the weights with the most Fisher information; return how many they are.

    Args:
        model: a PeftModel with a SHiRA adapter. losses: each computes -log p of one example with the model.
        fraction: of all weights.

    Raises: ModelError if the adapter has no room for so many.
    """
    layers = sparse_layers(model, adapter)
    count = count_of(fraction, model)
    room_for(count, layers.values(), model.peft_config[adapter].r)
    mode = model.training
    information = fisher_information(model.eval(), layers, losses)
    model.train(mode)
    room = {name: len(layer.shira_weight[adapter]) for name, layer in layers.items()}
    choose(layers, most_informative(information, count, room), adapter)
    return count
