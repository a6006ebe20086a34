"""Parsing of prompts and answers: the aspects that a prompt asks for, and the facts that an answer states.

Both the gold scorer and the training judge look at answers through this; they differ in what they make of it.
"""

import itertools
import re
from dataclasses import dataclass

from alignment.data.rows import Prompt
from alignment.errors import DataError
from recipes.tiny.grammar import (
    CHATTER,
    PADDING,
    POLITE_CLOSINGS,
    POLITE_OPENINGS,
    RUDE_CLOSINGS,
    RUDE_OPENINGS,
    Question,
)
from recipes.tiny.world import ANIMALS, ASPECTS, FACTS


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer does, in counts."""

    asked: int  # aspects the prompt asks for
    answered: int  # of these, stated rightly
    wrong: int  # facts about another animal, or untrue ones
    chatter: int  # sentences about something else altogether
    unasked: int  # true facts about the right animal that the prompt did not ask for
    repeated: int  # repeated facts or phrases
    polite: int
    rude: int
    padding: int  # sentences without a fact
    unclear: int  # sentences that cannot be understood, or that break off
    words: int


_ASKED = {
    "home": re.compile(r"\b(lives?|home)\b"),
    "food": re.compile(r"\b(eats?|food)\b"),
    "young": re.compile(r"\b(young|babies)\b"),
    "skill": re.compile(r"\b(good at|skills?|known for)\b"),
}
# Words of which a sentence needs one before its value counts as a statement of that aspect.
_CUES = {
    "home": {"live", "lives", "living", "find", "found", "home", "homes"},
    "food": {"eat", "eats", "eating", "feed", "feeds", "food", "diet"},
    "young": {"young", "babies", "baby"},
    "skill": {"good", "known", "skill", "skills", "skilled"},
}
_ASPECTS_OF: dict[str, set[str]] = {}
for (_, _aspect), _value in FACTS.items():
    _ASPECTS_OF.setdefault(_value, set()).add(_aspect)
_VALUES = re.compile(r"\b(" + "|".join(sorted(map(re.escape, _ASPECTS_OF), key=len, reverse=True)) + r")\b")
_ANIMALS = re.compile(r"\b(" + "|".join(ANIMALS) + r")s?\b")
_MOST_FRAME_WORDS = 10  # beside its values; the longest statement of the grammar has 7


def _normal(text: str) -> str:
    """Lower case, letters and single spaces alone."""
    return " ".join(re.findall(r"[^\W\d_]+|\d+", text.lower()))


_PHRASES: dict[str, str] = {
    **{_normal(phrase): "polite" for phrase in POLITE_OPENINGS + POLITE_CLOSINGS},
    **{_normal(phrase): "rude" for phrase in RUDE_OPENINGS + RUDE_CLOSINGS},
    **{_normal(phrase): "padding" for phrase in PADDING},
    **{_normal(phrase): "chatter" for phrase in CHATTER},
}


def read_question(prompt: Prompt) -> Question:
    """Find the animal and the aspects, in order, that a prompt asks about.

    Raises: DataError if the prompt names no animal of the world or asks for nothing known of it.
    """
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    lowered = text.lower()
    animal = _ANIMALS.search(lowered)
    if animal is None:
        raise DataError(f"prompt {text!r} names none of the animals of recipes/tiny; this judge has no others.")
    places = {aspect: found.start() for aspect in ASPECTS if (found := _ASKED[aspect].search(lowered))}
    if not places:
        raise DataError(f"prompt {text!r} asks for none of {', '.join(ASPECTS)}; this judge reads no other questions.")
    return Question(animal.group(1), tuple(sorted(places, key=places.__getitem__)))


def read_answer(prompt: Prompt, answer: str) -> Reading:
    """Count what an answer does for its prompt, sentence by sentence."""
    question = read_question(prompt)
    counts = dict.fromkeys(("wrong", "chatter", "unasked", "repeated", "polite", "rude", "padding", "unclear"), 0)
    said: set[tuple[str, str]] = set()
    heard: set[str] = set()
    topic = question.animal  # the animal that "it" refers to
    sentences = [_normal(piece) for piece in re.split(r"[.!?]+", answer)]
    for sentence in filter(None, sentences):
        kind = _PHRASES.get(sentence)
        if kind is not None:
            counts["repeated" if sentence in heard else kind] += 1
            heard.add(sentence)
            continue
        named = _ANIMALS.search(_VALUES.sub(" ", sentence))  # some eat others
        topic = named.group(1) if named else topic
        stated = _facts(sentence)
        if not stated:
            counts["unclear"] += 1
        for aspect, value in stated:
            true = FACTS[topic, aspect] == value
            if (topic, aspect) in said and true:
                counts["repeated"] += 1
            elif not true or topic != question.animal:
                counts["wrong"] += 1
            elif aspect not in question.aspects:
                counts["unasked"] += 1
            if true:
                said.add((topic, aspect))
    if answer.strip() and answer.rstrip()[-1] not in ".!?":
        counts["unclear"] += 1
    answered = sum((question.animal, aspect) in said for aspect in question.aspects)
    words = sum(len(sentence.split()) for sentence in sentences)
    return Reading(asked=len(question.aspects), answered=answered, words=words, **counts)


def _facts(sentence: str) -> list[tuple[str, str]]:
    """List the (aspect, value) pairs a normalised sentence states; empty if it is no clear statement."""
    frame = _VALUES.sub(" ", sentence).split()
    stutters = any(a == b for a, b in itertools.pairwise(frame))
    if len(frame) > _MOST_FRAME_WORDS or stutters:
        return []
    stated = []
    for value in _VALUES.findall(sentence):
        aspects = [aspect for aspect in _ASPECTS_OF[value] if _CUES[aspect] & set(frame)]
        if len(aspects) != 1:
            return []
        stated.append((aspects[0], value))
    return stated
