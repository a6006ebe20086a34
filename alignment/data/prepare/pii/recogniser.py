"""The base of this project's recognisers, which presidio's analyzer runs beside its own."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

from presidio_analyzer import AnalysisExplanation, LocalRecognizer, RecognizerResult

VALID, LIKELY, WEAK = 1.0, 0.6, 0.3  # scores: a checksum holds; a distinct form; a form that needs context words


def explained(recogniser: LocalRecognizer, score: float) -> AnalysisExplanation:
    """Return presidio's record of a span's score before context words."""
    return AnalysisExplanation(recognizer=type(recogniser).__name__, original_score=score)


class Recogniser(LocalRecognizer):
    """Finds one type of personal data by a pattern and what its numbers must fulfil."""

    KIND: ClassVar[str]
    CONTEXT: ClassVar[tuple[str, ...]] = ()  # words before a span that raise its score by 0.35

    def __init__(self) -> None:
        super().__init__(supported_entities=[self.KIND], context=list(self.CONTEXT))

    def load(self) -> None:
        """Do nothing: a pattern has no model."""

    @abstractmethod
    def found(self, text: str) -> Iterable[tuple[int, int, float]]:
        """Yield the beginning, the end and the score of every span."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        """Return the spans as presidio's results."""
        return [
            RecognizerResult(
                entity_type=self.KIND,
                start=start,
                end=end,
                score=score,
                analysis_explanation=explained(self, score),
                recognition_metadata={RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: self.id},
            )
            for start, end, score in self.found(text)
        ]
