"""What a recipe may say: one typed, frozen model per stage, each in a file of its own.

A recipe is flat. Keys named here are ours; every other key must be one of the stage's trainer configuration
(`TRAINER_CONFIG`) in the installed TRL or transformers and is handed to it unchanged, see `alignment.config.library`.
"""

from alignment.config.schema.dpo import DPORecipe
from alignment.config.schema.evaluate import Candidate, EvaluateRecipe
from alignment.config.schema.judges import JudgeEntry, PricesEntry
from alignment.config.schema.keys import AdapterKeys, DataKeys, DatasetEntry, ModelKeys, SamplingKeys
from alignment.config.schema.label import CalibrationEntry, GateEntry, LabelRecipe, RevisionEntry
from alignment.config.schema.parts import Part
from alignment.config.schema.pipeline import PipelineRecipe, PipelineStage
from alignment.config.schema.ppo import PPORecipe
from alignment.config.schema.recipe import Recipe
from alignment.config.schema.reward import RewardRecipe
from alignment.config.schema.scorers import ScorerEntry
from alignment.config.schema.sft import SFTRecipe

STAGES: dict[str, type[Recipe]] = {
    "sft": SFTRecipe,
    "label": LabelRecipe,
    "reward": RewardRecipe,
    "dpo": DPORecipe,
    "ppo": PPORecipe,
    "evaluate": EvaluateRecipe,
}

__all__ = [
    "STAGES",
    "AdapterKeys",
    "CalibrationEntry",
    "Candidate",
    "DPORecipe",
    "DataKeys",
    "DatasetEntry",
    "EvaluateRecipe",
    "GateEntry",
    "JudgeEntry",
    "LabelRecipe",
    "ModelKeys",
    "PPORecipe",
    "Part",
    "PipelineRecipe",
    "PipelineStage",
    "PricesEntry",
    "Recipe",
    "RevisionEntry",
    "RewardRecipe",
    "SFTRecipe",
    "SamplingKeys",
    "ScorerEntry",
]
