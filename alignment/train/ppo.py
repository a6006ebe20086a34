"""PPO as a transformers Trainer whose training data is a stream of experience.

An update: sample `rollout_batch_size` answers with the policy as it is, score them, then `num_ppo_epochs` passes of
`num_mini_batches` optimizer steps each, every step on `gradient_accumulation_steps` microbatches. Accumulation,
precision, checkpoints, callbacks and tracking are the Trainer's.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.config.schema import PPORecipe
from alignment.data.rows import Prompt
from alignment.data.template import Template
from alignment.errors import TrainingError
from alignment.manifest import how_anew
from alignment.policy.role_files import load_policy, load_value, save_policy, save_value
from alignment.policy.roles import Roles
from alignment.rollout.engine import Engine
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.run.directory import RunDirectory
from alignment.run.files import write_jsonl
from alignment.run.repair import readable_rows
from alignment.train.canary import Canary
from alignment.train.collector import Collector
from alignment.train.deepspeed_checkpoint import load_deepspeed
from alignment.train.engines import build_engine
from alignment.train.experience import ExperienceStream, Rows, plan, unflatten
from alignment.train.objective import minibatch_share, token_losses
from alignment.train.resuming import ResumableTrainer
from alignment.train.scoring import Scorer, Scoring
from alignment.train.sharding import (
    StepThrough,
    is_sharded,
    require_what_was_asked,
    save_optimizer,
    whole,
    with_whole_weights,
)
from alignment.train.update import UpdateStatistics
from alignment.train.watching import Watch

EXPERIENCE_FILE = "experience.pt"


class PPOTrainer(ResumableTrainer):
    """Trains the policy and value of `roles` by PPO.

    Args:
        roles: the models.
        args: built with `UpdateShape.forced_arguments`.
        recipe: PPO's own numbers.
        template: how prompts become ids.
        prompts: what to answer.
        scorer: where scores come from; None: the reward role alone.
        watch: scorers that are logged and train nothing.
        engine: samples answers; None: the recipe's.
        run: where samples go; None: nowhere.
    """

    def __init__(
        self,
        roles: Roles,
        args: TrainingArguments,
        *,
        recipe: PPORecipe,
        template: Template,
        prompts: list[Prompt],
        scorer: Scoring | Scorer | None = None,
        watch: Watch | None = None,
        engine: Engine | None = None,
        run: RunDirectory | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        super().__init__(
            model=roles, args=args, processing_class=template.tokenizer, callbacks=[*(callbacks or []), _Epochs(self)]
        )
        require_what_was_asked(self.accelerator)
        self.model_accepts_loss_kwargs = True  # the loss is normalised here, over the whole minibatch
        self.roles, self.recipe, self.run = roles, recipe, run
        pad: int = template.tokenizer.pad_token_id
        self.engine = engine or build_engine(recipe, roles, template, prompts, self.accelerator)
        self.collector = Collector(
            roles,
            self.engine,
            prompts,
            template,
            recipe,
            plan_of=self._plan,
            gather=gather_object,
            autocast=self.accelerator.autocast,  # the Trainer's own context is empty: Accelerate casts `forward` alone
            scorer=scorer,
            watch=watch,
            rank=args.process_index,
            world_size=args.world_size,
        )
        self.collector.canary = self._canary(template, pad)
        self.stream = ExperienceStream(self._collect, self._plan, pad)
        self.statistics = UpdateStatistics()
        self.collected_at = -1  # optimizer steps taken when the present rollout was sampled

    def _canary(self, template: Template, pad: int) -> Canary | None:
        """What checks an engine that is not the trained module itself."""
        if isinstance(self.engine, TransformersEngine):
            return None
        collector, recipe = self.collector, self.recipe
        exact = self.roles.policy_lm.dtype == torch.float32 and not (self.args.bf16 or self.args.fp16)
        return Canary(
            recipe,
            self.roles,
            collector.prompt_ids,
            generate=collector.generate,
            ask=collector.ask,
            gather=collector.gather,
            stop_token_ids=list(template.stop_token_ids),
            pad_token_id=pad,
            half=not exact or recipe.load_in_4bit or recipe.rollout_engine == "vllm",
            keeps_earlier=not is_sharded(self.accelerator),
            rank=self.args.process_index,
        )

    # Experience

    def _plan(self, update: int, lengths: list[int]) -> list[Rows]:
        return plan(
            lengths,
            seed=self.recipe.seed,
            update=update,
            num_ppo_epochs=self.recipe.num_ppo_epochs,
            num_mini_batches=self.recipe.num_mini_batches,
            microbatch_size=self.args.per_device_train_batch_size,
            rank=self.args.process_index,
            world_size=self.args.world_size,
        )

    def _collect(self, update: int) -> Any:
        self.statistics = UpdateStatistics()
        self.collected_at = self.state.global_step
        experience = self._collect_sharded(update) if is_sharded(self.accelerator) else self.collector.collect(update)
        wanted = self.recipe.num_sample_generations
        updates = self.recipe.total_episodes // self.recipe.rollout_batch_size
        if wanted and update % max(1, updates // wanted) == 0:
            if self.run is not None:
                self.run.samples(self.collector.samples, self.state.global_step)
        return experience

    def _collect_sharded(self, update: int) -> Any:
        if self.recipe.ds3_gather_for_generation:
            return with_whole_weights(self.model_wrapped, self.accelerator, lambda: self.collector.collect(update))
        if not isinstance(self.engine, TransformersEngine):
            raise TrainingError(
                f"{type(self.engine).__name__} cannot sample with sharded weights; set ds3_gather_for_generation: "
                "true, or rollout_engine: transformers"
            )
        self.collector.through = self.model_wrapped
        self.model_wrapped.eval()
        self.engine.model = StepThrough(self.model_wrapped, self.roles.policy_lm)
        self.engine.synced = True
        return self.collector.collect(update)

    def get_train_dataloader(self) -> Any:
        """The stream itself, in no loader: Accelerate's would sample one batch ahead, with a stale policy."""
        return self.stream

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """One optimizer step's microbatches, and how many tokens and answers they hold on all processes, (2,)."""
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        steps_done = self.state.global_step - self.collected_at
        assert 0 <= steps_done < self.recipe.num_ppo_epochs * self.recipe.num_mini_batches, "stale experience"
        tokens = sum(int(batch["trains"].sum()) for batch in batches)
        answers = sum(int(batch["trains"].any(dim=1).sum()) for batch in batches)
        seen = self.statistics
        own = torch.tensor([float(tokens), float(answers), seen.step_kl, seen.step_tokens], device=device)
        total = self.accelerator.gather(own).view(-1, 4).sum(0)
        if self.recipe.target_kl is not None:
            seen.stop_past(self.recipe.target_kl, *total[2:].tolist())
        return batches, total[:2].clamp(min=1)  # a minibatch of nothing but masked answers has none

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward; neither in an update that was stopped: its steps pass without a gradient.

        A gradient of zero would not do: the optimizer's momentum would go on moving the weights, and its second moments
        would remember zeros.
        """
        if self.statistics.stopped:
            return torch.zeros((), device=self.args.device)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if self._value_warms_up:
            names = self.roles.value_parameters()
            for name, parameter in self.roles.named_parameters():
                if name not in names:
                    parameter.grad = None
        return loss

    @property
    def _value_warms_up(self) -> bool:
        return self.stream.update < self.recipe.value_warmup_updates

    # The loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """PPO's loss on one microbatch, as its share of the whole minibatch's mean.

        Data parallelism averages gradients over processes; multiplied by their number the shares sum to the mean.
        """
        assert num_items_in_batch is not None
        recipe, mask, trains = self.recipe, inputs["mask"], inputs["trains"]
        flat_logp, _, flat_values = model(inputs["input_ids"], inputs["answer_mask"], temperature=recipe.temperature)
        losses = token_losses(unflatten(flat_logp, mask), unflatten(flat_values, mask), inputs, recipe)
        self.statistics.add(losses, trains)
        tokens, answers = num_items_in_batch
        loss = minibatch_share(
            losses,
            trains,
            recipe,
            kl_coef=self.collector.kl_coef,
            tokens=tokens,
            sequences=answers,
            policy_trains=not self._value_warms_up,
        )
        loss = loss * self.args.world_size
        return (loss, {"logp": flat_logp, "values": flat_values}) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with the value's parameters in groups that have a learning rate of their own."""
        fresh = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if fresh:
            names = self.roles.value_parameters()
            value_ids = {id(p) for name, p in self.roles.named_parameters() if name in names}
            rate = self.recipe.value_learning_rate or self.args.learning_rate
            groups = []
            for group in optimizer.param_groups:
                policy = [p for p in group["params"] if id(p) not in value_ids]
                value = [p for p in group["params"] if id(p) in value_ids]
                groups += [{**group, "params": policy}, {**group, "params": value, "lr": rate}]
            optimizer.param_groups[:] = [group for group in groups if group["params"]]
        return optimizer

    # Logs and files

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the update's numbers to the Trainer's log of its last step."""
        if "loss" in logs and self.collector.last:
            last = dict(self.collector.last)
            tokens = last.pop("tokens")
            seconds = time.perf_counter() - self.statistics.started
            others = sum(last.get(f"seconds_{part}", 0.0) for part in ("sample", "score", "watch"))
            last["seconds_train"] = seconds - others
            last["tokens_per_second"] = tokens / seconds
            logs |= {**last, **self.statistics.means(self.accelerator.gather, self.args.device)}
            if self.recipe.target_kl is not None:
                skipped, steps = (
                    self.statistics.steps_skipped,
                    self.recipe.num_ppo_epochs * self.recipe.num_mini_batches,
                )
                logs["steps_skipped"] = skipped
                if skipped:  # the Trainer's mean and last norm have the zeros of steps that passed
                    logs["loss"] *= steps / (steps - skipped)
                    logs.pop("grad_norm", None)
            logs["episode"] = (self.stream.update + 1) * self.recipe.rollout_batch_size
        logs.pop("train_loss", None)  # a mean over the losses of different rollouts, which means nothing
        super().log(logs, start_time)

    def results(self) -> dict[str, float]:
        """The last update's numbers, and the score before any update, for the manifest."""
        logs = [entry for entry in self.state.log_history if "score" in entry]
        kept = ("score", "kl", "entropy", "answer_tokens", "fraction_stopped", "distinct_answers", "episode")
        if not logs:
            return {}
        return {"first_score": logs[0]["score"], **{key: logs[-1][key] for key in kept}}

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the policy and tokenizer; in a checkpoint also the value. Every process must call it."""
        trained = {name: p for name, p in self.roles.named_parameters() if p.requires_grad}
        weights = whole(trained) if is_sharded(self.accelerator) else None
        if self.args.should_save:
            path = Path(output_dir or self.args.output_dir)
            save_policy(self.roles, path, weights)
            if _internal_call:
                save_value(self.roles, path, weights)
            self.processing_class.save_pretrained(path)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            save_optimizer(self, output_dir)
        else:
            super()._save_optimizer_and_scheduler(output_dir)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """Load DeepSpeed's part of a checkpoint here: the Trainer would ask it for the frozen base too."""
        if not self.is_deepspeed_enabled or resume_from_checkpoint is None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        load_deepspeed(self.model_wrapped, resume_from_checkpoint)
        self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_policy(self.roles, Path(resume_from_checkpoint))
        load_value(self.roles, Path(resume_from_checkpoint))

    def _save_rng_state(self, output_dir: str) -> None:
        """Called on every process for every checkpoint."""
        super()._save_rng_state(output_dir)
        statistics = {**vars(self.statistics)}
        statistics["started"] = time.perf_counter() - statistics["started"]
        state = {
            "stream": self.stream.state_dict(),
            "collector": self.collector.state_dict(),
            "statistics": gather_object([statistics]),  # of each process; all else is the same on every one
            "collected_at": self.collected_at,
        }
        if self.args.should_save:
            torch.save(state, Path(output_dir) / EXPERIENCE_FILE)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Called on every process before the first batch of a resumed run."""
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
        self.collector.load_state_dict(state["collector"])
        self.collected_at = state["collected_at"]
        for name, number in state["statistics"][self.args.process_index].items():
            setattr(self.statistics, name, number)
        self.statistics.started = time.perf_counter() - self.statistics.started


class _Epochs(TrainerCallback):
    """Keeps what the Trainer cannot know of the stream: which samples are yet to be made, and how long an epoch is."""

    def __init__(self, trainer: PPOTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Drop what a killed run wrote of rollouts that will be made again."""
        run = self.trainer.run
        if run is not None and state.is_world_process_zero and (run.path / "samples.jsonl").exists():
            samples = run.path / "samples.jsonl"
            rows = readable_rows(samples, lambda row: isinstance(row.get("step"), int))
            kept = [row for row in rows if row["step"] < state.global_step]
            write_jsonl(samples, kept)
            for step in sorted({row["step"] for row in kept}):
                of_step = [{k: v for k, v in row.items() if k != "step"} for row in kept if row["step"] == step]
                run.table("samples", of_step, step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Set the epoch before anything is logged or saved."""
        recipe = self.trainer.recipe
        answered = state.global_step / (recipe.num_ppo_epochs * recipe.num_mini_batches) * recipe.rollout_batch_size
        state.epoch = answered / len(self.trainer.collector.prompts)
