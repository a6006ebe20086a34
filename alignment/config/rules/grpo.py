"""Combinations of GRPO's keys that are refused."""

from collections.abc import Iterator

from alignment.config.rules.keys import Fault, Keys, Rule
from alignment.config.schema.grpo import LOSSES, GRPORecipe

CLIP_KEYS = ("epsilon", "epsilon_high", "delta")
CLIP_KEYS_OF = {"clip": CLIP_KEYS, "cispo": ("epsilon_high",)}  # by surrogate


def losses(keys: Keys) -> Iterator[Fault]:
    """Every key of a loss belongs to the loss that is chosen."""
    if not issubclass(keys.cls, GRPORecipe) or keys["loss_type"] not in LOSSES:
        return
    loss = keys["loss_type"]
    surrogate, _ = LOSSES[loss]
    for key in keys.cls.model_fields:
        owner = key.partition("_")[0]
        foreign = owner in LOSSES and owner != loss
        unused = key in CLIP_KEYS and key not in CLIP_KEYS_OF.get(surrogate, ())
        if (foreign or unused) and keys.changed(key):
            yield (key,), f"has no effect with loss_type {loss}; take it out"
    if surrogate == "cispo" and not keys.given("epsilon_high"):
        yield ("epsilon_high",), "is missing; with loss_type cispo it is the largest weight of a token, for example 5.0"
    if surrogate == "vespo" and keys.changed("importance_sampling_level"):
        yield ("importance_sampling_level",), "has no effect with loss_type vespo, whose weight is that of the answer"
    if keys["beta"] == 0 and keys.changed("use_bias_correction_kl"):
        yield ("use_bias_correction_kl",), "has no effect with beta: 0, which has no reference; take it out"
    high = keys["epsilon"] if keys["epsilon_high"] is None else keys["epsilon_high"]
    if surrogate == "clip" and keys.given("delta") and keys["delta"] <= 1 + high:
        yield ("delta",), f"{keys['delta']} is inside the clip range, which ends at {1 + high:.4g}; give a larger bound"


GRPO_RULES: list[Rule] = [losses]
