"""The step that writes instruction pairs of labelled rows."""

from typing import ClassVar, Literal

from pydantic import Field

from alignment.config.schema.parts import InputPath, Name, Part, Words
from alignment.config.schema.steps.base import AnyStep


class JinjaTemplate(Part):
    """A template of a prompt and its answer."""

    name: Name
    """The template's name, which rows note as `template`."""
    template: Name
    """Jinja text of the prompt and the answer, separated by `|||`. The row's columns are its variables."""
    answer_choices: Words | None = None
    """Jinja text of the possible answers, separated by `|||`, which the template reads as the list `answer_choices`."""


class TemplateEntry(AnyStep):
    """Instruction pairs of labelled rows."""

    READS_COLUMNS: ClassVar[bool] = True

    kind: Literal["template"]
    """Write prompts and answers of the columns of labelled rows, through Jinja templates."""
    templates: list[JinjaTemplate] = Field(default_factory=list)
    """Templates."""
    promptsource: list[InputPath] = Field(default_factory=list)
    """Files of promptsource (P3), `templates.yaml`, whose templates are added."""
    names: list[Name] | None = None
    """Names of the templates to use. `null`: all."""
    per_row: int = Field(default=1, gt=0, le=1000)
    """Number of templates that are drawn for each row; each gives a row."""
    few_shot: int = Field(default=0, ge=0, le=64)
    """Number of other rows that stand as examples before each prompt. None is from a split but `train`."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the notes of the template and its choices."""
        return ("template", "answer_choices")

    def most_rows(self, read: int | None) -> int | None:
        """Return the rows of all templates that are drawn."""
        return None if read is None else read * self.per_row
