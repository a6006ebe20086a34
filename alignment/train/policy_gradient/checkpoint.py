"""Saving and loading: a killed run resumes to the same bits, in the middle of an update too."""

import time
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.errors import TrainingError
from alignment.manifest import how_anew
from alignment.policy.role_files import load_trained, save_policy, save_trained
from alignment.policy.roles import Roles
from alignment.run.directory import RunDirectory
from alignment.run.files import write_jsonl
from alignment.run.repair import readable_rows
from alignment.train.deepspeed_checkpoint import load_deepspeed
from alignment.train.policy_gradient.experience import ExperienceStream
from alignment.train.policy_gradient.rewards import ScoreShaping
from alignment.train.policy_gradient.sharding import save_optimizer
from alignment.train.policy_gradient.statistics import UpdateStatistics
from alignment.train.resuming import ResumableTrainer
from alignment.train.sharding import full_tensors, is_sharded

EXPERIENCE_FILE = "experience.pt"


class CheckpointedTrainer(ResumableTrainer):
    """A Trainer whose checkpoints hold the trained roles, the current rollout and the statistics of the update.

    A subclass sets the attributes below.
    """

    roles: Roles
    stream: ExperienceStream
    shaping: ScoreShaping
    statistics: UpdateStatistics
    kl_coef: float
    metrics: dict[str, float]  # of the last rollout
    collected_at: int  # optimizer steps taken when the current rollout was sampled

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the policy and tokenizer, in a checkpoint every trained weight too. Every process must call it."""
        trained = {name: p for name, p in self.roles.named_parameters() if p.requires_grad}
        weights = full_tensors(trained) if is_sharded(self.accelerator) else None
        if self.args.should_save:
            path = Path(output_dir or self.args.output_dir)
            save_policy(self.roles, path, weights)
            if _internal_call:
                save_trained(self.roles, path, weights)
            self.processing_class.save_pretrained(path)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            save_optimizer(self, output_dir)
        else:
            super()._save_optimizer_and_scheduler(output_dir)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """Load DeepSpeed's part of a checkpoint here: the Trainer would expect the frozen base in it."""
        if not self.is_deepspeed_enabled or resume_from_checkpoint is None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        load_deepspeed(self.model_wrapped, resume_from_checkpoint)
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_trained(self.roles, Path(resume_from_checkpoint))

    def _save_rng_state(self, output_dir: str) -> None:
        """Also write the rollout and the statistics. The Trainer calls this on every process for every checkpoint."""
        super()._save_rng_state(output_dir)
        statistics = {**vars(self.statistics)}
        statistics["started"] = time.perf_counter() - statistics["started"]
        collector = {"kl_coef": self.kl_coef, "score_moments": self.shaping.state(), "last": self.metrics}
        state = {
            "stream": self.stream.state_dict(),
            "collector": collector,
            "statistics": gather_object([statistics]),  # of each process; the rest is the same on every process
            "collected_at": self.collected_at,
        }
        if self.args.should_save:
            torch.save(state, Path(output_dir) / EXPERIENCE_FILE)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Also restore the rollout. The Trainer calls this on every process before a resumed run's first batch."""
        super()._load_rng_state(checkpoint)
        if checkpoint is None:
            return
        state = torch.load(Path(checkpoint) / EXPERIENCE_FILE, weights_only=True)
        if len(state["statistics"]) != self.args.world_size:
            raise TrainingError(
                f"{checkpoint} was written by {len(state['statistics'])} processes, and this run has "
                f"{self.args.world_size}; start it with as many as it began with, or "
                f"{how_anew(Path(checkpoint).parent)}"
            )
        self.stream.load_state_dict(state["stream"])
        self.kl_coef, self.metrics = state["collector"]["kl_coef"], state["collector"]["last"]
        self.shaping.load_state(state["collector"]["score_moments"])
        self.collected_at = state["collected_at"]
        for name, number in state["statistics"][self.args.process_index].items():
            setattr(self.statistics, name, number)
        self.statistics.started = time.perf_counter() - self.statistics.started


class SampleRows(TrainerCallback):
    """Removes from samples.jsonl the rows of rollouts that a resumed run samples again."""

    def __init__(self, run: RunDirectory) -> None:
        self.run = run

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep the rows of the steps before the checkpoint, and send them to the tracker."""
        samples = self.run.path / "samples.jsonl"
        if not state.is_world_process_zero or not samples.exists():
            return
        rows = readable_rows(samples, lambda row: isinstance(row.get("step"), int))
        kept = [row for row in rows if row["step"] < state.global_step]
        write_jsonl(samples, kept)
        for step in sorted({row["step"] for row in kept}):
            of_step = [{k: v for k, v in row.items() if k != "step"} for row in kept if row["step"] == step]
            self.run.table("samples", of_step, step)


class PromptEpochs(TrainerCallback):
    """Sets the Trainer's epoch to the number of passes over the prompts, which it cannot compute from the stream."""

    def __init__(self, *, steps_per_update: int, prompts_per_update: int, prompts: int) -> None:
        self.steps_per_update, self.prompts_per_update, self.prompts = steps_per_update, prompts_per_update, prompts

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Set the epoch before anything is logged or saved."""
        answered = state.global_step / self.steps_per_update * self.prompts_per_update
        state.epoch = answered / self.prompts
