"""Saves and loads what PPO trains: the policy as plain PEFT or transformers reads it, and every trained weight."""

import copy
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from alignment.errors import ModelError
from alignment.manifest import how_anew
from alignment.policy.roles import Roles
from alignment.policy.switch import ADAPTER

ADAPTER_FILE = "adapter_model.safetensors"
TRAINED_FILE = "trained.safetensors"


def save_policy(roles: Roles, path: Path, state_dict: dict[str, Tensor] | None = None) -> None:
    """Write the policy as plain PEFT (an adapter named `default`) or plain transformers (a whole model) reads it.

    Args:
        state_dict: the weights of `roles`, if they are sharded over processes; None: read them from `roles`.
    """
    path.mkdir(parents=True, exist_ok=True)
    if roles.whole_policy is not None:
        own = _below(state_dict, f"{roles.whole_policy_name}.")
        roles.whole_policy.save_pretrained(path, state_dict=own)
        return
    names = {id(parameter): name for name, parameter in roles.named_parameters()}
    with roles.switched.plain("policy") as model:
        given = None if state_dict is None else _renamed(model, names, state_dict)
        weights = get_peft_model_state_dict(model, given, adapter_name=ADAPTER, save_embedding_layers=False)
    save_file(
        {name: _whole(tensor) for name, tensor in weights.items()}, path / ADAPTER_FILE, metadata={"format": "pt"}
    )
    config = copy.copy(roles.adapters["policy"].config)
    config.base_model_name_or_path = roles.base.config._name_or_path
    config.inference_mode = True
    config.save_pretrained(path)


def save_trained(roles: Roles, path: Path, state_dict: dict[str, Tensor] | None = None) -> None:
    """Write the trained weights of the policy's adapter and of the value by their names in `roles`.

    A saved adapter may lack what training goes on from: AdaLoRA's file has the ranks that are left, and prompt tuning's
    has the prompts without their encoder.
    """
    source: dict[str, Any] = dict(roles.named_parameters()) if state_dict is None else state_dict
    weights = {name: _whole(source[name]) for name in _in_file(roles)}
    if weights:
        save_file(weights, path / TRAINED_FILE)


def load_trained(roles: Roles, path: Path) -> None:
    """Load what `save_policy` and `save_trained` wrote, bit for bit.

    Raises: ModelError if the file of trained weights is missing or lacks some.
    """
    if roles.whole_policy is not None:
        whole = dict(roles.whole_policy.named_parameters(remove_duplicate=False))  # tied weights are stored once
        for file in sorted(path.glob("model*.safetensors")):
            for name, saved in load_file(file).items():
                _put(whole[name], saved)
    names = _in_file(roles)
    saved_by_name = _trained_weights(path, names) if names else {}
    own = dict(roles.named_parameters())
    for name in names:  # the same order on every process: shards are distributed together
        _put(own[name], saved_by_name[name])


def _trained_weights(path: Path, names: list[str]) -> dict[str, Tensor]:
    file = path / TRAINED_FILE
    if not file.exists():
        raise ModelError(
            f"{path} has no {TRAINED_FILE}, so an earlier version wrote this checkpoint. It cannot be resumed; "
            f"{how_anew(path.parent)}"
        )
    saved = load_file(file)
    missing = [name for name in names if name not in saved]
    if missing:
        raise ModelError(
            f"{file} has no weights {missing[0]!r} ({len(missing)} of {len(names)} are missing), so another recipe or "
            f"version wrote it. It cannot be resumed; {how_anew(path.parent)}"
        )
    return saved


def _in_file(roles: Roles) -> list[str]:
    return sorted(roles.policy_parameters() | roles.value_parameters())


@torch.no_grad()
def _put(parameter: Tensor, saved: Tensor) -> None:
    if isinstance(parameter, DTensor):  # FSDP: this process's shard of it
        saved = distribute_tensor(saved.to(parameter.device), parameter.device_mesh, parameter.placements)
    parameter.copy_(saved)


def _renamed(model: nn.Module, names: dict[int, str], state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return whole weights and buffers under their names in a role's PeftModel.

    Args:
        names: of `state_dict`, by the parameter's id.
    """
    weights = {name: state_dict.get(names[id(parameter)]) for name, parameter in model.named_parameters()}
    return {name: tensor for name, tensor in weights.items() if tensor is not None} | dict(model.named_buffers())


def _below(state_dict: dict[str, Tensor] | None, prefix: str) -> dict[str, Tensor] | None:
    if state_dict is None:
        return None
    return {name.removeprefix(prefix): tensor for name, tensor in state_dict.items() if name.startswith(prefix)}


def _whole(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()  # safetensors refuses tensors that share memory
