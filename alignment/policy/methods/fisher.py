"""The diagonal of the empirical Fisher information, and the weights that have the most of it.

    F_w = 1/N Σ_i (∂ log p(y_i | x_i) / ∂w)²

over N examples, as for FISH masks (https://arxiv.org/abs/2111.09839) and the task-driven variant of Child-tuning
(https://arxiv.org/abs/2109.05687). The gradient of a linear layer's weight is δᵀ x, with x its inputs and δ the
gradients of its outputs; so the base may be frozen, in any dtype and in 4 bits.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def fisher_information(
    model: nn.Module, layers: Mapping[str, nn.Module], losses: Iterable[Callable[[], Tensor]]
) -> dict[str, Tensor]:
    """Return F of the weights of linear layers, (out, in) float32, by the layers' names.

    Args:
        model: whose embeddings begin the graph. layers: by name. losses: each computes -log p of one example.
    """
    found = {name: torch.zeros(_shape(layer), device=_device(layer)) for name, layer in layers.items()}
    count = 0
    with _squares_added(model, layers, found):
        for loss in losses:
            loss().backward()  # type: ignore[no-untyped-call]
            count += 1
    model.zero_grad(set_to_none=True)
    return {name: squares.div_(max(count, 1)) for name, squares in found.items()}


def most_informative(information: Mapping[str, Tensor], count: int, capacity: Mapping[str, int]) -> dict[str, Tensor]:
    """Choose the `count` weights with the most information, of no layer more than its capacity.

    Returns: by layer, the chosen weights' places in the flattened weight, ascending, int64.
    """
    values, owners, places = [], [], []
    for number, (name, information_of_layer) in enumerate(information.items()):
        most = min(count, capacity[name], information_of_layer.numel())
        top = information_of_layer.flatten().topk(most)
        values.append(top.values.cpu())
        places.append(top.indices.cpu())
        owners.append(torch.full((most,), number))
    kept = torch.cat(values).topk(count).indices
    owner, place = torch.cat(owners)[kept], torch.cat(places)[kept]
    return {name: place[owner == number].sort().values for number, name in enumerate(information)}


def _shape(layer: Any) -> tuple[int, int]:
    return layer.out_features, layer.in_features


def _device(layer: Any) -> torch.device:
    device: torch.device = layer.weight.device
    return device


@contextmanager
def _squares_added(model: nn.Module, layers: Mapping[str, nn.Module], found: dict[str, Tensor]) -> Iterator[None]:
    """Add the square of each example's gradient to `found` during its backward pass."""
    with ExitStack() as hooks:
        embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
        hooks.callback(embeddings.register_forward_hook(_begin_graph).remove)
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(_Squares(found[name])).remove)
        yield


def _begin_graph(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output if output.requires_grad else output.detach().requires_grad_(True)


class _Squares:
    """A forward hook: when the gradient of the output is known, that of the weight is squared and added."""

    def __init__(self, total: Tensor) -> None:
        self.total = total

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0].detach().flatten(0, -2)

        def add(gradient: Tensor) -> None:
            self.total.add_((gradient.flatten(0, -2).float().T @ x.float()).square_())

        output.register_hook(add)  # type: ignore[no-untyped-call]
