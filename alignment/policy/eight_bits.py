"""How weights are held in 8 bits, and in what they are computed with."""

from collections.abc import Sequence
from typing import Any

import torch
from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant
from bitsandbytes.nn import Linear8bitLt
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import BitsAndBytesConfig

from alignment.errors import ModelError
from alignment.policy.four_bits import skipped
from alignment.policy.inference import best_device

LARGEST = 127  # of the integers; a row's constant is its largest absolute weight


class Linear8bit(Linear8bitLt):
    """A layer of bitsandbytes that rounds its weights to 8 bits, and no activations.

    LLM.int8 also rounds activations, but for the columns in which any token of the batch is large
    (https://arxiv.org/abs/2208.07339, section 3.2): a token's probability would depend on the batch it lies in. On a
    CPU bitsandbytes rounds them in evaluation alone, so sampling would use another function than training.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep the weight where a second object of the same storage is set, as DoRA does in each pass on a CPU.

        `dequantize_module_weight` in https://github.com/huggingface/peft/blob/main/src/peft/utils/integrations.py; an
        optimizer, and roles that share the base, know a weight by its object.
        """
        if name == "weight" and isinstance(value, Tensor) and value.data_ptr() == self.weight.data_ptr() != 0:
            return
        super().__setattr__(name, value)

    def in_floats(self, dtype: torch.dtype) -> Tensor:
        """Return the weight, (out, in)."""
        return _in_floats(self.weight.data, constants(self), dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b in the type of `x`, or autocast's."""
        out: Tensor = _Product.apply(x, self.weight.data, constants(self))  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias.to(out.dtype)


def constants(layer: Linear8bitLt) -> Tensor:
    """Return the largest absolute weight of each row, (out,) float32."""
    found: Tensor = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
    return found


class _Product(torch.autograd.Function):
    """x Wᵀ; x is (..., in), W (out, in) int8 with constants (out,). W gets no gradient and is dequantised twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, largest: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        ctx.save_for_backward(weight, largest)
        ctx.dtypes = x.dtype, dtype
        return nn.functional.linear(x.to(dtype), _in_floats(weight, largest, dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        weight, largest = ctx.saved_tensors
        given, dtype = ctx.dtypes
        return (upstream.to(dtype) @ _in_floats(weight, largest, dtype)).to(given), None, None


def _in_floats(weight: Tensor, largest: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.to(dtype).mul_(largest.unsqueeze(1) / LARGEST)


def quantization(whole: Sequence[str] = ()) -> Any:
    """The 8-bit configuration: integers with a constant for each row.

    Args:
        whole: full names of modules that are not quantised, beside the model's outputs.
    """
    return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped(whole))


def compute_in_floats(model: Any, name: str) -> None:
    """Give a model's 8-bit layers the pass of `Linear8bit`.

    Args:
        name: the model's, in messages.

    Raises: ModelError if a weight was no number: rounded to an integer it would be one.
    """
    for place, module in model.named_modules():
        if isinstance(module, Linear8bitLt):
            if not bool(torch.isfinite(constants(module)).all()):
                raise ModelError(
                    f"{name}: {place}.weight holds NaN, infinity or a number beyond float16, from which bitsandbytes "
                    "quantises; load it with load_in_8bit: false, or copy or train it again."
                )
            module.__class__ = Linear8bit


def rounded(weight: Tensor) -> Tensor:
    """Return a matrix as an 8-bit base holds it: quantised and dequantised, in float32."""
    integers, largest, _ = int8_vectorwise_quant(weight.to(best_device(), torch.float16))
    whole: Tensor = int8_vectorwise_dequant(integers, largest)
    return whole.to(weight.device)
