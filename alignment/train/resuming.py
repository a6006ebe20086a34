"""A Trainer whose resumed runs end, count and log as uninterrupted ones do.

transformers saves weights, optimizer, schedule and random states in a checkpoint. Its sums since the last log, its
mean loss, its clock and the callbacks' counters restart with every start, and a run that resumes from its last step
takes one step more. Here the checkpoint holds all of them.
"""

import random
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState

from alignment.meter import say
from alignment.policy.checkpointing import without_input_gradients
from alignment.train.deepspeed_checkpoint import only_tensors
from alignment.train.tuning import restore_method_state, save_method_state, set_rates

COUNTERS = "counters.pt"  # in a checkpoint: one entry for each process


class ResumableTrainer(Trainer):
    """Saves every counter in the checkpoint, and takes no step past the end."""

    _restored: dict[str, Any] | None = None  # this process's counters, from the checkpoint that the run resumes from
    _random_at_epoch_start: dict[str, Any] | None = None
    _resumed_from: Path | None = None
    _started = 0.0
    _seconds_before = 0.0  # training time of earlier starts

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **keys: Any) -> Any:
        """Train as transformers does, starting from the checkpoint's counters."""
        self._restored = self._read_counters(resume_from_checkpoint)
        self._resumed_from = Path(resume_from_checkpoint) if isinstance(resume_from_checkpoint, str) else None
        restoring = _Restoring(self)
        self.add_callback(restoring)
        try:
            return super().train(resume_from_checkpoint, *args, **keys)
        finally:
            self.remove_callback(restoring)

    def create_optimizer(self, model: Any = None) -> Any:
        """Create the Trainer's optimizer, with the learning rates of the tuning method."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh:
            set_rates(self.callback_handler.callbacks, optimizer, self.model if model is None else model)
        return optimizer

    def own_counters(self) -> dict[str, Any]:
        """Return the stage's own counters: numbers, lists and mappings of them."""
        return {}

    def restore_own(self, counters: dict[str, Any], share: float) -> None:
        """Restore `own_counters`.

        Args:
            share: of this process in a sum over processes; 1 if the run has as many processes as before.
        """

    def restore(self) -> None:
        """Restore the counters after the Trainer has set them to zero."""
        self._started = time.monotonic()
        if self._resumed_from is not None:
            restore_method_state(self.callback_handler.callbacks, self._resumed_from)
        found = self._restored
        if found is None:
            return
        self._tr_loss += found["loss"]
        self._total_loss_scalar = found["total_loss"]
        self._globalstep_last_logged = found["logged_at"]
        self._initial_global_step = 0
        self._seconds_before = found["seconds"]
        self._random_at_epoch_start = found["random_at_epoch_start"]
        self.model.train(found["training"])  # TRL names its metrics by it
        self.args.eval_on_start = False  # done by the first start
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                state = (self.state.stateful_callbacks or {}).get(type(callback).__name__, {})
                for name, value in state.get("attributes", {}).items():
                    setattr(callback, name, value)
        self.restore_own(found["own"], found["share"])

    def is_over(self) -> bool:
        """Whether all steps are taken, or early stopping has ended the training."""
        stopping = [c for c in self.callback_handler.callbacks if isinstance(c, EarlyStoppingCallback)]
        early = any(c.early_stopping_patience_counter >= c.early_stopping_patience for c in stopping)
        return early or self.state.global_step >= self.state.max_steps

    def _run_epoch(self, **place: Any) -> None:
        """Take no step past the last, and restore the random states that an epoch's order of rows was drawn with."""
        if self.is_over():
            self.control.should_training_stop = True
            return
        checkpoint = place.get("resume_from_checkpoint")
        if checkpoint is not None and place["epoch"] == place["epochs_trained"]:
            if not place["steps_trained_in_current_epoch"]:
                self._load_rng_state(checkpoint)
            elif self._random_at_epoch_start is not None:
                _set_random_states(self._random_at_epoch_start)
        self._random_at_epoch_start = _random_states()
        super()._run_epoch(**place)

    def _save_rng_state(self, output_dir: str) -> None:
        """Also save the counters. The Trainer calls this on every process for every checkpoint."""
        super()._save_rng_state(output_dir)
        own = {
            "loss": float(self._tr_loss),  # sum of this process's losses since the last log
            "total_loss": self._total_loss_scalar,
            "logged_at": self._globalstep_last_logged,
            "seconds": self._seconds_before + time.monotonic() - self._started,
            "training": self.model.training,
            "random_at_epoch_start": self._random_at_epoch_start,
            "own": self.own_counters(),
        }
        processes = gather_object([own])
        if self.args.should_save:
            save_method_state(self.callback_handler.callbacks, Path(output_dir))
            torch.save(processes, Path(output_dir) / COUNTERS)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        with self._reading(resume_from_checkpoint):
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        with self._reading(self.state.best_model_checkpoint):
            super()._load_best_model()

    def _reading(self, checkpoint: str | None) -> AbstractContextManager[None]:
        """Prevent code in a checkpoint from running: DeepSpeed would unpickle its files."""
        return only_tensors(checkpoint) if checkpoint and self.is_deepspeed_enabled else nullcontext()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load to a device that torch can restore to: transformers 5.17 names the CPU of a process `cpu:0`."""
        given = self.args.device
        if given.type == "cpu":
            self.args.__dict__["_setup_devices"] = torch.device("cpu")
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        finally:
            self.args.__dict__["_setup_devices"] = given

    def _read_counters(self, checkpoint: str | bool | None) -> dict[str, Any] | None:
        if not isinstance(checkpoint, str):
            return None
        file = Path(checkpoint, COUNTERS)
        if not file.is_file():
            say(f"{checkpoint}: has no {COUNTERS}; losses and tokens are counted from here on")
            return None
        processes: list[dict[str, Any]] = torch.load(file, weights_only=True)
        if len(processes) == self.args.world_size:
            return {**processes[self.args.process_index], "share": 1.0}
        mean = sum(process["loss"] for process in processes) / len(processes)
        return {**processes[0], "loss": mean, "share": len(processes) / self.args.world_size}

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        return super()._finalize_training(trial, num_train_samples, start_time - self._seconds_before)


class ResumableTRLTrainer(ResumableTrainer):
    """Also saves TRL's counters: tokens, and the metrics that its next log averages."""

    _metrics: dict[str, dict[str, list[float]]]
    _total_train_tokens: float

    def own_counters(self) -> dict[str, Any]:
        """Return TRL's counters, which are the same on every process."""
        metrics = {
            mode: {name: list(values) for name, values in found.items()} for mode, found in self._metrics.items()
        }
        return {"train_tokens": self._total_train_tokens, "metrics": metrics}

    def restore_own(self, counters: dict[str, Any], share: float) -> None:
        """Restore TRL's counters."""
        self._total_train_tokens = counters["train_tokens"]
        for mode, found in counters["metrics"].items():
            self._metrics[mode].clear()
            self._metrics[mode].update({name: list(values) for name, values in found.items()})


class _Restoring(TrainerCallback):
    """Restores the counters between the Trainer's reset and its first step."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Restore, and remove the input gradients that TRL and the Trainer request without need."""
        if args.gradient_checkpointing:  # transformers keeps activation_checkpointing, the newer name, equal to it
            without_input_gradients(self.trainer.model, args.gradient_checkpointing_kwargs)
        self.trainer.restore()


def _random_states() -> dict[str, Any]:
    """Python's, NumPy's and torch's random states, in types that `torch.load(weights_only=True)` reads."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    states = {
        "python": list(random.getstate()),
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
    }
    return states | ({"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_available() else {})


def _set_random_states(states: dict[str, Any]) -> None:
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    numpy = states["numpy"]
    key = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
