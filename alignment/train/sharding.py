"""Sharded training: checks of the strategy that Accelerate runs, and copies of sharded parameters."""

import os
from typing import Any, cast

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from alignment.config.rules.combinations import WITH_REFERENCE, broken_under, values_of
from alignment.config.schema import Recipe
from alignment.errors import TrainingError


def require_what_was_asked(accelerator: Accelerator) -> None:
    """Refuse a run that is not sharded although the launcher requests it.

    Accelerate silently runs plain data parallelism if FSDP or DeepSpeed is requested on CPU.

    Raises: TrainingError.
    """
    for engine, kind in (("FSDP", DistributedType.FSDP), ("DEEPSPEED", DistributedType.DEEPSPEED)):
        asked = os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true"
        if asked and accelerator.distributed_type != kind:
            on_cpu = " (Accelerate has no FSDP on CPU)" if kind == DistributedType.FSDP else ""
            raise TrainingError(
                f"the launcher asks for {kind.value}, but Accelerate runs {accelerator.distributed_type.value}: every "
                f"process would hold the whole model. Set use_cpu: false in the launcher's file and the recipe, and "
                f"run where there are GPUs{on_cpu}; or take a launcher's file for plain data parallelism"
            )
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.fsdp_version != 2:
        raise TrainingError(
            f"FSDP version {plugin.fsdp_version} cannot shard a frozen base together with adapters that train; set "
            "fsdp_version: 2 in the launcher's file"
        )


def require_possible(recipe: Recipe, model: nn.Module, accelerator: Accelerator) -> None:
    """Refuse combinations that fail or never end under the strategy that runs.

    An adapter that exists already keeps its own shape, whatever the recipe gives.

    Raises: TrainingError.
    """
    get, adapter = values_of(recipe), getattr(model, "peft_config", {}).get("default")

    def really(key: str) -> Any:
        return adapter.modules_to_save if adapter is not None and key == "lora_modules_to_save" else get(key)

    for one in broken_under(recipe.stage, really, _strategy(accelerator), gpu=True):
        raise TrainingError(f"{one.what.replace('`', '')} cannot go together: {one.reason}; {one.remedy}")
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    keeps = plugin is not None and not getattr(plugin, "reshard_after_forward", True)
    if keeps and adapter is not None and recipe.stage in WITH_REFERENCE and getattr(recipe, "has_reference", True):
        raise TrainingError(
            "fsdp_reshard_after_forward: false and a reference that is the adapter's start cannot go together: its "
            "pass leaves the adapter's shards marked as frozen; set fsdp_reshard_after_forward: true in the launcher's "
            "file"
        )


def _strategy(accelerator: Accelerator) -> str:
    """Name of the strategy that runs, as in launch/accelerate."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        zero = accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"]
        place = (zero.get("offload_optimizer") or {}).get("device", "none")
        return {"cpu": "zero3-offload", "nvme": "zero3-nvme"}.get(place, f"zero{zero_stage(accelerator)}")
    if accelerator.distributed_type == DistributedType.FSDP:
        return "fsdp2"
    return "ddp" if accelerator.num_processes > 1 else "single"


def zero_stage(accelerator: Accelerator) -> int:
    """DeepSpeed's ZeRO stage, 0 without DeepSpeed."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return int(plugin.zero_stage) if plugin is not None else 0


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds only a part of each weight."""
    return accelerator.distributed_type == DistributedType.FSDP or zero_stage(accelerator) == 3


def full_tensors(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return unsharded copies of parameters on the CPU; every process must call it, and each gets them all."""
    found = {}
    for name, parameter in parameters.items():
        if isinstance(parameter, DTensor):
            found[name] = cast(DTensor, parameter.detach()).full_tensor().cpu().clone()
        elif hasattr(parameter, "ds_id"):
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter]):
                found[name] = parameter.detach().cpu().clone()
        else:
            found[name] = parameter.detach().cpu().clone()
    return found
