"""RLOO: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.policy_gradient import PolicyGradientRecipe
from alignment.config.schema.recipe import Stage
from alignment.config.update_rule import UpdateRule


class RLOORecipe(PolicyGradientRecipe):
    """REINFORCE leave-one-out (https://arxiv.org/abs/2402.14740); names, meanings and defaults as in `RLOOConfig`."""

    STAGE = Stage(
        title="RLOO",
        help="Align a policy with scores relative to the other answers of a group (RLOO).",
        makes="policy",
        rows="prompts",
        trains=True,
        samples=True,
        ratio="the ratio of new to old probabilities is noise",
    )
    stage: Literal["rloo"]
    num_generations: int = Field(default=2, gt=1, le=10**5)
    """Number of answers to each prompt, which are compared. It divides `rollout_batch_size`."""
    num_iterations: int = Field(default=1, gt=0, le=10**4)
    """Number of times that each answer is trained on."""
    beta: float = Field(default=0.05, ge=0, le=10**6)
    """Weight of the KL divergence from the reference (k1), subtracted from the reward. 0: no reference is evaluated."""
    epsilon: float = Field(default=0.2, gt=0, le=10**6)
    """Clip range of the probability ratio."""
    epsilon_high: float | None = Field(default=None, gt=0, le=10**6)
    """Upper clip range. `null`: `epsilon`."""
    normalize_advantages: bool = False
    """Shift and scale the advantages of an update to mean 0 and standard deviation 1."""

    def update_rule(self) -> UpdateRule:
        """Return what an update does with a rollout."""
        return UpdateRule(
            num_epochs=self.num_iterations,
            advantage_estimator="rloo",
            estimator_keys={"normalize_advantages": self.normalize_advantages},
            kl_coef=self.beta,
            kl_estimator="k1",
            kl_placement="reward",
            measures_kl=False,
            ratio_level="trajectory",
            cliprange=self.epsilon,
            cliprange_high=self.epsilon if self.epsilon_high is None else self.epsilon_high,
            dual_clip=None,
            log_ratio_clip=self.log_ratio_clip,
            loss_aggregation="seq-mean-token-mean",
            counts_masked_answers=True,
        )
