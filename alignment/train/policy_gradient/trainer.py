"""PPO as a transformers Trainer: sample, score, estimate advantages, learn.

The file follows one update from top to bottom. `collect` samples `rollout_batch_size` answers with the current policy
and turns them into experience; `RolloutTrainer` does the sampling, the passes of the roles and the scores.
`compute_loss` learns from the experience in `num_epochs` passes of `num_mini_batches` optimizer steps, each step on
`gradient_accumulation_steps` microbatches. The recipe's `UpdateRule` holds the settings of the stage, PPO's or GRPO's:
which advantage estimator, which loss. The Trainer does accumulation, precision, checkpoints, callbacks and tracking.

Every process holds the whole rollout and computes the same from it, so no number depends on how many processes there
are.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainingArguments

from alignment.config.schema import PolicyGradientRecipe
from alignment.data.rows import Prompt
from alignment.data.sampled import Recorder
from alignment.data.template import Template
from alignment.meter import say_once
from alignment.ops.advantages import EstimatorInput
from alignment.ops.kl import adapted_kl_coef, kl_estimate
from alignment.ops.losses import importance_ratio
from alignment.ops.masking import whiten
from alignment.ops.rewards import token_rewards
from alignment.policy.roles import Roles
from alignment.rollout.engine import Engine
from alignment.run.directory import RunDirectory
from alignment.train.policy_gradient.canary import canary_for
from alignment.train.policy_gradient.checkpoint import PromptEpochs, SampleRows
from alignment.train.policy_gradient.engines import build_engine
from alignment.train.policy_gradient.estimators import estimate_advantages
from alignment.train.policy_gradient.experience import (
    Columns,
    Experience,
    ExperienceStream,
    RoleOutputs,
    Rollout,
    unflatten,
)
from alignment.train.policy_gradient.monitoring import Monitor, preserve_random_state
from alignment.train.policy_gradient.objective import Counts, minibatch_share, token_losses
from alignment.train.policy_gradient.rewards import ScoreShaping
from alignment.train.policy_gradient.rollout_trainer import RolloutTrainer
from alignment.train.policy_gradient.scoring import Scored, Scorer, Scoring
from alignment.train.policy_gradient.sharding import sample_through, with_whole_weights
from alignment.train.policy_gradient.statistics import UpdateStatistics, rollout_metrics, sample_rows
from alignment.train.sharding import is_sharded, require_what_was_asked


class PPOTrainer(RolloutTrainer):
    """Trains the policy of `roles`, and its value where there is one.

    Args:
        roles: policy, reference, the value if the estimator uses one, and the reward roles of `scorer`.
        args: built with `UpdateShape.forced_arguments`.
        recipe: the hyperparameters.
        template: renders prompts as token ids.
        prompts: the prompts to answer; which are used when depends on seed and update alone.
        columns: of each prompt's row, for the scorers that read them.
        scorer: source of the scores; None: the reward role.
        monitor: scorers that are logged and are no part of the reward.
        engine: samples answers; None: the recipe's.
        run: where samples are written; None: nowhere.
    """

    def __init__(
        self,
        roles: Roles,
        args: TrainingArguments,
        *,
        recipe: PolicyGradientRecipe,
        template: Template,
        prompts: list[Prompt],
        columns: Sequence[Columns] = (),
        scorer: Scoring | Scorer | None = None,
        monitor: Monitor | None = None,
        engine: Engine | None = None,
        run: RunDirectory | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        self.rule = recipe.update_rule()
        self.steps_per_update = self.rule.num_epochs * recipe.num_mini_batches
        epochs = PromptEpochs(
            steps_per_update=self.steps_per_update,
            prompts_per_update=recipe.rollout_batch_size // recipe.num_generations,
            prompts=len(prompts),
        )
        own = [*([SampleRows(run)] if run is not None else []), epochs]
        super().__init__(
            model=roles, args=args, processing_class=template.tokenizer, callbacks=[*(callbacks or []), *own]
        )
        require_what_was_asked(self.accelerator)
        if not recipe.ds3_gather_for_generation and not is_sharded(self.accelerator):
            say_once("ds3_gather_for_generation: false has no effect: every process holds all weights")
        self.model_accepts_loss_kwargs = True  # `compute_loss` normalises over the whole minibatch
        self.roles, self.recipe, self.template, self.prompts, self.run = roles, recipe, template, prompts, run
        self.columns = columns
        self.prompt_ids = [template.prompt_ids(prompt) for prompt in prompts]
        self.pad_token_id: int = template.tokenizer.pad_token_id
        self.scoring, self.monitor, self.shaping = Scoring.of(scorer), monitor, ScoreShaping(recipe)
        self.recorder: Recorder | None = None
        self.engine = engine or build_engine(recipe, roles, template, prompts, self.accelerator)
        self.sharded_roles: nn.Module | None = None  # the wrapped roles, if only they can gather the weights
        self.canary = canary_for(self)
        self.kl_coef = self.rule.kl_coef
        self.metrics: dict[str, float] = {}
        self.samples: list[dict[str, Any]] = []  # the first answers of the last rollout as text
        self.stream = ExperienceStream(self._start_update, self.schedule, self.pad_token_id)
        self.statistics = UpdateStatistics()
        self.collected_at = -1

    # An update begins: sample, score, estimate advantages

    def _start_update(self, update: int) -> Experience:
        self.statistics = UpdateStatistics()
        self.collected_at = self.state.global_step
        experience: Experience = self._with_weights(lambda: self.collect(update))
        if self.run is not None and self._are_samples_due(update):
            self.run.samples(self.samples, self.state.global_step)
        return experience

    def _with_weights(self, task: Callable[[], Any]) -> Any:
        """Run `task`, which runs the roles without gradient: on whole weights, or through the wrapped model."""
        if is_sharded(self.accelerator) and self.recipe.ds3_gather_for_generation:
            return with_whole_weights(self.model_wrapped, self.accelerator, task)
        if is_sharded(self.accelerator):
            sample_through(self.model_wrapped, self.roles.policy_lm, self.engine)
            self.sharded_roles = self.model_wrapped
        return task()

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Also compute the trunk's states of the checkpoint's rollout, in the microbatches of its first epoch."""
        super()._load_rng_state(checkpoint)
        if checkpoint is not None and self.stream.experience is not None and self.may_share_trunk:
            self._with_weights(self._restore_trunk)

    @torch.no_grad()
    def _restore_trunk(self) -> None:
        experience = self.stream.experience
        assert experience is not None
        self.roles.eval()
        for place, rows in enumerate(self.first_epoch(self.stream.update, experience.lengths)):
            with self.accelerator.autocast():
                self.inputs_of(experience, place, rows)

    def _are_samples_due(self, update: int) -> bool:
        wanted = self.recipe.num_sample_generations
        updates = self.recipe.total_episodes // self.recipe.rollout_batch_size
        return wanted > 0 and update % max(1, updates // wanted) == 0

    @torch.no_grad()
    def collect(self, update: int) -> Experience:
        """Sample one rollout with the current policy, score it, and estimate advantages."""
        start = time.perf_counter()
        self.roles.eval()
        self._adapt_kl_coef()
        checked = self._check_engine(update)
        rollout, scored, replaced = self.sample_groups(update) if self.recipe.dynamic_sampling else self._scored(update)
        outputs = self.compute_role_outputs(rollout)
        rewards = self.shaping.shape(scored.normalized, rollout.stopped)
        experience = self.make_experience(rollout, outputs, rewards)
        self.metrics = (
            rollout_metrics(rollout, outputs, scored, experience, rewards) | {"kl_coef": self.kl_coef} | checked
        )
        self.metrics |= replaced
        self.samples = sample_rows(rollout, outputs, scored, self.template)
        seconds = time.perf_counter() - start - rollout.seconds
        self.metrics |= {"seconds_sample": rollout.seconds, "seconds_score": seconds}
        self._run_monitor(update, rollout)
        return experience

    def _adapt_kl_coef(self) -> None:
        """Set this update's KL coefficient from the KL of the previous rollout."""
        if self.rule.adaptive_kl_target is not None and self.metrics:
            self.kl_coef = adapted_kl_coef(
                self.kl_coef,
                self.metrics["kl"],
                target=self.rule.adaptive_kl_target,
                horizon=self.rule.adaptive_kl_horizon,
                answers=self.recipe.rollout_batch_size,
            )

    def _check_engine(self, update: int) -> dict[str, float]:
        if self.canary is None:
            return {}
        with self.accelerator.autocast():
            return self.canary.check(update)

    def _scored(self, update: int) -> tuple[Rollout, Scored, dict[str, float]]:
        rollout = self.sample(update)
        return rollout, self.score(rollout), {}

    def make_experience(self, rollout: Rollout, outputs: RoleOutputs, rewards: Tensor) -> Experience:
        """Compute rewards per token, advantages and returns of the whole rollout; rewards: (answers,)."""
        recipe, rule, mask = self.recipe, self.rule, rollout.mask
        kl, kl_coef = torch.zeros(mask.shape, dtype=rewards.dtype), 0.0
        if rule.kl_placement == "reward" and outputs.logp is not None and outputs.ref_logp is not None:
            kl, kl_coef = kl_estimate(outputs.logp, outputs.ref_logp, rule.kl_estimator), self.kl_coef
        loss_mask = mask & rollout.stopped.unsqueeze(-1) if recipe.mask_truncated_completions else mask
        kl = torch.where(loss_mask, kl, 0.0)
        estimator_input = EstimatorInput(
            rewards=token_rewards(rewards, kl, mask, kl_coef=kl_coef),
            mask=mask,
            groups=rollout.groups,
            values=outputs.values,
            last_values=None if outputs.last_values is None else torch.where(rollout.stopped, 0.0, outputs.last_values),
        )
        estimate = estimate_advantages(estimator_input, rule)
        weights = None
        if rollout.engine_logp is not None and recipe.importance_sampling_cap is not None:
            assert outputs.logp is not None
            weights = importance_ratio(outputs.logp, rollout.engine_logp).clamp(max=recipe.importance_sampling_cap)
        return Experience(
            rollout.prompt_ids,
            rollout.answer_ids,
            mask,
            logp=outputs.logp,
            values=outputs.values,
            advantages=whiten(estimate.advantages, loss_mask) if rule.whiten_advantages else estimate.advantages,
            returns=estimate.returns,
            loss_mask=loss_mask,
            weights=weights,
            ref_logp=None if rule.kl_placement == "reward" else outputs.ref_logp,
            trunk=rollout.trunk,
        )

    def _run_monitor(self, update: int, rollout: Rollout) -> None:
        """Log the monitor's scores, after everything that training uses is computed."""
        if self.monitor is None or not self.monitor.is_due(update):
            return
        start = time.perf_counter()
        with preserve_random_state():
            self.metrics |= self.monitor.metrics(self.scores_outside(self.monitor.scoring, rollout))
        self.metrics["seconds_watch"] = time.perf_counter() - start

    # The update's optimizer steps

    def get_train_dataloader(self) -> Any:
        """Return the stream without a loader: Accelerate's would sample one batch ahead, with a stale policy."""
        return self.stream

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """Return the microbatches of one optimizer step, and the numbers of `Counts` on all processes, (3,)."""
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        assert 0 <= self.state.global_step - self.collected_at < self.steps_per_update, "stale experience"
        tokens = sum(int(batch["loss_mask"].sum()) for batch in batches)
        counted = "mask" if self.rule.counts_masked_answers else "loss_mask"
        answers = sum(int(batch[counted].any(dim=1).sum()) for batch in batches)
        statistics = self.statistics
        own = torch.tensor([float(tokens), float(answers), statistics.step_kl, statistics.step_tokens], device=device)
        total = self.accelerator.gather(own).view(-1, 4).sum(0)
        if self.recipe.target_kl is not None:
            statistics.stop_past(self.recipe.target_kl, *total[2:].tolist())
        assert self.stream.experience is not None
        of_rollout = self.stream.experience.loss_mask.sum().clamp(min=1) / self.recipe.num_mini_batches
        counts = total[:2].clamp(min=1)  # a minibatch of masked answers alone has none
        return batches, torch.cat([counts, of_rollout.to(counts).view(1)])

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run forward and backward, unless the update was stopped: its remaining steps have no gradients.

        Gradients of zero would not do: the optimizer's momentum would still move the weights, and its second moments
        would decay.
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
        return self.recipe.value is not None and self.stream.update < self.recipe.value.value_warmup_updates

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Return the loss of one microbatch as its share of the minibatch's mean.

        Data parallelism averages gradients over processes. Multiplied by the number of processes, the shares sum to the
        mean.
        """
        assert num_items_in_batch is not None
        mask, loss_mask, value_recipe = inputs["mask"], inputs["loss_mask"], self.recipe.value
        temperature, with_entropy = self.recipe.temperature, "logp" not in inputs
        flat_logp, flat_entropy, flat_values = model(
            inputs["input_ids"],
            inputs["answer_mask"],
            temperature=temperature,
            with_entropy=with_entropy,
            trunk=inputs.get("trunk"),
        )
        logp = unflatten(flat_logp, mask)
        values = None if flat_values is None else unflatten(flat_values, mask)
        losses = token_losses(
            logp, values, inputs, self.rule, cliprange_value=value_recipe.cliprange_value if value_recipe else 0.0
        )
        self.statistics.add(losses, inputs["advantages"], loss_mask)
        if with_entropy:  # no pass before the update measured these
            self.statistics.add_rollout(mask, unflatten(flat_entropy, mask), logp, inputs.get("ref_logp"))
        loss = minibatch_share(
            losses,
            loss_mask,
            self.rule,
            Counts(*num_items_in_batch),
            kl_coef=self.kl_coef,
            vf_coef=value_recipe.vf_coef if value_recipe else 0.0,
            policy_trains=not self._value_warms_up,
        )
        loss = loss * self.args.world_size
        return (loss, {"logp": flat_logp, "values": flat_values}) if return_outputs else loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the Trainer's optimizer; the value's parameters get groups with their own learning rate."""
        fresh = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if fresh:
            names = self.roles.value_parameters()
            value_ids = {id(p) for name, p in self.roles.named_parameters() if name in names}
            rate = (self.recipe.value and self.recipe.value.value_learning_rate) or self.args.learning_rate
            groups = []
            for group in optimizer.param_groups:
                policy = [p for p in group["params"] if id(p) not in value_ids]
                value = [p for p in group["params"] if id(p) in value_ids]
                groups += [{**group, "params": policy}, {**group, "params": value, "lr": rate}]
            optimizer.param_groups[:] = [group for group in groups if group["params"]]
        return optimizer

    # Logs

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the update's numbers to the Trainer's log of its last step."""
        if "loss" in logs and self.metrics:
            logs |= self.statistics.timed(self.metrics)
            logs |= self.statistics.means(self.accelerator.gather, self.args.device)
            if self.recipe.target_kl is not None:
                self.statistics.leave_out_skipped(logs, self.steps_per_update)
            logs["episode"] = (self.stream.update + 1) * self.recipe.rollout_batch_size
        logs.pop("train_loss", None)  # a mean over the losses of different rollouts has no meaning
        super().log(logs, start_time)

    def results(self) -> dict[str, float]:
        """Return the last update's numbers and the score before any update, for the manifest."""
        logs = [entry for entry in self.state.log_history if "score" in entry]
        kept = ("score", "kl", "entropy", "answer_tokens", "fraction_stopped", "distinct_answers", "episode")
        if not logs:
            return {}
        return {"first_score": logs[0]["score"], **{key: logs[-1][key] for key in kept if key in logs[-1]}}
