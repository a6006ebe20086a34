"""Principles for comparing, criticising and revising answers (Constitutional AI, arXiv 2212.08073)."""

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any

from alignment.calls.replies import well_formed
from alignment.calls.yaml_files import read_yaml
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison, Listing, Question


@dataclass(frozen=True, slots=True)
class Principle:
    """One principle, worded for each use."""

    name: str
    principle: str  # for comparing two answers
    critique: str  # what to look for in an answer
    revision: str  # how to change it


@dataclass(frozen=True, slots=True)
class Constitution:
    """A file of principles.

    It is YAML: `principles`, a list of texts, or of mappings with `principle` and the optional keys `name`, `critique`
    and `revision`.
    """

    principles: tuple[Principle, ...]
    hash: str  # first 16 hexadecimal digits of the file's SHA-256

    @classmethod
    def load(cls, path: str, *, count: int = 1) -> "Constitution":
        """Read the file.

        Args:
            count: number of principles to draw at a time.

        Raises: JudgeError with the file and the entry if it is not valid, or has fewer than `count` principles.
        """
        data, listed = read_yaml(path, "judge.constitution")
        rows = listed.get("principles") if isinstance(listed, dict) else listed
        if not isinstance(rows, list) or not rows:
            raise JudgeError(f"judge.constitution {path}: has no list of principles; give `principles:` and a list.")
        principles = tuple(_principle(row, place, path) for place, row in enumerate(rows, 1))
        if count > len(principles):
            raise JudgeError(
                f"judge.num_principles is {count}, and {path} has {len(principles)}; give at most as many as there are."
            )
        return cls(principles, hashlib.sha256(data).hexdigest()[:16])

    def draw(self, question: Question, *, count: int, seed: int) -> tuple[Principle, ...]:
        """Draw `count` principles for a question, the same for both orders of its answers.

        Section 4.1 draws one at random for every comparison. Each repeat has a draw of its own.
        """
        if isinstance(question, Comparison):
            answers = sorted([question.first, question.second])
        elif isinstance(question, Listing):
            answers = sorted(question.answers)
        else:
            answers = [question.answer]
        made_of = json.dumps([seed, question.repeat, self.hash, question.prompt, answers])
        chance = random.Random(hashlib.sha256(made_of.encode()).digest())
        return tuple(chance.sample(self.principles, count))


def in_words(principles: tuple[Principle, ...], use: str = "principle") -> str:
    """Return the principles as in a prompt: one as text, several as a list."""
    texts = [str(getattr(principle, use)) for principle in principles]
    return texts[0] if len(texts) == 1 else "\n".join(f"- {text}" for text in texts)


def _principle(row: Any, place: int, path: str) -> Principle:
    at = f"judge.constitution {path}: principle {place}"
    given: dict[str, Any] = {"principle": row} if isinstance(row, str) else row
    known = ("name", "principle", "critique", "revision")
    if not isinstance(given, dict) or not given.get("principle"):
        raise JudgeError(f"{at} is neither text nor a mapping with `principle`.")
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        raise JudgeError(f"{at} has the key {unknown[0]}; known are {', '.join(known)}.")
    for key, value in given.items():
        if not isinstance(value, str):
            raise JudgeError(f"{at}: `{key}` must be text, found {value!r}.")
        if not value.strip():
            raise JudgeError(f"{at}: `{key}` is empty; write it, or remove it.")
    texts = {key: well_formed(value).strip() for key, value in given.items()}
    text = texts["principle"]
    return Principle(
        name=texts.get("name", f"principle {place}"),
        principle=text,
        critique=texts.get("critique", f"Say where the answer goes against this standard: {text}"),
        revision=texts.get("revision", f"Rewrite the answer so that it keeps to this standard: {text}"),
    )
