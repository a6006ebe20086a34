"""From hidden states to the answers' log-probabilities: the output layer, and what a model does to its numbers."""

import itertools
import types
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from alignment.errors import ModelError
from alignment.ops.logits import HALVES, LogitRule, wide_linear
from alignment.ops.logprobs import chunked_token_logp, linear_token_logp
from alignment.policy.switch import Switch

LOGITS_AT_ONCE = 2**26  # tokens × vocabulary held at a time; 256 MiB in float32
LOGITS_IN_CACHE = 2**20  # the same on a CPU with a frozen head: 4 MiB
LARGE = 200.0  # largest number that the probe has the output layer give; models cap theirs at 15 to 50
SIZES = (1.0, 0.3, 0.1, 0.02)  # of the probe's states: some that a cap bends, some that it does not
TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 2e-2}  # of the largest logit, where the model rounds in between


def without_rounding(model: Any) -> None:
    """Have the output layer, where it is of half precision, give its sums in float32, as they are computed.

    An adapter's own matrices on it stay as they are.
    """
    for layer in _plain_layers(model.get_output_embeddings()):
        layer.forward = types.MethodType(_wide_forward, layer)


def _plain_layers(head: Any) -> list[Any]:
    if isinstance(head, Switch):
        return [layer for part in head.children() for layer in _plain_layers(part)]
    if isinstance(head, BaseTunerLayer):
        head = head.get_base_layer()
    if isinstance(head, AuxiliaryTrainingWrapper):
        parts = [head.original_module, *getattr(head, "modules_to_save", {}).values()]
        return [layer for part in parts for layer in _plain_layers(part)]
    return [head] if type(head) is nn.Linear else []


def _wide_forward(layer: nn.Linear, x: Tensor) -> Tensor:
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else layer.weight.dtype
    if dtype in HALVES:
        return wide_linear(x, layer.weight, layer.bias)
    return nn.functional.linear(x, layer.weight, layer.bias)


@torch.no_grad()
def logit_rule(model: Any) -> LogitRule:
    """Find what a causal LM does to its output layer's numbers, by running it on large hidden states and small ones.

    A new model's own states are small, and a cap leaves small numbers as they are.

    Raises: ModelError if no scale or cap of its configuration explains its logits.
    """
    head = model.get_output_embeddings()
    probe = torch.arange(len(SIZES), device=next(model.parameters()).device).unsqueeze(0)
    hidden = model.get_decoder()(input_ids=probe, use_cache=False).last_hidden_state[0]
    states = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)).to(hidden)
    states = states * (LARGE / head(states).abs().amax().clamp(min=1e-6)).to(states.dtype)
    states = states * states.new_tensor(SIZES).unsqueeze(-1)
    found = _logits_of(model, probe, states)
    raw = head(states)[:, : found.shape[-1]]
    errors = {rule: _difference(rule(raw), found.float()) for rule in _candidates(model.config.get_text_config())}
    best = min(errors, key=lambda rule: errors[rule])
    if not errors[best] <= TOLERANCES.get(raw.dtype, 1e-3):
        raise ModelError(
            f"{type(model).__name__} does something to its logits that no scale and no cap of its configuration "
            "explains; PPO computes logits only where answers are and cannot repeat it. Use another model"
        )
    return best


def _logits_of(model: Any, probe: Tensor, states: Tensor) -> Tensor:
    """The logits that the whole model makes of given last hidden states, (tokens, width)."""

    def instead(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = states.unsqueeze(0)
        return output

    handle = model.get_decoder().register_forward_hook(instead)
    try:
        logits: Tensor = model(input_ids=probe, use_cache=False).logits
    finally:
        handle.remove()
    return logits[0]


def _candidates(config: Any) -> Iterator[LogitRule]:
    """Every rule that the configuration's numbers about logits allow, the plain one first.

    Cohere multiplies by `logit_scale`, Granite divides by `logits_scaling`, Gemma 2 caps at `final_logit_softcapping`,
    Falcon H1 multiplies by `lm_head_multiplier`.
    """
    named = (value for name, value in sorted(vars(config).items()) if "logit" in name or "lm_head" in name)
    numbers = [
        float(value) for value in named if isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    ]
    scales = dict.fromkeys([1.0, *(scale for number in numbers for scale in (number, 1 / number))])
    for cap, scale in itertools.product([None, *dict.fromkeys(numbers)], scales):
        yield LogitRule(scale, cap)


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of a row's logits, as a share of its largest logit."""
    worst = (ours - theirs).abs().amax(-1) / theirs.abs().amax(-1).clamp(min=1e-6)
    return float(worst.max())


def answer_logp(
    model: Any,
    rule: LogitRule,
    states: Tensor,
    tokens: Tensor,
    *,
    temperature: float,
    with_entropy: bool,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities of tokens and, on request, entropies, each (tokens,).

    Args:
        model: the causal LM. rule: its `logit_rule`. states: (tokens, width), those that predict. tokens: (tokens,).
    """
    head, vocabulary = model.get_output_embeddings(), model.config.get_text_config().vocab_size
    if frozen_whole(head, vocabulary):
        at_once = LOGITS_IN_CACHE if states.device.type == "cpu" else LOGITS_AT_ONCE
        block_size = max(512, at_once // max(1, len(tokens)))
        return linear_token_logp(
            states,
            head.weight,
            tokens,
            temperature=temperature,
            block_size=block_size,
            rule=rule,
            with_entropy=with_entropy,
        )

    head = head.active if isinstance(head, Switch) else head  # backward may use it again while another role is active

    def logits(part: Tensor) -> Tensor:
        return rule(head(part))

    at_once = max(1, LOGITS_AT_ONCE // vocabulary)
    return chunked_token_logp(
        states, logits, tokens, temperature=temperature, chunk_size=at_once, with_entropy=with_entropy
    )


def frozen_whole(head: Any, vocabulary: int) -> bool:
    """Whether an LM head is one plain matrix at hand: not trained, adapted, quantised or held in shards."""
    return (
        type(head) is nn.Linear
        and head.bias is None
        and type(head.weight.data) is Tensor
        and not head.weight.requires_grad
        and head.weight.shape[0] >= vocabulary > 0
        and not head._forward_pre_hooks
    )
