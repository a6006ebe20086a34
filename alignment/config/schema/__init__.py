"""The schema of recipes: one typed, frozen model per stage, each in its own file.

A recipe is flat. The keys defined here are ours. Every other key must belong to the stage's trainer configuration
(`TRAINER_CONFIG`) in the installed TRL or transformers, and is passed on unchanged, see `alignment.config.library`.
"""

from importlib import import_module

from alignment.config.schema.chat_models import PricesEntry
from alignment.config.schema.dpo import DPORecipe
from alignment.config.schema.evaluate import Candidate, EvaluateRecipe
from alignment.config.schema.grpo import GRPORecipe
from alignment.config.schema.judges import JudgeEntry, judge_entry
from alignment.config.schema.keys import AdapterKeys, DataKeys, DatasetEntry, ModelKeys, ProxyEntry, SamplingKeys
from alignment.config.schema.kto import KTORecipe
from alignment.config.schema.label import CalibrationEntry, GateEntry, LabelRecipe, RevisionEntry
from alignment.config.schema.parts import PATH_MARKS, Mark, Part, marks_of, parts_within
from alignment.config.schema.pipeline import PipelineRecipe, PipelineStage
from alignment.config.schema.policy_gradient import PolicyGradientRecipe, ValueRecipe
from alignment.config.schema.ppo import PPORecipe
from alignment.config.schema.pretrain import PretrainRecipe
from alignment.config.schema.recipe import Recipe, Stage, TrainingRecipe
from alignment.config.schema.require import RequireEntry, WinRateEntry
from alignment.config.schema.reward import RewardRecipe
from alignment.config.schema.rloo import RLOORecipe
from alignment.config.schema.scorers import ScorerEntry, scorer_entry
from alignment.config.schema.sft import SFTRecipe
from alignment.stages import NAMES


def _recipe(name: str) -> type[Recipe]:
    """Return the recipe class that a stage's module defines."""
    module = import_module(f"{__name__}.{name}")
    found: type[Recipe] = next(
        cls
        for cls in vars(module).values()
        if isinstance(cls, type) and cls.__module__ == module.__name__ and "STAGE" in vars(cls)
    )
    return found


STAGES: dict[str, type[Recipe]] = {name: _recipe(name) for name in NAMES}


def keys_marked(*marks: Mark) -> frozenset[str]:
    """Return the top-level keys of all stages that have one of these marks."""
    recipes = STAGES.values()
    return frozenset(name for cls in recipes for name, info in cls.model_fields.items() if marks_of(info) & {*marks})


def path_keys() -> frozenset[str]:
    """Return the keys that are declared to be paths, in recipes, in the mappings inside them and in pipelines."""
    files: list[type[Part]] = [*STAGES.values(), PipelineRecipe]
    parts = {part for cls in files for part in parts_within(cls)}
    return frozenset(name for part in parts for name, info in part.model_fields.items() if marks_of(info) & PATH_MARKS)


__all__ = [
    "STAGES",
    "AdapterKeys",
    "CalibrationEntry",
    "Candidate",
    "DPORecipe",
    "DataKeys",
    "DatasetEntry",
    "EvaluateRecipe",
    "GRPORecipe",
    "GateEntry",
    "JudgeEntry",
    "KTORecipe",
    "LabelRecipe",
    "Mark",
    "ModelKeys",
    "PPORecipe",
    "Part",
    "PipelineRecipe",
    "PipelineStage",
    "PolicyGradientRecipe",
    "PretrainRecipe",
    "PricesEntry",
    "ProxyEntry",
    "RLOORecipe",
    "Recipe",
    "RequireEntry",
    "RevisionEntry",
    "RewardRecipe",
    "SFTRecipe",
    "SamplingKeys",
    "ScorerEntry",
    "Stage",
    "TrainingRecipe",
    "ValueRecipe",
    "WinRateEntry",
    "judge_entry",
    "keys_marked",
    "path_keys",
    "scorer_entry",
]
