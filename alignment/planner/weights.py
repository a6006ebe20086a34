"""Bytes of weights, gradients and optimizer states, on each device and on the host."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from alignment.planner.machine import Machine
from alignment.planner.optimizers import optimizer
from alignment.planner.skeleton import parameter_bytes
from alignment.policy.methods import is_of_adapter

BUCKET = 5e8  # elements of a DeepSpeed bucket in its default configuration
# Buffers of DeepSpeed's offload to a disk, by the defaults of deepspeed/runtime/zero/offload_config.py and config.py
WEIGHT_BUFFERS, WEIGHT_BUFFER = 5, 1e8  # buffers, elements of each, of two bytes
STATE_BUFFERS, STATE_BUFFER = 4, 1e9  # at most, elements of four bytes: a group of weights is updated together


@dataclass(frozen=True, slots=True)
class Held:
    """Memory of a model's weights on each device, before any step."""

    parts: dict[str, int]  # bytes by kind
    host: dict[str, int]  # bytes of all processes together, if weights are offloaded
    trainable: list[nn.Parameter]
    layer: int  # bytes of the largest layer, which sharded strategies gather before they compute with it
    dequantised: int  # bytes of the largest quantised matrix, which is dequantised to compute with it

    def standing(self) -> dict[str, int]:
        """Return the bytes that all phases hold."""
        parts = dict(self.parts)
        if self.layer:
            parts["layers put together"] = 2 * self.layer  # the current one, and the next one, which is prefetched
        if self.dequantised:
            parts["a matrix unpacked"] = self.dequantised
        return parts


def held(model: nn.Module, machine: Machine) -> Held:
    """Count the bytes of a model's weights by kind."""
    parts: dict[str, int] = {}
    trainable, unpacked, cut = [], 0, machine.shards.weights
    for name, parameter in model.named_parameters():
        size = parameter_bytes(parameter)
        if parameter.requires_grad:
            trainable.append(parameter)
            size = parameter.numel() * 2 if machine.deepspeed and machine.gpu else size
        if hasattr(parameter, "stored"):
            unpacked = max(unpacked, parameter.nbytes)
        kind = _kind(name, parameter)
        parts[kind] = parts.get(kind, 0) + size
    host: dict[str, int] = {}
    if machine.offloads:
        host, parts = {"weights": sum(parts.values())}, {}
    parts = {name: size // cut for name, size in parts.items()}
    parts["weights"] = parts.get("weights", 0) + sum(buffer.nbytes for buffer in model.buffers())
    return Held(parts, host, trainable, _largest_layer(model) if cut > 1 else 0, unpacked)


def _kind(name: str, parameter: nn.Parameter) -> str:
    small = is_of_adapter(name) or ".modules_to_save." in name or name.startswith("heads.")
    if not small:
        return "weights, trained" if parameter.requires_grad else "weights"
    return "adapters, trained" if parameter.requires_grad else "adapters, frozen"


def _largest_layer(model: nn.Module) -> int:
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) > 1]
    layers = [total_bytes(layer.parameters()) for many in lists for layer in many]
    tables = [parameter_bytes(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)]
    return max([*layers, *tables], default=0)


def states(found: Held, machine: Machine, optim: str) -> tuple[dict[str, int], dict[str, int]]:
    """Return the bytes of gradients and optimizer states, on each device and on the host.

    For each weight, DeepSpeed in bf16 keeps 2 bytes of weight, 2 of gradient, and in the optimizer's shards 4 of weight
    and the states: 16 in all with Adam (ZeRO, https://arxiv.org/abs/1910.02054, section 3.1).
    """
    kind, shards = optimizer(optim), machine.shards
    numbers = sum(parameter.numel() for parameter in found.trainable)
    kept = kind.bytes_for(found.trainable) // shards.optimizer
    if machine.deepspeed and machine.gpu:
        gradients = 2 * numbers // shards.gradients
        kept += 4 * numbers // shards.optimizer
    else:
        gradients = total_bytes(found.trainable) // shards.gradients
    device, host = {"gradients": gradients}, {}
    if machine.strategy == "ddp" and machine.gpus > 1:
        device["communication buckets"] = gradients  # DDP's buckets are copies of the gradients
    if machine.deepspeed and machine.gpus > 1:
        device["communication buckets"] = 2 * 2 * int(min(BUCKET, numbers))  # one to reduce, one to gather
    if machine.offloads or kind.paged:
        host["optimizer states"] = kept * machine.gpus
    else:
        device["optimizer states"] = kept
    return device, host


def disk_buffers(found: Held, machine: Machine) -> dict[str, int]:
    """Return the bytes of the host's buffers through which all processes read and write offloaded state."""
    group = min(STATE_BUFFER, sum(parameter.numel() for parameter in found.trainable) / machine.gpus)
    one = 2 * WEIGHT_BUFFERS * WEIGHT_BUFFER + 4 * STATE_BUFFERS * group
    return {"buffers for the disk": int(one * machine.gpus)}


def total_bytes(parameters: Iterable[Tensor]) -> int:
    """Return the bytes of parameters in their present format."""
    return sum(map(parameter_bytes, parameters))
