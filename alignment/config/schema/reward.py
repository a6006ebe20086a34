"""Reward training: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.recipe import SPEEDS, Stage, TrainingRecipe


class RewardRecipe(TrainingRecipe):
    """Train a scalar reward model on rankings and pairs."""

    TRAINER_CONFIG = "transformers.training_args:TrainingArguments"
    STAGE = Stage(
        title="Reward model",
        help="Train a reward model on rankings and pairs.",
        makes="reward_model",
        rows="rankings",
        trains=True,
        held_out=True,
        task="SEQ_CLS",
        sequences=None,
        metrics=(
            "loss", "accuracy", "accuracy_low", "accuracy_high", "accuracy_of_longer_answer", "brier", "entropy", "nll",
            "score_mean", "score_std", "length_pearson", "length_pearson_within_prompt", "length_spearman", "pairs",
            "pairs_decided", "prompts", *SPEEDS,
        ),
    )  # fmt: skip
    stage: Literal["reward"]
    max_length: int | None = Field(default=1024, gt=0, le=10**8)
    center_rewards_coefficient: float = Field(
        default=0.0, ge=0, le=10**6
    )  # weight of the mean squared sum of a pair's scores
    ties: Literal["half", "davidson"] = "half"  # a tie is the label one half, or an outcome of its own (Davidson 1970)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)  # share of labels taken to be the wrong way round
    num_members: int = Field(default=1, ge=1, le=100)  # reward models trained alike but for their seeds: an ensemble
    use_margin: bool = False  # subtract the row's `margin` from the score difference (Llama 2)
    early_stopping_patience: int | None = Field(default=None, gt=0, le=10**6)
