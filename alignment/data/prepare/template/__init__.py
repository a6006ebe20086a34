"""The step `template`: instruction pairs of labelled rows, through templates in a sandbox."""

from alignment.config.schema.steps.templates import TemplateEntry
from alignment.data.prepare.step import Step
from alignment.data.prepare.template.step import FewShot, Templated


def build(entry: TemplateEntry, seed: int) -> Step:
    """Return the step.

    Raises: StepError if a file cannot be read, or a template is wrong.
    """
    return FewShot(entry, seed) if entry.few_shot else Templated(entry, seed)
