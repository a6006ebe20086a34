"""Direct preference optimisation: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.recipe import OF_TOKENS, Stage, TrainingRecipe

REFERENCE_FREE = ("orpo", "simpo", "cpo")  # losses of our own; the others are TRL's


class DPORecipe(TrainingRecipe):
    """Direct preference optimisation with TRL's `DPOTrainer`, probabilities in the loss."""

    TRAINER_CONFIG = "trl.trainer.dpo_config:DPOConfig"
    STAGE = Stage(
        title="DPO",
        help="Align a policy with rankings directly (DPO and its kin).",
        makes="policy",
        rows="rankings",
        trains=True,
        held_out=True,
        sequences=2,
        reference=True,
        fused_outputs=("log_probs", "mean_logits", "entropy", "is_top1"),
        ratio="the log ratio of the policy to its reference is noise, and does not start at 0",
        metrics=(
            *OF_TOKENS, "rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected", "logps/chosen",
            "logps/rejected", "logits/chosen", "logits/rejected",
        ),
    )  # fmt: skip
    stage: Literal["dpo"]
    max_length: int | None = Field(default=1024, gt=0, le=10**8)
    """Maximum number of tokens of prompt and answer; longer rows follow `on_bad_row`. `null`: the model's context
    length.
    """
    early_stopping_patience: int | None = Field(default=None, gt=0, le=10**6)
    """Stop after this many evaluations without improvement. Needs `load_best_model_at_end`."""
    simpo_gamma: float = Field(default=0.5, ge=0, le=10**6)
    """With `loss_type: simpo`: the margin of the rewards (https://arxiv.org/abs/2405.14734)."""
    cpo_alpha: float | None = Field(default=None, ge=0, le=10**6)
    """With `loss_type: cpo` or `simpo`: weight of the chosen answer's mean negative log-likelihood. `null`: 1 with
    `cpo`, 0 with `simpo`, as their papers have it.
    """

    @property
    def reference_free(self) -> str | None:
        """The loss without a reference, if the recipe names one."""
        losses = self.library.get("loss_type")
        first = losses[0] if isinstance(losses, list) and losses else losses
        return first if first in REFERENCE_FREE else None

    @property
    def has_reference(self) -> bool:
        """Whether training compares the policy with a frozen reference model."""
        return self.reference_free is None
