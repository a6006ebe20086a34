"""Reward training: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.parts import Free
from alignment.config.schema.recipe import SPEEDS, Stage, TrainingRecipe


class RewardRecipe(TrainingRecipe):
    """Train a scalar reward model on rankings and pairs."""

    TRAINER_CONFIG = "transformers.training_args:TrainingArguments"
    STAGE = Stage(
        title="Reward model",
        help="Train a reward model on rankings and pairs.",
        makes="reward_model",
        rows="rankings",
        next_step="measure it with `alignment bench {run} PREFERENCES`, or use it as reward_model_path of stage ppo",
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
    """Maximum number of tokens of prompt and answer; longer rows follow `on_bad_row`. `null`: the model's context
    length.
    """
    center_rewards_coefficient: float = Field(default=0.0, ge=0, le=10**6)
    """Weight of the squared sum of a pair's two scores, which keeps the mean score near 0
    (https://arxiv.org/abs/2312.09244).
    """
    ties: Literal["half", "davidson"] = "half"
    """How a tie trains: `half` as the label 0.5, `davidson` as an outcome of its own (Davidson 1970)."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """Assumed share of labels with the wrong winner."""
    num_members: int = Field(default=1, ge=1, le=100)
    """Number of reward models to train with different seeds, for an ensemble."""
    dataset_num_proc: Free[int | None] = Field(default=None, ge=1, le=256)
    """Number of processes that tokenise the rankings, if each gets at least 1,000; the result is the same."""
    use_margin: bool = False
    """Subtract the row's `margin` from the difference of the scores (https://arxiv.org/abs/2307.09288)."""
    early_stopping_patience: int | None = Field(default=None, gt=0, le=10**6)
    """Stop after this many evaluations without improvement. Needs `load_best_model_at_end`."""
