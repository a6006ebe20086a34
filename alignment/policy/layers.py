"""The list of a transformers model's layers."""

from typing import Any

from torch import nn

from alignment.errors import ModelError


def layer_stack(model: nn.Module) -> tuple[str, int]:
    """Return the name of the list of a model's layers, and its length.

    Raises: ModelError if it has none.
    """
    config: Any = model.config
    wanted = config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == wanted:
            return name, wanted
    raise ModelError(f"{type(model).__name__} has no list of {wanted} layers; give trainable_layers names of modules.")
