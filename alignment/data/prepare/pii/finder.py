"""Finds personal data in texts with presidio's analyzer, without a language model of its own."""

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import spacy
from presidio_analyzer import AnalyzerEngine, EntityRecognizer, RecognizerRegistry, predefined_recognizers
from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
from presidio_analyzer.nlp_engine import NlpArtifacts, SlimSpacyNlpEngine

from alignment.data.prepare.pii.addresses import Emails, Urls
from alignment.data.prepare.pii.dates import Dates
from alignment.data.prepare.pii.numbers import ChineseIds, Ibans, PaymentCards
from alignment.data.prepare.pii.phones import ChineseMobiles, Telephones
from alignment.data.prepare.pii.secrets import Secrets
from alignment.data.prepare.pii.spans import Span, chosen
from alignment.data.prepare.pii.texts import plain, separated, windows
from alignment.errors import DataError

LANGUAGE = "en"  # of presidio's recognisers; patterns read every language's text
BEHIND = 2  # words behind a span that may be its context words: `555 0123 (office)`; presidio reads 5 before it
SHORT_WORD = 3  # letters of a context word that has no other ending
THRESHOLD = 0.4  # presidio's score of a weak pattern with context words
_OF_PRESIDIO = ("CryptoRecognizer", "IpRecognizer", "MacAddressRecognizer", "MedicalLicenseRecognizer")
_OF_BANKS = ("AbaRoutingRecognizer",)  # a number of a bank, and one in ten numbers of nine digits


class Finder:
    """Finds spans of personal data.

    Presidio's own recognisers for numbers of several countries, IP and MAC addresses, and cryptocurrency wallets run
    beside this project's, and beside the user's model of named entities.
    """

    def __init__(
        self,
        *,
        countries: Collection[str] = ("us",),
        phone_regions: Sequence[str] | None = None,
        models: Iterable[EntityRecognizer] = (),
        threshold: float = THRESHOLD,
    ) -> None:
        """Build the recognisers.

        Args:
            countries: whose numbers presidio's recognisers find (ISO 3166-1, two letters, lower case).
            phone_regions: countries whose national telephone numbers are found; None: all.
            models: recognisers of named entities; their spans are marked as a model's.
            threshold: lowest score of a span.
        """
        self.models = list(models)
        own = [PaymentCards(), Ibans(), ChineseIds(), ChineseMobiles(), Emails(), Urls(), Dates(), Secrets()]
        recognisers = [*own, Telephones(list(phone_regions) if phone_regions else None), *_presidios(countries)]
        self._engine = _WordsOnly()
        self._analyzer = AnalyzerEngine(
            registry=RecognizerRegistry(recognizers=recognisers, supported_languages=[LANGUAGE]),
            nlp_engine=self._engine,
            supported_languages=[LANGUAGE],
            context_aware_enhancer=_Contexts(context_suffix_count=BEHIND),
        )
        self.threshold = threshold
        kinds = {kind for recogniser in [*recognisers, *self.models] for kind in recogniser.supported_entities}
        self.kinds = frozenset(kinds)

    def find(self, text: str, kinds: Collection[str]) -> list[Span]:
        """Return the spans of some types, without overlaps.

        Raises: DataError if a pattern takes longer than presidio allows.
        """
        found: list[Span] = []
        for offset, piece in windows(plain(text)):
            found += [Span(s.start + offset, s.end + offset, s.kind, s.score, s.model) for s in self._all(piece)]
        return chosen(found, kinds, text)

    def _all(self, text: str) -> list[Span]:
        words = separated(text)
        artifacts = self._engine.process_text(text, LANGUAGE)
        with _Skipped() as skipped:
            results = self._analyzer.analyze(words, LANGUAGE, nlp_artifacts=artifacts, score_threshold=self.threshold)
        if skipped.patterns:
            raise DataError(f"the pattern {skipped.patterns[0]} took too long; split the text into shorter rows.")
        spans = [Span(each.start, each.end, each.entity_type, each.score) for each in results]
        for model in self.models:
            named = model.analyze(text, model.supported_entities, artifacts)
            spans += [Span(each.start, each.end, each.entity_type, each.score, model=True) for each in named]
        return spans


def _presidios(countries: Collection[str]) -> list[EntityRecognizer]:
    """Return presidio's own recognisers: those of no country, and those of some countries."""
    classes = [getattr(predefined_recognizers, name) for name in predefined_recognizers.__all__ if name[0].isupper()]
    found = {
        each.__name__: each
        for each in classes
        if isinstance(each, type)
        and each.__name__ not in _OF_BANKS
        and (each.__name__ in _OF_PRESIDIO or _country(each) in countries)
    }
    return [each(supported_language=LANGUAGE) for _, each in sorted(found.items())]


def countries_of_presidio() -> list[str]:
    """Return the countries that presidio has recognisers for."""
    classes = [getattr(predefined_recognizers, name) for name in predefined_recognizers.__all__]
    return sorted({_country(each) for each in classes} - {""})


def _country(recogniser: Any) -> str:
    return (getattr(recogniser, "COUNTRY_CODE", None) or "").lower()


class _WordsOnly(SlimSpacyNlpEngine):
    """Splits texts into words for presidio's context words; needs no model."""

    def __init__(self) -> None:
        super().__init__(models=[{"lang_code": LANGUAGE, "model_name": "blank"}], auto_download=False)
        self._words = spacy.blank("xx")
        self.nlp = {LANGUAGE: self._words}  # type: ignore[assignment] # presidio's attribute is None before load()

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        """Return the words; each is its own lemma."""
        doc = self._words(text)
        return NlpArtifacts(
            entities=[],
            tokens=doc,
            tokens_indices=[token.idx for token in doc],
            lemmas=[token.text for token in doc],
            nlp_engine=self,
            language=language,
        )


class _Contexts(LemmaContextAwareEnhancer):
    """Raises the score of a span behind one of its context words.

    presidio takes a context word in any part of a word: `lic` in `public`, `tel` in `hotel`.
    """

    @staticmethod
    def _find_supportive_word_in_context(
        context_list: list[str], recognizer_context_list: list[str], matching_mode: str = ""
    ) -> str:
        """Return the first context word that a word equals, begins with, or holds if it is not of Latin letters."""
        for context in recognizer_context_list:
            if any(_is_context(word.lower(), context.strip().lower()) for word in context_list):
                return context
        return ""


def _is_context(word: str, context: str) -> bool:
    if not context.isascii():
        return context in word
    return word == context or (len(context) > SHORT_WORD and word.startswith(context))


class _Skipped(logging.Handler):
    """Collects the patterns that presidio leaves out with no more than a warning, because they took too long."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.patterns: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None and issubclass(record.exc_info[0], TimeoutError):
            self.patterns.append(str(record.args[0] if isinstance(record.args, tuple) and record.args else record.msg))

    def __enter__(self) -> "_Skipped":
        logging.getLogger("presidio-analyzer").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("presidio-analyzer").removeHandler(self)
