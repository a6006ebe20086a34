"""FISH masks, https://arxiv.org/abs/2111.09839, and Child-tuning D, https://arxiv.org/abs/2109.05687.

Before training, the fraction of the model's weights with the most Fisher information over N examples is chosen; only
they train. Both papers choose over all weights at once. So do we, among the targeted linear layers, and no layer gets
more than r · (in + out) of them: the format of PEFT's SHiRA has as many places, see `sparse`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from alignment.policy.methods.fisher import fisher_information, most_informative
from alignment.policy.methods.sparse import base_parameters, choose, hold_repeated_places, room_for, sparse_layers


@dataclass
class FishmaskConfig:
    """Keys of `peft_config`.

    Args:
        fraction: of all the model's weights, that trains.
        num_samples: N, the number of training examples whose gradients are measured.
        r: a layer gets at most r · (in + out) of the weights; None: the smallest r that has room for the fraction.
        target_modules: linear layers whose weights may be chosen.
        exclude_modules: of these, the ones to leave out.
    """

    fraction: float = 0.02
    num_samples: int = 1024
    r: int | None = None
    target_modules: list[str] | str = "all-linear"
    exclude_modules: list[str] | str | None = None


def choose_by_fisher(
    model: Any,
    losses: Iterable[Callable[[], Tensor]],
    *,
    fraction: float,
    r: int | None = None,
    adapter: str = "default",
) -> int:
    """Make a new SHiRA adapter one on the weights with the most Fisher information; return how many they are.

    Args:
        model: a PeftModel with a SHiRA adapter. losses: each computes -log p of one example with the model.
        fraction: of all weights, rounded down.

    Raises: ModelError if the layers have no room for so many.
    """
    layers = sparse_layers(model, adapter)
    count = max(1, int(fraction * base_parameters(model)))
    rank = room_for(count, layers, r)
    mode = model.training
    information = fisher_information(model.eval(), {n: layer for n, layer in layers.items()}, losses)
    model.train(mode)
    room = {name: rank * (layer.in_features + layer.out_features) for name, layer in layers.items()}
    choose(layers, most_informative(information, count, room), adapter, rank)
    model.peft_config[adapter].r = rank
    hold_repeated_places(model, {adapter})
    return count
