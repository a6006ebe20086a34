"""One step of each stage with its models, on tensors without data."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from trl.trainer.utils import add_fused_lm_head

from alignment.config.schema import PolicyGradientRecipe, Recipe
from alignment.config.tasks import CLASSIFIER
from alignment.ops.logprobs import token_logp
from alignment.planner.settings import Lengths
from alignment.policy.checkpointing import checkpoint_layers
from alignment.policy.roles import Roles
from alignment.rollout.encoded import answer_logits
from alignment.rollout.steps import has_encoder

Step = Callable[[Any, int], Tensor]  # model, sequences → loss


def prepare(model: Any, recipe: Recipe, *, checkpointing: bool) -> None:
    """Prepare a model as its trainer does before the first step."""
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    if recipe.STAGE.fused_outputs:
        add_fused_lm_head(inner, outputs=recipe.STAGE.fused_outputs)
    model.train()
    if not checkpointing:
        return
    if isinstance(inner, Roles):
        inner.activation_checkpointing_enable()
    else:
        checkpoint_layers(inner, {"use_reentrant": False})


def training_step(recipe: Recipe, lengths: Lengths) -> Step:
    """Return the forward pass of a stage's microbatch, as a function of the number of sequences."""
    time = lengths.whole
    if isinstance(recipe, PolicyGradientRecipe):

        def ppo(roles: Any, rows: int) -> Tensor:
            ids, mask = _ids(rows, time), torch.zeros(rows, time, dtype=torch.bool)
            logp, _, values = roles(ids, mask, temperature=recipe.temperature)
            loss: Tensor = logp.exp().sum()
            return loss if values is None else loss + (values * values).sum()

        return ppo
    if recipe.task == CLASSIFIER:

        def reward(model: Any, rows: int) -> Tensor:
            scores = model(input_ids=_ids(rows, time), attention_mask=_mask(rows, time), use_cache=False).logits
            loss: Tensor = nn.functional.softplus(scores.float()).sum()
            return loss

        return reward

    def language_model(model: Any, rows: int) -> Tensor:
        ids = _ids(rows, time)
        if has_encoder(model):
            return -token_logp(answer_logits(model, ids, _mask(rows, time), ids), ids, temperature=1.0).sum()
        options = {"fused_lm_head": True} if recipe.STAGE.fused_outputs else {}
        out = model(input_ids=ids, attention_mask=_mask(rows, time), labels=ids, use_cache=False, **options)
        loss: Tensor = -out.log_probs.sum() if recipe.STAGE.fused_outputs else out.loss
        return loss

    return language_model


def scoring_pass(recipe: PolicyGradientRecipe, lengths: Lengths) -> Step:
    """Return the forward pass of policy and value on sampled answers."""

    def score(roles: Any, rows: int) -> Tensor:
        ids, mask = _ids(rows, lengths.whole), torch.zeros(rows, lengths.whole, dtype=torch.bool)
        logp: Tensor = roles(ids, mask, temperature=recipe.temperature)[0]
        return logp

    return score


def prefill(model: Any, rows: int, time: int) -> Any:
    """Read prompts into a cache, as sampling does first."""
    return model(input_ids=_ids(rows, time), use_cache=True, logits_to_keep=1)


def encode(model: Any, rows: int, lengths: Lengths) -> Any:
    """Encode prompts, and read answers into the cache of the decoder, as an encoder-decoder model does in the end."""
    prompts, answers = _ids(rows, lengths.prompt), _ids(rows, lengths.answer)
    return model(input_ids=prompts, decoder_input_ids=answers, use_cache=True)


def _ids(rows: int, time: int) -> Tensor:
    return torch.zeros(rows, time, dtype=torch.long)


def _mask(rows: int, time: int) -> Tensor:
    return torch.ones(rows, time, dtype=torch.long)
