"""What a policy gradient update does with a rollout, whatever the keys of the stage are called."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from alignment.ops.choices import Aggregation, KLEstimator, RatioLevel

KLPlacement = Literal["reward", "loss"]
Surrogate = Literal["clip", "cispo", "sapo", "vespo"]
LossAggregation = Aggregation | Literal["rollout-token-mean", "max-length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRule:
    """The settings of an update. `alignment.ops` defines each formula."""

    num_epochs: int  # that each answer is trained for
    advantage_estimator: str
    estimator_keys: Mapping[str, Any]  # the estimator's keyword-only parameters
    whiten_advantages: bool = False
    kl_coef: float  # 0 with `needs_reference` False: no reference is evaluated
    kl_estimator: KLEstimator
    kl_placement: KLPlacement
    adaptive_kl_target: float | None = None
    adaptive_kl_horizon: int = 10_000
    kl_bound: float | None = 10.0  # of a token's k3, in nats
    kl_times_ratio: bool = False  # with kl_placement loss: weight the KL by the ratio that the policy's loss reads
    measures_kl: bool = True  # evaluate the reference for the log even if kl_coef is 0
    surrogate: Surrogate = "clip"
    surrogate_keys: Mapping[str, float] = field(default_factory=dict)  # of sapo and vespo
    ratio_level: RatioLevel = "token"
    cliprange: float
    cliprange_high: float
    dual_clip: float | None
    log_ratio_clip: float
    loss_aggregation: LossAggregation
    max_length: int = 0  # with max-length: the tokens that an answer may have
    counts_masked_answers: bool = False  # answers without a trained token count in means over answers

    @property
    def needs_reference(self) -> bool:
        """Whether the reference is evaluated."""
        return self.kl_coef > 0 or self.measures_kl

    def needs_old_logp(self, *, steps: int, has_value: bool) -> bool:
        """Whether the policy is evaluated before the update: for the ratio, the KL penalty, or a value.

        Args:
            steps: of an update.
        """
        in_reward = self.needs_reference and (self.kl_placement == "reward" or self.adaptive_kl_target is not None)
        return steps > 1 or has_value or in_reward
