"""Steps that look at the texts of one row: cleaning and length."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.parts import InputPath, Words
from alignment.config.schema.steps.base import AnyStep, On


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
    """Remove HTML tags, comments, scripts and styles, and decode character references."""
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
