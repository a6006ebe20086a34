"""How a comparison, or one answer, becomes the text that a judge model reads."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from alignment.data.conversations import readable
from alignment.data.rows import Prompt
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison

FIELDS = ("prompt", "first", "second")
OPTIONAL_LABELS = ("tie", "abstain")  # offered by a prompt that mentions the word


@dataclass(frozen=True, slots=True)
class PairwisePrompt:
    """A prompt file with the placeholders {prompt}, {first} and {second}."""

    text: str
    hash: str  # first 16 hexadecimal digits of the file's SHA-256; travels with every label
    labels: frozenset[str]  # verdicts that it offers

    @classmethod
    def load(cls, path: str | None) -> "PairwisePrompt":
        """Read a prompt file; None is the package's own `pairwise.txt`.

        Raises: JudgeError where it cannot be read or lacks a placeholder.
        """
        text, digest = read_prompt(path, "pairwise.txt", FIELDS, "the request and the two answers")
        offered = {"A", "B"} | {word for word in OPTIONAL_LABELS if re.search(rf"\b{word}\b", text, re.IGNORECASE)}
        return cls(text, digest, frozenset(offered))

    def render(self, comparison: Comparison) -> str:
        """Fill the placeholders, each value between tags that its writer could not have known."""
        values = {
            "prompt": readable(comparison.prompt),
            "first": comparison.first,
            "second": comparison.second,
        }
        return fence(self.text, values, {"prompt": "request", "first": "answer-A", "second": "answer-B"})


@dataclass(frozen=True, slots=True)
class PointwisePrompt:
    """A prompt file with the placeholders {prompt} and {answer}, for a number from 0 to 10."""

    text: str
    hash: str  # first 16 hexadecimal digits of the file's SHA-256

    @classmethod
    def load(cls, path: str | None) -> "PointwisePrompt":
        """Read a prompt file; None is the package's own `pointwise.txt`.

        Raises: JudgeError where it cannot be read or lacks a placeholder.
        """
        return cls(*read_prompt(path, "pointwise.txt", ("prompt", "answer"), "the request and the answer"))

    def render(self, prompt: Prompt, answer: str) -> str:
        """Fill the placeholders, each value between tags that its writer could not have known."""
        values = {"prompt": readable(prompt), "answer": answer}
        return fence(self.text, values, {"prompt": "request", "answer": "answer"})


def read_prompt(path: str | None, default: str, fields: Sequence[str], what: str) -> tuple[str, str]:
    """Read a prompt file, None for the package's own; its text, and the first 16 digits of its SHA-256.

    Raises: JudgeError where it cannot be read or lacks a placeholder.
    """
    if path is None:
        data = resources.files("reward.judges").joinpath("prompts", default).read_bytes()
    else:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise JudgeError(f"judge.prompt {path}: {error.strerror}; name a text file.") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JudgeError(f"judge.prompt {path}: not UTF-8 text ({error.reason}).") from error
    missing = [f"{{{field}}}" for field in fields if f"{{{field}}}" not in text]
    if missing:
        *most, last = (f"{{{field}}}" for field in fields)
        raise JudgeError(
            f"judge.prompt {path}: lacks {', '.join(missing)}; a prompt file holds {', '.join(most)} and {last} where "
            f"{what} go."
        )
    return text, hashlib.sha256(data).hexdigest()[:16]


def fence(text: str, values: dict[str, str], tags: dict[str, str]) -> str:
    """Put values in the place of {name}, each between tags.

    The tags carry a code made from all values, so an answer cannot close its own fence and open another; one pass fills
    all placeholders, so an answer that contains "{second}" stays as it is.
    """
    code = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    def fenced(match: re.Match[str]) -> str:
        tag = f"{tags[match[1]]}-{code}"
        return f"<{tag}>\n{values[match[1]]}\n</{tag}>"

    return well_formed(re.sub(rf"\{{({'|'.join(values)})\}}", fenced, text))


def well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON may spell and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
