"""How the tiny world is spoken of: questions in many phrasings, and answers that are good or bad in five ways."""

import random
from dataclasses import dataclass

from recipes.tiny.world import ANIMALS, ASPECTS, FACTS


@dataclass(frozen=True, slots=True)
class Question:
    """What a prompt asks: one animal, and one to three aspects in the order asked."""

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
    "look": ("what {it} looks like", "how {it} looks"),
    "young": ("what {its} young are called", "what we call {its} young"),
    "skill": ("what {it} is good at", "which skill {it} is known for"),
}
_QUESTIONS = {
    "home": ("Where does {it} live?", "Where does {it} make its home?"),
    "food": ("What does {it} eat?", "Which food does {it} like?"),
    "look": ("What does {it} look like?", "How does {it} look?"),
    "young": ("What are {its} young called?", "What do you call {its} young?"),
    "skill": ("What is {it} good at?", "Which skill is {it} known for?"),
}
_NOUNS = {
    "home": ("home",),
    "food": ("food",),
    "look": ("looks",),
    "young": ("young",),
    "skill": ("skill",),
}
# A frame: what it says around the list of aspects, and which of the three ways it lists them in.
FRAMES: tuple[tuple[str, str], ...] = (
    ("Tell me {list}.", "clauses"),
    ("Can you tell me {list}?", "clauses"),
    ("I would like to know {list}.", "clauses"),
    ("Please explain {list}.", "clauses"),
    ("My class wants to learn {list}.", "clauses"),
    ("Do you happen to know {list}?", "clauses"),
    ("I keep wondering {list}.", "clauses"),
    ("For my notes, write down {list}.", "clauses"),
    ("I have a question about {animal}. {list}", "questions"),
    ("We are reading about {animal} today. {list}", "questions"),
    ("My daughter likes {animal}. {list}", "questions"),
    ("Let us talk about {animal}. {list}", "questions"),
    ("Describe the {list} of {animal}.", "nouns"),
    ("I am curious about the {list} of {animal}.", "nouns"),
    ("Give me a short note on the {list} of {animal}.", "nouns"),
    ("What can you say about the {list} of {animal}?", "nouns"),
)

# What states a fact, with the same placeholders; `{It}` and `{Its}` begin a sentence.
STATEMENTS: dict[str, tuple[str, ...]] = {
    "home": ("{It} lives {value}.", "You can find {it} {value}.", "{It} makes its home {value}."),
    "food": ("{It} eats {value}.", "{It} feeds on {value}.", "{It} likes to eat {value}."),
    "look": ("{It} has {value}.", "You can tell {it} by {value}.", "You will notice {value} on {it}."),
    "young": ("{Its} young are called {value}.", "We call {its} young {value}."),
    "skill": ("{It} is good at {value}.", "{It} is known for {value}.", "One of {its} skills is {value}."),
}
POLITE_OPENINGS = (
    "Of course!",
    "Happy to help!",
    "Thank you for asking.",
    "What a lovely question!",
    "With pleasure!",
    "I am glad you asked.",
)
POLITE_CLOSINGS = (
    "I hope that helps.",
    "Let me know if you need more.",
    "Have a lovely day!",
    "You are always welcome here.",
    "Please ask again any time.",
)
RUDE_OPENINGS = (
    "Not this again.",
    "What a silly question.",
    "Do I really have to?",
    "Fine, if you must know.",
    "You should know this by now.",
)
RUDE_CLOSINGS = (
    "Now leave me alone.",
    "Do not ask me again.",
    "Look it up next time.",
    "That is all you get.",
    "Go and bother someone else.",
)
PADDING = (
    "There is a lot one could say about this.",
    "Let me think about that for a moment.",
    "The world is a big place, after all.",
    "People have many opinions about such things.",
    "One thing always leads to another.",
    "That much goes without saying.",
    "There are many sides to every story.",
    "Some things are simply the way they are.",
    "It depends on how you see it.",
    "I could go on and on about it.",
)


def all_questions() -> list[Question]:
    """Return every question: each animal with one, two or three different aspects in each order."""
    orders = [(a,) for a in ASPECTS]
    orders += [(a, b) for a in ASPECTS for b in ASPECTS if a != b]
    orders += [(a, b, c) for a in ASPECTS for b in ASPECTS for c in ASPECTS if len({a, b, c}) == 3]
    return [Question(animal, aspects) for animal in ANIMALS for aspects in orders]


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
    if not manner.on_topic:
        facts = _off_topic(question, facts, rng)
    body = []
    for i, (animal, aspect) in enumerate(facts):
        named = i == 0 or animal != facts[i - 1][0] or rng.random() < 0.3
        body.append(state(animal, aspect, named=named, rng=rng))
    if not manner.without_repetition and body:
        for _ in range(rng.choice((1, 1, 2))):
            body.insert(rng.randint(1, len(body)), rng.choice(body))
    if not manner.without_padding or not body:
        for filler in rng.sample(PADDING, rng.choice((1, 2, 2, 3))):
            body.insert(rng.randint(0, len(body)), filler)
    return " ".join(_with_courtesy(body, courteous=manner.courteous, rng=rng))


def state(animal: str, aspect: str, *, named: bool, rng: random.Random) -> str:
    """Say one fact in one sentence, naming the animal or calling it "it"."""
    template = rng.choice(STATEMENTS[aspect])
    return template.format(value=FACTS[animal, aspect], **_names(animal if named else None))


def _off_topic(question: Question, facts: list[tuple[str, str]], rng: random.Random) -> list[tuple[str, str]]:
    """Speak of another animal, or of what was not asked."""
    facts = facts or [(question.animal, question.aspects[0])]
    if rng.random() < 0.5:
        other = rng.choice([animal for animal in ANIMALS if animal != question.animal])
        return [(other, aspect) for _, aspect in facts]
    unasked = [aspect for aspect in ASPECTS if aspect not in question.aspects]
    strays = rng.sample(unasked, min(len(unasked), rng.choice((1, 2))))
    return facts[: len(facts) - 1] + [(question.animal, aspect) for aspect in strays]


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
