"""Models without dropout, for training whose loss is a ratio of two passes' probabilities."""

from typing import Any

from torch import nn


def without_dropout(model: nn.Module) -> None:
    """Turn off every dropout: sampling and training passes must agree, or the probability ratio is noise.

    Models keep its rate in `nn.Dropout`, as a number on a module for `functional.dropout` (OPT's `dropout`, Llama's
    `attention_dropout`), or read it off their configuration in every pass (Falcon); all of them call it a drop of some
    kind.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        _zero(module)
        _zero(getattr(module, "config", None))


def _zero(holder: Any) -> None:
    for name, value in vars(holder).items() if holder is not None else ():
        if "drop" in name and isinstance(value, float):
            setattr(holder, name, 0.0)
