"""What PPO learns from: answers with their log-probabilities, values and advantages, as a stream of microbatches."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Rows = list[int]
PER_TOKEN = ("mask", "logp", "values", "advantages", "returns", "trains", "weights", "ref_logp")


@dataclass(slots=True)
class Experience:
    """One rollout, whole on every process. Per-token tensors are (answers, time), time the longest answer's tokens."""

    prompt_ids: list[list[int]]
    answer_ids: list[list[int]]
    mask: Tensor  # bool, True on an answer's tokens
    logp: Tensor  # of the policy that sampled, at the sampling temperature
    values: Tensor
    advantages: Tensor
    returns: Tensor
    trains: Tensor  # bool, True on the tokens of `mask` that the loss counts
    weights: Tensor | None = None  # of the policy's loss, where an engine of another precision sampled
    ref_logp: Tensor | None = None  # where the KL is part of the loss

    @property
    def lengths(self) -> list[int]:
        """Tokens of prompt and answer."""
        return [len(p) + len(a) for p, a in zip(self.prompt_ids, self.answer_ids, strict=True)]

    def microbatch(self, rows: Rows, pad_token_id: int) -> dict[str, Tensor]:
        """The tensors of some answers, trimmed to the longest among them."""
        prompts, answers = [self.prompt_ids[i] for i in rows], [self.answer_ids[i] for i in rows]
        input_ids, answer_mask = pack(prompts, answers, pad_token_id)
        longest = max(map(len, answers))
        index = torch.tensor(rows)
        held = {name: getattr(self, name) for name in PER_TOKEN if getattr(self, name) is not None}
        trimmed = {name: whole[index, :longest] for name, whole in held.items()}
        return {"input_ids": input_ids, "answer_mask": answer_mask, **trimmed}


def pack(prompts: list[list[int]], answers: list[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Prompt, answer, padding in one row each.

    Returns: input_ids (batch, time) int64, and answer_mask (batch, time) bool, made of lengths, never of ids: padding
        may be the same token as EOS.
    """
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    input_ids = torch.full((len(prompts), longest), pad_token_id)
    answer_mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        end = len(prompt) + len(answer)
        input_ids[row, :end] = torch.tensor(prompt + answer)
        answer_mask[row, len(prompt) : end] = True
    return input_ids, answer_mask


def unflatten(flat: Tensor, mask: Tensor) -> Tensor:
    """Tokens in the mask's order, (tokens,) → (batch, time), zero where masked; gradients pass."""
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)


def by_length(lengths: list[int], batch_size: int) -> list[Rows]:
    """Rows in batches of like length, longest first, so that little of a batch is padding."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def plan(
    lengths: list[int],
    *,
    seed: int,
    update: int,
    num_ppo_epochs: int,
    num_mini_batches: int,
    microbatch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> list[Rows]:
    """One process's microbatches of an update, in order: epochs of shuffled minibatches, each cut by length.

    Which answers make a minibatch is decided over the whole rollout, so every optimizer step sees the same answers
    however many processes there are. A minibatch's microbatches, longest answers first, are dealt out in turn: every
    process gets as many as the others, and those that run at one time are of like length. A function of its arguments
    alone, so a resumed run goes by the same plan.

    Args:
        lengths: tokens of prompt and answer, of the whole rollout.
    """
    microbatches: list[Rows] = []
    for epoch in range(num_ppo_epochs):
        order = generator(seed, "minibatches", update, epoch).permutation(len(lengths))
        for minibatch in np.array_split(order, num_mini_batches):
            rows = minibatch.tolist()
            for part in by_length([lengths[i] for i in rows], microbatch_size)[rank::world_size]:
                microbatches.append([rows[i] for i in part])
    return microbatches


def generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """Random numbers for one purpose at one place in the run; no state to save, none shared."""
    return np.random.default_rng(np.random.SeedSequence([seed, *purpose.encode(), *place]))


def prompt_rows(count: int, *, seed: int, first: int, length: int) -> Rows:
    """Places `first` to `first + length` of the endless prompt order: all `count` prompts shuffled, again and again."""
    orders: dict[int, Any] = {}
    rows: Rows = []
    for place in range(first, first + length):
        lap, position = divmod(place, count)
        if lap not in orders:
            orders[lap] = generator(seed, "prompts", lap).permutation(count)
        rows.append(int(orders[lap][position]))
    return rows


class ExperienceStream:
    """Microbatches without end: collect a rollout with the policy as it is now, hand out its plan, collect anew.

    Nothing may look ahead in it (Accelerate's loaders take one batch in advance): a rollout is collected at the moment
    its first microbatch is asked for, so it must be asked for after the step before it.

    Args:
        collect: update number → the rollout's experience. It is given the plan of the first epoch through `plan_of`.
        plan_of: update number and lengths of prompt and answer → this process's microbatches in order.
        pad_token_id: any id; padding is masked by length.
    """

    def __init__(
        self,
        collect: Callable[[int], Experience],
        plan_of: Callable[[int, list[int]], list[Rows]],
        pad_token_id: int,
    ) -> None:
        self.collect = collect
        self.plan_of = plan_of
        self.pad_token_id = pad_token_id
        self.update = 0  # rollouts finished
        self.cursor = 0  # microbatches of the present rollout handed out
        self.experience: Experience | None = None

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            if self.experience is None:
                self.experience, self.cursor = self.collect(self.update), 0
            microbatches = self.plan_of(self.update, self.experience.lengths)
            while self.cursor < len(microbatches):
                rows = microbatches[self.cursor]
                self.cursor += 1
                yield self.experience.microbatch(rows, self.pad_token_id)
            self.experience = None
            self.update += 1

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, with the rollout in hand: what was sampled by an earlier policy cannot be made again."""
        held = None if self.experience is None else asdict(self.experience)
        return {"update": self.update, "cursor": self.cursor, "experience": held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.update, self.cursor = state["update"], state["cursor"]
        self.experience = None if state["experience"] is None else Experience(**state["experience"])
