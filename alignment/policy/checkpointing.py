"""Activation checkpointing of transformers models, and the layer classes at which FSDP2 splits a model."""

from collections.abc import Callable
from typing import Any

from torch import nn


def checkpoint_layers(model: Any, kwargs: dict[str, Any], **options: Any) -> None:
    """Turn on checkpointing of a transformers model's layers, under the installed release's name for it.

    Args:
        kwargs: arguments of `torch.utils.checkpoint.checkpoint`.
        options: `every_n_layers` and `offload`, as transformers takes them.
    """
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs, **options)
    else:  # transformers 5.17
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs, **options)


def checkpoint_switched_layers(
    model: Any, context_fn: Callable[[], tuple[Any, Any]], kwargs: dict[str, Any], **options: Any
) -> None:
    """Turn on checkpointing of layers whose adapters switch between the forward and the backward pass.

    Non-reentrant checkpointing needs no gradient of the input embeddings, which transformers requests anyway. With it
    the backward pass would also run through the layers below the lowest adapter. The layers draw no random numbers, so
    no generator state is saved.

    Args:
        context_fn: the contexts of the forward pass and of its recomputation, as `torch.utils.checkpoint` takes them.
    """
    ours = {"preserve_rng_state": False, **kwargs, "use_reentrant": False, "context_fn": context_fn}
    checkpoint_layers(model, ours, **options)
    _drop_input_gradients(model)


def without_input_gradients(model: Any, kwargs: dict[str, Any] | None) -> None:
    """Remove the gradient of the input embeddings if checkpointing does not need it.

    TRL requests it for every adapter. Only reentrant checkpointing needs it, and it makes the backward pass run through
    the frozen layers below the lowest adapter.

    Args:
        model: a transformers model or a PeftModel around one.
        kwargs: `gradient_checkpointing_kwargs` of the Trainer.
    """
    if (kwargs or {}).get("use_reentrant") is False:
        _drop_input_gradients(model)


def _drop_input_gradients(model: nn.Module) -> None:
    """Remove every hook that requests them.

    TRL, PEFT and the Trainer each add one, and transformers' `disable_input_require_grads` removes only the last.
    """
    for module in model.modules():
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "").startswith("make_inputs_require_grad"):
                del module._forward_hooks[key]


def layer_classes(*models: nn.Module) -> list[str]:
    """Return the names of the models' layer classes that transformers does not split.

    Under FSDP2 Accelerate splits a model at the classes in its `_no_split_modules`.
    """
    modules = [module for model in models for module in model.modules()]
    named = {name for module in modules for name in getattr(type(module), "_no_split_modules", None) or ()}
    return sorted(named & {type(module).__name__ for module in modules})
