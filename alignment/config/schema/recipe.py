"""The keys that all recipes share, and the metadata of a stage."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from alignment.config.schema.keys import AdapterKeys, DataKeys, ModelKeys
from alignment.config.schema.parts import Free, Name, OutputPath, Part, Words
from alignment.config.tasks import CAUSAL

SPEEDS = ("runtime", "samples_per_second", "steps_per_second")  # metrics of every evaluation
OF_TOKENS = ("loss", "entropy", "mean_token_accuracy", "num_tokens", *SPEEDS)  # metrics of TRL's trainers


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The metadata of a stage. Code that treats stages differently reads it, not their names or classes."""

    title: str  # in reports and messages
    help: str  # of its verb; a literal, as `alignment.stages` reads it from the source
    makes: Literal["policy", "reward_model", "labels", "results", "data"]
    rows: Literal["demonstrations", "rankings", "unpaired", "prompts", "any"]  # what each row of `datasets` is read as
    next_step: str = ""  # printed after a run; {run}: its folder, {parent}: the folder above; "": by `makes`
    trains: bool = False
    samples: bool = False  # answers, from a policy
    one_process: bool = False
    held_out: bool = False  # reads eval_datasets
    task: str = CAUSAL  # the kind of model that it makes, one of `alignment.config.tasks`
    encoder_decoders: bool = False  # it also takes encoder-decoder models where it takes decoders
    splits: bool = False  # a row longer than max_length becomes several sequences; else its end is cut off
    sequences: int | None = 1  # that a row is trained as; None: one for each of its answers
    reference: bool = False  # training compares the policy with a frozen reference model
    fused_outputs: tuple[str, ...] = ()  # what TRL's fused output layer returns in this trainer, if it uses one
    ratio: str = ""  # of probabilities that the loss compares, and what dropout makes of it; "": the loss compares none
    metrics: tuple[str, ...] = ()  # of an evaluation during training, by which a best model may be found

    @property
    def is_online(self) -> bool:
        """Whether the stage trains on answers that it samples."""
        return self.trains and self.samples


class Recipe(Part):
    """Keys of every stage."""

    TRAINER_CONFIG: ClassVar[str | None] = None  # "package.module:Class", the class whose fields are also keys
    STAGE: ClassVar[Stage]

    stage: Words
    """The stage that runs the recipe."""
    output_dir: Free[OutputPath]
    """The run's folder: checkpoints, the trained model or labels, metrics, manifest and model card."""
    seed: int = Field(default=42, ge=0, lt=2**32)
    """Seed of every random choice: initial weights, shuffling, sampling, splits."""
    run_name: Free[Name | None] = None
    """The run's name at the tracker. `null`: `output_dir`."""
    report_to: Free[Words | list[Words]] = "none"
    """The tracker, or a list of trackers, that metrics are sent to. They are in `metrics.jsonl` in any case."""
    project: Free[Name | None] = None
    """The project at the tracker. `null`: `WANDB_PROJECT`, else `alignment-stack`."""
    log_model: Free[bool] = False
    """Also send the trained weights to W&B."""
    overwrite: Free[bool] = False
    """Delete a finished or interrupted run in `output_dir` and start again."""
    round: int | None = Field(default=None, gt=0, le=100)
    """The round of a pipeline with `rounds`, which sets it."""
    library: dict[str, Any] = Field(default_factory=dict, exclude=True)
    """Keys of `TRAINER_CONFIG`, as given."""
    source: Words = Field(default="", exclude=True)
    """The recipe file."""

    @property
    def task(self) -> str:
        """PEFT's name for the kind of model that the stage makes."""
        return self.STAGE.task

    @property
    def has_reference(self) -> bool:
        """Whether training compares the policy with a frozen reference model."""
        return self.STAGE.reference

    @property
    def passes_without_gradient(self) -> int:
        """Forward passes for each trained sequence beside the one that is differentiated."""
        return int(self.has_reference)

    def most_rows(self, read: int | None) -> int | None:
        """Return the maximum number of rows that a stage that makes data writes.

        Args:
            read: rows of its `datasets`. Both are None if they are unknown.
        """
        return read


class TrainingRecipe(Recipe, ModelKeys, AdapterKeys, DataKeys):
    """Keys of every stage that trains a model on data."""
