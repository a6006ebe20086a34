"""Whether an answer has the sum of its prompt, for the judge of the evaluation."""

import re

from alignment.data.rows import Prompt

FINAL = re.compile(r"####\s*(\d{1,9})\s*", re.ASCII)


def right(prompt: Prompt, answer: str) -> bool:
    """Return whether the answer ends with `####` and the sum of the prompt, for example "47+85=", as an integer."""
    total = sum(map(int, prompt[-1]["content"].rstrip("=").split("+")))
    _, mark, after = answer.rpartition("####")
    found = FINAL.fullmatch(mark + after)
    return found is not None and int(found[1]) == total


def prefer(prompt: Prompt, first: str, second: str) -> float:
    """Return 1.0 if only the first answer is right, 0.0 if only the second is, else 0.5."""
    return (1.0 + right(prompt, first) - right(prompt, second)) / 2
