"""Supervised fine-tuning: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.parts import Name
from alignment.config.schema.recipe import OF_TOKENS, Stage, TrainingRecipe


class SFTRecipe(TrainingRecipe):
    """Supervised fine-tuning with TRL's `SFTTrainer`."""

    TRAINER_CONFIG = "trl.trainer.sft_config:SFTConfig"
    STAGE = Stage(
        title="Supervised fine-tuning",
        help="Fine-tune a model on demonstrations.",
        makes="policy",
        rows="demonstrations",
        next_step="use it as model_name_or_path of stage label, reward or dpo",
        trains=True,
        encoder_decoders=True,
        held_out=True,
        fused_outputs=("log_probs", "entropy", "is_top1"),
        metrics=OF_TOKENS,
    )
    stage: Literal["sft"]
    add_tokens: list[Name] | None = None
    """Tokens that the chat template uses and the vocabulary lacks. They are added and trained."""
    max_length: int | None = Field(default=1024, gt=0, le=10**8)
    """Maximum number of tokens of a row; longer rows are cut. `null`: the model's context length."""
    history_strategy: Literal["split", "refuse"] = "split"
    """What to do with a conversation whose earlier turns the template rewrites: `split` it into rows, or `refuse`
    it.
    """
    early_stopping_patience: int | None = Field(default=None, gt=0, le=10**6)
    """Stop after this many evaluations without improvement. Needs `load_best_model_at_end`."""
