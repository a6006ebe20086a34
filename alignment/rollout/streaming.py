"""Sampling of a few answers at once, a token at a time, to show them while they are written."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from alignment.errors import DataError
from alignment.rollout.batch import GrowingBatch
from alignment.rollout.engine import RowAdapters, Sampling
from alignment.rollout.sampling import uniforms
from alignment.rollout.steps import left_pad


@dataclass(frozen=True, slots=True)
class Row:
    """One answer to sample."""

    prompt_ids: list[int]
    stop_token_ids: Sequence[int]  # any of these ends it
    max_new_tokens: int
    place: int = 0  # in the noise of `Sampling.seed`: rows of one seed and place draw the same random numbers
    adapter: str | None = None  # its name among the adapters of the batch; None: the base


def stream(
    model: nn.Module,
    rows: Sequence[Row],
    sampling: Sampling,
    *,
    pad_token_id: int,
    adapters: RowAdapters | None = None,
) -> Iterator[list[int | None]]:
    """Yield the next token of each row, None for a row that has ended, until all have.

    A row's tokens are those that `TransformersEngine` samples with it at the same place of the same seed; of the other
    rows they depend by rounding alone. The last token of a row is a stop token, or the row has `max_new_tokens`.

    Args:
        sampling: temperature, top_p, top_k and seed; stop tokens and lengths are the rows'.
        adapters: they compute with the base again as the generator ends or is closed.

    Raises: DataError if a prompt has no tokens.
    """
    if not all(row.prompt_ids for row in rows):
        raise DataError("a prompt has no tokens; generation needs at least one, such as a BOS token")
    longest = max(row.max_new_tokens for row in rows)
    device = next(model.parameters()).device
    noise = np.stack([uniforms(sampling.seed, row.place, longest) for row in rows])
    live, counts = list(range(len(rows))), [0] * len(rows)
    with torch.no_grad():
        input_ids, mask = left_pad([row.prompt_ids for row in rows], pad_token_id, device)
        uniform = torch.from_numpy(noise).to(device)
        batch = GrowingBatch(
            model, input_ids, mask, Sampling(longest, sampling.temperature, sampling.top_p, sampling.top_k), uniform,
            ready_mask=False, with_logp=False,
        )  # fmt: skip
    try:
        if adapters is not None:
            adapters.assign([row.adapter for row in rows])
        while live:
            with torch.no_grad():
                batch.step()
                drawn, _ = batch.read()
            tokens: list[int | None] = [None] * len(rows)
            for place, number in enumerate(live):
                tokens[number] = drawn[place][-1]
                counts[number] += 1
            going_on = [
                place
                for place, number in enumerate(live)
                if tokens[number] not in rows[number].stop_token_ids and counts[number] < rows[number].max_new_tokens
            ]
            yield tokens
            if 0 < len(going_on) < len(live):
                with torch.no_grad():
                    batch.select(going_on)
                if adapters is not None:
                    adapters.select(going_on)
            live = [live[place] for place in going_on]
    finally:
        if adapters is not None:
            adapters.assign(None)
