"""Saves and loads what PPO trains: the policy as plain PEFT or transformers reads it, and the value."""

import copy
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from alignment.policy.roles import Roles

ADAPTER_FILE = "adapter_model.safetensors"
VALUE_FILE = "value.safetensors"
BASE_PREFIX, POLICY_PREFIX = "base.", "policy_model."


def save_policy(roles: Roles, path: Path, state_dict: dict[str, Tensor] | None = None) -> None:
    """Write the policy as plain PEFT (an adapter named `default`) or plain transformers (a whole model) reads it.

    Args:
        state_dict: the weights of `roles`, if they are sharded over processes; None: read them from `roles`.
    """
    path.mkdir(parents=True, exist_ok=True)
    if roles.policy_model is not None:
        own = _below(state_dict, POLICY_PREFIX)
        roles.policy_model.save_pretrained(path, state_dict=own)
        return
    weights = get_peft_model_state_dict(
        roles.base, _below(state_dict, BASE_PREFIX), adapter_name="policy", save_embedding_layers=False
    )
    save_file(
        {name: _whole(tensor) for name, tensor in weights.items()}, path / ADAPTER_FILE, metadata={"format": "pt"}
    )
    config = copy.copy(roles.base.peft_config["policy"])
    config.base_model_name_or_path = roles.causal_lm("reference").config._name_or_path
    config.inference_mode = True
    config.save_pretrained(path)


def load_policy(roles: Roles, path: Path) -> None:
    """Load what `save_policy` wrote, bit for bit."""
    if roles.policy_model is not None:
        own = dict(roles.policy_model.named_parameters(remove_duplicate=False))  # tied weights are stored once
        for file in sorted(path.glob("model*.safetensors")):
            for name, saved in load_file(file).items():
                _put(own[name], saved)
        return
    own = get_peft_model_state_dict(
        roles.base, dict(roles.base.named_parameters()), adapter_name="policy", save_embedding_layers=False
    )
    for name, saved in load_peft_weights(str(path), device="cpu").items():
        _put(own[name], saved)


def save_value(roles: Roles, path: Path, state_dict: dict[str, Tensor] | None = None) -> None:
    """Write the value's own weights."""
    names = roles.value_parameters()
    source: dict[str, Any] = dict(roles.named_parameters()) if state_dict is None else state_dict
    save_file({name: _whole(source[name]) for name in sorted(names)}, path / VALUE_FILE)


def load_value(roles: Roles, path: Path) -> None:
    """Load what `save_value` wrote."""
    saved = load_file(path / VALUE_FILE)
    own = dict(roles.named_parameters())
    for name in sorted(roles.value_parameters()):  # the same order on every process: shards are distributed together
        _put(own[name], saved[name])


@torch.no_grad()
def _put(parameter: Tensor, saved: Tensor) -> None:
    if isinstance(parameter, DTensor):  # FSDP: this process's shard of it
        saved = distribute_tensor(saved.to(parameter.device), parameter.device_mesh, parameter.placements)
    parameter.copy_(saved)


def _below(state_dict: dict[str, Tensor] | None, prefix: str) -> dict[str, Tensor] | None:
    if state_dict is None:
        return None
    return {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}


def _whole(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()
