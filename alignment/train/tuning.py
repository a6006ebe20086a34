"""What the tuning method of a recipe adds to a stage's trainer, to its checkpoints and to the saved model."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from alignment.config.schema import AdapterKeys
from alignment.errors import ModelError
from alignment.policy.methods import optional
from alignment.policy.methods.callback import MethodCallback

STATE = "method.safetensors"  # in a checkpoint: the state of the method's callbacks


def method_callbacks(recipe: AdapterKeys, model: Any) -> list[TrainerCallback]:
    """Return the callbacks of a recipe's tuning method.

    Args:
        model: as the stage trains it: a PeftModel, a whole model, or the roles of PPO.
    """
    make = optional(recipe, "callbacks")
    return [] if make is None else list(make(model, recipe))


def set_rates(callbacks: Iterable[TrainerCallback], optimizer: Any, model: Any) -> None:
    """Split an optimizer's groups, so that each parameter has the learning rate that its method gives it."""
    methods = [each for each in callbacks if isinstance(each, MethodCallback)]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    if all(each.rate(name) == 1 for each in methods for name in names.values()):
        return
    groups = []
    for group in optimizer.param_groups:
        by_rate: dict[float, list[Any]] = {}
        for parameter in group["params"]:
            rate = math.prod(each.rate(names[id(parameter)]) for each in methods)
            by_rate.setdefault(rate, []).append(parameter)
        groups += [{**group, "params": found, "lr": group["lr"] * rate} for rate, found in by_rate.items()]
    optimizer.param_groups[:] = groups


def save_method_state(callbacks: Iterable[TrainerCallback], checkpoint: Path) -> None:
    """Write the state of the method's callbacks into a checkpoint, if they have any."""
    found = {
        f"{type(each).__name__}/{name}": tensor.detach().cpu().contiguous()
        for each in callbacks
        if isinstance(each, MethodCallback)
        for name, tensor in each.tensors().items()
    }
    if found:
        save_file(found, checkpoint / STATE)


def restore_method_state(callbacks: Iterable[TrainerCallback], checkpoint: Path) -> None:
    """Restore what `save_method_state` wrote.

    Raises: ModelError if a callback has state, and the checkpoint holds none.
    """
    holding = [each for each in callbacks if isinstance(each, MethodCallback) and each.tensors()]
    file = checkpoint / STATE
    if holding and not file.is_file():
        raise ModelError(f"{checkpoint} holds no {STATE}, the state of the tuning method; resume from another.")
    stored = load_file(file) if file.is_file() else {}
    for each in callbacks:
        if isinstance(each, MethodCallback):
            prefix = f"{type(each).__name__}/"
            each.restore_tensors({k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)})


def finish_adapter(callbacks: Iterable[TrainerCallback], folder: Path) -> None:
    """Let the method's callbacks change the files of the trained model."""
    for each in callbacks:
        if isinstance(each, MethodCallback):
            each.finish(folder)
