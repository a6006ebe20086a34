"""Direct preference optimisation: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.keys import AdapterKeys, DataKeys, ModelKeys
from alignment.config.schema.recipe import Recipe


class DPORecipe(Recipe, ModelKeys, AdapterKeys, DataKeys):
    """Direct preference optimisation with TRL's `DPOTrainer`, probabilities in the loss."""

    TRAINER_CONFIG = "trl.trainer.dpo_config:DPOConfig"
    stage: Literal["dpo"]
    max_length: int | None = Field(default=1024, gt=0, le=10**8)
    early_stopping_patience: int | None = Field(default=None, gt=0, le=10**6)
