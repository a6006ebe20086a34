"""Decoding behind an encoder: the prompts are encoded once, and a step of the decoder attends to all of them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alignment.rollout.cache import with_room
from alignment.rollout.steps import innermost


def decoder_start(config: Any, generation: Mapping[str, Any]) -> int | None:
    """Return the first token that a decoder reads, as `generate` of transformers chooses it; None if there is none.

    Args:
        config: the model's. generation: its generation config.
    """
    named = (getattr(config, "decoder_start_token_id", None), generation.get("decoder_start_token_id"))
    ends = (generation.get("bos_token_id"), getattr(config, "bos_token_id", None))
    return next((token for token in (*named, *ends) if token is not None), None)


class EncodedInputs:
    """Keeps the encoder's states and the decoder's cache in step with the tokens that are drawn.

    Args:
        input_ids: (batch, time) of the prompts. mask: (batch, time) bool, False on padding; None: there is none.
        columns: how many tokens will come.
    """

    def __init__(self, model: nn.Module, input_ids: Tensor, mask: Tensor | None, columns: int) -> None:
        self.model, self.columns = model, columns
        self.mask = torch.ones_like(input_ids) if mask is None else mask.long()
        inner = innermost(model)
        encoder = inner.get_encoder()
        self.states = encoder(input_ids=input_ids, attention_mask=self.mask).last_hidden_state
        self.cache: Any = None
        self.begin = self.states.new_full((len(input_ids), 1), _start_of(inner), dtype=torch.long)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of the next token, (batch, vocabulary); `begin` is the first input."""
        output: Any = self.model(
            encoder_outputs=(self.states,),
            attention_mask=self.mask,
            decoder_input_ids=input_ids,
            past_key_values=self.cache,
            use_cache=True,
        )
        if self.cache is None:
            with_room(getattr(output.past_key_values, "self_attention_cache", None), self.columns)
        self.cache = output.past_key_values
        logits: Tensor = output.logits[:, -1]
        return logits

    def select(self, keep: Tensor) -> None:
        """Keep only these rows."""
        self.cache.batch_select_indices(keep)
        self.states, self.mask = self.states[keep], self.mask[keep]


def answer_logits(model: nn.Module, prompts: Tensor, mask: Tensor, answers: Tensor) -> Tensor:
    """Return the logits of each token of answers, (batch, answer time, vocabulary).

    Args:
        prompts, mask: (batch, time) of the encoder. answers: (batch, answer time), with any id behind their ends.
    """
    start = answers.new_full((len(answers), 1), _start_of(innermost(model)))
    inputs = torch.cat([start, answers[:, :-1]], dim=1)
    output: Any = model(input_ids=prompts, attention_mask=mask, decoder_input_ids=inputs, use_cache=False)
    logits: Tensor = output.logits
    return logits


def _start_of(model: Any) -> int:
    found = decoder_start(model.config, model.generation_config.to_dict())
    assert found is not None, "load_tokenizer refuses such a model"
    return found
