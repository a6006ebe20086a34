"""Collecting experience: sample, score, penalise KL, estimate advantages."""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from alignment.config.schema import PPORecipe
from alignment.data.rows import Prompt
from alignment.data.template import Template
from alignment.ops.advantages import advantages_and_returns
from alignment.ops.kl import adapted_kl_coef, kl_estimate
from alignment.ops.masking import masked_mean, masked_sum, masked_var, whiten
from alignment.ops.rewards import explained_variance, token_rewards
from alignment.policy.roles import Roles
from alignment.rollout.engine import Completion, Engine, Sampling
from alignment.train.experience import Experience, Rows, generator, pack, prompt_rows, unflatten
from alignment.train.scoring import Scorer, Scoring


@dataclass(slots=True)
class RunningMoments:
    """Mean and standard deviation of everything seen, Chan et al.'s parallel update."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations

    def update(self, values: Tensor) -> None:
        """Take in a batch."""
        batch = values.double()
        n, mean = float(batch.numel()), float(batch.mean())
        squares = float(((batch - mean) ** 2).sum())
        total = self.count + n
        self.squares += squares + (mean - self.mean) ** 2 * self.count * n / total
        self.mean += (mean - self.mean) * n / total
        self.count = total

    @property
    def std(self) -> float:
        """Standard deviation, n-1 in the denominator; 1 where there is none to speak of."""
        std = (self.squares / (self.count - 1)) ** 0.5 if self.count > 1 else 0.0
        return std if std > 1e-6 else 1.0


@dataclass(slots=True)
class Rollout:
    """One collection on its way from prompts to experience: all of its answers, on every process."""

    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    completions: list[Completion]
    own: slice  # the answers that this process sampled
    microbatches: list[Rows]  # its own, of the first epoch
    mask: Tensor
    explained_variance: float = 0.0

    @property
    def answer_ids(self) -> list[list[int]]:
        """Sampled tokens, the stop token included."""
        return [completion.ids for completion in self.completions]


@dataclass(slots=True)
class RoleNumbers:
    """What the roles say of a rollout, on the CPU. Per-token tensors are (answers, time), zero where masked."""

    scores: Tensor  # (answers,)
    logp: Tensor
    entropy: Tensor
    values: Tensor
    ref_logp: Tensor
    parts: dict[str, Tensor] = field(
        default_factory=dict, kw_only=True
    )  # of the scores, by the scorer's name, (answers,)


class Collector:
    """Makes the experience of each update.

    Each process samples its share of the answers and asks the roles about the microbatches that it will train on. What
    they find is token ids and a few numbers per token, so all of it is gathered: from then on every process holds the
    whole rollout and computes the same from it, and no number depends on how many processes there are.

    Args:
        roles: policy, reference, value and the reward roles that `scorer` asks; without one, the reward role.
        engine: samples with the policy.
        prompts: all of them; which are used when is a function of seed and update.
        plan_of: update number and lengths of prompt and answer → microbatches; the first epoch's are used for the
            old log-probabilities, so that the first ratio is exactly one.
        gather: a list of this process → the lists of all processes joined in rank order.
        autocast: the context that training runs in; the old log-probabilities must be made in the same.
    """

    def __init__(
        self,
        roles: Roles,
        engine: Engine,
        prompts: list[Prompt],
        template: Template,
        recipe: PPORecipe,
        *,
        plan_of: Callable[[int, list[int]], list[Rows]],
        gather: Callable[[list[Any]], list[Any]],
        autocast: Callable[[], AbstractContextManager[Any]],
        scorer: Scoring | Scorer | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.roles, self.engine, self.scoring = roles, engine, Scoring.of(scorer)
        self.prompts, self.template, self.recipe = prompts, template, recipe
        self.prompt_ids = [template.prompt_ids(prompt) for prompt in prompts]
        self.plan_of, self.gather, self.autocast = plan_of, gather, autocast
        self.rank, self.share = rank, recipe.rollout_batch_size // world_size
        self.through: nn.Module | None = None  # what wraps the roles, where only it can put their shards together
        self.kl_coef = recipe.kl_coef
        self.score_moments = RunningMoments()
        self.last: dict[str, float] = {}  # numbers of the latest rollout, whole batch
        self.samples: list[dict[str, Any]] = []  # its first rows as text
        self.pad_token_id: int = template.tokenizer.pad_token_id

    @torch.no_grad()
    def collect(self, update: int) -> Experience:
        """Sample an update's answers together with the other processes and make experience of them."""
        start = time.perf_counter()
        self.roles.eval()
        self._adapt_kl_coef()
        rollout = self._sample(update)
        sampled = time.perf_counter()
        said = self._ask_roles(rollout)
        experience = self._experience(rollout, said)
        self._measure(rollout, said, experience)
        self.last |= {"seconds_sample": sampled - start, "seconds_score": time.perf_counter() - sampled}
        return experience

    def _adapt_kl_coef(self) -> None:
        """Set this update's coefficient by the KL of the last; until then the loss, too, goes by the last one's."""
        recipe = self.recipe
        if recipe.adaptive_kl_target is not None and self.last:
            self.kl_coef = adapted_kl_coef(
                self.kl_coef,
                self.last["kl"],
                target=recipe.adaptive_kl_target,
                horizon=recipe.adaptive_kl_horizon,
                answers=recipe.rollout_batch_size,
            )

    def _sample(self, update: int) -> Rollout:
        recipe = self.recipe
        first = update * recipe.rollout_batch_size
        rows = prompt_rows(len(self.prompts), seed=recipe.seed, first=first, length=recipe.rollout_batch_size)
        own = slice(self.rank * self.share, (self.rank + 1) * self.share)
        sampling = Sampling(
            max_new_tokens=recipe.max_new_tokens,
            temperature=recipe.temperature,
            top_p=recipe.top_p,
            top_k=recipe.top_k,
            stop_token_ids=self.template.stop_token_ids,
            seed=int(generator(recipe.seed, "sampling", update).integers(2**63)),
            first_row=own.start,
        )
        prompt_ids = [self.prompt_ids[i] for i in rows]
        with self.roles.sampling() if self.through is None else contextlib.nullcontext(), self.autocast():
            sampled = self.engine.generate(prompt_ids[own], sampling)
        completions = self.gather(sampled)
        lengths = [len(completion.ids) for completion in completions]
        microbatches = self.plan_of(update, [len(p) + n for p, n in zip(prompt_ids, lengths, strict=True)])
        mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(-1)
        first_epoch = microbatches[: len(microbatches) // recipe.num_ppo_epochs]
        return Rollout([self.prompts[i] for i in rows], prompt_ids, completions, own, first_epoch, mask)

    def _ask_roles(self, rollout: Rollout) -> RoleNumbers:
        """What every role says of the answers before the update, each process asking about its own microbatches.

        In the very microbatches that the first epoch trains on: the same shapes give the same rounding.
        """
        shape, device = rollout.mask.shape, next(self.roles.parameters()).device
        found = RoleNumbers(torch.zeros(shape[0]), *(torch.zeros(shape) for _ in range(4)))
        by_role = {role: torch.zeros(shape[0]) for role in self.scoring.roles}
        temperature, answers = self.recipe.temperature, rollout.answer_ids
        for rows in rollout.microbatches:
            packed = pack([rollout.prompt_ids[i] for i in rows], [answers[i] for i in rows], self.pad_token_id)
            input_ids, answer_mask = (part.to(device) for part in packed)
            with self.autocast():
                logp, entropy, values = self.ask(input_ids, answer_mask, temperature=temperature, with_entropy=True)
                ref_logp = self.ask(input_ids, answer_mask, temperature=temperature, call="reference_logp")
                for role, scores in by_role.items():
                    scores[rows] = self.ask(input_ids, answer_mask, role, call="scores").float().cpu()
            wholes = (found.logp, found.entropy, found.values, found.ref_logp)
            for whole, part in zip(wholes, (logp, entropy, values, ref_logp), strict=True):
                whole[rows] = unflatten(part.float().cpu(), rollout.mask[rows])
        self._exchange(found, by_role, [row for rows in rollout.microbatches for row in rows])
        scored = self.scoring.combine(by_role, self._ask_outside(rollout))
        found.scores, found.parts = scored.total, scored.parts
        return found

    def ask(self, *inputs: Any, **options: Any) -> Any:
        """Have the roles say something, by `Roles.forward`."""
        return (self.through or self.roles.forward)(*inputs, **options)

    def _ask_outside(self, rollout: Rollout) -> Tensor:
        """What the scorers that stand on no base say, (scorers, answers), each process asking about its own answers."""
        if not self.scoring.outside:
            return torch.zeros(0, len(rollout.completions))
        prompts, completions = rollout.prompts[rollout.own], rollout.completions[rollout.own]
        texts = [
            self.template.answer_text(prompt_ids, completion.ids)
            for prompt_ids, completion in zip(rollout.prompt_ids[rollout.own], completions, strict=True)
        ]
        told = self.scoring.ask(prompts, texts, stopped=[completion.stopped for completion in completions])
        return torch.tensor(self.gather(list(zip(*told, strict=True))), dtype=torch.float32).T

    def _exchange(self, found: RoleNumbers, by_role: dict[str, Tensor], rows: Rows) -> None:
        """Fill in what the other processes found of their rows."""
        wholes = [found.logp, found.entropy, found.values, found.ref_logp, *by_role.values()]
        for their_rows, parts in self.gather([(rows, [whole[rows] for whole in wholes])]):
            for whole, part in zip(wholes, parts, strict=True):
                whole[their_rows] = part

    def _experience(self, rollout: Rollout, said: RoleNumbers) -> Experience:
        recipe, mask, values = self.recipe, rollout.mask, said.values
        stopped = torch.tensor([completion.stopped for completion in rollout.completions])
        in_reward = recipe.kl_placement == "reward"
        kl = kl_estimate(said.logp, said.ref_logp, recipe.kl_estimator)
        penalty = self.kl_coef if in_reward else 0.0
        rewards = token_rewards(self._shaped(said.scores, stopped), kl, mask, kl_coef=penalty)
        advantages, returns = advantages_and_returns(
            rewards, values, mask, gamma=recipe.gamma, lam=recipe.lam, lam_value=recipe.lam_value
        )
        residual, of_returns = (masked_var(x, mask) for x in (returns - values, returns))
        rollout.explained_variance = explained_variance(residual, of_returns)
        if recipe.whiten_advantages:
            advantages = whiten(advantages, mask)
        return Experience(
            rollout.prompt_ids,
            rollout.answer_ids,
            mask,
            said.logp,
            values,
            advantages,
            returns,
            ref_logp=None if in_reward else said.ref_logp,
        )

    def _shaped(self, scores: Tensor, stopped: Tensor) -> Tensor:
        """Scores as rewards: normalised, clipped, lowered where the answer was cut off; in that order."""
        recipe = self.recipe
        self.score_moments.update(scores)
        if recipe.normalize_scores:
            scores = (scores - self.score_moments.mean) / self.score_moments.std
        if recipe.reward_clip is not None:
            scores = scores.clamp(-recipe.reward_clip, recipe.reward_clip)
        if recipe.missing_eos_penalty is not None:
            scores = torch.where(stopped, scores, scores - recipe.missing_eos_penalty)
        return scores

    def _measure(self, rollout: Rollout, said: RoleNumbers, made: Experience) -> None:
        """Keep the numbers to log and some answers as text. KL and returns are summed over an answer."""
        mask, answers = rollout.mask, rollout.answer_ids
        k1, k3 = (masked_sum(kl_estimate(said.logp, said.ref_logp, which), mask, dim=1) for which in ("k1", "k3"))
        lengths = mask.sum(1).float()
        stopped = torch.tensor([float(c.stopped) for c in rollout.completions])
        means = {
            "kl": k1.mean(),
            "kl_k3": k3.mean(),
            "entropy": masked_mean(said.entropy, mask),
            "value_mean": masked_mean(made.values, mask),
            "return_mean": masked_mean(made.returns, mask),
            "answer_tokens": lengths.mean(),
            "fraction_stopped": stopped.mean(),
            **{f"score_{name}": part.mean() for name, part in said.parts.items()},
        }
        self.last = {
            "score": float(said.scores.mean()),
            "score_std": float(said.scores.std(correction=0)),
            **{name: float(value) for name, value in means.items()},
            "explained_variance": rollout.explained_variance,
            "distinct_answers": len(set(map(tuple, answers))) / len(answers),
            "kl_coef": self.kl_coef,
            "tokens": float(lengths.sum()),
        }
        self.samples = [
            {
                "prompt": self.template.text(rollout.prompts[i]),
                "answer": self.template.answer_text(rollout.prompt_ids[i], answers[i]),
                "score": float(said.scores[i]),
                **{f"score_{name}": float(part[i]) for name, part in said.parts.items()},
                "kl": float(k1[i]),
                "stopped": rollout.completions[i].stopped,
            }
            for i in range(min(4, len(answers)))
        ]

    def state_dict(self) -> dict[str, Any]:
        """What an update hands to the next, beside the weights."""
        moments = self.score_moments
        return {
            "kl_coef": self.kl_coef,
            "score_moments": [moments.count, moments.mean, moments.squares],
            "last": self.last,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.kl_coef, self.last = state["kl_coef"], state["last"]
        self.score_moments = RunningMoments(*state["score_moments"])
