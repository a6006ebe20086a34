"""The settings of a stage's trainer, and the lengths of its sequences."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from alignment.config.schema import PolicyGradientRecipe, Recipe
from alignment.planner.machine import Machine
from alignment.planner.skeleton import Blueprint
from alignment.rollout.context import is_encoder_decoder, prompt_room

USUAL_PROMPT = 512  # tokens, where a recipe sets no limit


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one sequence."""

    prompt: int
    answer: int

    @property
    def whole(self) -> int:
        """Tokens of prompt and answer."""
        return self.prompt + self.answer


@dataclass(frozen=True, slots=True)
class Settings:
    """A trainer's keys, with defaults filled in."""

    microbatch: int  # rows of the recipe: demonstrations, prompts, pairs or answers
    sequences: int  # that one row is
    accumulation: int
    checkpointing: bool
    autocast: torch.dtype | None
    optim: str

    @classmethod
    def of(cls, recipe: Recipe, machine: Machine, *, answers: int = 2) -> "Settings":
        """Read them from a recipe. `answers`: per prompt, in reward training."""
        given = recipe.library
        half = torch.float16 if given.get("fp16") else torch.bfloat16
        mixed = bool(given.get("fp16")) or bool(given.get("bf16", machine.gpu))
        microbatch = int(given.get("per_device_train_batch_size", 8))
        accumulation = int(given.get("gradient_accumulation_steps", 1))
        if isinstance(recipe, PolicyGradientRecipe):
            accumulation = max(1, recipe.rollout_batch_size // (recipe.num_mini_batches * machine.gpus) // microbatch)
        return cls(
            microbatch=microbatch,
            sequences=recipe.STAGE.sequences or answers,
            accumulation=accumulation,
            checkpointing=bool(given.get("gradient_checkpointing", machine.gpu)),
            autocast=half if mixed else None,
            optim=str(given.get("optim", "adamw_torch_fused")),
        )


def answers_of(known: Mapping[str, Recipe]) -> int:
    """Return the answers per prompt in reward training: as many as an earlier label stage samples, else two."""
    labelling: Iterator[Any] = (recipe for recipe in known.values() if recipe.STAGE.makes == "labels")
    return next((recipe.num_generations for recipe in labelling), 2)


def rollouts_of(recipe: Recipe) -> str:
    """Return a text with the number of rollouts of an update that the plan assumes; empty if it is certain."""
    if not getattr(recipe, "dynamic_sampling", False):
        return ""
    most = recipe.dynamic_sampling_max_rounds  # type: ignore[attr-defined]
    return (
        f"; one rollout an update. dynamic_sampling samples up to {most}, one after the other: sampling and scoring "
        "take up to as many times as long, and no more memory"
    )


def lengths_of(recipe: Any, plan: Blueprint) -> tuple[Lengths, str]:
    """Return the lengths of the longest possible sequences, and a text with the assumption."""
    context = plan.context(recipe)
    if not hasattr(recipe, "max_new_tokens"):
        longest = min(filter(None, (recipe.max_length, context)), default=1024)
        what = "prompts and answers" if is_encoder_decoder(plan.config) else "sequences"
        return Lengths(0, longest), f"{what} of maximum length, {longest} tokens"
    prompt, answer = getattr(recipe, "max_prompt_length", None), recipe.max_new_tokens
    if prompt is not None:
        return Lengths(prompt, answer), f"prompts of {prompt} tokens and answers of {answer}, the maximum lengths"
    room = prompt_room(context, answer, encoded=is_encoder_decoder(plan.config))
    guess = max(1, min(USUAL_PROMPT, 2**31 if room is None else room))
    return Lengths(guess, answer), f"prompts of {guess} tokens, as max_prompt_length is not set; answers of {answer}"
