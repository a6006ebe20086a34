"""PPO as a transformers Trainer: sample, score, estimate advantages, learn.

The file follows one update from top to bottom. `collect` samples `rollout_batch_size` answers with the current policy
and turns them into experience. `compute_loss` learns from it in `num_epochs` passes of `num_mini_batches` optimizer
steps, each step on `gradient_accumulation_steps` microbatches. The recipe's `UpdateRule` holds the settings of the
stage, PPO's or GRPO's: which advantage estimator, which loss. The Trainer does accumulation, precision, checkpoints,
callbacks and tracking.

With several processes, each samples its share of the answers and runs the roles on the microbatches that it will train
on. The results, token ids and a few numbers per token, are gathered. From there on every process holds the whole
rollout and computes the same, so no number depends on how many processes there are.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.utils import gather_object
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
from alignment.rollout.engine import Completion, Engine, Sampling
from alignment.run.directory import RunDirectory
from alignment.train.policy_gradient.canary import canary_for
from alignment.train.policy_gradient.checkpoint import CheckpointedTrainer, PromptEpochs, SampleRows
from alignment.train.policy_gradient.dynamic_sampling import Part, groups_that_differ, join_parts
from alignment.train.policy_gradient.engines import build_engine
from alignment.train.policy_gradient.estimators import estimate_advantages
from alignment.train.policy_gradient.experience import (
    Experience,
    ExperienceStream,
    RoleOutputs,
    Rollout,
    Rows,
    generator,
    minibatch_schedule,
    pack,
    prompt_rows,
    unflatten,
)
from alignment.train.policy_gradient.monitoring import Monitor, preserve_random_state
from alignment.train.policy_gradient.objective import Counts, minibatch_share, token_losses
from alignment.train.policy_gradient.rewards import ScoreShaping
from alignment.train.policy_gradient.scoring import Scored, Scorer, Scoring
from alignment.train.policy_gradient.sharding import sample_through, with_whole_weights
from alignment.train.policy_gradient.statistics import UpdateStatistics, rollout_metrics, sample_rows
from alignment.train.sharding import is_sharded, require_what_was_asked


class PPOTrainer(CheckpointedTrainer):
    """Trains the policy of `roles`, and its value where there is one.

    Args:
        roles: policy, reference, the value if the estimator uses one, and the reward roles of `scorer`.
        args: built with `UpdateShape.forced_arguments`.
        recipe: the hyperparameters.
        template: renders prompts as token ids.
        prompts: the prompts to answer; which are used when depends on seed and update alone.
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
        if is_sharded(self.accelerator) and self.recipe.ds3_gather_for_generation:
            experience = with_whole_weights(self.model_wrapped, self.accelerator, lambda: self.collect(update))
        else:
            if is_sharded(self.accelerator):
                sample_through(self.model_wrapped, self.roles.policy_lm, self.engine)
                self.sharded_roles = self.model_wrapped
            experience = self.collect(update)
        if self.run is not None and self._are_samples_due(update):
            self.run.samples(self.samples, self.state.global_step)
        return experience

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

    def sample_groups(self, update: int) -> tuple[Rollout, Scored, dict[str, float]]:
        """Sample further groups of answers in place of those with equal rewards, which have no gradient.

        Dynamic sampling, eq. 11 of https://arxiv.org/abs/2503.14476. After `dynamic_sampling_max_rounds` rollouts, the
        first ones with equal rewards fill the places that are left.
        """
        wanted, size = self.recipe.rollout_batch_size, self.recipe.num_generations
        kept: list[Part] = []
        equal: list[Part] = []
        missing = wanted
        for sampling_round in range(self.recipe.dynamic_sampling_max_rounds):
            rollout = self.sample(update, sampling_round)
            scored = self.score(rollout)
            rewards = self.shaping.of(scored.normalized, rollout.stopped)
            trains = rollout.stopped if self.recipe.mask_truncated_completions else torch.ones_like(rollout.stopped)
            differ = groups_that_differ(rewards, trains, size)
            rest = sorted({*range(wanted)} - {*differ})
            kept.append((rollout, scored, differ[:missing]))
            missing -= len(differ[:missing])
            equal.append((rollout, scored, rest))
            if not missing:
                break
        counts = {"frac_reward_zero_std": len(equal[0][2]) / wanted, "rollouts_sampled": float(len(kept))}
        for rollout, scored, rows in equal:
            kept.append((rollout, scored, rows[:missing]))
            missing -= len(rows[:missing])
        joined, scored = join_parts(kept)
        self._deal(joined, update)
        return joined, scored, counts

    def sample(self, update: int, sampling_round: int = 0) -> Rollout:
        """Sample the answers of an update, each process its share.

        Args:
            sampling_round: 0, or the number of rollouts that were sampled for this update before.
        """
        start = time.perf_counter()
        recipe, share = self.recipe, self.recipe.rollout_batch_size // self.args.world_size
        again = [sampling_round] if sampling_round else []
        own = slice(self.args.process_index * share, (self.args.process_index + 1) * share)
        prompts = recipe.rollout_batch_size // recipe.num_generations
        rows = prompt_rows(
            len(self.prompts), seed=recipe.seed, first=update * prompts, length=prompts, order=sampling_round
        )
        groups = rows if recipe.num_generations == 1 else list(range(prompts))
        rows, groups = ([each for each in part for _ in range(recipe.num_generations)] for part in (rows, groups))
        sampling = Sampling(
            max_new_tokens=recipe.max_new_tokens,
            temperature=recipe.temperature,
            top_p=recipe.top_p,
            top_k=recipe.top_k,
            stop_token_ids=self.template.stop_token_ids,
            seed=int(generator(recipe.seed, "sampling", update, *again).integers(2**63)),
            first_row=own.start,
        )
        prompt_ids = [self.prompt_ids[i] for i in rows]
        completions = gather_object(self.generate(prompt_ids[own], sampling))
        rollout = Rollout(
            prompts=[self.prompts[i] for i in rows],
            prompt_ids=prompt_ids,
            groups=groups,
            completions=completions,
            own=own,
        )
        self._deal(rollout, update)
        rollout.seconds = time.perf_counter() - start
        return rollout

    def _deal(self, rollout: Rollout, update: int) -> None:
        """Set this process's microbatches of the first epoch."""
        microbatches = self.schedule(update, rollout.lengths)
        rollout.microbatches = microbatches[: len(microbatches) // self.rule.num_epochs]

    def generate(self, prompt_ids: list[list[int]], sampling: Sampling) -> list[Completion]:
        """Sample an answer to each prompt with the policy."""
        with self.accelerator.autocast():  # the Trainer's own context is empty: Accelerate casts `forward` alone
            with self.roles.sampling() if self.sharded_roles is None else contextlib.nullcontext():
                return self.engine.generate(prompt_ids, sampling)

    def schedule(self, update: int, lengths: list[int]) -> list[Rows]:
        """Return this process's microbatches of an update; lengths: of prompt and answer together."""
        return minibatch_schedule(
            lengths,
            seed=self.recipe.seed,
            update=update,
            num_epochs=self.rule.num_epochs,
            num_mini_batches=self.recipe.num_mini_batches,
            microbatch_size=self.args.per_device_train_batch_size,
            rank=self.args.process_index,
            world_size=self.args.world_size,
        )

    def compute_role_outputs(self, rollout: Rollout) -> RoleOutputs:
        """Compute log-probabilities, entropy and values before the update.

        What the update does not need is not computed: the policy's log-probabilities where one optimizer step follows
        the rollout, since that step's forward pass has the same ones; the reference's without a KL.

        The microbatches and the autocast context are those of the first training epoch: equal shapes round equally, so
        the first probability ratio is exactly 1.
        """
        temperature, answers, mask = self.recipe.temperature, rollout.answer_ids, rollout.mask
        device = next(self.roles.parameters()).device
        outputs = RoleOutputs.zeros(
            *mask.shape,
            has_logp=self._needs_old_logp or rollout.engine_logp is not None,
            has_reference=self.rule.needs_reference,
            has_value=self.roles.has_value,
            has_last_values=self._bootstraps,
        )
        for rows in rollout.microbatches:
            packed = pack([rollout.prompt_ids[i] for i in rows], [answers[i] for i in rows], self.pad_token_id)
            inputs = [part.to(device) for part in packed]
            with self.accelerator.autocast():
                per_token: list[tuple[Tensor | None, Tensor]] = []
                if outputs.logp is not None:
                    found = self.run_roles(*inputs, temperature=temperature, with_entropy=True)
                    per_token += zip((outputs.logp, outputs.entropy, outputs.values), found, strict=True)
                if outputs.ref_logp is not None:
                    ref_logp = self.run_roles(*inputs, temperature=temperature, call="reference_logp")
                    per_token.append((outputs.ref_logp, ref_logp))
                if outputs.last_values is not None:
                    outputs.last_values[rows] = self.run_roles(*inputs, call="last_values").float().cpu()
            for tensor, flat in per_token:
                if tensor is not None:
                    tensor[rows] = unflatten(flat.float().cpu(), mask[rows])
        self._exchange(rollout, outputs.tensors)
        return outputs

    def _exchange(self, rollout: Rollout, tensors: list[Tensor]) -> None:
        """Fill in the rows of tensors, (answers, ...), that other processes computed."""
        own_rows = [row for rows in rollout.microbatches for row in rows]
        for their_rows, parts in gather_object([(own_rows, [tensor[own_rows] for tensor in tensors])]):
            for tensor, part in zip(tensors, parts, strict=True):
                tensor[their_rows] = part

    @property
    def _needs_old_logp(self) -> bool:
        return self.rule.needs_old_logp(steps=self.steps_per_update, has_value=self.roles.has_value)

    @property
    def _bootstraps(self) -> bool:
        return self.recipe.value is not None and self.recipe.value.bootstrap_truncated

    def run_roles(self, *inputs: Any, **options: Any) -> Any:
        """Call `Roles.forward`, through the wrapped roles if their weights stay sharded."""
        return (self.sharded_roles or self.roles.forward)(*inputs, **options)

    def score(self, rollout: Rollout) -> Scored:
        """Score a rollout by the reward roles and the scorers outside the base."""
        answers, device = rollout.answer_ids, next(self.roles.parameters()).device
        by_role = {role: torch.zeros(len(answers)) for role in self.scoring.roles}
        for rows in rollout.microbatches if by_role else []:
            packed = pack([rollout.prompt_ids[i] for i in rows], [answers[i] for i in rows], self.pad_token_id)
            inputs = [part.to(device) for part in packed]
            for role, scores in by_role.items():
                with self.accelerator.autocast():
                    scores[rows] = self.run_roles(*inputs, role, call="scores").float().cpu()
        if by_role:
            self._exchange(rollout, list(by_role.values()))
        return self.scoring.combine(by_role, self.scores_outside(self.scoring, rollout))

    def scores_outside(self, scoring: Scoring, rollout: Rollout) -> Tensor:
        """Return the scores of the scorers outside the base, (scorers, answers); each process scores its own."""
        if not scoring.outside:
            return torch.zeros(0, len(rollout.completions))
        prompts, completions = rollout.prompts[rollout.own], rollout.completions[rollout.own]
        prompt_ids = rollout.prompt_ids[rollout.own]
        texts = [self.template.answer_text(ids, c.words) for ids, c in zip(prompt_ids, completions, strict=True)]
        self.recorder = self.recorder or Recorder(self.template)
        tokens = self.recorder.records(prompts, prompt_ids, completions)
        scores = scoring.score_outside(prompts, texts, stopped=[c.stopped for c in completions], tokens=tokens)
        return torch.tensor(gather_object(list(zip(*scores, strict=True))), dtype=torch.float32).T

    def make_experience(self, rollout: Rollout, outputs: RoleOutputs, rewards: Tensor) -> Experience:
        """Compute rewards per token, advantages and returns of the whole rollout; rewards: (answers,)."""
        recipe, rule, mask = self.recipe, self.rule, rollout.mask
        kl, kl_coef = torch.zeros(mask.shape), 0.0
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
            inputs["input_ids"], inputs["answer_mask"], temperature=temperature, with_entropy=with_entropy
        )
        logp = unflatten(flat_logp, mask)
        values = None if flat_values is None else unflatten(flat_values, mask)
        losses = token_losses(
            logp, values, inputs, self.rule, cliprange_value=value_recipe.cliprange_value if value_recipe else 0.0
        )
        self.statistics.add(losses, loss_mask)
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
