"""Preparation of data: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.calls import CallLimits
from alignment.config.schema.keys import DatasetEntry
from alignment.config.schema.parts import Free, Words
from alignment.config.schema.recipe import Recipe, Stage
from alignment.config.schema.steps import StepEntry

READ_NOTES = ("dataset",)  # notes that rows have before the first step


class PrepareRecipe(Recipe, CallLimits):
    """Clean, filter, mask, de-duplicate, mix and split data by a list of steps."""

    STAGE = Stage(
        title="Preparation of data",
        help="Clean, filter, de-duplicate, mix and split data.",
        makes="data",
        rows="any",
        next_step="look at {run}/prepare.html, or train on {run} in another stage",
        one_process=True,
    )
    stage: Literal["prepare"]
    datasets: list[DatasetEntry] = Field(min_length=1)
    """The data: one data set or several, in any layouts. `fraction` is not read; use a step of kind mix."""
    steps: list[StepEntry] = Field(min_length=1, max_length=100)
    """The steps, in their order."""
    layout: Literal["messages", "ranking"] | None = None
    """Bring all rows to one layout: demonstrations and prompts to `messages`, answers that are compared to `ranking`.
    `null`: rows stay in the layout of their file, and all files must have one.
    """
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What to do with a row that cannot be read: `stop` with an error, or `skip` and record it in `dropped.jsonl`."""
    output_format: Literal["jsonl", "parquet"] = "jsonl"
    """The format of the files of rows."""
    columns_added: list[Words] = Field(default_factory=list)
    """Notes of steps that are written as columns of the rows, such as `language`, `score`, `cluster` or `dataset`."""
    record_texts: bool = True
    """Write the texts of dropped and changed rows to `dropped.jsonl` and the page. With false, only origin, step and
    reason.
    """
    num_proc: Free[int] = Field(default=1, gt=0, le=1024)
    """Number of processes, or of workers of the engine, for steps that look at one row at a time and for the
    comparisons of duplicates.
    """
    engine: Free[Literal["local", "ray"]] = "local"
    """What runs the processes: this machine (`local`), or Ray Data on the cluster that the environment variable
    RAY_ADDRESS names, else on this machine. The rows are the same.
    """

    @property
    def reads_columns(self) -> bool:
        """Whether rows that no layout reads may be read: a step gives them one."""
        return any(step.READS_COLUMNS for step in self.steps)

    def most_rows(self, read: int | None) -> int | None:
        """Return the maximum number of rows that the steps leave."""
        for step in self.steps:
            read = step.most_rows(read)
        return read
