"""The training judge: prefers as a person would, who is often right, sometimes careless, and a little partial.

Where it departs from the truth (`recipes.tiny.gold`), as people do: courtesy moves it more and facts less, it takes a
long answer for a thorough one, it leans to the answer it reads first, and now and then it clicks the wrong one.
Noise is drawn from a hash of the texts, so the same question always gets the same answer.
"""

import hashlib
import json
import math
import random

from alignment.data.rows import Prompt
from recipes.tiny.reading import read_answer

CARELESS = 0.07  # share of comparisons answered the wrong way round
NOISE = 0.4  # standard deviation of the passing mood, in units of `impression`
FIRST_BIAS = 0.15  # for the answer shown first, same units
CERTAINTY = 2.5  # slope of the logistic


def impression(prompt: Prompt, answer: str) -> float:
    """Return the quality of an answer in the judge's view."""
    said = read_answer(prompt, answer)
    score = 1.7 * said.answered / said.asked
    score += 1.2 * (said.polite > 0) - 1.6 * (said.rude > 0)
    score -= 0.8 * said.wrong + 1.0 * said.chatter + 0.4 * said.unasked
    score -= 0.7 * said.repeated + 0.6 * said.padding + 0.8 * said.unclear
    return score + 0.01 * said.words


def prefer(prompt: Prompt, first: str, second: str) -> float:
    """Return the probability that the first answer is better."""
    one, other = sorted((first, second))
    key = json.dumps([prompt, one, other], ensure_ascii=False).encode()
    dice = random.Random(hashlib.sha256(key).digest())
    difference = impression(prompt, one) - impression(prompt, other) + dice.gauss(0.0, NOISE)
    if dice.random() < CARELESS:
        difference = -difference
    if first != one:
        difference = -difference
    return 1.0 / (1.0 + math.exp(-CERTAINTY * (difference + FIRST_BIAS)))
