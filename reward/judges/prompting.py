"""Prompts of judges: prompt files, and fences around the judged texts."""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from alignment.calls.replies import well_formed
from alignment.config.documents import read_bytes
from alignment.data.conversations import readable
from alignment.data.rows import Prompt
from alignment.errors import JudgeError, RecipeError
from alignment.evaluate.judging import Comparison, Listing

OPTIONAL_LABELS = ("tie", "abstain")  # verdicts that a prompt offers if it contains the word
PROCESS_SECRET = secrets.token_bytes(32)  # of fences in calls without a store
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class PromptFile:
    """A prompt template with placeholders such as {prompt}."""

    text: str
    hash: str  # first 16 hexadecimal digits of the file's SHA-256; recorded with every label

    @classmethod
    def read(cls, path: str | None, default: str, fields: Sequence[str], what: str) -> "PromptFile":
        """Read a prompt file; None: the package's `default`.

        Args:
            fields: required placeholders. what: their contents, for messages.

        Raises: JudgeError if it cannot be read or lacks a placeholder.
        """
        if path is None:
            data = resources.files("reward.judges").joinpath("prompts", default).read_bytes()
        else:
            try:
                data = read_bytes(path, "text")
            except RecipeError as error:
                raise JudgeError(f"judge.prompt {error}; name a text file.") from None
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise JudgeError(f"judge.prompt {path}: not UTF-8 text ({error.reason}).") from error
        missing = [f"{{{field}}}" for field in fields if f"{{{field}}}" not in text]
        if missing:
            *most, last = (f"{{{field}}}" for field in fields)
            raise JudgeError(
                f"judge.prompt {path}: lacks {', '.join(missing)}; a prompt file holds {', '.join(most)} and {last} "
                f"for {what}."
            )
        return cls(text, hashlib.sha256(data).hexdigest()[:16])

    def fill(self, **values: str) -> str:
        """Replace each {name} by its value.

        All placeholders are replaced in one pass, so "{second}" within an answer is not replaced.
        """
        pattern = rf"\{{({'|'.join(values)})\}}"
        return well_formed(re.sub(pattern, lambda match: values[match[1]], self.text))


class Fence:
    """Puts the judged texts between tags that their authors cannot guess.

    The tags contain an HMAC of all texts with a secret of the run, so an answer cannot close its own fence and open
    another.
    """

    def __init__(self, *texts: str, secret: bytes | None) -> None:
        """Compute the code.

        Args:
            secret: None: one of this process; b"": none, a plain hash as in the calls of earlier versions.
        """
        secret, message = PROCESS_SECRET if secret is None else secret, json.dumps(texts).encode()
        made = hmac.new(secret, message, "sha256") if secret else hashlib.sha256(message)
        self.code = made.hexdigest()[:12]

    def around(self, tag: str, text: str) -> str:
        """Return the text between its tags."""
        return f"<{tag}-{self.code}>\n{text}\n</{tag}-{self.code}>"


@dataclass(frozen=True, slots=True)
class PairwisePrompt:
    """A prompt file with the placeholders {prompt}, {first} and {second}, and {principles} with a constitution."""

    file: PromptFile
    labels: tuple[str, ...]  # the verdicts that it offers
    principled: bool

    @classmethod
    def load(cls, path: str | None, *, reasoning: bool = False, principled: bool = False) -> "PairwisePrompt":
        """Read a prompt file; None: the package's own.

        Raises: JudgeError if it cannot be read or lacks a placeholder.
        """
        default = ("constitution" if principled else "pairwise") + ("_reasoning" if reasoning else "") + ".txt"
        fields = (*(("principles",) if principled else ()), "prompt", "first", "second")
        what = "the principles, the request and the two answers" if principled else "the request and the two answers"
        file = PromptFile.read(path, default, fields, what)
        if not principled and "{principles}" in file.text:
            raise JudgeError(f"judge.prompt {path}: has {{principles}}; set judge.constitution to their file.")
        more = [word for word in OPTIONAL_LABELS if re.search(rf"\b{word}\b", file.text, re.IGNORECASE)]
        return cls(file, ("A", "B", *more), principled)

    @property
    def hash(self) -> str:
        """The hash of the file."""
        return self.file.hash

    def render(self, comparison: Comparison, principles: str = "", *, secret: bytes | None = None) -> str:
        """Fill the placeholders, with fences made by `secret` around the request and the answers."""
        prompt = readable(comparison.prompt)
        fence = Fence(prompt, comparison.first, comparison.second, secret=secret)
        return self.file.fill(
            principles=principles,
            prompt=fence.around("request", prompt),
            first=fence.around("answer-A", comparison.first),
            second=fence.around("answer-B", comparison.second),
        )


@dataclass(frozen=True, slots=True)
class ListwisePrompt:
    """A prompt file with the placeholders {prompt} and {answers}."""

    file: PromptFile

    @classmethod
    def load(cls, path: str | None, *, reasoning: bool = False) -> "ListwisePrompt":
        """Read a prompt file; None: the package's own.

        Raises: JudgeError if it cannot be read or lacks a placeholder.
        """
        default = "listwise_reasoning.txt" if reasoning else "listwise.txt"
        return cls(PromptFile.read(path, default, ("prompt", "answers"), "the request and the answers"))

    def render(self, listing: Listing, *, secret: bytes | None = None) -> str:
        """Fill the placeholders; answers are called A, B, C, ... in the order of the listing."""
        prompt = readable(listing.prompt)
        fence = Fence(prompt, *listing.answers, secret=secret)
        answers = [
            f"Answer {letter}:\n{fence.around(f'answer-{letter}', answer)}"
            for letter, answer in zip(LETTERS, listing.answers, strict=False)
        ]
        return self.file.fill(prompt=fence.around("request", prompt), answers="\n\n".join(answers))


@dataclass(frozen=True, slots=True)
class PointwisePrompt:
    """A prompt file with the placeholders {prompt} and {answer}, and {criterion} with a rubric."""

    file: PromptFile

    @classmethod
    def load(cls, path: str | None, *, reasoning: bool = False, rubric: bool = False) -> "PointwisePrompt":
        """Read a prompt file; None: the package's own.

        Raises: JudgeError if it cannot be read or lacks a placeholder.
        """
        default = ("rubric" if rubric else "pointwise") + ("_reasoning" if reasoning else "") + ".txt"
        fields = (*(("criterion",) if rubric else ()), "prompt", "answer")
        what = "the criterion, the request and the answer" if rubric else "the request and the answer"
        return cls(PromptFile.read(path, default, fields, what))

    @property
    def hash(self) -> str:
        """The hash of the file."""
        return self.file.hash

    def render(self, prompt: Prompt, answer: str, criterion: str = "", *, secret: bytes | None = None) -> str:
        """Fill the placeholders, with fences around the request and the answer."""
        text = readable(prompt)
        fence = Fence(text, answer, secret=secret)
        return self.file.fill(
            criterion=criterion, prompt=fence.around("request", text), answer=fence.around("answer", answer)
        )


def joint_hash(*parts: object) -> str:
    """Return one hash of several parts of a question, 16 hexadecimal digits; a single part is returned as text."""
    if len(parts) == 1:
        return str(parts[0])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
