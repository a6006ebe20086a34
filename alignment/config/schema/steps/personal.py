"""The step that looks for personal data."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.parts import InputPath, Name, Part
from alignment.config.schema.steps.base import AnyStep

PiiAction = Literal["mask", "surrogate", "drop", "keep"]


class NerEntry(Part):
    """A model of named entities."""

    kind: Literal["spacy", "transformers"]
    """`spacy`: a pipeline. `transformers`: a token classifier."""
    model_name_or_path: InputPath
    """The folder of the model, or the name of an installed spaCy package."""
    labels: dict[str, Name | None] = Field(default_factory=dict)
    """Type of personal data for each label of the model that has another name, or `null` to ignore the label."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """Lowest score of an entity. spaCy's entities have 0.85."""


class PiiEntry(AnyStep):
    """Personal data."""

    kind: Literal["pii"]
    """Mask, replace or drop personal data and secrets."""
    action: PiiAction = "mask"
    """What is done with personal data: `mask` with its type (`<EMAIL_ADDRESS>`), replace with a `surrogate`, `drop` the
    row, or `keep`.
    """
    actions: dict[str, PiiAction] = Field(default_factory=dict)
    """The action for single types, such as `{PERSON: surrogate, SECRET_VALUE: drop}`."""
    types: list[Name] | None = None
    """Types to look for. `null`: all that the recognisers find, but `DATE_TIME` and `URL`, and those in `actions`."""
    surrogates: Literal["row", "dataset"] = "row"
    """Where the same value gets the same surrogate: in all texts of a `row`, or of the whole `dataset`."""
    countries: list[Name] = Field(default_factory=lambda: ["us"])
    """Countries (two letters, lower case) whose numbers presidio's recognisers look for."""
    phone_regions: list[Name] | None = None
    """Countries (two letters, upper case) whose national telephone numbers are looked for. `null`: all."""
    threshold: float = Field(default=0.4, ge=0, le=1)
    """Lowest score of what a pattern finds."""
    allow: list[Name] = Field(default_factory=list)
    """Texts that are no personal data, such as the address of a help desk."""
    ner: NerEntry | None = None
    """Your own model of named entities, for types without a pattern, such as names."""
