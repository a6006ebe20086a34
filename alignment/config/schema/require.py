"""What a stage of a pipeline must have reached before the next one runs."""

from pydantic import Field

from alignment.config.schema.parts import Name, Part

PEOPLE = "people"  # all persons together, in `by`
PERSON = "person:"  # begins the name of one


class WinRateEntry(Part):
    """Limits on the win rates of an evaluation; `low` and `value` are shares of 1, ties half."""

    against: Name
    """The model that must be beaten, such as the evaluation's baseline."""
    of: list[Name] | None = Field(default=None, min_length=1)
    """The models that must beat it. Default: all other candidates."""
    by: Name = PEOPLE
    """Who has judged: `people`, all persons who ranked the evaluation's answers; `person:NAME`, one of them; or a judge
    of the evaluation. Judges compare with the baseline alone.
    """
    low: float | None = Field(default=None, ge=0, le=1)
    """The lower end of the interval must be at least this."""
    value: float | None = Field(default=None, ge=0, le=1)
    """The win rate must be at least this."""
    min_prompts: int = Field(default=1, gt=0, le=10**9)
    """Number of prompts that must be judged."""


class RequireEntry(Part):
    """Conditions under which a pipeline goes on."""

    win_rate: WinRateEntry
    """Limits on the win rates of this evaluation."""
