"""Rounds of a pipeline: marked stages again and again, each round beginning from the policy that the last one left.

What a stage of round 2 writes lies in a folder of its own, `label.round2` for `label`, and what reads it in that round
reads that folder. Where a recipe names the policy that the first round begins from, later rounds put the newest one.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.config.documents import Location
from alignment.config.schema import STAGES, PipelineRecipe, Recipe


@dataclass(frozen=True, slots=True)
class Round:
    """What differs in one round."""

    number: int  # from 1
    places: Mapping[str, str]  # what the repeated stages' recipes write → what they write in this round
    start: str  # the policy that the first round begins from
    newest: str  # the one that this round begins from

    def name(self, stage: str) -> str:
        """The name of a stage in this round."""
        return f"{stage}.round{self.number}"

    def overrides(self, recipe: Recipe) -> dict[str, Any]:
        """Keys of a repeated stage that the round decides: its number, the policy, and other prompts and chances."""
        found: dict[str, Any] = {"round": self.number}
        begins = recipe.STAGE.makes == "policy" or _samples(recipe)
        if self.number > 1 and begins and _model(recipe) == self.start:
            found["model_name_or_path"] = self.newest
        if self.number > 1 and _samples(recipe):
            found["seed"] = recipe.seed + self.number - 1
        return found


def repeated(given: PipelineRecipe) -> list[int]:
    """Return the places of the stages that every round repeats."""
    return [index for index, entry in enumerate(given.stages) if entry.each_round]


def rounds_of(given: PipelineRecipe, recipes: Sequence[Recipe | None], outputs: Sequence[Sequence[str]]) -> list[Round]:
    """Return the rounds in order; `faults_of` found nothing.

    Args:
        recipes, outputs: of every stage as it would be without rounds; no recipe for a command.
    """
    block = repeated(given)
    policy = next(recipe for recipe in map(recipes.__getitem__, block) if recipe and recipe.STAGE.makes == "policy")
    written = [os.path.normpath(output) for index in block for output in outputs[index]]
    newest, found = _model(policy), []
    for number in range(1, (given.rounds or 0) + 1):
        found.append(Round(number, {place: f"{place}.round{number}" for place in written}, _model(policy), newest))
        newest = found[-1].places[os.path.normpath(policy.output_dir)]
    return found


def shape_faults(given: PipelineRecipe) -> Iterator[tuple[Location, str]]:
    """Yield faults of the rounds that do not depend on the recipes of the stages."""
    block = repeated(given)
    if given.rounds is None:
        for index in block:
            yield ("stages", index, "each_round"), "has no effect without rounds"
        return
    if not block:
        yield (
            ("rounds",),
            "no stage has each_round: true; mark the stages that every round repeats, such as dpo",
        )
    elif len(block) < block[-1] - block[0] + 1:
        between = next(index for index in range(block[0], block[-1]) if index not in block)
        name = given.stages[between].name
        yield ("stages", between), f"{name} is between the stages of a round; mark it with each_round, or move it"
    names = {stage.name for stage in given.stages}
    for index in block:
        for number in range(1, given.rounds + 1):
            if (taken := f"{given.stages[index].name}.round{number}") in names:
                yield ("stages", index, "name"), f"{taken} is what round {number} calls it, and another stage's name"


def recipe_faults(given: PipelineRecipe, recipes: Sequence[Recipe | None]) -> Iterator[tuple[Location, str]]:
    """What is wrong with rounds by the recipes that they repeat."""
    block = repeated(given)
    if given.rounds is None or not block:
        return
    of = {index: recipe for index in block if (recipe := recipes[index]) is not None}
    policies = [index for index, recipe in of.items() if recipe.STAGE.makes == "policy"]
    if len(policies) != 1:
        found = " and ".join(given.stages[index].name for index in policies) or "none"
        *others, last = (name for name, cls in STAGES.items() if cls.STAGE.makes == "policy")
        trainers = f"{', '.join(others)} or {last}"
        yield ("rounds",), f"a round needs one stage that trains the policy, by {trainers}; found {found}"
        return
    start, trainer = _model(of[policies[0]]), given.stages[policies[0]].name
    for index, recipe in of.items():
        if recipe.STAGE.makes == "labels" and _model(recipe) and _model(recipe) != start:
            yield (
                ("stages", index),
                f"samples from {_model(recipe)}, but {trainer} begins from {start}; give both the same "
                "model_name_or_path, which is the newest policy from round 2 on",
            )


def _samples(recipe: Recipe) -> bool:
    """Whether it samples answers to train on; an evaluation compares with the same baseline in every round."""
    return recipe.STAGE.samples and recipe.STAGE.makes != "results"


def _model(recipe: Recipe) -> str:
    path = getattr(recipe, "model_name_or_path", "")
    return os.path.normpath(path) if path else ""
