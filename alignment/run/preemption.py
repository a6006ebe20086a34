"""A trainer that is told to end saves at the next safe point, on all processes together, and ends."""

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
        self.at_epochs_end = False  # whether that was in an epoch's last step

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Wait for safe points from here on."""
        self.number = None
        signals.defer()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask all processes whether any was told to end: a signal reaches them at different times."""
        self.number = largest(signals.asked() or 0, args.device) or None
        if self.number:
            self.at_epochs_end = float(state.epoch or 0.0).is_integer()
            control.should_training_stop = True
            control.should_save = control.should_save or not self.at_epochs_end

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save after what belongs to an epoch's end, where it is one; else do nothing that the whole epoch would."""
        if self.number:
            control.should_save = self.at_epochs_end
            control.should_log = control.should_log and self.at_epochs_end
            control.should_evaluate = control.should_evaluate and self.at_epochs_end

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """End here, with the code that queues the command again."""
        signals.defer_no_more()
        if self.number:
            largest(0, args.device)  # nobody ends before the checkpoint is marked whole
            raise signals.Terminated(self.number, left=f"checkpoint-{state.global_step}")


def largest(number: int, device: torch.device) -> int:
    """The largest of all processes' numbers; every process must call it."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return number
    shared = torch.tensor(number, dtype=torch.int32, device=device)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    return int(shared)
