"""What the recipes of all stages have in common."""

from typing import Any, ClassVar

from pydantic import Field

from alignment.config.schema.parts import Part, Text


class Recipe(Part):
    """Keys of every stage."""

    TRAINER_CONFIG: ClassVar[str | None] = None  # "package.module:Class", the class whose fields are also keys

    stage: str
    output_dir: Text
    seed: int = Field(default=42, ge=0, lt=2**32)  # numpy takes no other
    run_name: Text | None = None
    report_to: str | list[str] = "none"
    project: Text | None = None  # at the tracker; None: WANDB_PROJECT, else the tracker's default
    log_model: bool = False  # send the trained weights to W&B too
    overwrite: bool = False  # start anew where output_dir holds a finished or interrupted run
    round: int | None = Field(default=None, gt=0, le=100)  # of a pipeline with rounds, which sets it
    library: dict[str, Any] = Field(default_factory=dict, exclude=True)  # keys of TRAINER_CONFIG, as given
    source: str = Field(default="", exclude=True)  # the recipe file
