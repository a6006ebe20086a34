"""Child-tuning D, https://arxiv.org/abs/2109.05687: `fishmask` with a larger fraction by default."""

from alignment.policy.methods.fishmask import PEFT_TYPE, PREFIX, callbacks, choose_weights, faults, new_config

__all__ = ["PEFT_TYPE", "PREFIX", "callbacks", "choose_weights", "faults", "new_config", "recipe_keys"]


def recipe_keys(config: object) -> dict[str, str]:
    """Return the recipe keys that an existing adapter determines."""
    return {"peft_method": "child_tuning_d"}
