"""The keys of `peft_config` of tuning methods of our own, which no configuration class of PEFT has."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class FreezeKeys:
    """Keys of `freeze`.

    Args:
        trainable_layers: so many of the last layers; if negative, of the first ones; or names of modules, such as
            `layers.4.mlp`, `model.norm` or `lm_head`.
    """

    trainable_layers: int | list[str] = 2


@dataclass
class BitfitKeys:
    """Keys of `bitfit`.

    Args:
        new_biases: give all linear layers biases, also where the architecture has none.
    """

    new_biases: bool = False


@dataclass
class FishmaskKeys:
    """Keys of `fishmask` and `child_tuning_d`.

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


@dataclass
class ChildTuningKeys:
    """Keys of `child_tuning`.

    Args:
        reserve_p: p, the probability that a weight is in the child network of a step.
    """

    reserve_p: float = 0.3


@dataclass
class BottleneckKeys:
    """Keys of `bottleneck`.

    Args:
        bottleneck_size: m, the width between the projections.
        placement: `houlsby`, after attention and feed-forward network, or `pfeiffer`, after the latter.
        non_linearity: `relu`, `gelu`, `silu` or `tanh`.
        target_modules: modules whose output the adapters change; None: those of `placement`.
        exclude_modules: of these, the ones to leave out.
        modules_to_save: modules that are trained whole beside the adapter.
    """

    bottleneck_size: int = 64
    placement: Literal["houlsby", "pfeiffer"] = "houlsby"
    non_linearity: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
