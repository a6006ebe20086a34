"""Bytes of optimizer states, by the trainer's `optim`."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

BLOCK = 256  # elements that share a constant of four bytes in bitsandbytes' 8-bit states
SMALLEST_IN_8_BIT = 4096  # elements; smaller tensors keep 32-bit states


@dataclass(frozen=True, slots=True)
class Optimizer:
    """The states of an optimizer: their number per weight and their format."""

    states: int = 2
    eight_bit: bool = False
    paged: bool = False  # in memory that moves to the host when the device is full
    factored: bool = (
        False  # keeps only row and column sums of the second moment (Adafactor, https://arxiv.org/abs/1804.04235)
    )

    def bytes_for(self, parameters: Iterable[Tensor]) -> int:
        """Bytes of all states of these weights."""
        return sum(self._one(parameter) for parameter in parameters)

    def _one(self, parameter: Tensor) -> int:
        n = parameter.numel()
        if self.factored:
            rows = parameter.shape[0] if parameter.dim() >= 2 else n
            return 4 * (rows + n // rows) if parameter.dim() >= 2 else 4 * n
        if self.eight_bit and n >= SMALLEST_IN_8_BIT:
            return self.states * (n + 4 * -(-n // BLOCK))
        return 4 * self.states * n


def optimizer(name: str) -> Optimizer:
    """Return the optimizer that `optim` names; an unknown one is assumed to keep two states, as Adam does."""
    states = 1 if any(part in name for part in ("lion", "rmsprop", "adagrad")) else 2
    if name.startswith("sgd"):
        states = 0
    return Optimizer(
        states=states,
        eight_bit="8bit" in name,
        paged=name.startswith("paged"),
        factored=name.startswith("adafactor"),
    )
