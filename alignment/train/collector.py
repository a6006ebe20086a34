"""Collecting experience: sample, score, penalise KL, estimate advantages."""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from alignment.config.schema import PPORecipe
from alignment.data.rows import Prompt
from alignment.data.sampled import Recorder
from alignment.data.template import Template
from alignment.ops.kl import adapted_kl_coef
from alignment.policy.roles import Roles
from alignment.rollout.engine import Completion, Engine, Sampling
from alignment.train.canary import Canary
from alignment.train.estimates import make_experience
from alignment.train.experience import Experience, Rows, generator, pack, prompt_rows, unflatten
from alignment.train.measures import rollout_metrics, sample_rows
from alignment.train.rollouts import RoleNumbers, Rollout
from alignment.train.scoring import Scorer, Scoring
from alignment.train.shaping import ScoreShaping
from alignment.train.watching import Watch, untouched_randomness


class Collector:
    """Makes the experience of each update.

    Each process samples its share of the answers and asks the roles about the microbatches that it will train on. What
    they find is token ids and a few numbers per token, so all of it is gathered: from then on every process holds the
    whole rollout and computes the same from it, and no number depends on how many processes there are.

    Args:
        roles: policy, reference, value and the reward roles that `scorer` asks; without one, the reward role.
        engine: samples with the policy.
        prompts: all of them; which are used when is a function of seed and update.
        watch: scorers that are logged and nothing more.
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
        watch: Watch | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.roles, self.engine, self.scoring, self.watch = roles, engine, Scoring.of(scorer), watch
        self.prompts, self.template, self.recipe = prompts, template, recipe
        self.prompt_ids = [template.prompt_ids(prompt) for prompt in prompts]
        self.plan_of, self.gather, self.autocast = plan_of, gather, autocast
        self.rank, self.share = rank, recipe.rollout_batch_size // world_size
        self.through: nn.Module | None = None  # what wraps the roles, where only it can put their shards together
        self.kl_coef = recipe.kl_coef
        self.shaping = ScoreShaping(recipe)
        self.last: dict[str, float] = {}  # numbers of the latest rollout, whole batch
        self.samples: list[dict[str, Any]] = []  # its first rows as text
        self.pad_token_id: int = template.tokenizer.pad_token_id
        self.recorder: Recorder | None = None
        self.canary: Canary | None = None  # where the engine is not the trained module itself

    @torch.no_grad()
    def collect(self, update: int) -> Experience:
        """Sample an update's answers together with the other processes and make experience of them."""
        start = time.perf_counter()
        self.roles.eval()
        self._adapt_kl_coef()
        checked = self._check_engine(update)
        rollout = self._sample(update)
        sampled = time.perf_counter()
        said = self._ask_roles(rollout)
        rewards = self.shaping.shape(said.normalized, rollout.stopped)
        experience = make_experience(rollout, said, rewards, self.recipe, kl_coef=self.kl_coef)
        self.last = rollout_metrics(rollout, said, experience) | {"kl_coef": self.kl_coef} | checked
        self.samples = sample_rows(rollout, said, self.template)
        self.last |= {"seconds_sample": sampled - start, "seconds_score": time.perf_counter() - sampled}
        self._watch(update, rollout)
        return experience

    def _check_engine(self, update: int) -> dict[str, float]:
        if self.canary is None:
            return {}
        with self.autocast():
            return self.canary.check(update)

    def _watch(self, update: int, rollout: Rollout) -> None:
        """Log what the watching scorers say, after everything that trains has been made."""
        if self.watch is None or not self.watch.is_due(update):
            return
        start = time.perf_counter()
        with untouched_randomness():
            self.last |= self.watch.metrics(self._ask_outside(self.watch.scoring, rollout))
        self.last["seconds_watch"] = time.perf_counter() - start

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
        completions = self.gather(self.generate(prompt_ids[own], sampling))
        lengths = [len(completion.ids) for completion in completions]
        microbatches = self.plan_of(update, [len(p) + n for p, n in zip(prompt_ids, lengths, strict=True)])
        mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(-1)
        first_epoch = microbatches[: len(microbatches) // recipe.num_ppo_epochs]
        return Rollout([self.prompts[i] for i in rows], prompt_ids, completions, own, first_epoch, mask)

    def generate(self, prompt_ids: list[list[int]], sampling: Sampling) -> list[Completion]:
        """Have the engine answer as the policy."""
        with self.autocast(), self.roles.sampling() if self.through is None else contextlib.nullcontext():
            return self.engine.generate(prompt_ids, sampling)

    def _ask_roles(self, rollout: Rollout) -> RoleNumbers:
        """What every role says of the answers before the update, each process asking about its own microbatches.

        In the very microbatches that the first epoch trains on: the same shapes give the same rounding.
        """
        shape, device = rollout.mask.shape, next(self.roles.parameters()).device
        per_answer = [torch.zeros(shape[0]) for _ in range(3)]
        found = RoleNumbers(
            per_answer[0],
            *(torch.zeros(shape) for _ in range(4)),
            normalized=per_answer[1],
            last_values=per_answer[2],
        )
        by_role = {role: torch.zeros(shape[0]) for role in self.scoring.roles}
        temperature, answers = self.recipe.temperature, rollout.answer_ids
        for rows in rollout.microbatches:
            packed = pack([rollout.prompt_ids[i] for i in rows], [answers[i] for i in rows], self.pad_token_id)
            input_ids, answer_mask = (part.to(device) for part in packed)
            with self.autocast():
                logp, entropy, values = self.ask(input_ids, answer_mask, temperature=temperature, with_entropy=True)
                ref_logp = self.ask(input_ids, answer_mask, temperature=temperature, call="reference_logp")
                if self.recipe.bootstrap_truncated:  # always: sharded weights come together on all processes or none
                    found.last_values[rows] = self.ask(input_ids, answer_mask, call="last_values").float().cpu()
                for role, scores in by_role.items():
                    scores[rows] = self.ask(input_ids, answer_mask, role, call="scores").float().cpu()
            wholes = (found.logp, found.entropy, found.values, found.ref_logp)
            for whole, part in zip(wholes, (logp, entropy, values, ref_logp), strict=True):
                whole[rows] = unflatten(part.float().cpu(), rollout.mask[rows])
        self._exchange(found, by_role, [row for rows in rollout.microbatches for row in rows])
        scored = self.scoring.combine(by_role, self._ask_outside(self.scoring, rollout))
        found.scores, found.normalized, found.parts = scored.total, scored.normalized, scored.parts
        return found

    def ask(self, *inputs: Any, **options: Any) -> Any:
        """Have the roles say something, by `Roles.forward`."""
        return (self.through or self.roles.forward)(*inputs, **options)

    def _ask_outside(self, scoring: Scoring, rollout: Rollout) -> Tensor:
        """What the scorers that stand on no base say, (scorers, answers), each process asking about its own answers."""
        if not scoring.outside:
            return torch.zeros(0, len(rollout.completions))
        prompts, completions = rollout.prompts[rollout.own], rollout.completions[rollout.own]
        prompt_ids = rollout.prompt_ids[rollout.own]
        texts = [
            self.template.answer_text(ids, completion.words)
            for ids, completion in zip(prompt_ids, completions, strict=True)
        ]
        self.recorder = self.recorder or Recorder(self.template)
        tokens = self.recorder.records(prompts, prompt_ids, completions)
        told = scoring.ask(prompts, texts, stopped=[completion.stopped for completion in completions], tokens=tokens)
        return torch.tensor(self.gather(list(zip(*told, strict=True))), dtype=torch.float32).T

    def _exchange(self, found: RoleNumbers, by_role: dict[str, Tensor], rows: Rows) -> None:
        """Fill in what the other processes found of their rows."""
        wholes = [found.logp, found.entropy, found.values, found.ref_logp, found.last_values, *by_role.values()]
        for their_rows, parts in self.gather([(rows, [whole[rows] for whole in wholes])]):
            for whole, part in zip(wholes, parts, strict=True):
                whole[their_rows] = part

    def state_dict(self) -> dict[str, Any]:
        """What an update hands to the next, beside the weights."""
        return {"kl_coef": self.kl_coef, "score_moments": self.shaping.state(), "last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.kl_coef, self.last = state["kl_coef"], state["last"]
        self.shaping.load_state(state["score_moments"])
