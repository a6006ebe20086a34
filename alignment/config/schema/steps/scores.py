"""The step that scores rows and keeps the best."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.parts import InputPath, Name, Part
from alignment.config.schema.scorers import ScorerEntry
from alignment.config.schema.steps.base import AnyStep, On


class ClassifierEntry(Part):
    """A text classifier."""

    model_name_or_path: InputPath
    """The folder or Hub id of a sequence classifier of transformers."""
    label: Name
    """The label whose probability is the score."""
    on: On = "both"
    """The texts that are classified together: `prompt`, `answer`, `both`, or `all` texts of a row."""
    batch_size: int = Field(default=32, gt=0, le=10**6)
    """Number of rows that are classified together. Tokens beyond the model's context are not read."""


class ScoreEntry(AnyStep):
    """Scores."""

    kind: Literal["score"]
    """Score rows by a judge, a reward model, a function, a check or a text classifier, and keep the best."""
    scorer: ScorerEntry | None = None
    """A scorer as in stage grpo. It reads the prompt and the answer of a row; the row has one answer."""
    classifier: ClassifierEntry | None = None
    """A text classifier, in place of a scorer."""
    column: Name = "score"
    """The column of the rows that the score is written to."""
    minimum: float | None = Field(default=None, ge=-(10**9), le=10**9)
    """Keep rows whose score is at least this."""
    maximum: float | None = Field(default=None, ge=-(10**9), le=10**9)
    """Keep rows whose score is at most this."""
    quantile: float | None = Field(default=None, gt=0, lt=1)
    """Keep rows whose score is at least this quantile of all scores; 0.9 keeps the best tenth."""
    top_k: int | None = Field(default=None, gt=0, le=10**9)
    """Keep this number of rows with the highest scores, of all or of each value of `per`."""
    per: Name | None = None
    """With `top_k`: a column, or a note of an earlier step such as `cluster`."""
    batch_size: int = Field(default=64, gt=0, le=10**6)
    """Number of answers that a reward model scores together."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the note of the score."""
        return (self.column,)
