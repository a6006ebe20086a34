"""The training judge: someone who likes cheerful stories, as VADER measures cheer.

VADER (Hutto & Gilbert 2014) adds up a lexicon's valences, heeding negation and emphasis; its `compound` lies between
-1 and 1. The judge reads the continuation alone: both answers continue the same opening.
"""

import math
from functools import cache

from alignment.data.rows import Prompt
from alignment.errors import JudgeError

TEMPERATURE = 0.3  # in units of compound: 0.3 apart is a preference of 73 %, 1.0 apart one of 97 %

try:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
except ModuleNotFoundError as error:
    raise JudgeError(
        'the judge of tinystories needs the package vaderSentiment: pip install -e ".[sentiment]".'
    ) from error

_ANALYZER = SentimentIntensityAnalyzer()


@cache
def compound(text: str) -> float:
    """Return VADER's sentiment of a text, -1 to 1."""
    return float(_ANALYZER.polarity_scores(text)["compound"])


def prefer(prompt: Prompt, first: str, second: str) -> float:
    """Return the probability that the first continuation is better: the logistic of the difference."""
    return 1.0 / (1.0 + math.exp((compound(second) - compound(first)) / TEMPERATURE))
