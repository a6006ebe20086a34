"""Checks that an engine samples with the policy: compares its log-probabilities of a few answers with the policy's."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from alignment.config.engines import WHOLE_WEIGHTS
from alignment.config.schema import PolicyGradientRecipe
from alignment.errors import ModelError
from alignment.ops.agreement import Share, mean_difference, share_towards
from alignment.policy.roles import Roles
from alignment.rollout.engine import Completion, Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.train.policy_gradient.experience import generator, pack
from alignment.train.sharding import is_sharded

ANSWERS = 8  # of each process
TOKENS = 32  # of an answer at most
TOLERANCE = {"float32": 1e-3, "16 bit": 0.05}  # nats a token, mean absolute difference
SAME = 0.6  # share of the way to other weights above which the engine is judged to have those weights


@dataclass(frozen=True, slots=True)
class CanaryLogp:
    """Log-probabilities of the canary tokens of all processes, (tokens,) each."""

    engine: Tensor
    policy: Tensor
    base: Tensor
    earlier: Tensor | None  # of the policy one update before; None if it is not kept


class Canary:
    """Compares an engine that is not the trained module itself with the policy, and stops the run if they differ.

    A check samples a few answers to fixed prompts at the recipe's temperature without `top_p` and `top_k`, before the
    rollouts of updates 0 and 1 and of every `engine_check_updates`-th update. It detects an engine that

    - samples with the base (the adapter is not applied) or with the policy of one update before (it is stale), even
      if the difference is far below the rounding error of one token (`share_towards`);
    - applies the adapter twice;
    - differs by more than `engine_tolerance`: other weights, another prompt template or another temperature;
    - ends answers at other stop tokens.

    A new adapter computes the same function as the base, so the two are indistinguishable before the first update.

    Args:
        prompt_ids: of all prompts. generate: `PPOTrainer.generate`. run_roles: `PPOTrainer.run_roles`.
        gather: a list of this process → the joined lists of all processes.
        half: training or the engine computes in 16 bits, or the base is quantised.
        keeps_earlier: keep the policy's trained weights on the CPU for one update to detect a stale engine; not
            possible with sharded weights.
    """

    def __init__(
        self,
        recipe: PolicyGradientRecipe,
        roles: Roles,
        prompt_ids: list[list[int]],
        *,
        generate: Callable[[list[list[int]], Sampling], list[Completion]],
        run_roles: Callable[..., Any],
        gather: Callable[[list[Any]], list[Any]],
        stop_token_ids: list[int],
        pad_token_id: int,
        half: bool,
        keeps_earlier: bool,
        rank: int = 0,
    ) -> None:
        self.recipe, self.roles, self.generate, self.run_roles, self.gather = recipe, roles, generate, run_roles, gather
        self.stop_token_ids, self.pad_token_id, self.rank = stop_token_ids, pad_token_id, rank
        count = min(ANSWERS, len(prompt_ids))
        self.prompt_ids = [prompt_ids[place * len(prompt_ids) // count] for place in range(count)]
        self.precision = "16 bit" if half else "float32"
        self.tolerance = recipe.engine_tolerance or TOLERANCE[self.precision]
        self.keeps_earlier = keeps_earlier
        self.earlier: dict[str, Tensor] | None = None  # the policy's trained weights of the update before

    def is_due(self, update: int) -> bool:
        """Whether the engine is checked before the rollout of `update`."""
        every = self.recipe.engine_check_updates
        return every is not None and (update <= 1 or update % every == 0)

    def check(self, update: int) -> dict[str, float]:
        """Run the check if it is due, and return numbers to log.

        Raises: ModelError if the engine does not sample with the policy.
        """
        numbers = self._compare(update) if self.is_due(update) else {}
        self.earlier = self._weights() if self.keeps_earlier and self.is_due(update + 1) else None
        return numbers

    def _compare(self, update: int) -> dict[str, float]:
        sampling = Sampling(
            max_new_tokens=min(TOKENS, self.recipe.max_new_tokens),
            temperature=self.recipe.temperature,
            stop_token_ids=self.stop_token_ids,
            seed=int(generator(self.recipe.seed, "canary", update).integers(2**63)),
            first_row=self.rank * len(self.prompt_ids),
        )
        completions = self.generate(self.prompt_ids, sampling)
        self._require_stops(self.gather(completions), sampling)
        if any(completion.logp is None for completion in completions):
            self.keeps_earlier = False  # the engine is the model itself
            return {}
        logp = self._compute_logp(completions)
        found = self._finding(logp)
        if found is not None:
            raise ModelError(f"before update {update}, rollout_engine {self.recipe.rollout_engine} {found}")
        return {"engine_logp_difference": mean_difference(logp.engine, logp.policy)}

    def _require_stops(self, completions: list[Completion], sampling: Sampling) -> None:
        stops = set(sampling.stop_token_ids)
        for completion in completions:
            ids = completion.ids
            inside = [token for token in ids[:-1] if token in stops]
            short = len(ids) < sampling.max_new_tokens and (not ids or ids[-1] not in stops)
            if inside or short or completion.stopped != (bool(ids) and ids[-1] in stops):
                what = f"went on after the stop token {inside[0]}" if inside else f"ended after {len(ids)} tokens"
                raise ModelError(
                    f"rollout_engine {self.recipe.rollout_engine} does not stop where training does: an answer {what}, "
                    f"and answers end at {sorted(stops)} or after {sampling.max_new_tokens} tokens. Check the engine's "
                    "own stop tokens, or use rollout_engine: transformers"
                )

    def _compute_logp(self, completions: list[Completion]) -> CanaryLogp:
        packed = pack(self.prompt_ids, [completion.ids for completion in completions], self.pad_token_id)
        device = next(self.roles.parameters()).device
        input_ids, answer_mask = (part.to(device) for part in packed)
        options: dict[str, Any] = {"temperature": self.recipe.temperature}

        def policy() -> list[float]:
            numbers: list[float] = self.run_roles(input_ids, answer_mask, **options)[0].float().tolist()
            return numbers

        base = self.run_roles(input_ids, answer_mask, call="reference_logp", role="base", **options).float().tolist()
        parts = [[number for completion in completions for number in completion.logp or ()], policy(), base]
        if self.earlier is not None:
            with self._with(self.earlier):
                parts.append(policy())
        columns = [torch.tensor(column) for column in zip(*self.gather(list(zip(*parts, strict=True))), strict=True)]
        return CanaryLogp(columns[0], columns[1], columns[2], columns[3] if len(columns) > 3 else None)

    def _finding(self, logp: CanaryLogp) -> str | None:
        """Describe what is wrong; None if the engine samples with the policy."""
        difference = mean_difference(logp.engine, logp.policy)
        base = share_towards(logp.engine, logp.policy, logp.base)
        earlier = None if logp.earlier is None else share_towards(logp.engine, logp.policy, logp.earlier)
        stale = earlier is not None and earlier.above(SAME)
        to_policy = f"the policy's by {difference:.3g} nats a token (tolerance {self.tolerance:g} in {self.precision})"
        if base.above(SAME):  # a new adapter was the base's function in the update before
            why = "the adapter does not reach it" + (", or its weights are stale" if stale else "")
            return self._instead("the base's without the adapter", base, to_policy, why)
        if earlier is not None and stale:
            return self._instead("those of the update before", earlier, to_policy, "its weights are stale")
        if base.below(-SAME):
            return (
                f"samples with more than the policy: its log-probabilities are {-base.share:.2f} times the policy's "
                f"difference from the base beyond the policy, and differ from {to_policy}: the adapter is applied more "
                "than once. Use rollout_engine: transformers, and report this"
            )
        if not difference <= self.tolerance:
            return (
                f"does not sample with the policy: its log-probabilities of {len(logp.engine)} tokens differ from "
                f"{to_policy} and from the base's by {base.difference:.3g}. It has other weights, another prompt "
                "template, another temperature or a coarser precision; if the last is intended, raise engine_tolerance"
            )
        return None

    @staticmethod
    def _instead(what: str, matched: Share, to_policy: str, why: str) -> str:
        return (
            f"does not sample with the policy: its log-probabilities match {what} (they differ by "
            f"{matched.difference:.3g} nats a token) and differ from {to_policy}: {why}. Use rollout_engine: "
            "transformers, and report this"
        )

    # The policy of the update before

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        of_value = self.roles.value_parameters()
        named = self.roles.named_parameters()
        return {name: each for name, each in named if each.requires_grad and name not in of_value}

    def _weights(self) -> dict[str, Tensor]:
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in self._trained().items()}

    @contextlib.contextmanager
    def _with(self, weights: dict[str, Tensor]) -> Iterator[None]:
        """Give the policy other weights, and restore its own bit for bit at the end."""
        own = self._weights()
        try:
            self._put(weights)
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, parameter in self._trained().items():
            parameter.copy_(weights[name])


def canary_for(trainer: Any) -> Canary | None:
    """Build the check of a `PPOTrainer`'s engine; None if the engine is the trained module itself."""
    if isinstance(trainer.engine, TransformersEngine):
        return None
    recipe, roles, args = trainer.recipe, trainer.roles, trainer.args
    exact = roles.policy_lm.dtype == torch.float32 and not (args.bf16 or args.fp16)
    return Canary(
        recipe,
        roles,
        trainer.prompt_ids,
        generate=trainer.generate,
        run_roles=trainer.run_roles,
        gather=gather_object,
        stop_token_ids=list(trainer.template.stop_token_ids),
        pad_token_id=trainer.pad_token_id,
        half=not exact or bool(recipe.bits) or recipe.rollout_engine in WHOLE_WEIGHTS,
        keeps_earlier=not is_sharded(trainer.accelerator),
        rank=args.process_index,
    )
