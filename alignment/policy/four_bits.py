"""How weights are held in 4 bits, and in what they are computed with."""

import copy
import functools
import math
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import Tensor
from transformers import BitsAndBytesConfig
from transformers.quantizers.auto import AutoHfQuantizer

from alignment.config.launched import is_sharded
from alignment.config.schema import ModelKeys
from alignment.errors import ModelError, named_inputs
from alignment.policy.inference import best_device
from alignment.policy.precision import computed_in, trains_in_bf16

BLOCK = 64  # weights that share a constant


def skipped(whole: Sequence[str]) -> list[str] | None:
    """Return the modules that are not quantised, for a configuration; None: transformers' choice, the outputs."""
    return ["lm_head", "score", *whole] if whole else None


def quantization(keys: ModelKeys, dtype: torch.dtype, whole: Sequence[str] = ()) -> Any:
    """The 4-bit configuration of QLoRA, https://arxiv.org/abs/2305.14314: NF4, constants quantised once more.

    ZeRO-3 and FSDP cut only weights of a floating dtype, so packed weights are then kept in tensors of one. It is the
    dtype that training computes in: both cast what they hold in another one, and a cast destroys packed bits.

    Args:
        whole: full names of modules that are not quantised, beside the model's outputs.
    """
    library = getattr(keys, "library", {})
    storage = torch.uint8
    if is_sharded():
        storage = torch.bfloat16 if trains_in_bf16(library) else dtype
    return BitsAndBytesConfig(
        bnb_4bit_quant_storage=storage,
        load_in_4bit=True,
        llm_int8_skip_modules=skipped(whole),
        bnb_4bit_quant_type=keys.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=keys.use_bnb_nested_quant,
        bnb_4bit_compute_dtype=computed_in(library),
    )


def compute_as_configured(model: Any) -> None:
    """Keep bitsandbytes from computing in bfloat16 on CPUs that have instructions for it.

    There it packs the weights anew at the first pass without a gradient, rounds their constants, and computes in
    bfloat16, for every configuration; otherwise sampling and scoring would use other weights than training.
    Matrices with a side below 64 or not a multiple of 32 it cannot pack at all.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


@named_inputs()
def require_exact(widths: Iterable[int], model: str, quant_type: str, block: int = BLOCK) -> None:
    """Refuse widths (columns) of 4-bit matrices that bitsandbytes dequantises wrongly on a CPU.

    Where rows end within a block, its AVX-512 kernel multiplies weights by another block's constant: `absmax_dim_1` in
    https://github.com/bitsandbytes-foundation/bitsandbytes/blob/main/csrc/cpu_ops.cpp.

    Args:
        model: its name in the message. block: weights that share a constant.

    Raises: ModelError, with the exit code of a recipe's faults.
    """
    wrong = [width for width in sorted({*widths}) if not _is_exact(width, quant_type, block)]
    if wrong:
        raise ModelError(
            f"{model}: on this CPU bitsandbytes {version('bitsandbytes')} dequantises 4-bit matrices of {wrong[0]} "
            "columns to wrong weights; load unquantised weights with load_in_4bit: false, or run on a GPU."
        )


@functools.cache
def _is_exact(width: int, quant_type: str, block: int) -> bool:
    """Whether the kernel gives matrices of a width the weights that it gives the same numbers in rows of one block."""
    rows = 2 * block // math.gcd(width, block)  # the fewest that fill whole blocks, twice
    numbers = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    given, in_blocks = (
        dequantize_4bit(*quantize_4bit(shaped, blocksize=block, quant_type=quant_type))
        for shaped in (numbers, numbers.reshape(-1, block))
    )
    return torch.equal(given.flatten(), in_blocks.flatten())


def require_exact_layers(model: Any, name: str) -> None:
    """Refuse a model on a CPU, in 4 bits, as `require_exact`; its weights may be quantised in its files."""
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    if layers and best_device().type == "cpu":
        weight = layers[0].weight
        require_exact((layer.in_features for layer in layers), name, weight.quant_type, weight.blocksize)


def quantized_widths(model: Any, keys: ModelKeys, whole: Sequence[str]) -> set[int]:
    """Return the columns of the matrices of a model, which may be on the meta device, that would be in 4 bits."""
    found = replaced(model, quantization(keys, torch.float32, whole), Linear4bit)
    return {layer.in_features for layer in found.values()}


def rounded(weight: Tensor, keys: ModelKeys) -> Tensor:
    """Return a matrix as a 4-bit base holds it: quantised and dequantised, in its own type."""
    settings = quantization(keys, weight.dtype)
    if best_device().type == "cpu":
        require_exact(weight.shape[-1:], keys.model_name_or_path, settings.bnb_4bit_quant_type)
    held: Any = Params4bit(
        weight.contiguous(),
        requires_grad=False,
        compress_statistics=settings.bnb_4bit_use_double_quant,
        quant_type=settings.bnb_4bit_quant_type,
        quant_storage=settings.bnb_4bit_quant_storage,
    ).to(best_device())
    whole: Tensor = dequantize_4bit(held.data, held.quant_state)
    return whole.to(weight.device)


def replaced(model: Any, settings: Any, kind: type) -> dict[str, Any]:
    """Return the modules of a model, which may be on the meta device, that transformers would quantise, by name.

    Args:
        settings: transformers' configuration. kind: of the modules in their places.
    """
    quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=False)
    with torch.device("meta"):
        copied = copy.deepcopy(model)
        quantizer.preprocess_model(model=copied, device_map=None)
    return {name: module for name, module in copied.named_modules() if isinstance(module, kind)}
