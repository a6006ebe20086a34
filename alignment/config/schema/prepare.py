"""Preparation of data: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.keys import DatasetEntry
from alignment.config.schema.parts import Free, Words
from alignment.config.schema.recipe import Recipe, Stage
from alignment.config.schema.steps import StepEntry


class PrepareRecipe(Recipe):
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
    """Number of processes for steps that look at one row at a time."""
