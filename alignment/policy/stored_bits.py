"""Models whose files hold weights that bitsandbytes quantised: what is stored must be what the layers read."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from safetensors import safe_open

from alignment.errors import ModelError
from alignment.policy.weight_files import FLOATS, WEIGHTS, listed, weight_files

CONSTANTS = {4: ".absmax", 8: ".SCB"}  # tensor beside each quantised weight, after its module's or its own name
FORMAT = ".weight_format"  # of 8 bits: 0, rows; earlier versions of bitsandbytes wrote orders of certain GPUs
WEIGHT = ".weight"
NOT_FINITE = "constants that are no finite numbers"
CODES, NESTED_CODES = 16, 256  # numbers that 4 bits, and a constant in 8 bits, stand for


def require_stored_bits(folder: Path, bits: int) -> None:
    """Refuse files that do not hold what their configuration states: weights in 4 or 8 bits with their constants.

    transformers would read integers as weights, or floating-point numbers as integers.

    Raises: ModelError.
    """
    types: dict[str, str] = {}
    orders: dict[str, int] = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
            types |= {name: tensors.get_slice(name).get_dtype() for name in names}
            orders |= {name: int(tensors.get_tensor(name).sum()) for name in names if name.endswith(FORMAT)}
    constants = CONSTANTS[bits]
    known = {name.removesuffix(constants).removesuffix(WEIGHT) for name in types if name.endswith(constants)}
    if not known:
        raise ModelError(
            f"{folder}: config.json has a quantization_config of {bits} bits, but the weights are stored without "
            "constants of such; put the model's own config.json back."
        )
    whole = [name for name, dtype in types.items() if name.endswith(WEIGHTS) and FLOATS.fullmatch(dtype)]
    lost = {
        name for name in types.keys() - set(whole) if name.endswith(WEIGHT) and name.removesuffix(WEIGHT) not in known
    }
    mixed = {name for name in whole if bits == 8 and name.endswith(WEIGHT) and name.removesuffix(WEIGHT) in known}
    odd = {name for name, order in orders.items() if order != 0}
    for found, what in (
        (lost, "without its constants"),
        (mixed, "in floating point beside constants of integers"),
        (odd, "as another order of weights than by rows, which bitsandbytes no longer reads"),
    ):
        if found:
            raise ModelError(f"{folder} stores {listed(found)} {what}; copy the model again, or quantise it anew.")


def require_layers_as_stored(model: Any, name: str) -> None:
    """Refuse a model, loaded from such files, with a layer that would compute with other numbers or beyond its memory.

    Args:
        name: the model's, in messages.

    Raises: ModelError.
    """
    for place, module in model.named_modules():
        why = next(_faults(module), None)
        if why is not None:
            raise ModelError(
                f"{name}: {place}.weight is not stored as bitsandbytes stores weights ({why}); put the model's own "
                "config.json back, or copy the model again."
            )


def _faults(module: Any) -> Iterator[str]:
    if isinstance(module, Linear8bitLt):
        yield from _faults_of_8(module)
    elif isinstance(module, Linear4bit):
        yield from _faults_of_4(module)
    elif any(not own.is_floating_point() for own in module.parameters(recurse=False)):
        yield "integers, where config.json describes floating-point numbers"


def _faults_of_8(layer: Linear8bitLt) -> Iterator[str]:
    largest = getattr(layer.weight, "SCB", None)
    if largest is None or layer.weight.dtype != torch.int8:
        yield "no integers with a constant for each row"
    elif largest.shape != (layer.out_features,) or not largest.is_floating_point():
        yield f"constants of shape {tuple(largest.shape)} and {largest.dtype} for {layer.out_features} rows"
    elif not bool(torch.isfinite(largest).all()):
        yield NOT_FINITE


def _faults_of_4(layer: Linear4bit) -> Iterator[str]:
    weight, state = layer.weight, getattr(layer.weight, "quant_state", None)
    if state is None:
        yield "no constants"
        return
    shape = layer.out_features, layer.in_features
    numbers = math.prod(shape)
    if tuple(state.shape) != shape or weight.nbytes != (numbers + 1) // 2:
        yield f"{weight.nbytes} bytes of shape {tuple(state.shape)} for {shape}"
    elif not _is_count(state.blocksize) or state.absmax.numel() != math.ceil(numbers / state.blocksize):
        yield f"{state.absmax.numel()} constants of {state.blocksize} numbers each for {numbers}"
    elif state.code.numel() != CODES or not bool(torch.isfinite(state.code).all()):
        yield f"{state.code.numel()} codes"
    elif state.state2 is None:
        if not state.absmax.is_floating_point() or not bool(torch.isfinite(state.absmax).all()):
            yield NOT_FINITE
    else:
        yield from _faults_of_nested(state)


def _faults_of_nested(state: Any) -> Iterator[str]:
    """Yield faults of constants that are quantised once more."""
    inner = state.state2
    if not _is_count(inner.blocksize) or inner.absmax.numel() != math.ceil(state.absmax.numel() / inner.blocksize):
        yield f"{inner.absmax.numel()} constants of {inner.blocksize} constants each for {state.absmax.numel()}"
    elif state.absmax.dtype != torch.uint8 or inner.code.numel() != NESTED_CODES:
        yield f"constants of {state.absmax.dtype} and {inner.code.numel()} codes"
    elif not all(bool(torch.isfinite(each).all()) for each in (inner.absmax, inner.code, state.offset)):
        yield NOT_FINITE


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and value > 0
