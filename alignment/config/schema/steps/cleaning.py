"""Steps that look at the texts of one row: cleaning, length, language, refusals."""

from typing import Annotated, Literal

from pydantic import Field

from alignment.config.schema.parts import InputPath, Mark, Words
from alignment.config.schema.steps.base import AnyStep, On

# The languages with the most speakers, or the most text on the web.
CANDIDATES = tuple(
    "ar bg bn ca cs da de el en es et fa fi fr gu he hi hr hu id it ja jv kn ko lt lv ml mr ms nl no pa pl pt ro ru sk "
    "sl sr sv sw ta te th tl tr uk ur vi zh".split()
)
Language = Annotated[str, Field(pattern="^[a-z]{2,3}$"), Mark.WORDS]


class CleanEntry(AnyStep):
    """Repair of texts."""

    kind: Literal["clean"]
    """Repair texts: Unicode, control characters, HTML, white space, boilerplate."""
    on: On = "all"
    """The texts that the step changes: `prompt`, `answer`, `both`, or `all` texts of a row."""
    unicode: bool = True
    """Repair text that was decoded with a wrong encoding, and normalize to NFC, with ftfy."""
    control: bool = True
    """Remove control characters, byte order marks and zero-width spaces; line ends become line feeds."""
    html: bool = False
    """Remove HTML tags, comments, scripts and styles, and decode character references; code in Markdown stays."""
    whitespace: bool = True
    """Remove white space at the ends of lines and texts, and more than one blank line in a row."""
    boilerplate: list[Words] = Field(default_factory=list)
    """Regular expressions of Python's `re`; a line that one of them matches as a whole is removed."""


class LengthEntry(AnyStep):
    """Limits of lengths."""

    kind: Literal["length"]
    """Drop rows whose texts are shorter or longer than limits."""
    on: On = "answer"
    """The texts that are measured together: `prompt`, `answer`, `both`, or `all` texts of a row."""
    unit: Literal["characters", "words", "tokens"] = "words"
    """What is counted. `tokens`: of `tokenizer`, without special tokens."""
    minimum: int | None = Field(default=None, ge=0, le=10**9)
    """Lower end of the range. `null`: none."""
    maximum: int | None = Field(default=None, ge=0, le=10**9)
    """Upper end of the range. `null`: none."""
    tokenizer: InputPath | None = None
    """With `unit: tokens`: the folder or Hub id of a tokenizer."""


class LanguageEntry(AnyStep):
    """Identification of languages."""

    kind: Literal["language"]
    """Note the language of each row, as `language`, and keep the rows of some languages; with py3langid."""
    on: On = "both"
    """The texts that are looked at together: `prompt`, `answer`, `both`, or `all` texts of a row."""
    languages: list[Language] | None = Field(default=None, min_length=1)
    """Languages to keep, as ISO 639-1 codes. `null`: all, and the language is only noted."""
    candidates: list[Language] = Field(default=list(CANDIDATES), min_length=2)
    """Languages that a text may have; `languages` count too. Fewer make short texts safer."""
    min_probability: float = Field(default=0.5, ge=0, le=1)
    """Probability below which the language counts as unknown, `und`."""
    min_letters: int = Field(default=20, ge=0, le=10**6)
    """Letters below which the language counts as unknown, `und`."""
    keep_unknown: bool = True
    """Keep rows whose language is unknown."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the note of the language."""
        return ("language",)


class RefusalsEntry(AnyStep):
    """Removal of refusals."""

    kind: Literal["refusals"]
    """Drop rows with an answer that refuses, or speaks of itself as a language model."""
    builtin: bool = True
    """Look for the package's patterns, in English and Chinese; docs/prepare.md lists them."""
    patterns: list[Words] = Field(default_factory=list)
    """Further regular expressions of Python's `re`, regardless of case."""
    within: int = Field(default=300, gt=0, le=10**6)
    """Number of characters at the start of an answer that are looked at."""
