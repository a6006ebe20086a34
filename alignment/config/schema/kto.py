"""Kahneman-Tversky optimisation: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.recipe import OF_TOKENS, Stage, TrainingRecipe


class KTORecipe(TrainingRecipe):
    """Kahneman-Tversky optimisation with TRL's `KTOTrainer`, probabilities in the loss."""

    TRAINER_CONFIG = "trl.trainer.kto_config:KTOConfig"
    STAGE = Stage(
        title="KTO",
        help="Align a policy with answers labelled good or bad (KTO).",
        makes="policy",
        rows="unpaired",
        trains=True,
        held_out=True,
        reference=True,
        fused_outputs=("log_probs", "entropy", "mean_logits"),
        ratio="the log ratio of the policy to its reference is noise, and does not start at 0",
        metrics=(
            *(name for name in OF_TOKENS if name != "mean_token_accuracy"), "kl", "rewards/margins", "rewards/chosen",
            "rewards/rejected", "logps/chosen", "logps/rejected", "logits/chosen", "logits/rejected",
        ),
    )  # fmt: skip
    stage: Literal["kto"]
    max_length: int | None = Field(default=1024, gt=0, le=10**8)
    """Maximum number of tokens of prompt and answer; longer rows follow `on_bad_row`. `null`: the model's context
    length.
    """
    loss_type: Literal["kto", "apo_zero_unpaired"] = "kto"
    """`kto` compares answers with the KL of the policy from its reference (https://arxiv.org/abs/2402.01306),
    `apo_zero_unpaired` with 0 (https://arxiv.org/abs/2408.06266).
    """
    desirable_weight: float | None = Field(default=None, gt=0, le=10**6)
    """Weight of the loss of good answers. `null`: computed from the balance of the labels."""
    undesirable_weight: float | None = Field(default=None, gt=0, le=10**6)
    """Weight of the loss of bad answers. `null`: computed from the balance of the labels."""
    early_stopping_patience: int | None = Field(default=None, gt=0, le=10**6)
    """Stop after this many evaluations without improvement. Needs `load_best_model_at_end`."""

    @property
    def passes_without_gradient(self) -> int:
        """Forward passes for each trained sequence: the reference's, and with a KL two of the mismatched answer."""
        return 3 if self.loss_type == "kto" else 1
