"""The first half of an update: sample the answers, run the roles on them, score them.

With several processes, each samples its share of the answers and runs the roles on the microbatches that it will train
on. The results, token ids and a few numbers per token, are gathered: every process then holds the whole rollout.
"""

import contextlib
import functools
import time
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from alignment.config.schema import PolicyGradientRecipe
from alignment.config.update_rule import UpdateRule
from alignment.data.rows import Prompt
from alignment.data.sampled import Recorder
from alignment.data.template import Template
from alignment.meter import say_once
from alignment.rollout.engine import Completion, Engine, Sampling
from alignment.train.policy_gradient.checkpoint import CheckpointedTrainer
from alignment.train.policy_gradient.dynamic_sampling import Part, equal_groups, groups_that_differ, join_parts
from alignment.train.policy_gradient.experience import (
    Columns,
    Experience,
    RoleOutputs,
    Rollout,
    Rows,
    generator,
    minibatch_schedule,
    pack,
    prompt_rows,
    unflatten,
)
from alignment.train.policy_gradient.scoring import Scored, Scoring
from alignment.train.policy_gradient.trunk_states import TrunkStates


class RolloutTrainer(CheckpointedTrainer):
    """A Trainer that samples rollouts with the policy, runs the roles on them and scores them.

    A subclass sets the attributes below.
    """

    recipe: PolicyGradientRecipe
    rule: UpdateRule
    template: Template
    prompts: list[Prompt]
    prompt_ids: list[list[int]]  # of each prompt
    columns: Sequence[Columns]  # of each prompt's row, for the scorers that read them; (): none does
    pad_token_id: int
    engine: Engine
    scoring: Scoring
    recorder: Recorder | None
    sharded_roles: nn.Module | None  # the wrapped roles, if only they can gather the weights
    steps_per_update: int

    def sample_groups(self, update: int) -> tuple[Rollout, Scored, dict[str, float]]:
        """Sample further groups of answers in place of those without a gradient.

        Such a group has equal rewards, or truncated answers alone that `mask_truncated_completions` masks.

        Dynamic sampling, eq. 11 of https://arxiv.org/abs/2503.14476. After `dynamic_sampling_max_rounds` rollouts, the
        first ones of these fill the places that are left.

        Returns: the rollout, its scores, and numbers to log of all groups sampled.
        """
        wanted, size = self.recipe.rollout_batch_size, self.recipe.num_generations
        kept: list[Part] = []
        without: list[Part] = []
        same, trained = [], []  # of each rollout, (groups,) bool
        missing = wanted
        for sampling_round in range(self.recipe.dynamic_sampling_max_rounds):
            rollout = self.sample(update, sampling_round)
            scored = self.score(rollout)
            rollout.trunk = TrunkStates()  # the answers that stay are dealt anew
            rewards = self.shaping.of(scored.normalized, rollout.stopped)
            trains = rollout.stopped if self.recipe.mask_truncated_completions else torch.ones_like(rollout.stopped)
            differ = groups_that_differ(rewards, trains, size)
            rest = sorted({*range(wanted)} - {*differ})
            kept.append((rollout, scored, differ[:missing]))
            missing -= len(differ[:missing])
            without.append((rollout, scored, rest))
            same.append(equal_groups(rewards, size))
            trained.append(trains.view(-1, size).any(dim=1))
            if not missing:
                break
        counts = {
            "frac_reward_zero_std": float(torch.cat(same).float().mean()),
            "rollouts_sampled": float(len(kept)),
        }
        if self.recipe.mask_truncated_completions:
            counts["frac_groups_masked"] = float((~torch.cat(trained)).float().mean())
        for rollout, scored, rows in without:
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
            columns=[self.columns[i] for i in rows] if self.columns else [],
        )
        self._deal(rollout, update)
        rollout.seconds = time.perf_counter() - start
        return rollout

    def _deal(self, rollout: Rollout, update: int) -> None:
        rollout.microbatches = self.first_epoch(update, rollout.lengths)

    def first_epoch(self, update: int, lengths: list[int]) -> list[Rows]:
        """Return this process's microbatches of an update's first epoch; lengths: of prompt and answer together."""
        microbatches = self.schedule(update, lengths)
        return microbatches[: len(microbatches) // self.rule.num_epochs]

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
        temperature, mask = self.recipe.temperature, rollout.mask
        outputs = RoleOutputs.zeros(
            *mask.shape,
            has_logp=self._needs_old_logp or rollout.engine_logp is not None,
            has_reference=self.rule.needs_reference,
            has_value=self.roles.has_value,
            has_last_values=self._bootstraps,
        )
        for place, rows in enumerate(rollout.microbatches):
            with self.accelerator.autocast():
                inputs, given = self.inputs_of(rollout, place, rows)
                per_token: list[tuple[Tensor | None, Tensor]] = []
                if outputs.logp is not None:
                    found = self.run_roles(*inputs, **given, temperature=temperature, with_entropy=True)
                    per_token += zip((outputs.logp, outputs.entropy, outputs.values), found, strict=True)
                if outputs.ref_logp is not None:
                    ref_logp = self.run_roles(*inputs, **given, temperature=temperature, call="reference_logp")
                    per_token.append((outputs.ref_logp, ref_logp))
                if outputs.last_values is not None:
                    outputs.last_values[rows] = self.run_roles(*inputs, **given, call="last_values").float().cpu()
            for tensor, flat in per_token:
                if tensor is not None:
                    tensor[rows] = unflatten(flat.float().cpu(), mask[rows])
        self._exchange(rollout, outputs.tensors)
        return outputs

    @property
    def may_share_trunk(self) -> bool:
        """Whether there are layers below all adapters, and the recipe lets the roles share them."""
        return self.recipe.share_trunk and self.roles.trunk_below_adapters() is not None

    @functools.cached_property
    def shares_trunk(self) -> bool:
        """Whether the roles share layers below all adapters; see `alignment.policy.trunk`."""
        layers: int = self.run_roles(call="find_trunk")["layers"] if self.may_share_trunk else 0
        if layers:
            say_once(f"the lowest {layers} layers have no adapter; they run once per rollout, for all roles and epochs")
        return layers > 0

    def inputs_of(self, held: Rollout | Experience, place: int, rows: Rows) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return a microbatch's tokens and answer mask, and the shared trunk's states of it where there is a trunk.

        Args:
            held: keeps the states. place: of the microbatch in the first epoch. rows: indices of its answers.
        """
        packed = pack([held.prompt_ids[i] for i in rows], [held.answer_ids[i] for i in rows], self.pad_token_id)
        inputs = [part.to(next(self.roles.parameters()).device) for part in packed]
        if not self.shares_trunk:
            return inputs, {}
        if place == len(held.trunk):
            held.trunk.add(rows, self.run_roles(inputs[0], call="trunk_states"), held.lengths)
        states = held.trunk.of(place, rows)
        assert states is not None
        return inputs, {"trunk": states}

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
        by_role = {role: torch.zeros(len(rollout.completions)) for role in self.scoring.roles}
        for place, rows in enumerate(rollout.microbatches if by_role else []):
            with self.accelerator.autocast():
                inputs, given = self.inputs_of(rollout, place, rows)
                for role, scores in by_role.items():
                    scores[rows] = self.run_roles(*inputs, role, **given, call="scores").float().cpu()
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
        scores = scoring.score_outside(
            prompts,
            texts,
            stopped=[c.stopped for c in completions],
            tokens=tokens,
            columns=rollout.columns[rollout.own],
        )
        return torch.tensor(gather_object(list(zip(*scores, strict=True))), dtype=torch.float32).T
