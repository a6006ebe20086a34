"""A batch of answers while it is sampled: one token for each row at a step."""

from typing import Protocol

import torch
from torch import Tensor, nn

from alignment.rollout.encoded import EncodedInputs
from alignment.rollout.engine import Sampling
from alignment.rollout.sampling import draw, draw_with_logp
from alignment.rollout.steps import StepInputs, has_encoder

Drawn = tuple[list[list[int]], list[list[float]] | None]  # tokens of each row, and their log-probabilities
COMPACT_BELOW = 0.75  # finished rows are dropped from the cache once the live share of its rows falls below this


def on_host(tokens: Tensor, logp: Tensor | None) -> Drawn:
    """Copy tokens and their log-probabilities, (rows, steps) each, from the device, and wait for it once."""
    if logp is None:
        return tokens.tolist(), None
    both = torch.stack((tokens.double(), logp.double())).tolist()
    return [[int(token) for token in row] for row in both[0]], both[1]


class Batch(Protocol):
    """Rows that are sampled together."""

    def step(self) -> None:
        """Draw the next token of each row."""
        ...

    def read(self) -> Drawn:
        """Return what the rows drew since the last time; this waits for the device."""
        ...

    def worth_dropping(self, rows: int, live: int) -> bool:
        """Whether fewer rows make a step cheaper."""
        ...

    def select(self, places: list[int]) -> None:
        """Keep only these rows."""
        ...


class GrowingBatch:
    """A batch whose cache grows by a column at each step.

    Args:
        input_ids: (rows, time) of the prompts.
        mask: (rows, time) bool, False on left padding; None: there is none.
        uniform: (rows, max_new_tokens) float64.
        ready_mask: see `StepInputs`. with_logp: keep the tokens' log-probabilities.
    """

    def __init__(
        self,
        model: nn.Module,
        input_ids: Tensor,
        mask: Tensor | None,
        sampling: Sampling,
        uniform: Tensor,
        *,
        ready_mask: bool,
        with_logp: bool,
    ) -> None:
        self.inputs: StepInputs | EncodedInputs
        if has_encoder(model):
            self.inputs = EncodedInputs(model, input_ids, mask, sampling.max_new_tokens)
            input_ids = self.inputs.begin
        else:
            self.inputs = StepInputs(model, mask, sampling.max_new_tokens, ready_mask=ready_mask)
        self.input_ids, self.sampling, self.uniform, self.with_logp = input_ids, sampling, uniform, with_logp
        self.steps = 0
        self.unread: list[Tensor] = []
        self.unread_logp: list[Tensor] = []

    def step(self) -> None:
        """Draw the next token of each row."""
        logits, uniform = self.inputs.forward(self.input_ids), self.uniform[:, self.steps]
        if self.with_logp:
            tokens, logp = draw_with_logp(logits, self.sampling, uniform)
            self.unread_logp.append(logp)
        else:
            tokens = draw(logits, self.sampling, uniform)
        self.unread.append(tokens)
        self.input_ids = tokens.unsqueeze(-1)
        self.steps += 1

    def read(self) -> Drawn:
        """Return what the rows drew since the last time."""
        tokens = torch.stack(self.unread, dim=-1)
        logp = torch.stack(self.unread_logp, dim=-1) if self.with_logp else None
        self.unread, self.unread_logp = [], []
        return on_host(tokens, logp)

    def worth_dropping(self, rows: int, live: int) -> bool:
        """Whether the live share of the rows is small."""
        return live < COMPACT_BELOW * rows

    def select(self, places: list[int]) -> None:
        """Keep only these rows."""
        keep = torch.tensor(places, device=self.input_ids.device)
        self.inputs.select(keep)
        self.input_ids, self.uniform = self.input_ids[keep], self.uniform[keep]
