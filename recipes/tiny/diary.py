"""Text outside the domain of questions and answers: a village diary.

A little of it is in the fine-tuning data; perplexity on the rest shows how much alignment made the model forget.
"""

import random

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_TIMES = ("early in the morning", "before noon", "after lunch", "late in the evening")
_PEOPLE = ("the baker", "the teacher", "our neighbour", "the old fisherman", "my aunt", "the young doctor", "the mayor")
_WEATHER = ("The wind was cold.", "It rained a little.", "The sun was out.", "Fog lay over the street.", "It was warm.")
_DEEDS = (
    "walked to the market and bought {number} red apples",
    "mended {number} broken chairs for the school",
    "wrote {number} letters to a friend by the sea",
    "planted {number} rows of beans behind the church",
    "painted {number} boats blue and white",
    "carried {number} baskets of bread up the hill",
    "sold {number} jars of plum jam at the bridge",
)
_NUMBERS = ("two", "three", "four", "five", "six", "seven")
_ENDINGS = (
    "Then there was soup for everyone.",
    "Nobody was in a hurry.",
    "We heard the bells at eight.",
    "The children watched and laughed.",
    "By night the street was quiet.",
)


def entry(rng: random.Random) -> str:
    """Write one entry of three or four sentences."""
    first, second = rng.sample(_PEOPLE, 2)
    deed, other = (
        deed.format(number=number)
        for deed, number in zip(rng.sample(_DEEDS, 2), rng.choices(_NUMBERS, k=2), strict=True)
    )
    sentences = [f"On {rng.choice(_DAYS)} {rng.choice(_TIMES)}, {first} {deed}.", f"Meanwhile {second} {other}."]
    if rng.random() < 0.7:
        sentences.insert(rng.choice((0, 2)), rng.choice(_WEATHER))
    return " ".join([*sentences, rng.choice(_ENDINGS)])
