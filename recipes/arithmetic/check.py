"""Whether an answer has the sum of its prompt, for the judge of the evaluation."""

from alignment.data.rows import Prompt
from reward.verifiers.math import is_correct


def right(prompt: Prompt, answer: str) -> bool:
    """Return whether the final answer equals the sum of the prompt, for example "47+85="."""
    total = sum(map(int, prompt[-1]["content"].rstrip("=").split("+")))
    return is_correct(answer, str(total))


def prefer(prompt: Prompt, first: str, second: str) -> float:
    """Return 1.0 if only the first answer is right, 0.0 if only the second is, else 0.5."""
    return (1.0 + right(prompt, first) - right(prompt, second)) / 2
