"""The ranking loss, slowly, in Python floats."""

import math


def ranking_loss_reference(
    prompts: list[tuple[list[float], list[tuple[int, int, float, float]]]], *, center_rewards_coefficient: float
) -> float:
    """Mean over prompts of the mean over pairs `(first, second, probability, margin)` of one prompt's scores."""
    total = 0.0
    for scores, pairs in prompts:
        of_prompt = 0.0
        for first, second, probability, margin in pairs:
            wins = 1 / (1 + math.exp(-(scores[first] - scores[second] - margin)))
            loses = 1 / (1 + math.exp(-(scores[second] - scores[first] - margin)))
            of_prompt -= probability * math.log(wins) + (1 - probability) * math.log(loses)
            of_prompt += center_rewards_coefficient * (scores[first] + scores[second]) ** 2
        total += of_prompt / len(pairs)
    return total / len(prompts)
