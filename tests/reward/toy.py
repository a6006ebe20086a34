"""A toy preference for reward model tests: polite answers are better than rude ones, whatever the prompt."""

from pathlib import Path
from typing import Any

from alignment.config.schema import RewardRecipe
from alignment.data.rows import Pair, Ranking

SUBJECTS = ("fox", "dog", "cat", "ball", "story", "friend", "name", "answer", "question", "system")
GOOD, BAD = ("Thank you for asking!", "Thank you, my friend."), ("the lazy dog jumps", "over and over", "what? no")


def rankings(count: int, *, start: int = 0, probability: float = 1.0, answers: int = 3) -> list[Ranking]:
    """`count` prompts with one good and `answers - 1` bad answers; the place of the good one moves."""
    rows = []
    for number in range(start, start + count):
        subject = SUBJECTS[number % len(SUBJECTS)]
        prompt = [{"role": "user", "content": f"Please tell me about the {subject} {number}."}]
        responses = [f"{BAD[place % len(BAD)]} {subject}" for place in range(answers)]
        best = number % answers
        responses[best] = f"{GOOD[number % len(GOOD)]} The {subject} {number}."
        pairs = []
        for i in range(answers):
            for j in range(i + 1, answers):
                label = probability if i == best else 1 - probability if j == best else 0.5
                pairs.append(Pair(i, j, label, "tie" if label == 0.5 else "ok"))
        rows.append(Ranking(prompt, responses, pairs, source=f"toy.jsonl:{number + 1}"))
    return rows


def recipe(model: Path, output: Path, **keys: Any) -> RewardRecipe:
    """A reward recipe on `model`, without reading any file."""
    values = {
        "stage": "reward",
        "output_dir": str(output),
        "model_name_or_path": str(model),
        "datasets": [{"path": "toy.jsonl"}],
        **keys,
    }
    return RewardRecipe.model_validate(values)
