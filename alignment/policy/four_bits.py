"""How weights are held in 4 bits, and in what they are computed with."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import Tensor
from transformers import BitsAndBytesConfig
from transformers.quantizers.auto import AutoHfQuantizer

from alignment.config.launched import is_sharded
from alignment.config.schema import ModelKeys
from alignment.policy.inference import best_device
from alignment.policy.precision import computed_in, trains_in_bf16


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
        llm_int8_skip_modules=["lm_head", "score", *whole] if whole else None,
        bnb_4bit_quant_type=keys.bnb_4bit_quant_type,
        bnb_4bit_use_double_quant=keys.use_bnb_nested_quant,
        bnb_4bit_compute_dtype=computed_in(library),
    )


def compute_as_configured(model: Any) -> Any:
    """Keep bitsandbytes from computing in bfloat16 on CPUs that have instructions for it.

    There it packs the weights anew at the first pass without a gradient, rounds their constants, and computes in
    bfloat16, for every configuration; otherwise sampling and scoring would use other weights than training.
    Matrices with a side below 64 or not a multiple of 32 it cannot pack at all.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


def rounded(weight: Tensor, keys: ModelKeys) -> Tensor:
    """Return a matrix as a 4-bit base holds it: quantised and dequantised, in its own type."""
    settings = quantization(keys, weight.dtype)
    held: Any = Params4bit(
        weight.contiguous(),
        requires_grad=False,
        compress_statistics=settings.bnb_4bit_use_double_quant,
        quant_type=settings.bnb_4bit_quant_type,
        quant_storage=settings.bnb_4bit_quant_storage,
    ).to(best_device())
    whole: Tensor = dequantize_4bit(held.data, held.quant_state)
    return whole.to(weight.device)


def quantized_modules(model: Any, keys: ModelKeys) -> frozenset[str]:
    """Name the modules of a model, which may be on the meta device, that transformers would hold in 4 bits."""
    quantizer = AutoHfQuantizer.from_config(quantization(keys, torch.float32), pre_quantized=False)
    with torch.device("meta"):
        copied = copy.deepcopy(model)
        quantizer.preprocess_model(model=copied, device_map=None)
    return frozenset(name for name, module in copied.named_modules() if isinstance(module, Linear4bit))
