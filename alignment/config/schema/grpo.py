"""GRPO: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.policy_gradient import PolicyGradientRecipe
from alignment.config.schema.recipe import Stage
from alignment.config.update_rule import LossAggregation, Surrogate, UpdateRule
from alignment.ops.choices import ScaleRewards

LossType = Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]
LOSSES: dict[LossType, tuple[Surrogate, LossAggregation]] = {
    "grpo": ("clip", "seq-mean-token-mean"),
    "dr_grpo": ("clip", "max-length"),
    "dapo": ("clip", "rollout-token-mean"),
    "bnpo": ("clip", "token-mean"),
    "cispo": ("cispo", "rollout-token-mean"),
    "sapo": ("sapo", "seq-mean-token-mean"),
    "luspo": ("clip", "seq-mean-token-sum"),
    "vespo": ("vespo", "rollout-token-mean"),
}


class GRPORecipe(PolicyGradientRecipe):
    """GRPO, without a value (https://arxiv.org/abs/2402.03300); names, meanings and defaults as in `GRPOConfig`."""

    STAGE = Stage(
        title="GRPO",
        help="Align a policy with scores relative to a group of answers (GRPO).",
        makes="policy",
        rows="prompts",
        trains=True,
        samples=True,
        ratio="the ratio of new to old probabilities is noise",
    )
    stage: Literal["grpo"]
    num_generations: int = Field(default=8, gt=1, le=10**5)
    """Number of answers to each prompt, which are compared. It divides `rollout_batch_size`."""
    num_iterations: int = Field(default=1, gt=0, le=10**4)
    """Number of times that each answer is trained on."""
    beta: float = Field(default=0.0, ge=0, le=10**6)
    """Weight in the loss of the KL divergence from the reference (k3). 0: no reference is evaluated."""
    use_bias_correction_kl: bool = True
    """Multiply this KL by the probability ratio, which makes its gradient that of KL(policy ‖ reference)
    (https://arxiv.org/abs/2512.02556).
    """
    loss_type: LossType = "dapo"
    """Which loss: `grpo`, `dr_grpo`, `dapo`, `bnpo` and `luspo` clip the ratio and differ in the mean over tokens;
    `cispo`, `sapo` and `vespo` replace the clip.
    """
    importance_sampling_level: Literal["token", "sequence"] = "token"
    """Take the probability ratio of each `token`, or its geometric mean over the `sequence` (GSPO,
    https://arxiv.org/abs/2507.18071).
    """
    epsilon: float = Field(default=0.2, gt=0, le=10**6)
    """Clip range of the probability ratio."""
    epsilon_high: float | None = Field(default=None, gt=0, le=10**6)
    """Upper clip range (https://arxiv.org/abs/2503.14476). `null`: `epsilon`. With `loss_type: cispo`: the largest
    weight itself.
    """
    delta: float | None = Field(default=None, gt=1, le=10**6)
    """Upper bound of the ratio where the advantage is negative; above 1 + `epsilon_high`. `null`: none."""
    scale_rewards: ScaleRewards | bool = "group"
    """Divide advantages by the standard deviation of the rewards in the `group` or in the `batch`. `true` is `group`,
    `false` is `none`.
    """
    sapo_temperature_pos: float = Field(default=1.0, gt=0, le=1000)
    """With `loss_type: sapo`: temperature of the gate where the advantage is positive."""
    sapo_temperature_neg: float = Field(default=1.05, gt=0, le=1000)
    """With `loss_type: sapo`: temperature of the gate elsewhere."""
    vespo_k_pos: float = Field(default=2.0, ge=0, le=1000)
    """With `loss_type: vespo`: power of the weight where the advantage is not negative."""
    vespo_lambda_pos: float = Field(default=3.0, gt=0, le=1000)
    """With `loss_type: vespo`: decay of the weight where the advantage is not negative."""
    vespo_k_neg: float = Field(default=3.0, ge=0, le=1000)
    """With `loss_type: vespo`: power of the weight where the advantage is negative."""
    vespo_lambda_neg: float = Field(default=2.0, gt=0, le=1000)
    """With `loss_type: vespo`: decay of the weight where the advantage is negative."""

    def update_rule(self) -> UpdateRule:
        """Return what an update does with a rollout."""
        scale = self.scale_rewards
        if isinstance(scale, bool):
            scale = "group" if scale else "none"
        surrogate, aggregation = LOSSES[self.loss_type]
        return UpdateRule(
            num_epochs=self.num_iterations,
            advantage_estimator="grpo",
            estimator_keys={"scale_rewards": scale},
            kl_coef=self.beta,
            kl_estimator="k3",
            kl_placement="loss",
            kl_bound=None,
            kl_times_ratio=self.use_bias_correction_kl,
            measures_kl=False,
            surrogate=surrogate,
            surrogate_keys=self._surrogate_keys(),
            ratio_level=self.importance_sampling_level,
            cliprange=self.epsilon,
            cliprange_high=self.epsilon if self.epsilon_high is None else self.epsilon_high,
            dual_clip=self.delta,
            log_ratio_clip=self.log_ratio_clip,
            loss_aggregation=aggregation,
            max_length=self.max_new_tokens,
            counts_masked_answers=True,
        )

    def _surrogate_keys(self) -> dict[str, float]:
        """Return the keys `LOSS_name` of the loss, without the prefix; {} for the losses that have none."""
        prefix = f"{self.loss_type}_"
        names = [name for name in type(self).model_fields if name.startswith(prefix)]
        return {name.removeprefix(prefix): getattr(self, name) for name in names}
