"""The schema of pipeline.yaml."""

from typing import Any

from pydantic import Field

from alignment.config.schema.parts import Name, OtherPath, OutputPath, Part, Words
from alignment.config.schema.require import RequireEntry


class PipelineStage(Part):
    """One step: a recipe, or a command that prepares data."""

    name: Words = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The stage's name; also the name of its log."""
    recipe: OtherPath | None = None
    """A recipe, relative to the pipeline's folder. Either `recipe` or `command` is given."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """With `recipe`: keys that differ here. A key such as `judge.model` changes one inside a mapping."""
    command: list[OtherPath] | None = Field(default=None, min_length=1)
    """A module and its arguments, as after `python -m`."""
    inputs: list[OtherPath] = Field(default_factory=list)
    """With `command`: files and folders that it reads besides its own code."""
    outputs: list[OtherPath] = Field(default_factory=list)
    """With `command`: files and folders that it writes."""
    require: RequireEntry | None = None
    """With the `recipe` of an evaluation: the pipeline stops after it, with exit code 3, where this does not hold."""
    each_round: bool = False
    """Repeat the stage in every round."""


class PipelineRecipe(Part):
    """Stages in order."""

    name: Name
    """The pipeline's name."""
    output_dir: OutputPath
    """The pipeline's folder. Paths in the recipes that begin with it move when it is moved."""
    rounds: int | None = Field(default=None, gt=0, le=100)
    """Number of times that the stages with `each_round` run."""
    accelerate_config: OtherPath | None = None
    """Run training stages under `accelerate launch --config_file` with this file."""
    stages: list[PipelineStage] = Field(min_length=1)
    """The stages, in order."""
