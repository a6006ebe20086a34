"""Identification of languages with py3langid, whose model is part of the package."""

from typing import Any

from alignment.config.schema.steps.cleaning import LanguageEntry
from alignment.data.prepare.step import ROLES, Drop, Outcome, Row, Step, StepError

UNKNOWN = "und"  # ISO 639-2's code
NOTE = "language"
LONGEST = 2_000  # characters that are looked at


class LanguageStep(Step):
    """Notes each row's language."""

    def __init__(self, entry: LanguageEntry) -> None:
        self.entry, self.roles = entry, ROLES[entry.on]
        self.identifier = _identifier([*dict.fromkeys([*entry.candidates, *(entry.languages or [])])])

    def apply(self, row: Row) -> Outcome:
        """Return the row with its language, or drop it."""
        language, probability = self.identified(row.joined(self.entry.on))
        allowed = self.entry.languages
        if language == UNKNOWN:
            if allowed is not None and not self.entry.keep_unknown:
                return Drop("the language is unknown")
        elif allowed is not None and language not in allowed:
            return Drop(f"the language is {language}", f"with probability {probability:.2f}")
        return row.noting(**{NOTE: language})

    def identified(self, text: str) -> tuple[str, float]:
        """Return a text's language and its probability among the candidates."""
        text = text[:LONGEST]
        if sum(map(str.isalpha, text)) < self.entry.min_letters:
            return UNKNOWN, 0.0
        language, probability = self.identifier.classify(text)
        return (str(language), float(probability)) if probability >= self.entry.min_probability else (UNKNOWN, 0.0)


def _identifier(languages: list[str]) -> Any:
    from py3langid import langid

    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    known = {str(label) for label in identifier.labels}
    unknown = [language for language in languages if language not in known]
    if unknown:
        raise StepError(
            f"step language: {', '.join(unknown)} is no language that py3langid knows; it knows "
            f"{', '.join(sorted(known))}"
        )
    identifier.set_languages(languages)
    return identifier


def build(entry: LanguageEntry, seed: int) -> LanguageStep:
    """Return the step."""
    return LanguageStep(entry)
