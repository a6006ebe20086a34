"""Sampling with a transformers causal language model and its key-value cache.

A loop of our own in place of `model.generate`: the model's generation configuration cannot leak in, rows that ended
leave the batch at once, each row's random numbers are its own, and a step costs little more than the forward pass.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alignment.errors import DataError
from alignment.rollout.cache import with_room
from alignment.rollout.engine import Completion, Sampling
from alignment.rollout.sampling import draw, uniforms

COMPACT_BELOW = 0.75  # finished rows are dropped from the cache once the live share of its rows falls below this


class TransformersEngine:
    """Samples with `model` as it is now: change its weights or adapters and the next call uses them.

    Args:
        model: A decoder-only causal LM (or PEFT model around one) whose forward takes `past_key_values`.
        pad_token_id: Any valid id; padding is masked, so it never matters which.
        batch_size: Sequences sampled together.
        synced: Each pass of the model waits for the same pass on every process, so go on until all answers have ended
            everywhere.
        on_batch: Told of each batch's answers, for a progress bar.
    """

    def __init__(
        self,
        model: nn.Module,
        pad_token_id: int,
        batch_size: int = 64,
        *,
        synced: bool = False,
        on_batch: Callable[[list[Completion]], None] = lambda _: None,
    ) -> None:
        self.model = model
        self.synced = synced
        self.on_batch = on_batch
        self.pad_token_id = pad_token_id
        self.batch_size = batch_size

    def generate(self, prompt_ids: list[list[int]], sampling: Sampling) -> list[Completion]:
        """Sample one answer per prompt; neither reads nor moves any global random state.

        Row i draws from random numbers made of `sampling.seed` and `first_row` + i: equal prompts in one call get
        different answers, and what a row gets does not hang on its neighbours.
        """
        self._check_lengths(prompt_ids, sampling)
        order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]))
        answers: list[Completion] = [Completion([], False)] * len(prompt_ids)
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                for start in range(0, len(order), self.batch_size):
                    rows = order[start : start + self.batch_size]
                    noise = np.stack(
                        [uniforms(sampling.seed, sampling.first_row + i, sampling.max_new_tokens) for i in rows]
                    )
                    sampled = self._sample([prompt_ids[i] for i in rows], sampling, noise)
                    for i, ids in zip(rows, sampled, strict=True):
                        answers[i] = Completion(ids, bool(ids) and ids[-1] in sampling.stop_token_ids)
                    self.on_batch([answers[i] for i in rows])
        finally:
            if training:
                self.model.train()
        return answers

    def _check_lengths(self, prompt_ids: list[list[int]], sampling: Sampling) -> None:
        context = getattr(getattr(self.model, "config", None), "max_position_embeddings", None)
        for i, ids in enumerate(prompt_ids):
            if not ids:
                raise DataError(f"prompt {i} has no tokens; generation needs at least one, a BOS token say")
            if context is not None and len(ids) + sampling.max_new_tokens > context:
                raise DataError(
                    f"prompt {i} has {len(ids)} tokens; with max_new_tokens {sampling.max_new_tokens} it does not fit "
                    f"the model's context of {context}. Leave out prompts of more than "
                    f"{context - sampling.max_new_tokens} tokens, or lower max_new_tokens."
                )

    def _sample(self, prompts: list[list[int]], sampling: Sampling, noise: np.ndarray) -> list[list[int]]:
        """Sample one batch. noise: (batch, max_new_tokens) float64."""
        device = next(self.model.parameters()).device
        uniform = torch.from_numpy(noise).to(device)
        stops = torch.tensor(sorted(sampling.stop_token_ids), dtype=torch.long, device=device)
        input_ids, mask = self._left_pad(prompts, device)
        step_inputs = _StepInputs(self.model, mask)
        answers: list[list[int]] = [[] for _ in prompts]
        rows = torch.arange(len(prompts), device=device)  # prompt of each row still in the cache
        live = torch.ones(len(prompts), dtype=torch.bool, device=device)
        for step in range(sampling.max_new_tokens):
            logits = step_inputs.forward(input_ids)
            tokens = draw(logits, sampling, uniform[rows, step])
            for row, token, alive in zip(rows.tolist(), tokens.tolist(), live.tolist(), strict=True):
                if alive:
                    answers[row].append(token)
            if len(stops):
                live &= ~torch.isin(tokens, stops)
                remaining = int(live.sum())
                if ended_everywhere(remaining == 0, device) if self.synced else remaining == 0:
                    break
                if 0 < remaining < COMPACT_BELOW * len(rows):
                    keep = live.nonzero().squeeze(-1)
                    step_inputs.select(keep)
                    rows, tokens, live = rows[keep], tokens[keep], live[keep]
            input_ids = tokens.unsqueeze(-1)
        return answers

    def _left_pad(self, prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
        longest = max(map(len, prompts))
        ids = [[self.pad_token_id] * (longest - len(p)) + p for p in prompts]
        input_ids = torch.tensor(ids, device=device)
        if all(len(p) == longest for p in prompts):
            return input_ids, None  # without padding the model's causal mask is enough, and cheaper
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        return input_ids, torch.arange(longest, device=device) >= (longest - lengths).unsqueeze(-1)


def ended_everywhere(ended: bool, device: torch.device) -> bool:
    """Whether all processes' answers have ended; every process must ask, at every step."""
    going_on = torch.tensor(0.0 if ended else 1.0, device=device)
    torch.distributed.all_reduce(going_on)
    return float(going_on) == 0.0


class _StepInputs:
    """Keeps mask, positions and cache in step with the tokens given to the model."""

    def __init__(self, model: nn.Module, mask: Tensor | None) -> None:
        self.model = model
        self.mask = mask.long() if mask is not None else None
        self.cache: Any = None
        accepted = inspect.signature(_innermost(model).forward).parameters
        self.wants_positions = "position_ids" in accepted
        self.options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of the next token, (batch, vocabulary)."""
        inputs: dict[str, Any] = dict(self.options)
        if self.mask is not None:
            inputs["attention_mask"] = self.mask
            if self.wants_positions:
                positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
                inputs["position_ids"] = positions[:, -input_ids.shape[1] :]
        output = self.model(input_ids=input_ids, past_key_values=self.cache, use_cache=True, **inputs)
        self.cache = with_room(output.past_key_values) if self.cache is None else output.past_key_values
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=-1)
        logits: Tensor = output.logits[:, -1]
        return logits

    def select(self, keep: Tensor) -> None:
        """Keep only these rows."""
        self.cache.batch_select_indices(keep)
        if self.mask is not None:
            self.mask = self.mask[keep]


def _innermost(model: nn.Module) -> nn.Module:
    """The transformers model inside PEFT's wrapping, whose signature says what it accepts."""
    unwrap: Any = getattr(model, "get_base_model", None)
    inner: nn.Module = unwrap() if unwrap is not None else model
    return inner
