"""Sampling with a transformers language model and its key-value cache.

A loop of our own in place of `model.generate`: the model's generation configuration cannot leak in, rows that ended
leave the batch at once, each row's random numbers are its own, and a step costs little more than the forward pass.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from alignment.errors import DataError
from alignment.rollout.batch import Batch, GrowingBatch
from alignment.rollout.context import context_of, prompt_room, virtual_tokens
from alignment.rollout.engine import Completion, RowAdapters, Sampling
from alignment.rollout.sampling import uniforms
from alignment.rollout.static_batch import StaticBatch, StaticDecoder
from alignment.rollout.steps import has_encoder, left_pad
from alignment.rollout.written import Written

LOOK_EVERY = 16  # steps between two looks at what a GPU has drawn


class TransformersEngine:
    """Samples with `model` as it is now: change its weights or adapters and the next call uses them.

    Args:
        model: A causal LM or an encoder-decoder model (or PEFT model around one) whose forward takes
            `past_key_values`.
        pad_token_id: Any valid id; padding is masked, so it never matters which.
        batch_size: Sequences sampled together.
        synced: Each pass of the model waits for the same pass on every process, so go on until all answers have ended
            everywhere.
        on_batch: Called with each batch's answers, for a progress bar.
        look_every: Steps between two looks at which answers have ended; None: 1 on a CPU, else `LOOK_EVERY`.
        adapters: The adapters that rows may have; None: all rows are the model's.
        decoder: Decode `model` with fixed shapes (`static_decoder`); None: the cache grows with the answers.
        keeps_memory: Keep the decoder's memory and graphs from one call to the next; the weights must stay where they
            are, and only their numbers may change.
        with_logp: Return the log-probabilities of the tokens, as an engine of other weights than the policy's does.
    """

    def __init__(
        self,
        model: nn.Module,
        pad_token_id: int,
        batch_size: int = 64,
        *,
        synced: bool = False,
        on_batch: Callable[[list[Completion]], None] = lambda _: None,
        look_every: int | None = None,
        adapters: RowAdapters | None = None,
        decoder: StaticDecoder | None = None,
        keeps_memory: bool = False,
        with_logp: bool = False,
    ) -> None:
        self.model = model
        self.synced = synced
        self.on_batch = on_batch
        self.look_every = look_every
        self.pad_token_id = pad_token_id
        self.batch_size = batch_size
        self.adapters = adapters
        self.decoder = decoder
        self.keeps_memory = keeps_memory
        self.with_logp = with_logp

    def generate(
        self, prompt_ids: list[list[int]], sampling: Sampling, names: Sequence[str | None] | None = None
    ) -> list[Completion]:
        """Sample one answer per prompt; does not use the global random state.

        Row i draws from random numbers made of `sampling.seed` and `first_row` + i: equal prompts in one call get
        different answers, and what a row gets does not hang on its neighbours.

        Args:
            names: Of `adapters`, one per prompt; None among them is the base. Left out: the model as it is.
        """
        self._check_lengths(prompt_ids, sampling)
        order = sorted(range(len(prompt_ids)), key=lambda i: (len(prompt_ids[i]), (names and names[i]) or ""))
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
                    if self.adapters is not None and names is not None:
                        self.adapters.assign([names[i] for i in rows])
                    written = self._sample([prompt_ids[i] for i in rows], sampling, noise)
                    for place, i in enumerate(rows):
                        ids = written.answers[place]
                        logp = written.logp[place] if self.with_logp else None
                        answers[i] = Completion(ids, bool(ids) and ids[-1] in sampling.stop_token_ids, logp)
                    self.on_batch([answers[i] for i in rows])
        finally:
            if self.decoder is not None and not self.keeps_memory:
                self.decoder.free()
            if self.adapters is not None and names is not None:
                self.adapters.assign(None)
            if training:
                self.model.train()
        return answers

    def _check_lengths(self, prompt_ids: list[list[int]], sampling: Sampling) -> None:
        context, taken = context_of(self.model), virtual_tokens(self.model)
        room = prompt_room(context, sampling.max_new_tokens, encoded=has_encoder(self.model))
        for i, ids in enumerate(prompt_ids):
            if not ids:
                raise DataError(f"prompt {i} has no tokens; generation needs at least one, such as a BOS token")
            if context is not None and room is not None and len(ids) > room:
                less = f" less its soft prompt of {taken}" if taken else ""
                shorter = f"Leave out prompts of more than {room} tokens, or lower" if room > 0 else "Lower"
                raise DataError(
                    f"prompt {i} has {len(ids)} tokens; with max_new_tokens {sampling.max_new_tokens} it does not fit "
                    f"the model's context of {context + taken}{less}. {shorter} max_new_tokens."
                )

    def _sample(self, prompts: list[list[int]], sampling: Sampling, noise: np.ndarray) -> Written:
        """Sample one batch. noise: (batch, max_new_tokens) float64.

        Which answers have ended is known here alone, not on the device: to look at its tokens waits for it, so on a GPU
        that is done every few steps. What an ended row has drawn since is dropped.
        """
        device = next(self.model.parameters()).device
        look_every = self.look_every or (1 if device.type == "cpu" else LOOK_EVERY)
        batch = self._batch(prompts, sampling, torch.from_numpy(noise).to(device), ready_mask=look_every > 1)
        written = Written(len(prompts), sampling.stop_token_ids)
        for step in range(1, sampling.max_new_tokens + 1):
            batch.step()
            if step % look_every and step < sampling.max_new_tokens:
                continue
            written.read(*batch.read())
            if not sampling.stop_token_ids:
                continue
            ended = not written.live
            if ended_everywhere(ended, device) if self.synced else ended:
                break
            if 0 < len(written.live) and batch.worth_dropping(len(written.rows), len(written.live)):
                places = written.compact()
                batch.select(places)
                if self.adapters is not None:
                    self.adapters.select(places)
        return written

    def _batch(self, prompts: list[list[int]], sampling: Sampling, uniform: Tensor, *, ready_mask: bool) -> Batch:
        pad = self._right_pad if has_encoder(self.model) else self._left_pad
        input_ids, mask = pad(prompts, uniform.device)
        keys = {"ready_mask": ready_mask, "with_logp": self.with_logp}
        if self.decoder is not None:
            return StaticBatch(self.decoder, input_ids, mask, sampling, uniform, **keys)
        return GrowingBatch(self.model, input_ids, mask, sampling, uniform, **keys)

    def _left_pad(self, prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
        return left_pad(prompts, self.pad_token_id, device)

    def _right_pad(self, prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Pad prompts as an encoder reads them, whose positions may be counted from the first column."""
        input_ids, mask = left_pad([ids[::-1] for ids in prompts], self.pad_token_id, device)
        return input_ids.flip(1), None if mask is None else mask.flip(1)


def ended_everywhere(ended: bool, device: torch.device) -> bool:
    """Whether all processes' answers have ended; every process must ask, at every step."""
    going_on = torch.tensor(0.0 if ended else 1.0, device=device)
    torch.distributed.all_reduce(going_on)
    return float(going_on) == 0.0
