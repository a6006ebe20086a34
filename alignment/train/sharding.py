"""Where weights lie: whole on every process, or in shards under DeepSpeed's ZeRO-3 and PyTorch's FSDP2.

Training passes go through the wrapped model, which puts the weights together layer by layer. Sampling calls the model
hundreds of times for one answer, so there the choice is between holding all weights whole meanwhile, and a sum of
communication for every layer of every token.
"""

import os
from collections.abc import Callable
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, save_fsdp_optimizer
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers.trainer import SCHEDULER_NAME

from alignment.config.rules.combinations import broken_under, values_of
from alignment.config.schema import Recipe
from alignment.errors import TrainingError


def require_what_was_asked(accelerator: Accelerator) -> None:
    """Refuse a run that is not sharded though it was asked to be.

    Accelerate runs plain data parallelism, without a word, where FSDP or DeepSpeed was asked for on CPU.

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
    """Refuse what cannot work under the strategy that really runs, before it fails in its own way, or never ends.

    An adapter that the model brings along has a shape of its own, whatever the recipe says or leaves out.

    Raises: TrainingError.
    """
    get, adapter = values_of(recipe), getattr(model, "peft_config", {}).get("default")

    def really(key: str) -> Any:
        return adapter.modules_to_save if adapter is not None and key == "lora_modules_to_save" else get(key)

    for one in broken_under(recipe.stage, really, _strategy(accelerator), gpu=True):
        raise TrainingError(f"{one.what.replace('`', '')} cannot go together: {one.reason}; {one.remedy}")


def _strategy(accelerator: Accelerator) -> str:
    """The strategy that runs, by its name in launch/accelerate."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        zero = accelerator.state.deepspeed_plugin.deepspeed_config["zero_optimization"]
        place = (zero.get("offload_optimizer") or {}).get("device", "none")
        return {"cpu": "zero3-offload", "nvme": "zero3-nvme"}.get(place, f"zero{zero_stage(accelerator)}")
    if accelerator.distributed_type == DistributedType.FSDP:
        return "fsdp2"
    return "ddp" if accelerator.num_processes > 1 else "single"


def zero_stage(accelerator: Accelerator) -> int:
    """DeepSpeed's ZeRO stage, 0 where DeepSpeed does not run."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return int(plugin.zero_stage) if plugin is not None else 0


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether a process holds only a part of each weight."""
    return accelerator.distributed_type == DistributedType.FSDP or zero_stage(accelerator) == 3


def with_whole_weights(wrapped: nn.Module, accelerator: Accelerator, task: Callable[[], Any]) -> Any:
    """Do `task` while every process holds every weight whole; inside it no call of the model communicates.

    Args:
        wrapped: what `accelerator.prepare` made of `Roles`.
        accelerator: the one that did.
        task: calls methods of `Roles` itself, never `wrapped`.
    """
    if zero_stage(accelerator) == 3:
        return _gathered_by_deepspeed(wrapped, task)
    if accelerator.distributed_type == DistributedType.FSDP:
        try:
            return wrapped(call="perform", task=lambda: _gathered_by_fsdp(wrapped, task))
        finally:
            for unit in _units(wrapped):
                unit.reshard()
    return task()


def _gathered_by_deepspeed(engine: Any, task: Callable[[], Any]) -> Any:
    import deepspeed
    from trl.models.utils import add_hooks, remove_hooks

    with deepspeed.zero.GatheredParameters(list(engine.module.parameters())):
        remove_hooks(engine)  # they would gather again, and let go afterwards
        try:
            return task()
        finally:
            add_hooks(engine)


def _units(root: nn.Module) -> list[FSDPModule]:
    return [module for module in root.modules() if isinstance(module, FSDPModule)]


def _groups(unit: FSDPModule) -> list[Any]:
    """A unit's groups of parameters; older releases of torch know one at most, by another name."""
    state: Any = unit._get_fsdp_state()
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]


def _gathered_by_fsdp(root: nn.Module, task: Callable[[], Any]) -> Any:
    units = _units(root)
    groups = [group for unit in units for group in _groups(unit)]
    kept = [group.post_forward_mesh_info for group in groups]  # None: not let go after a forward pass
    try:
        for unit in units:
            unit.unshard()
        for group in groups:
            group.post_forward_mesh_info = None
        return task()
    finally:
        for group, info in zip(groups, kept, strict=True):
            group.post_forward_mesh_info = info


def whole(parameters: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Copies of some parameters, whole and on the CPU; every process must ask, and each gets them."""
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


def save_optimizer(trainer: Any, folder: str) -> None:
    """Write the optimizer's shards, and under DeepSpeed the trained weights'; the frozen base is in no checkpoint."""
    accelerator = trainer.accelerator
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        trainer.model_wrapped.save_checkpoint(folder, exclude_frozen_parameters=True)
    else:
        plugin = accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, accelerator, trainer.optimizer, trainer.model, folder)
    if trainer.args.should_save:
        torch.save(trainer.lr_scheduler.state_dict(), os.path.join(folder, SCHEDULER_NAME))


class StepThrough(nn.Module):
    """The policy as a causal LM whose every pass goes through the wrapped model: what samples with sharded weights."""

    def __init__(self, wrapped: nn.Module, policy_lm: nn.Module) -> None:
        super().__init__()
        self.__dict__["wrapped"], self.__dict__["policy_lm"] = wrapped, policy_lm  # not submodules: they have an owner
        self.config = policy_lm.config

    def get_base_model(self) -> nn.Module:
        """The model whose signature says what a pass takes."""
        return self.__dict__["policy_lm"]

    def parameters(self, recurse: bool = True) -> Any:
        """Those of the policy, for their device."""
        return self.__dict__["policy_lm"].parameters(recurse)

    def forward(self, **inputs: Any) -> Any:
        """One pass."""
        return self.__dict__["wrapped"](call="policy_step", **inputs)
