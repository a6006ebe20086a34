"""Where PPO's scores come from: the reward role on the policy's base, or a scorer of its own."""

from pathlib import Path
from typing import Any, Protocol

from alignment.config.schema import PPORecipe
from alignment.data.rows import Prompt
from alignment.policy.base import resolve_model
from alignment.policy.weights import weights_hash
from alignment.run.directory import read_manifest


class Scorer(Protocol):
    """Scores answers: a reward model on another base, a function, an endpoint."""

    def score(self, prompts: list[Prompt], answers: list[str]) -> list[float]:
        """Return one score per answer, higher is better; zero is a score like any other."""
        ...


def reward_adapter_on_base(recipe: PPORecipe, lineage: dict[str, Any]) -> str | None:
    """The reward model's adapter where it can be a role on the policy's base, else None.

    It can where it is an adapter on the same weights and reads the same token ids: tokenizer, template and stop tokens
    agree, as far as its manifest says.
    """
    reward = resolve_model(recipe.reward_model_path)
    policy = resolve_model(recipe.model_name_or_path, revision=recipe.model_revision)
    if reward.adapter is None or not Path(reward.adapter).is_dir():
        return None
    theirs = read_manifest(reward.adapter).get("lineage", {})
    must_agree = ("tokenizer_sha256", "template_sha256", "stop_token_ids")
    if any(theirs.get(key, lineage.get(key)) != lineage.get(key) for key in must_agree):
        return None
    return reward.adapter if weights_hash(reward.base) == weights_hash(policy.base) else None
