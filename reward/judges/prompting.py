"""How a comparison becomes the text that a judge model reads."""

import hashlib
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from alignment.data.conversations import readable
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison

FIELDS = ("prompt", "first", "second")
PLACEHOLDER = re.compile(r"\{(prompt|first|second)\}")
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
        if path is None:
            data = resources.files("reward.judges").joinpath("prompts", "pairwise.txt").read_bytes()
        else:
            try:
                data = Path(path).read_bytes()
            except OSError as error:
                raise JudgeError(f"judge.prompt {path}: {error.strerror}; name a text file.") from error
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise JudgeError(f"judge.prompt {path}: not UTF-8 text ({error.reason}).") from error
        missing = [f"{{{field}}}" for field in FIELDS if f"{{{field}}}" not in text]
        if missing:
            raise JudgeError(
                f"judge.prompt {path}: lacks {', '.join(missing)}; a prompt file holds {{prompt}}, {{first}} and "
                "{second} where the request and the two answers go."
            )
        offered = {"A", "B"} | {word for word in OPTIONAL_LABELS if re.search(rf"\b{word}\b", text, re.IGNORECASE)}
        return cls(text, hashlib.sha256(data).hexdigest()[:16], frozenset(offered))

    def render(self, comparison: Comparison) -> str:
        """Fill the placeholders, each value between tags that its writer could not have known.

        The tags carry a code made from the whole comparison, so an answer cannot close its own fence and open
        another; one pass fills all placeholders, so an answer that contains "{second}" stays as it is.
        """
        values = {
            "prompt": readable(comparison.prompt),
            "first": comparison.first,
            "second": comparison.second,
        }
        code = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
        tags = {"prompt": "request", "first": "answer-A", "second": "answer-B"}

        def fenced(match: re.Match[str]) -> str:
            tag = f"{tags[match[1]]}-{code}"
            return f"<{tag}>\n{values[match[1]]}\n</{tag}>"

        return well_formed(PLACEHOLDER.sub(fenced, self.text))


def well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON may spell and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
