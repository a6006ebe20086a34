"""The data of an update: a rollout, what the roles compute for it, and the experience that the update learns from."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignment.data.rows import Prompt
from alignment.rollout.engine import Completion
from alignment.train.policy_gradient.trunk_states import TrunkStates

Columns = Mapping[str, Any]  # of a row of the data: name → value
Rows = list[int]  # indices of a rollout's answers
PER_TOKEN = ("mask", "logp", "values", "advantages", "returns", "loss_mask", "weights", "ref_logp")
LOSS_MASK_IN_FILES = "trains"  # the name of `loss_mask` in checkpoints


@dataclass(slots=True)
class Rollout:
    """Prompts with their sampled answers: those of all processes, on every process."""

    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    groups: list[int]  # answers with the same number answer the same prompt
    completions: list[Completion]
    own: slice  # the answers that this process sampled
    columns: list[Columns] = field(
        default_factory=list
    )  # of the data, of each answer's prompt; []: no scorer reads any
    microbatches: list[Rows] = field(default_factory=list)  # this process's of the first epoch
    trunk: TrunkStates = field(default_factory=TrunkStates)  # of these microbatches, if the roles share a trunk
    seconds: float = 0.0  # that sampling took

    @property
    def mask(self) -> Tensor:
        """True on an answer's tokens, (answers, time) bool."""
        lengths = torch.tensor([len(completion.ids) for completion in self.completions])
        return torch.arange(int(lengths.max())) < lengths.unsqueeze(-1)

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each prompt and answer together."""
        return [len(p) + len(c.ids) for p, c in zip(self.prompt_ids, self.completions, strict=True)]

    @property
    def stopped(self) -> Tensor:
        """Whether each answer ended with a stop token, (answers,) bool."""
        return torch.tensor([completion.stopped for completion in self.completions])

    @property
    def engine_logp(self) -> Tensor | None:
        """The engine's log-probabilities of the tokens, (answers, time); None if the engine is the policy itself."""
        logps = [completion.logp for completion in self.completions]
        if any(logp is None for logp in logps):
            return None
        found = torch.zeros(self.mask.shape)
        found[self.mask] = torch.tensor([number for logp in logps for number in logp or ()])
        return found

    @property
    def answer_ids(self) -> list[list[int]]:
        """The sampled tokens, including the stop token."""
        return [completion.ids for completion in self.completions]


@dataclass(slots=True)
class RoleOutputs:
    """What the roles compute for a rollout before the update, on the CPU.

    Per-token tensors are (answers, time), zero where masked; the others are (answers,). What the update does not need
    is None.
    """

    logp: Tensor | None  # of the policy
    entropy: Tensor | None
    ref_logp: Tensor | None
    values: Tensor | None
    last_values: Tensor | None  # of the state after the last token

    @classmethod
    def zeros(
        cls,
        answers: int,
        time: int,
        *,
        has_logp: bool,
        has_reference: bool,
        has_value: bool,
        has_last_values: bool,
    ) -> "RoleOutputs":
        """Allocate the tensors."""

        def per_token(wanted: bool) -> Tensor | None:
            return torch.zeros(answers, time) if wanted else None

        return cls(
            logp=per_token(has_logp),
            entropy=per_token(has_logp),
            ref_logp=per_token(has_reference),
            values=per_token(has_value),
            last_values=torch.zeros(answers) if has_value and has_last_values else None,
        )

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in one order on every process."""
        found = (self.logp, self.entropy, self.ref_logp, self.values, self.last_values)
        return [tensor for tensor in found if tensor is not None]


@dataclass(slots=True)
class Experience:
    """One rollout with its advantages, complete on every process.

    Per-token tensors are (answers, time), where time is the number of tokens of the longest answer.
    """

    prompt_ids: list[list[int]]
    answer_ids: list[list[int]]
    mask: Tensor  # bool, True on an answer's tokens
    logp: Tensor | None  # of the policy that sampled, at the sampling temperature; None: that of the update's one step
    values: Tensor | None  # None without a value
    advantages: Tensor
    returns: Tensor | None  # targets of the value
    loss_mask: Tensor  # bool, True on the tokens of `mask` that the loss counts
    weights: Tensor | None = None  # of the policy's loss, if an engine of another precision sampled
    ref_logp: Tensor | None = None  # if the KL is part of the loss
    trunk: TrunkStates = field(default_factory=TrunkStates)  # not in checkpoints: a resumed run computes it anew

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each prompt and answer together."""
        return [len(p) + len(a) for p, a in zip(self.prompt_ids, self.answer_ids, strict=True)]

    def microbatch(self, place: int, rows: Rows, pad_token_id: int) -> dict[str, Tensor]:
        """Return the tensors of some answers, trimmed to the longest of them; place: the microbatch's in the update."""
        prompts, answers = [self.prompt_ids[i] for i in rows], [self.answer_ids[i] for i in rows]
        input_ids, answer_mask = pack(prompts, answers, pad_token_id)
        longest = max(map(len, answers))
        index = torch.tensor(rows)
        held = {name: getattr(self, name) for name in PER_TOKEN if getattr(self, name) is not None}
        trimmed = {name: tensor[index, :longest] for name, tensor in held.items()}
        states = self.trunk.of(place, rows)
        shared = {} if states is None else {"trunk": states}
        return {"input_ids": input_ids, "answer_mask": answer_mask, **trimmed, **shared}

    def state_dict(self) -> dict[str, Any]:
        """Return the fields as checkpoints store them."""
        state = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "trunk"}
        return {LOSS_MASK_IN_FILES if name == "loss_mask" else name: value for name, value in state.items()}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> "Experience":
        """Restore what `state_dict` returned."""
        return cls(**{"loss_mask" if name == LOSS_MASK_IN_FILES else name: value for name, value in state.items()})


def pack(prompts: list[list[int]], answers: list[list[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Put prompt, answer and padding into one row each.

    Returns: input_ids (batch, time) int64, and answer_mask (batch, time) bool. The mask follows from lengths, not from
        ids: the padding token may be the EOS token.
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
    """Turn tokens in the mask's order, (tokens,), into (batch, time), zero where masked; gradients pass through."""
    return torch.zeros(mask.shape, dtype=flat.dtype, device=flat.device).masked_scatter(mask, flat)


def by_length(lengths: list[int], batch_size: int) -> list[Rows]:
    """Split rows into batches of similar length, longest first, which minimises padding."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def minibatch_schedule(
    lengths: list[int],
    *,
    seed: int,
    update: int,
    num_epochs: int,
    num_mini_batches: int,
    microbatch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> list[Rows]:
    """Return one process's microbatches of an update, in order: epochs of shuffled minibatches, each split by length.

    Minibatches are drawn from the whole rollout, so every optimizer step sees the same answers for any number of
    processes. The microbatches of a minibatch, longest answers first, are dealt to the processes in turn: all get the
    same number, and those that run at the same time have similar lengths. The result depends on the arguments alone,
    so a resumed run follows the same schedule.

    Args:
        lengths: number of tokens of prompt and answer, of the whole rollout.
    """
    microbatches: list[Rows] = []
    for epoch in range(num_epochs):
        order = generator(seed, "minibatches", update, epoch).permutation(len(lengths))
        for minibatch in np.array_split(order, num_mini_batches):
            rows = minibatch.tolist()
            for part in by_length([lengths[i] for i in rows], microbatch_size)[rank::world_size]:
                microbatches.append([rows[i] for i in part])
    return microbatches


def generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """Return a random number generator for one purpose at one place in the run; it shares and saves no state."""
    return np.random.default_rng(np.random.SeedSequence([seed, *purpose.encode(), *place]))


def prompt_rows(count: int, *, seed: int, first: int, length: int, order: int = 0) -> Rows:
    """Return places `first` to `first + length` of an endless order: all `count` prompts, shuffled anew each time.

    Args:
        order: which of several such orders.
    """
    orders: dict[int, Any] = {}
    rows: Rows = []
    for place in range(first, first + length):
        lap, position = divmod(place, count)
        if lap not in orders:
            orders[lap] = generator(seed, "prompts", lap, *([order] if order else [])).permutation(count)
        rows.append(int(orders[lap][position]))
    return rows


class ExperienceStream:
    """Endless microbatches: collects a rollout with the current policy, yields its schedule, and collects the next one.

    The stream must not be read ahead, as Accelerate's loaders do by one batch: it collects a rollout when its first
    microbatch is requested, and the optimizer step before it must have been taken by then.

    Args:
        collect: update number → the rollout's experience.
        schedule_of: update number and lengths of prompt and answer → this process's microbatches in order.
        pad_token_id: any id; padding is masked by length.
    """

    def __init__(
        self,
        collect: Callable[[int], Experience],
        schedule_of: Callable[[int, list[int]], list[Rows]],
        pad_token_id: int,
    ) -> None:
        self.collect = collect
        self.schedule_of = schedule_of
        self.pad_token_id = pad_token_id
        self.update = 0  # rollouts finished
        self.cursor = 0  # microbatches of the current rollout that were yielded
        self.experience: Experience | None = None

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            if self.experience is None:
                self.experience, self.cursor = self.collect(self.update), 0
            microbatches = self.schedule_of(self.update, self.experience.lengths)
            while self.cursor < len(microbatches):
                place, self.cursor = self.cursor, self.cursor + 1
                yield self.experience.microbatch(place, microbatches[place], self.pad_token_id)
            self.experience = None
            self.update += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the position with the current rollout, which cannot be sampled again by a later policy."""
        held = None if self.experience is None else self.experience.state_dict()
        return {"update": self.update, "cursor": self.cursor, "experience": held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.update, self.cursor = state["update"], state["cursor"]
        self.experience = None if state["experience"] is None else Experience.of_state(state["experience"])
