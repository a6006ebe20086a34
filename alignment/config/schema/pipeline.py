"""What pipeline.yaml may say."""

from typing import Any

from pydantic import Field

from alignment.config.schema.parts import Name, OtherPath, OutputPath, Part, Words


class PipelineStage(Part):
    """One step: a recipe, or a command that prepares data."""

    name: Words = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")  # also the name of its log
    recipe: OtherPath | None = None  # a YAML file, relative to the pipeline's folder
    overrides: dict[str, Any] = Field(default_factory=dict)  # recipe: keys that differ here; `judge.model` reaches deep
    command: list[OtherPath] | None = Field(default=None, min_length=1)  # arguments after `python -m`
    inputs: list[OtherPath] = Field(default_factory=list)  # command: what it reads besides its own code
    outputs: list[OtherPath] = Field(default_factory=list)  # command: what it writes
    each_round: bool = False  # every round repeats it


class PipelineRecipe(Part):
    """Stages in order."""

    name: Name
    output_dir: OutputPath  # paths in the stages' recipes that begin with it move when it is moved
    rounds: int | None = Field(
        default=None, gt=0, le=100
    )  # times that the stages with each_round run, see docs/feedback.md
    accelerate_config: OtherPath | None = None  # training stages run under `accelerate launch --config_file` this
    stages: list[PipelineStage] = Field(min_length=1)
