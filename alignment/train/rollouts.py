"""A rollout on its way from prompts to experience."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from alignment.data.rows import Prompt
from alignment.rollout.engine import Completion
from alignment.train.experience import Rows


@dataclass(slots=True)
class Rollout:
    """One collection on its way from prompts to experience: all of its answers, on every process."""

    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    completions: list[Completion]
    own: slice  # the answers that this process sampled
    microbatches: list[Rows]  # its own, of the first epoch
    mask: Tensor

    @property
    def stopped(self) -> Tensor:
        """Which answers ended by themselves, (answers,) bool."""
        return torch.tensor([completion.stopped for completion in self.completions])

    @property
    def engine_logp(self) -> Tensor | None:
        """Log-probabilities that the engine sampled with, (answers, time); None where it is the model itself."""
        logps = [completion.logp for completion in self.completions]
        if any(logp is None for logp in logps):
            return None
        found = torch.zeros(self.mask.shape)
        found[self.mask] = torch.tensor([number for logp in logps for number in logp or ()])
        return found

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
    normalized: Tensor = field(kw_only=True)  # the scores by the reward models' own scales, (answers,)
    last_values: Tensor = field(kw_only=True)  # after the last token, (answers,); zero where nobody needs them
    parts: dict[str, Tensor] = field(default_factory=dict, kw_only=True)  # of the scores, by name, (answers,)
