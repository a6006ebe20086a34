"""Sampling with sharded weights, and the checkpoints of sharded optimizers.

Training passes go through the wrapped model, which gathers the weights layer by layer. Sampling calls the model
hundreds of times per answer: either all weights are gathered before and held meanwhile, or every layer communicates for
every token.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, save_fsdp_optimizer
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers.trainer import SCHEDULER_NAME

from alignment.errors import TrainingError
from alignment.rollout.engine import Engine
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.train.sharding import zero_stage


def with_whole_weights(wrapped: nn.Module, accelerator: Accelerator, task: Callable[[], Any]) -> Any:
    """Run `task` while every process holds all weights unsharded; no call of the model communicates during it.

    Args:
        wrapped: what `accelerator.prepare` returned for `Roles`.
        accelerator: the accelerator that prepared it.
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
        remove_hooks(engine)  # they would gather the weights again, and release them afterwards
        try:
            return task()
        finally:
            add_hooks(engine)


def _units(root: nn.Module) -> list[FSDPModule]:
    return [module for module in root.modules() if isinstance(module, FSDPModule)]


def _groups(unit: FSDPModule) -> list[Any]:
    """A unit's groups of parameters; older releases of torch have at most one, under another name."""
    state: Any = unit._get_fsdp_state()
    if hasattr(state, "_fsdp_param_groups"):
        return list(state._fsdp_param_groups)
    return [] if state._fsdp_param_group is None else [state._fsdp_param_group]


def _gathered_by_fsdp(root: nn.Module, task: Callable[[], Any]) -> Any:
    units = _units(root)
    groups = [group for unit in units for group in _groups(unit)]
    kept = [group.post_forward_mesh_info for group in groups]  # None: not resharded after a forward pass
    try:
        for unit in units:
            unit.unshard()
        for group in groups:
            group.post_forward_mesh_info = None
        return task()
    finally:
        for group, info in zip(groups, kept, strict=True):
            group.post_forward_mesh_info = info


def save_optimizer(trainer: Any, folder: str) -> None:
    """Write the optimizer's shards, and under DeepSpeed those of the trained weights, without the frozen base."""
    accelerator = trainer.accelerator
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        trainer.model_wrapped.save_checkpoint(folder, exclude_frozen_parameters=True)
    else:
        plugin = accelerator.state.fsdp_plugin
        save_fsdp_optimizer(plugin, accelerator, trainer.optimizer, trainer.model, folder)
    if trainer.args.should_save:
        torch.save(trainer.lr_scheduler.state_dict(), os.path.join(folder, SCHEDULER_NAME))


class StepThrough(nn.Module):
    """The policy as a causal LM whose forward pass goes through the wrapped model, to sample with sharded weights."""

    def __init__(self, wrapped: nn.Module, policy_lm: nn.Module) -> None:
        super().__init__()
        self.__dict__["wrapped"], self.__dict__["policy_lm"] = wrapped, policy_lm  # not submodules: `wrapped` owns them
        self.config = policy_lm.config

    def get_base_model(self) -> nn.Module:
        """The model whose signature lists the inputs of a forward pass."""
        return self.__dict__["policy_lm"]

    def parameters(self, recurse: bool = True) -> Any:
        """The policy's parameters, for their device."""
        return self.__dict__["policy_lm"].parameters(recurse)

    def forward(self, **inputs: Any) -> Any:
        """Run the policy's forward pass through the wrapped model."""
        return self.__dict__["wrapped"](call="policy_step", **inputs)


def sample_through(wrapped: nn.Module, policy_lm: nn.Module, engine: Engine) -> None:
    """Make the engine sample through the wrapped model, layer by layer.

    Raises: TrainingError for an engine that needs whole weights.
    """
    if not isinstance(engine, TransformersEngine):
        raise TrainingError(
            f"{type(engine).__name__} cannot sample with sharded weights; set ds3_gather_for_generation: "
            "true, or rollout_engine: transformers"
        )
    wrapped.eval()
    engine.model = StepThrough(wrapped, policy_lm)
    engine.synced = True
