"""Direct preference optimisation: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.recipe import OF_TOKENS, Stage, TrainingRecipe


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
