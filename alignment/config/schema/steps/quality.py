"""Rules of quality: their thresholds and sources, and the step that applies them."""

from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import Field

from alignment.config.schema.steps.base import AnyStep, On

GOPHER = "Gopher (https://arxiv.org/abs/2112.11446), appendix A1.1"
GOPHER_TABLE = "Gopher (https://arxiv.org/abs/2112.11446), table A1"
C4 = "C4 (https://arxiv.org/abs/1910.10683), section 2.2"
QualityRule = Literal[
    "min_words", "max_words", "min_mean_word_length", "max_mean_word_length", "max_symbols_per_word",
    "max_bullet_lines", "max_ellipsis_lines",
    "min_alphabetic_words", "min_stop_words", "max_duplicate_lines", "max_duplicate_paragraphs",
    "max_duplicate_line_characters", "max_duplicate_paragraph_characters", "max_top_2_gram", "max_top_3_gram",
    "max_top_4_gram", "max_duplicate_5_gram", "max_duplicate_6_gram", "max_duplicate_7_gram", "max_duplicate_8_gram",
    "max_duplicate_9_gram", "max_duplicate_10_gram", "min_sentences", "min_terminal_lines", "max_curly_brackets",
    "max_lorem_ipsum", "max_javascript_lines",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measure:
    """What a rule limits."""

    threshold: float  # as published
    source: str
    meaning: str
    for_pages: bool = False  # made for web pages: not among the rules that apply unless they are named


RULES: dict[QualityRule, Measure] = {
    "min_words": Measure(50, GOPHER, "words", for_pages=True),
    "max_words": Measure(100_000, GOPHER, "words", for_pages=True),
    "min_mean_word_length": Measure(3, GOPHER, "mean characters of a word", for_pages=True),
    "max_mean_word_length": Measure(10, GOPHER, "mean characters of a word", for_pages=True),
    "max_symbols_per_word": Measure(0.1, GOPHER, "hash signs, or ellipses, for each word"),
    "max_bullet_lines": Measure(0.9, GOPHER, "share of lines that begin with a bullet", for_pages=True),
    "max_ellipsis_lines": Measure(0.3, GOPHER, "share of lines that end with an ellipsis"),
    "min_alphabetic_words": Measure(0.8, GOPHER, "share of words with a letter", for_pages=True),
    "min_stop_words": Measure(2, GOPHER, "different words of the, be, to, of, and, that, have, with", for_pages=True),
    "max_duplicate_lines": Measure(0.30, GOPHER_TABLE, "share of lines that repeat an earlier one"),
    "max_duplicate_paragraphs": Measure(0.30, GOPHER_TABLE, "share of paragraphs that repeat an earlier one"),
    "max_duplicate_line_characters": Measure(0.20, GOPHER_TABLE, "share of characters in such lines"),
    "max_duplicate_paragraph_characters": Measure(0.20, GOPHER_TABLE, "share of characters in such paragraphs"),
    "max_top_2_gram": Measure(0.20, GOPHER_TABLE, "share of characters in the most frequent 2-gram"),
    "max_top_3_gram": Measure(0.18, GOPHER_TABLE, "share of characters in the most frequent 3-gram"),
    "max_top_4_gram": Measure(0.16, GOPHER_TABLE, "share of characters in the most frequent 4-gram"),
    "max_duplicate_5_gram": Measure(0.15, GOPHER_TABLE, "share of characters in repeated 5-grams"),
    "max_duplicate_6_gram": Measure(0.14, GOPHER_TABLE, "share of characters in repeated 6-grams"),
    "max_duplicate_7_gram": Measure(0.13, GOPHER_TABLE, "share of characters in repeated 7-grams"),
    "max_duplicate_8_gram": Measure(0.12, GOPHER_TABLE, "share of characters in repeated 8-grams"),
    "max_duplicate_9_gram": Measure(0.11, GOPHER_TABLE, "share of characters in repeated 9-grams"),
    "max_duplicate_10_gram": Measure(0.10, GOPHER_TABLE, "share of characters in repeated 10-grams"),
    "min_sentences": Measure(3, C4, "sentences", for_pages=True),
    "min_terminal_lines": Measure(1, C4, "share of lines that end with . ! ? or a quotation mark", for_pages=True),
    "max_curly_brackets": Measure(0, C4, "curly brackets", for_pages=True),
    "max_lorem_ipsum": Measure(0, C4, "occurrences of lorem ipsum"),
    "max_javascript_lines": Measure(0, C4, "lines with the word Javascript", for_pages=True),
}
SHARES = frozenset(name for name, rule in RULES.items() if rule.meaning.startswith("share"))
FOR_ANSWERS: list[QualityRule] = [name for name in get_args(QualityRule) if not RULES[name].for_pages]


class QualityEntry(AnyStep):
    """Rules of repetition and symbols."""

    kind: Literal["quality"]
    """Drop rows that break rules of repetition and symbols of Gopher and C4; docs/prepare.md lists them."""
    on: On = "answer"
    """The texts that are looked at, each by itself: `prompt`, `answer`, `both`, or `all` texts of a row."""
    rules: list[QualityRule] = Field(default=FOR_ANSWERS, min_length=1)
    """The rules to apply. Rules that were made for web pages are not among the default, as answers may be short."""
    thresholds: dict[QualityRule, float] = Field(default_factory=dict)
    """Other thresholds than the published ones, by rule."""
