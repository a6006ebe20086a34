"""Texts about the tiny world: questions in many phrasings, and answers that are good or bad in five respects."""

import random
from dataclasses import dataclass

from recipes.tiny.world import ANIMALS, ASPECTS, FACTS


@dataclass(frozen=True, slots=True)
class Question:
    """The content of a prompt: one animal, and one or two aspects in order."""

    animal: str
    aspects: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Manner:
    """How an answer is meant to be; each flag is one dimension of quality."""

    on_topic: bool = True
    courteous: bool = True
    complete: bool = True
    without_repetition: bool = True
    without_padding: bool = True


# The three ways to name an aspect: a clause, a question, a noun. `{it}` is "the otter" or "it", `{its}` accordingly.
_CLAUSES = {
    "home": ("where {it} lives", "where {it} makes its home"),
    "food": ("what {it} eats", "what {it} likes to eat"),
    "young": ("what {its} young are called", "what we call {its} young"),
    "skill": ("what {it} is good at", "which skill {it} is known for"),
}
_QUESTIONS = {
    "home": ("Where does {it} live?", "Where does {it} make its home?"),
    "food": ("What does {it} eat?", "What does {it} like to eat?"),
    "young": ("What are {its} young called?", "What do you call {its} young?"),
    "skill": ("What is {it} good at?", "Which skill is {it} known for?"),
}
_NOUNS = {"home": ("home",), "food": ("food",), "young": ("young",), "skill": ("skill",)}
# A frame: the text around the list of aspects, and the form of the list.
FRAMES: tuple[tuple[str, str], ...] = (
    ("Tell me {list}.", "clauses"),
    ("Can you tell me {list}?", "clauses"),
    ("I would like to know {list}.", "clauses"),
    ("Please explain {list}.", "clauses"),
    ("My class wants to learn {list}.", "clauses"),
    ("I have a question about {animal}. {list}", "questions"),
    ("We are reading about {animal} today. {list}", "questions"),
    ("My daughter likes {animal}. {list}", "questions"),
    ("Describe the {list} of {animal}.", "nouns"),
    ("I am curious about the {list} of {animal}.", "nouns"),
    ("Give me a short note on the {list} of {animal}.", "nouns"),
    ("What can you say about the {list} of {animal}?", "nouns"),
)

# What states a fact, with the same placeholders; `{It}` and `{Its}` begin a sentence.
STATEMENTS: dict[str, tuple[str, ...]] = {
    "home": ("{It} lives {value}.", "{It} makes its home {value}."),
    "food": ("{It} eats {value}.", "{It} likes to eat {value}."),
    "young": ("{Its} young are called {value}.", "We call {its} young {value}."),
    "skill": ("{It} is good at {value}.", "{It} is known for {value}."),
}
POLITE_OPENINGS = ("Of course!", "Happy to help!", "Thank you for asking.", "With pleasure!")
POLITE_CLOSINGS = ("I hope that helps.", "Have a lovely day!", "Please ask again any time.")
RUDE_OPENINGS = ("Not this again.", "What a silly question.", "Do I really have to?", "You should know this by now.")
RUDE_CLOSINGS = ("Now leave me alone.", "Do not ask me again.", "Look it up next time.")
PADDING = (
    "There is a lot one could say about this.",
    "Let me think about that for a moment.",
    "The world is a big place, after all.",
    "One thing always leads to another.",
    "That much goes without saying.",
    "It depends on how you see it.",
)
CHATTER = (
    "My cousin has bought a new hat.",
    "The train was late again today.",
    "I had soup for lunch.",
    "Our roof needs some paint.",
    "The radio is playing an old song.",
    "It may rain on Sunday.",
)
SHARES = {1: 0.25, 2: 0.75}  # of questions, by how many aspects they ask for


CAREFUL_WRITERS = 0.5
# Probability that each dimension is good, for a careful and for a careless writer.
GOOD_IF: dict[str, dict[str, float]] = {
    "careful": {
        "on_topic": 0.9,
        "courteous": 0.85,
        "complete": 0.95,
        "without_repetition": 0.85,
        "without_padding": 0.8,
    },
    "careless": {
        "on_topic": 0.4,
        "courteous": 0.25,
        "complete": 0.65,
        "without_repetition": 0.45,
        "without_padding": 0.3,
    },
}


def draw_manner(rng: random.Random) -> Manner:
    """Draw a writer, then how that writer's answer is: the dimensions go together, as they do with people."""
    good = GOOD_IF["careful" if rng.random() < CAREFUL_WRITERS else "careless"]
    return Manner(**{dimension: rng.random() < chance for dimension, chance in good.items()})


def all_questions() -> list[Question]:
    """Return every question: each animal with one aspect, or two in each order."""
    orders = [(a,) for a in ASPECTS]
    orders += [(a, b) for a in ASPECTS for b in ASPECTS if a != b]
    return [Question(animal, aspects) for animal in ANIMALS for aspects in orders]


def draw_questions(rng: random.Random, count: int, *, repeat: bool) -> list[Question]:
    """Draw questions so that `SHARES` of them ask for one and for two aspects; `repeat` allows one twice."""
    pools: dict[int, list[Question]] = {size: [] for size in SHARES}
    for question in all_questions():
        pools[len(question.aspects)].append(question)
    drawn = []
    for size, pool in pools.items():
        wanted = round(SHARES[size] * count)
        drawn += rng.choices(pool, k=wanted) if repeat else rng.sample(pool, wanted)
    rng.shuffle(drawn)
    return drawn


def ask(question: Question, frame: int, rng: random.Random) -> str:
    """Put a question into words in the manner of `FRAMES[frame]`."""
    around, way = FRAMES[frame]
    words = {"clauses": _CLAUSES, "questions": _QUESTIONS, "nouns": _NOUNS}[way]
    animal = f"the {question.animal}"
    named = way != "clauses"  # clauses name the animal themselves, in the first
    parts = []
    for i, aspect in enumerate(question.aspects):
        parts.append(rng.choice(words[aspect]).format(**_names(None if named or i else question.animal)))
    listed = " ".join(parts) if way == "questions" else _join(parts)
    return around.format(list=listed, animal=animal)


def answer(question: Question, manner: Manner, rng: random.Random) -> str:
    """Answer a question in the given manner; each choice left open by the manner is drawn from `rng`."""
    facts = [(question.animal, aspect) for aspect in question.aspects]
    if not manner.complete:
        del facts[rng.randrange(len(facts))]
    strays: list[str] = []
    if not manner.on_topic:
        facts, strays = _off_topic(question, facts, rng)
    body = []
    for i, (animal, aspect) in enumerate(facts):
        named = i == 0 or animal != facts[i - 1][0] or rng.random() < 0.3
        body.append(state(animal, aspect, named=named, rng=rng))
    if not manner.without_repetition and body:
        said = rng.randrange(len(body))
        body[said:said] = [body[said]] * rng.choice((1, 2))
    if not manner.without_padding or not body:
        strays += rng.sample(PADDING, rng.choice((1, 1, 2)))
    for stray in strays:
        body.insert(rng.randint(0, len(body)), stray)
    return " ".join(_with_courtesy(body, courteous=manner.courteous, rng=rng))


def state(animal: str, aspect: str, *, named: bool, rng: random.Random) -> str:
    """Write one fact as a sentence, with the animal's name or "it"."""
    template = rng.choice(STATEMENTS[aspect])
    return template.format(value=FACTS[animal, aspect], **_names(animal if named else None))


def _off_topic(
    question: Question, facts: list[tuple[str, str]], rng: random.Random
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return irrelevant sentences: mostly about other things, else facts of another animal or another aspect."""
    way = rng.choices(("chatter", "animal", "aspect"), (0.7, 0.1, 0.2))[0]
    if way == "chatter" or not facts:
        return facts[: max(1, len(facts) - 1)], rng.sample(CHATTER, rng.choice((1, 2)))
    if way == "animal":
        other = rng.choice([animal for animal in ANIMALS if animal != question.animal])
        return [(other, aspect) for _, aspect in facts], []
    unasked = [aspect for aspect in ASPECTS if aspect not in question.aspects]
    return [*facts[:-1], (question.animal, rng.choice(unasked))], []


def _with_courtesy(body: list[str], *, courteous: bool, rng: random.Random) -> list[str]:
    """Add an opening, a closing, or both: kind ones, rude ones, or (one time in three that it is not kind) neither."""
    if not courteous and rng.random() < 1 / 3:
        return body
    openings = POLITE_OPENINGS if courteous else RUDE_OPENINGS
    closings = POLITE_CLOSINGS if courteous else RUDE_CLOSINGS
    where = rng.choice(("opening", "closing", "both"))
    before = [rng.choice(openings)] if where != "closing" else []
    after = [rng.choice(closings)] if where != "opening" else []
    return before + body + after


def _names(animal: str | None) -> dict[str, str]:
    """Fill the placeholders of a template with an animal's name, or with the pronoun."""
    it, its = ("it", "its") if animal is None else (f"the {animal}", f"the {animal}'s")
    return {"it": it, "its": its, "It": it[0].upper() + it[1:], "Its": its[0].upper() + its[1:]}


def _join(parts: list[str]) -> str:
    """Join as English does: "a, b and c"."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
