"""On a signal, the trainer saves at the next safe point, on all processes together, and ends."""

from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.run import signals


class StopOnSignal(TrainerCallback):
    """Turns a signal to any process into one checkpoint of all of them, after the optimizer step that is under way.

    Must be the last of the callbacks: it raises `Terminated` at the end of training.
    """

    def __init__(self) -> None:
        self.number: int | None = None  # of the signal on which all processes agreed
        self.saved_at = -1  # step of the last checkpoint

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Defer the end to safe points."""
        self.number, self.saved_at = None, state.global_step
        signals.defer()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop after the current step."""
        if self._is_told(args):
            control.should_training_stop = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record the step, which needs no second checkpoint."""
        self.saved_at = state.global_step

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save if the last step did not."""
        if self._is_told(args) and self.saved_at != state.global_step:
            control.should_save = True

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End with the exit code on which schedulers queue the job again."""
        told = self._is_told(args)  # no process ends before the checkpoint is marked complete
        signals.defer_no_more()
        if told:
            assert self.number is not None
            raise signals.Terminated(
                self.number, left=f"checkpoint-{self.saved_at}" if self.saved_at > 0 else "its start"
            )

    def _is_told(self, args: TrainingArguments) -> bool:
        """Return whether any process has received a signal; signals reach processes at different times."""
        self.number = largest(self.number or signals.asked() or 0, args.device) or None
        return self.number is not None


def largest(number: int, device: torch.device) -> int:
    """Return the maximum over all processes; every process must call it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return number
    shared = torch.tensor(number, dtype=torch.int32, device=device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return int(shared)
