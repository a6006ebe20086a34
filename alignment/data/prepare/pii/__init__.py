"""The step `pii`: recognisers of personal data, spans, and what takes their place."""

from alignment.config.schema.steps.personal import PiiEntry
from alignment.data.prepare.step import Step, StepError


def build(entry: PiiEntry, seed: int) -> Step:
    """Return the step.

    Raises: StepError if the extra is missing, or a type, a country or the model is unknown.
    """
    try:
        from alignment.data.prepare.pii.step import Pii
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("alignment"):
            raise
        raise StepError(
            f'step {entry.label} needs {error.name}, which is in the extra pii: pip install "alignment-stack[pii]"'
        ) from None
    return Pii(entry, seed)
