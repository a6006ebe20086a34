"""Bases in 4 or 8 bits: what a recipe's keys, or a model's own files, ask for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from torch import Tensor
from transformers.integrations.bitsandbytes import Bnb4bitDeserialize, Bnb8bitDeserialize

from alignment.config.launched import is_sharded
from alignment.config.methods import TuningMethod, methods_where
from alignment.config.schema import AdapterKeys, ModelKeys
from alignment.errors import ModelError, named_inputs
from alignment.policy import eight_bits, four_bits
from alignment.policy.stored_bits import require_layers_as_stored, require_stored_bits

READERS = (Bnb4bitDeserialize, Bnb8bitDeserialize)  # transformers' operations on stored quantised weights


def quantization(keys: ModelKeys, dtype: torch.dtype, whole: Sequence[str] = ()) -> Any:
    """Return transformers' configuration of a base in 4 or 8 bits; arguments as `four_bits.quantization`."""
    return eight_bits.quantization(whole) if keys.load_in_8bit else four_bits.quantization(keys, dtype, whole)


def compute_as_configured(model: Any, name: str, *, stored: bool = False) -> Any:
    """Have a loaded model compute alike in training, scoring and sampling; models without quantised layers do.

    Args:
        name: the model's, in messages. stored: the model's files are quantised.

    Raises: ModelError if a width or a weight cannot be computed with.
    """
    if stored and not is_sharded():
        require_layers_as_stored(model, name)
    four_bits.require_exact_layers(model, name)
    four_bits.compute_as_configured(model)
    eight_bits.compute_in_floats(model, name)
    return model


def require_own_bits(keys: ModelKeys, config: Any, name: str) -> None:
    """Refuse to quantise a model in two ways, or one whose files are quantised in another way.

    Args:
        config: transformers' configuration of the model.

    Raises: ModelError.
    """
    if keys.load_in_4bit and keys.load_in_8bit:
        raise ModelError(f"load_in_4bit and load_in_8bit cannot both be true for {name}; take one of them out.")
    stored = _stored(config)
    if stored is None or keys.bits is None:
        return
    if not stored.get(f"load_in_{keys.bits}bit"):
        raise ModelError(
            f"{name} is quantised already ({_way(stored)}), and load_in_{keys.bits}bit would quantise it otherwise; "
            "take the key out, or name the model that it was made from."
        )


def as_stored(keys: ModelKeys, config: Any) -> ModelKeys:
    """Return keys that name how bitsandbytes has quantised a model's files; unchanged if it has not.

    Args:
        config: transformers' configuration of the model.
    """
    stored = _stored(config)
    bits = None if stored is None else _bits(stored)
    if stored is None or bits is None:
        return keys
    nested = {"use_bnb_nested_quant": bool(stored.get("bnb_4bit_use_double_quant"))} if bits == 4 else {}
    return keys.in_floats(**{f"load_in_{bits}bit": True}, **nested)


def held_as_stored(keys: ModelKeys, config: Any, name: str) -> ModelKeys:
    """Return keys as `as_stored`, for merging.

    Raises: ModelError if the files are quantised in another way than by bitsandbytes, or than the keys ask for.
    """
    require_own_bits(keys, config, name)
    held, stored = as_stored(keys, config), _stored(config)
    if stored is not None and held.bits is None:
        raise ModelError(
            f"{name} is quantised ({_way(stored)}), and an adapter is merged into weights that bitsandbytes quantised, "
            "or none did; serve the adapter on it as it is."
        )
    return held


def dequantised(model: Any) -> Any:
    """Turn a model in 4 or 8 bits into one in float32, which PEFT merges into and transformers saves as any other."""
    model = model.dequantize(dtype=torch.float32)
    for mark in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        if hasattr(model, mark):  # PEFT's (IA)³ refuses to merge by it
            setattr(model, mark, False)
    # From stored weights, transformers keeps the reading of constants to reverse it in saving, for which it has no way.
    read = getattr(model, "_weight_conversions", None) or []
    kept = [each for each in read if not any(isinstance(one, READERS) for one in getattr(each, "operations", ()))]
    model._weight_conversions = kept or None
    return model


@named_inputs()
def require_quantisable(model: Any, keys: ModelKeys, name: str) -> None:
    """Refuse to quantise a model of whose layers transformers quantises none: it would stay in floating point.

    Args:
        model: may be on the meta device. name: the model's, in messages.

    Raises: ModelError, with the exit code of a recipe's faults.
    """
    if not quantized_modules(model, keys):
        raise _not_quantised(model, keys, name)


def require_quantised(model: Any, keys: ModelKeys, name: str) -> None:
    """Refuse a loaded model, as `require_quantisable`."""
    if not any(isinstance(module, Linear4bit | Linear8bitLt) for module in model.modules()):
        raise _not_quantised(model, keys, name)


def _not_quantised(model: Any, keys: ModelKeys, name: str) -> ModelError:
    return ModelError(
        f"{name}: load_in_{keys.bits}bit has no effect on {type(model).__name__}, which has no layers that "
        "transformers quantises; take it out."
    )


@named_inputs()
def require_trainable(config: Any, peft: AdapterKeys | None, name: str) -> None:
    """Refuse to train a model whose files are quantised with a method that needs its base in floating point.

    Args:
        config: transformers' configuration of the model. peft: what trains; None: everything.

    Raises: ModelError, with the exit code of a recipe's faults.
    """
    stored = _stored(config)
    if stored is None:
        return
    bits = _bits(stored)
    if peft is None or not _stays_quantised(peft.method, bits):
        others = methods_where(lambda method: _stays_quantised(method, bits))
        raise ModelError(
            f"{name} is quantised already ({_way(stored)}), which cannot train; set peft_method to {others}, or name "
            "the model that it was made from."
        )


def _stays_quantised(method: TuningMethod, bits: int | None) -> bool:
    """Whether a method trains nothing of a base whose files are quantised, and no copy of it."""
    return not method.trains_base and not method.copies_modules and method.allows_bits(bits)


@named_inputs()
def require_whole_copies(model: Any, keys: ModelKeys, peft: AdapterKeys) -> None:
    """Refuse to train copies of modules beside an adapter, where the base holds them in 4 or 8 bits.

    Args:
        model: may be on the meta device.

    Raises: ModelError, with the exit code of a recipe's faults.
    """
    copied = tuple(peft.fields().get("modules_to_save") or ())
    inside = tuple(f"{name}." for name, _ in model.named_modules() if copied and name.endswith(copied))
    lost = sorted(name for name in quantized_modules(model, keys) if f"{name}.".startswith(inside))
    if inside and lost:
        raise ModelError(
            f"lora_modules_to_save: {lost[0]} is held in {keys.bits} bits, of which no copy can train; take it out, or "
            f"take load_in_{keys.bits}bit out."
        )


def require_as_stored(folder: Path, config: Any) -> None:
    """Refuse a folder whose files hold other weights than its quantization_config states.

    Raises: ModelError.
    """
    stored = _stored(config)
    bits = None if stored is None else _bits(stored)
    if bits is not None:
        require_stored_bits(folder, bits)


def _stored(config: Any) -> dict[str, Any] | None:
    """Return how a model's files are quantised; None if they are not."""
    stored = getattr(config, "quantization_config", None)
    return stored if stored is None or isinstance(stored, dict) else stored.to_dict()


def _bits(stored: dict[str, Any]) -> int | None:
    """Return the bits of weights that bitsandbytes quantised; None: another library did."""
    return next((bits for bits in (4, 8) if stored.get(f"load_in_{bits}bit")), None)


def _way(stored: dict[str, Any]) -> str:
    bits = _bits(stored)
    return f"{stored.get('quant_method', 'some method')}{f', {bits} bits' if bits else ''}"


def rounded(weight: Tensor, keys: ModelKeys) -> Tensor:
    """Return a matrix as a quantised base holds it: quantised and dequantised."""
    return eight_bits.rounded(weight) if keys.load_in_8bit else four_bits.rounded(weight, keys)


def quantized_modules(model: Any, keys: ModelKeys) -> frozenset[str]:
    """Name the modules of a model, which may be on the meta device, that transformers would quantise."""
    if keys.bits is None:
        return frozenset()
    kind = Linear8bitLt if keys.load_in_8bit else Linear4bit
    return frozenset(four_bits.replaced(model, quantization(keys, torch.float32), kind))
