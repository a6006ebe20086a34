"""What pipeline.yaml may say."""

from typing import Any

from pydantic import Field

from alignment.config.schema.parts import Part, Text


class PipelineStage(Part):
    """One step: a recipe, or a command that prepares data."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")  # also the name of its log
    recipe: str | None = None  # a YAML file, relative to the pipeline's folder
    overrides: dict[str, Any] = Field(default_factory=dict)  # recipe: keys that differ here; `judge.model` reaches deep
    command: list[str] | None = Field(default=None, min_length=1)  # arguments after `python -m`
    inputs: list[str] = Field(default_factory=list)  # command: what it reads besides its own code
    outputs: list[str] = Field(default_factory=list)  # command: what it writes
    each_round: bool = False  # every round repeats it


class PipelineRecipe(Part):
    """Stages in order."""

    name: Text
    output_dir: Text  # paths in the stages' recipes that begin with it move when it is moved
    rounds: int | None = Field(
        default=None, gt=0, le=100
    )  # times that the stages with each_round run, see docs/feedback.md
    accelerate_config: str | None = None  # training stages run under `accelerate launch --config_file` this
    stages: list[PipelineStage] = Field(min_length=1)
