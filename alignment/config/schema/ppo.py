"""PPO: its recipe."""

from typing import Any, Literal

from pydantic import Field, model_validator

from alignment.config.estimators import ADVANTAGE_ESTIMATORS
from alignment.config.schema.parts import Words
from alignment.config.schema.policy_gradient import ValueRecipe
from alignment.config.schema.recipe import Stage
from alignment.config.update_rule import UpdateRule
from alignment.ops.choices import Aggregation, KLEstimator


class PPORecipe(ValueRecipe):
    """PPO with policy, reference, value and reward on one base; names as in TRL's last `PPOConfig`."""

    STAGE = Stage(
        title="PPO",
        help="Align a policy with a reward model (PPO).",
        makes="policy",
        rows="prompts",
        trains=True,
        samples=True,
        ratio="the ratio of new to old probabilities is noise",
    )
    stage: Literal["ppo"]
    advantage_estimator: Words = "gae"
    """How advantages are estimated: `gae` with a value; without one `grpo`, `dr_grpo`, `rloo`, `reinforce_plus_plus` or
    `reinforce_plus_plus_baseline`.
    """
    num_ppo_epochs: int = Field(default=4, gt=0, le=10**4)
    """Number of times that each answer is trained on."""
    kl_coef: float = Field(default=0.05, ge=0, le=10**6)
    """Weight of the KL divergence from the reference."""
    kl_estimator: KLEstimator = "k1"
    """Estimator of the KL divergence (http://joschu.net/blog/kl-approx.html)."""
    kl_placement: Literal["reward", "loss"] = "reward"
    """Subtract the KL from the `reward`, or add it to the `loss`."""
    adaptive_kl_target: float | None = Field(default=None, gt=0, le=10**6)
    """KL in nats per answer that `kl_coef` is adapted to. `null`: `kl_coef` is constant."""
    adaptive_kl_horizon: int = Field(default=10_000, gt=0, le=10**12)
    """Number of answers over which `kl_coef` may change by about a fifth."""
    gamma: float = Field(default=1.0, ge=0, le=1)
    """Discount factor."""
    lam: float = Field(default=0.95, ge=0, le=1)
    """Lambda of GAE for the policy's advantages."""
    cliprange: float = Field(default=0.2, gt=0, le=10**6)
    """Lower clip range of the probability ratio."""
    cliprange_high: float = Field(default=0.28, gt=0, le=10**6)
    """Upper clip range of the probability ratio (https://arxiv.org/abs/2503.14476)."""
    dual_clip: float | None = Field(default=3.0, gt=1, le=10**6)
    """Upper bound of the ratio where the advantage is negative (https://arxiv.org/abs/1912.09729). `null`: none."""
    loss_aggregation: Aggregation = "token-mean"
    """How token losses are averaged: over all tokens, or first within each answer."""
    whiten_advantages: bool | None = None
    """Normalize the advantages of an update to mean 0 and standard deviation 1. `null`: as the estimator's source does;
    `gae`, `reinforce_plus_plus` and `reinforce_plus_plus_baseline` do.
    """

    @model_validator(mode="before")
    @classmethod
    def _whiten_as_the_estimator(cls, keys: Any) -> Any:
        """Resolve `whiten_advantages: null`."""
        if isinstance(keys, dict) and keys.get("whiten_advantages") is None:
            entry = ADVANTAGE_ESTIMATORS.get(str(keys.get("advantage_estimator", "gae")))
            keys = {**keys, "whiten_advantages": entry is not None and entry.whitens}
        return keys

    @property
    def value(self) -> ValueRecipe | None:
        """The recipe with the keys of its value, if the advantage estimator uses one."""
        return self if ADVANTAGE_ESTIMATORS[self.advantage_estimator].uses_value else None

    def update_rule(self) -> UpdateRule:
        """Return what an update does with a rollout."""
        return UpdateRule(
            num_epochs=self.num_ppo_epochs,
            advantage_estimator=self.advantage_estimator,
            estimator_keys={"gamma": self.gamma, "lam": self.lam, "lam_value": self.lam_value},
            whiten_advantages=bool(self.whiten_advantages),
            kl_coef=self.kl_coef,
            kl_estimator=self.kl_estimator,
            kl_placement=self.kl_placement,
            adaptive_kl_target=self.adaptive_kl_target,
            adaptive_kl_horizon=self.adaptive_kl_horizon,
            cliprange=self.cliprange,
            cliprange_high=self.cliprange_high,
            dual_clip=self.dual_clip,
            log_ratio_clip=self.log_ratio_clip,
            loss_aggregation=self.loss_aggregation,
        )
