"""Writes plain LoRA adapters in place of those that only look so: pruned ones, and those that changed the base."""

from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

ADAPTER_FILE = "adapter_model.safetensors"
WRAPPED = "base_model.model."  # begins the names of a saved adapter's tensors


def write_plain_lora(folder: Path, found: dict[str, Any], tensors: dict[str, Tensor], ranks: dict[str, int]) -> None:
    """Write a LoRA adapter whose modules have ranks of their own and a scale of 1.

    Args:
        found: the adapter's configuration, as saved. tensors: by their names in the file. ranks: by module.
    """
    most = max(ranks.values(), default=1)
    config = LoraConfig(
        task_type=found["task_type"],
        base_model_name_or_path=found["base_model_name_or_path"],
        revision=found.get("revision"),
        inference_mode=True,
        r=most,
        lora_alpha=most,
        target_modules=sorted(ranks),
        modules_to_save=found.get("modules_to_save"),
        rank_pattern=ranks,
        alpha_pattern=dict(ranks),
    )
    save_file(tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
    config.save_pretrained(str(folder))
