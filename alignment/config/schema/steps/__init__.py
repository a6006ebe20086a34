"""The schema of the steps that prepare data: one class per kind.

The module `alignment/data/prepare/KIND.py` runs a step. To add a kind, write that module and a class in a module of
this package, and add the class to `StepEntry`.
"""

from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from alignment.config.schema.steps.base import AnyStep
from alignment.config.schema.steps.cleaning import CleanEntry, LanguageEntry, LengthEntry, RefusalsEntry
from alignment.config.schema.steps.duplicates import (
    ExactDuplicatesEntry,
    NearDuplicatesEntry,
    OverlapEntry,
    SemanticDuplicatesEntry,
)
from alignment.config.schema.steps.personal import PiiEntry
from alignment.config.schema.steps.quality import QualityEntry
from alignment.config.schema.steps.scores import ScoreEntry
from alignment.config.schema.steps.selection import BalanceEntry, MixEntry, SampleEntry, SplitEntry
from alignment.config.schema.steps.templates import TemplateEntry

StepEntry = Annotated[
    CleanEntry
    | LengthEntry
    | LanguageEntry
    | QualityEntry
    | RefusalsEntry
    | PiiEntry
    | ExactDuplicatesEntry
    | NearDuplicatesEntry
    | SemanticDuplicatesEntry
    | OverlapEntry
    | TemplateEntry
    | ScoreEntry
    | SampleEntry
    | MixEntry
    | SplitEntry
    | BalanceEntry,
    Field(discriminator="kind"),
]  # fmt: skip
_ADAPTER: TypeAdapter[AnyStep] = TypeAdapter(StepEntry)


def step_entry(**keys: Any) -> Any:
    """Return the entry of a step.

    Raises: pydantic.ValidationError if a key is wrong.
    """
    return _ADAPTER.validate_python(keys)


__all__ = ["AnyStep", "StepEntry", "step_entry"]
