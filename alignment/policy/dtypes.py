"""The type of a model's weights: in the recipe, and in its files."""

import torch
from transformers import AutoConfig

from alignment.config.schema import ModelKeys
from alignment.policy.model_source import cannot_load


def model_dtype(base: str, keys: ModelKeys, *, full: bool = False) -> torch.dtype:
    """Resolve `dtype: auto`: the checkpoint's, but float32 where all weights train or there is no GPU.

    Half precision loses small updates of the weights themselves, and on most CPUs is slower, not faster.
    """
    if keys.dtype != "auto":
        return getattr(torch, keys.dtype)
    if full or not torch.cuda.is_available():
        return torch.float32
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=keys.trust_remote_code)
    except Exception as error:
        raise cannot_load(base, error) from error
    return getattr(config, "dtype", None) or torch.float32


def checkpoint_dtype(base: str, keys: ModelKeys) -> torch.dtype:
    """Return the type that a model's weights are saved in, float32 if it is not a usual one."""
    config = AutoConfig.from_pretrained(base, trust_remote_code=keys.trust_remote_code)
    dtype = getattr(config, "dtype", None)
    return dtype if dtype in (torch.bfloat16, torch.float16) else torch.float32
