"""Training ends at the first number that is not finite; what is saved is finite."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.errors import TrainingError
from alignment.ops.finite import first_not_finite
from alignment.run.checkpoints import latest_whole
from alignment.run.preemption import largest

Named = tuple[str, Tensor]
OVERFLOW = "without overflow"  # torch: "value cannot be converted to type float without overflow"


class StopAtNaN(TrainerCallback):
    """Stops at a gradient, a metric, weights or an optimizer's state that are not finite.

    A gradient is looked at before it reaches the weights, weights before a checkpoint of them is marked whole and at
    the end of training. So the last whole checkpoint is good, and so is what a stage saves.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Check all gradients; fp16's scaler deals with its own overflows, DeepSpeed keeps gradients elsewhere.

        The optimizer lists the trained weights; a walk through the model's modules takes milliseconds each step.
        Weights that the step before left without a finite value are the cause where there are any.
        """
        if args.fp16 or args.deepspeed_plugin is not None or model is None or optimizer is None:
            return
        trained = (parameter for group in optimizer.param_groups for parameter in group["params"])
        gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not math.isfinite(float(norm.full_tensor() if isinstance(norm, DTensor) else norm)):
            self._require_finite("a weight", trained_weights(model), args, state)
            raise stopped(self.run, f"the gradient is not a finite number at step {state.global_step + 1}")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Check what is logged, which every set-up has."""
        odd = odd_metrics(logs or {}, overflows=args.fp16)
        if odd:
            raise stopped(self.run, f"{odd[0]}, not a finite number, at step {state.global_step}")

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Check what was written, before it is marked whole."""
        if model is not None:
            self._require_finite("a weight", trained_weights(model), args, state)
        if optimizer is not None:
            self._require_finite("the optimizer's state", optimizer_state(optimizer), args, state)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Check the weights that the last update left, or that were loaded as the best."""
        if model is not None:
            self._require_finite("a weight", trained_weights(model), args, state)

    def _require_finite(
        self, what: str, tensors: Iterable[Named], args: TrainingArguments, state: TrainerState
    ) -> None:
        """Stop all processes where one finds a number that is not finite."""
        odd = first_not_finite(tensors)
        if largest(int(odd is not None), args.device):
            named = f" ({odd})" if odd else ""
            raise stopped(self.run, f"{what} after step {state.global_step} is not finite{named}")


def stopped(run: Path, what: str) -> TrainingError:
    """Return the error of diverged training, with the last good checkpoint."""
    checkpoint = latest_whole(run)
    kept = f"The last good checkpoint is {checkpoint}." if checkpoint else "No checkpoint had been written yet."
    return TrainingError(
        f"{what}; training stopped. {kept} Lower learning_rate or max_grad_norm, or look for a broken row in the data."
    )


@contextmanager
def naming_overflow(run: Path, trainer: Any) -> Iterator[None]:
    """Turn torch's refusal of an update that no float holds into an error that names the step."""
    try:
        yield
    except RuntimeError as error:
        if OVERFLOW not in str(error):
            raise
        raise stopped(run, f"the update of step {trainer.state.global_step + 1} is larger than any float") from error


def trained_weights(model: nn.Module) -> Iterator[Named]:
    """Yield the trained weights on this process; FSDP and ZeRO-3 give each process a part."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, _own_part(parameter)


def optimizer_state(optimizer: Any) -> Iterator[Named]:
    """An optimizer's tensors on this process; under DeepSpeed also the weights in full precision that it keeps."""
    while hasattr(optimizer, "optimizer"):  # of Accelerate's and DeepSpeed's wrappers
        optimizer = optimizer.optimizer
    for group in getattr(optimizer, "param_groups", []):
        for parameter in group["params"]:
            yield "a weight", _own_part(parameter)
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    yield str(name), _own_part(value)


def odd_metrics(logs: dict[str, Any], *, overflows: bool) -> list[str]:
    """Return the metrics that are NaN or infinite and should not be, as `name is value`.

    The ends of an interval are NaN if there is one prompt, and logits are -inf where a model masks tokens.

    Args:
        overflows: half precision is scaled, so that a gradient may overflow and its step is left out.
    """

    def may_be_odd(key: str) -> bool:
        return key.endswith(("_low", "_high")) or "logits" in key or (overflows and key.endswith("grad_norm"))

    return [
        f"{key} is {value}"
        for key, value in logs.items()
        if isinstance(value, float) and not math.isfinite(value) and not may_be_odd(key)
    ]


def _own_part(tensor: Tensor) -> Tensor:
    if isinstance(tensor, DTensor):
        return tensor.to_local()
    part = getattr(tensor, "ds_tensor", None)  # ZeRO-3; the parameter itself is empty between passes
    return tensor if part is None else part
