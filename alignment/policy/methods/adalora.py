"""AdaLoRA, https://arxiv.org/abs/2303.10512: ranks are pruned during training, by the importance of each triplet.

The increment is P Λ Q ("SVD-based adaptation"), `lora_B`, `lora_E` and `lora_A` in PEFT. The callback adds the gradient
of the orthogonality term and prunes after each optimizer step ("importance-aware rank allocation"), which no trainer
does. The trained adapter is saved as plain LoRA with a rank for each module, so later stages and vLLM read LoRA.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig
from peft.tuners.adalora.layer import RankAllocator
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerControl, TrainerState, TrainingArguments

from alignment.config.rules.tuning import no_step_to_prune
from alignment.config.schema import AdapterKeys
from alignment.errors import TrainingError
from alignment.policy.methods.callback import MethodCallback
from alignment.policy.methods.generic import Generic
from alignment.policy.methods.plain import ADAPTER_FILE, WRAPPED, write_plain_lora
from alignment.policy.model_files import ADAPTER_CONFIG, Fault

PEFT_TYPE, PREFIX = "ADALORA", "lora_"
UNKNOWN_STEPS = 2**30  # PEFT asks for the number of steps before the run has one
AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # of the allocator, by parameter


def new_config(keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> AdaLoraConfig:
    """Return the configuration of a new adapter."""
    given = {**keys.fields(), "modules_to_save": modules_to_save}
    return AdaLoraConfig(task_type=task, total_step=UNKNOWN_STEPS, **given)


def recipe_keys(config: AdaLoraConfig) -> dict[str, Any]:
    """Return the recipe keys that an existing adapter determines."""
    return {"peft_method": "adalora"}


def faults(found: dict[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with a saved configuration: one in the middle of pruning is no adapter to go on from."""
    if found.get("rank_pattern"):
        yield "rank_pattern", "is that of an adapter that was pruned by other means; merge it with peft first"
    yield from Generic("adalora").faults(found)


def callbacks(model: Any, keys: AdapterKeys) -> list[MethodCallback]:
    """Return the callback that prunes; none if the adapter is no AdaLoRA any more, as of an earlier stage."""
    weights = _Weights(model)
    return [Pruning(weights, copy.deepcopy(_config(model)))] if weights.modules else []


class _Weights:
    """The trained weights of AdaLoRA by name, without those of other roles' adapters."""

    def __init__(self, model: Any) -> None:
        self.model = model
        values = [name for name, p in model.named_parameters() if ".lora_E." in name and p.requires_grad]
        self.modules = tuple(name.partition(".lora_E.")[0] for name in values)
        self.adapter = values[0].partition(".lora_E.")[2] if values else ""

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield names and weights, as PEFT's allocator reads them of a model."""
        for name, parameter in self.model.named_parameters():
            module, found, _ = name.partition(".lora_")
            if found and module in self.modules:
                yield name, parameter


class Pruning(MethodCallback):
    """Prunes one adapter to its budget of ranks."""

    def __init__(self, weights: _Weights, config: AdaLoraConfig) -> None:
        self.weights, self.config = weights, config
        self.allocator = RankAllocator(weights, config, weights.adapter)
        self.pattern: dict[str, list[bool]] = {}  # by the parameter's name, which triplets are kept
        own = list(weights.named_parameters())
        self.trained = [p for _, p in own]
        self.vectors = [(p, ".lora_A." in n) for n, p in own if ".lora_E." not in n]

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Plan the pruning over the run's steps."""
        self.config.total_step = state.max_steps
        told = no_step_to_prune(self.config.tinit, self.config.tfinal, state.max_steps)
        if told is not None:
            raise TrainingError(f"peft_config: {told}")

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Add the gradient of the orthogonality term; not to steps that PPO skips, which have no gradients."""
        if self._steps() and self.config.orth_reg_weight:
            vectors = [vector for vector, _ in self.vectors]
            with torch.enable_grad():
                term = self.config.orth_reg_weight * self.orthogonality()
            for vector, gradient in zip(vectors, torch.autograd.grad(term, vectors), strict=True):
                assert vector.grad is not None
                vector.grad += gradient

    @torch.no_grad()
    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Average importance, and mask the triplets beyond the budget; needs the gradients of the step."""
        step, last = state.global_step, state.max_steps - self.config.tfinal
        if step < last and self._steps():
            self.pattern = self.allocator.update_and_allocate(self.weights, step)[1] or self.pattern
        elif step == last and self.allocator.exp_avg_ipt:
            self.pattern = self.allocator.update_and_allocate(self.weights, step, force_mask=True)[1]
            self.allocator.reset_ipt()
        elif step > last and self.pattern:
            self.allocator.mask_using_rank_pattern(self.weights, self.pattern)

    def orthogonality(self) -> Tensor:
        """Return the mean of ‖PᵀP − I‖ and ‖QQᵀ − I‖ over all modules, as PEFT has it."""
        norms = []
        for vector, is_right in self.vectors:
            square = vector @ vector.T if is_right else vector.T @ vector
            norms.append(torch.linalg.norm(square - torch.eye(len(square), device=square.device)))
        return torch.stack(norms).mean()

    def ranks(self) -> int:
        """Return the sum of all modules' ranks."""
        return sum(map(sum, self.pattern.values())) if self.pattern else self.allocator.init_bgt

    def _steps(self) -> bool:
        return all(parameter.grad is not None for parameter in self.trained)

    def tensors(self) -> dict[str, Tensor]:
        """Return the allocator's averages and the triplets that are kept."""
        averages = {f"{kind}/{name}": t for kind in AVERAGES for name, t in getattr(self.allocator, kind).items()}
        kept = {f"kept/{name}": torch.tensor(kept) for name, kept in self.pattern.items()}
        return {**averages, **kept, "steps": torch.tensor(self.config.total_step)}

    def restore_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore the averages and the triplets."""
        device = self.trained[0].device
        for kind in AVERAGES:
            found = {name.partition("/")[2]: t.to(device) for name, t in tensors.items() if name.startswith(f"{kind}/")}
            setattr(self.allocator, kind, found)
        self.pattern = {n.partition("/")[2]: t.tolist() for n, t in tensors.items() if n.startswith("kept/")}

    def finish(self, folder: Path) -> None:
        """Write the trained adapter as plain LoRA."""
        if (folder / ADAPTER_CONFIG).is_file():
            as_plain_lora(folder)


def _config(model: Any) -> Any:
    """Return the configuration of the trained adapter: of a PeftModel, or of the policy among PPO's roles."""
    held = getattr(model, "peft_config", None)
    return held["default"] if held is not None else model.adapters["policy"].config


def as_plain_lora(folder: Path) -> None:
    """Replace a saved AdaLoRA adapter by the LoRA adapter of the same function.

    B (A ∘ E) · alpha / (rank + 1e-5) is (B · s) A' of the triplets that are kept, with A' = A ∘ E, in a module of that
    rank and a scale of 1.
    """
    found = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if found.get("peft_type") != PEFT_TYPE:
        return
    tensors = load_file(folder / ADAPTER_FILE)
    scale = (found["lora_alpha"] or float(found["init_r"])) / (found["init_r"] + 1e-5)
    plain = {name: tensor for name, tensor in tensors.items() if ".lora_" not in name}
    ranks: dict[str, int] = {}
    for name in (name for name in tensors if name.endswith(".lora_E")):
        module = name.removesuffix(".lora_E")
        right, values, left = (tensors[f"{module}.lora_{part}"] for part in "AEB")
        kept = values.flatten() != 0
        if kept.any():
            ranks[module.removeprefix(WRAPPED)] = int(kept.sum())
            plain[f"{module}.lora_A.weight"] = (right * values)[kept].contiguous()
            plain[f"{module}.lora_B.weight"] = (left[:, kept] * scale).contiguous()
    write_plain_lora(folder, found, plain, ranks)
