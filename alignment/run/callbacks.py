"""What every trainer is watched by: local metrics, whole checkpoints, progress."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from alignment.config.schema import Recipe
from alignment.meter import ProgressBar, say
from alignment.run.checkpoints import best_of, mark_whole, rotate
from alignment.run.directory import RunDirectory
from alignment.run.divergence import StopAtNaN
from alignment.run.files import append_jsonl, write_jsonl
from alignment.run.preemption import StopOnSignal
from alignment.run.repair import readable_rows
from alignment.run.tracking import Tracker

SHOWN = ("loss", "eval_loss", "eval_accuracy", "score", "kl")  # in the line of a stage that trains


class MetricsWriter(TrainerCallback):
    """Writes every log to metrics.jsonl, one object a line, and to W&B, by the main process alone."""

    def __init__(self, path: Path, tracker: Tracker | None = None) -> None:
        self.path, self.tracker = path, tracker

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Cut the file to what was logged when the checkpoint was written; W&B is sent what it lacks of that.

        The checkpoint holds the same logs, so that lines that were lost are written again. A kill takes what W&B had
        not written yet, so that its file alone would have gaps.
        """
        if state.is_world_process_zero and (self.path.exists() or state.log_history):
            logged = [_row(log["step"], log) for log in state.log_history]
            kept = readable_rows(self.path, _has_step, "its lines are written again from the checkpoint")
            done = kept[: len(logged)]  # the file's own rows keep the order of their keys
            if done != logged:
                say(f"{self.path}: {len(done)} lines are not those that were logged; written again from the checkpoint")
                done = logged
            write_jsonl(self.path, done)
            if self.tracker is not None:
                for row in done:
                    self.tracker.log(row)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Append the log with its step."""
        if state.is_world_process_zero and logs:
            row = _row(state.global_step, logs)
            append_jsonl(self.path, row)
            if self.tracker is not None:
                self.tracker.log(row)


def _has_step(row: dict[str, Any]) -> bool:
    return isinstance(row.get("step"), int)


def _row(step: int, logs: dict[str, Any]) -> dict[str, Any]:
    return {"step": step, **{key: value for key, value in logs.items() if key != "step"}}


class WithinTheStep(TrainerCallback):
    """Logs, evaluates and saves at an epoch's end within its last step.

    The Trainer does so after the step and its checkpoint. A run killed between the two would go on with the next epoch
    and never log or evaluate the last one.
    """

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Request evaluation and saving in the last step of an epoch and of the run, as the epoch's end does."""
        if float(state.epoch or 0.0).is_integer() or state.global_step >= state.max_steps:
            control.should_log |= args.logging_strategy == IntervalStrategy.EPOCH
            control.should_evaluate |= args.eval_strategy == IntervalStrategy.EPOCH and args.eval_delay <= state.epoch
            control.should_save |= args.save_strategy == SaveStrategy.EPOCH

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Do none of it twice."""
        control.should_log = control.should_evaluate = control.should_save = False


class WholeCheckpoints(TrainerCallback):
    """Marks a checkpoint whole once every process has written its part, and only then lets older ones go."""

    def __init__(self, identifier: str | None = None) -> None:
        """Store the run's identifier, which its checkpoints carry."""
        self.kept: int | None = None
        self.identifier = identifier

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take over the limit: the Trainer would delete an old checkpoint while the new one is not yet whole.

        A resumed run's best checkpoint is looked for where the run now is: the Trainer forgets one whose path changed.
        """
        if args.save_total_limit is not None:
            self.kept, args.save_total_limit = args.save_total_limit, None
        if state.global_step and (best := best_of(Path(args.output_dir or ".") / f"checkpoint-{state.global_step}")):
            state.best_model_checkpoint = str(best)
        if state.global_step and state.is_world_process_zero:  # a kill may have come before older ones were let go
            rotate(Path(args.output_dir or "."), self.kept, state.best_model_checkpoint)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the mark."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            run = Path(args.output_dir or ".")
            mark_whole(run / f"checkpoint-{state.global_step}", self.identifier)
            rotate(run, self.kept, state.best_model_checkpoint)


class TrainingProgress(TrainerCallback):
    """Shows step of total, tokens a second, time left and the last loss."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.bar: ProgressBar | None = None
        self.numbers: dict[str, float] = {}
        self.tokens = torch.zeros((), dtype=torch.int64)  # this process's, summed where they are: no waiting for a GPU
        self.tokens_per_second: float | None = None  # as the trainer measures it
        self.hook: Any = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Start counting."""
        rate = self._rate(args.world_size)
        self.bar = ProgressBar(self.stage, "steps", state.max_steps, state.global_step, rate=rate, note=self._note)
        self.bar.__enter__()
        if model is not None and state.is_world_process_zero:
            self.hook = model.register_forward_pre_hook(self._count, with_kwargs=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Count the step."""
        if self.bar is not None:
            self.bar.advance(state.global_step - self.bar.done)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show progress during evaluation."""
        if self.bar is not None:
            self.bar.show()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Remember what is worth a place in the line; a line of its own is what an evaluation found."""
        logs = logs or {}
        self.numbers |= {key: logs[key] for key in SHOWN if isinstance(logs.get(key), int | float)}
        self.tokens_per_second = logs.get("tokens_per_second", self.tokens_per_second)
        if self.bar is not None and "eval_loss" in logs and state.global_step < state.max_steps:
            self.bar.show(now=True)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Report the duration."""
        self.close()

    def close(self) -> None:
        """Stop counting; safe to call twice."""
        if self.hook is not None:
            self.hook.remove()
        if self.bar is not None:
            self.bar.__exit__()
        self.hook = self.bar = None

    def _count(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count the tokens of a training pass, without padding if there is a mask."""
        if not module.training or not torch.is_grad_enabled():
            return
        mask, ids = kwargs.get("attention_mask"), kwargs.get("input_ids")
        if mask is not None and mask.dim() == 2:
            self.tokens = self.tokens.to(mask.device) + mask.sum()
        elif ids is not None:
            self.tokens = self.tokens + ids.numel()

    def _rate(self, processes: int) -> Callable[[], str]:
        def rate() -> str:
            seconds = self.bar.seconds if self.bar is not None else math.inf
            found = self.tokens_per_second or processes * int(self.tokens) / seconds
            return f"{found:,.0f} tokens/s" if found else ""

        return rate

    def _note(self) -> str:
        return ", ".join(f"{key} {number:.4g}" for key, number in self.numbers.items())


def callbacks_for(run: RunDirectory, recipe: Recipe) -> list[TrainerCallback]:
    """Return the callbacks of every stage that trains."""
    callbacks: list[TrainerCallback] = [
        StopAtNaN(run.path),  # first: nothing that it refuses is logged or marked whole
        MetricsWriter(run.metrics_path, run.tracker),
        WithinTheStep(),
        WholeCheckpoints(run.identifier),
    ]
    patience = getattr(recipe, "early_stopping_patience", None)
    if patience is not None:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=patience))
    return [*callbacks, StopOnSignal()]  # last, as it ends the process
