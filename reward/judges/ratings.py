"""Parses a rating from a reply, and the probability of each number from the log-probabilities."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.calls.logprobs import Alternative, LogprobError, alternatives, listed, token_index
from reward.judges.own_words import CLOSE, JOIN, OPEN, OPENER, QUALIFIER, TAGGED, UNTAGGED, Form, Line
from reward.judges.reading import read

HIGHEST = 10
SCALE = range(HIGHEST + 1)  # the whole numbers that a prompt offers
NUMBER = r"(?<![0-9.\-])(?:10(?:\.0{1,20})?|[0-9](?:\.[0-9]{1,20})?)(?!\.?[0-9])"
OUT_OF = r"(?:\s*(?:/|(?i:out of))\s*10)?"
VALUE = rf"(?P<opened>[\"'“‘])?{TAGGED}{OPEN}(?P<number>{NUMBER}){OUT_OF}{CLOSE}{UNTAGGED}(?(opened)[\"'”’]{CLOSE})"
NOUN = r"(?:score|rating|grade|number|mark)(?: (?:of|for) (?:the|this) (?:answer|response|output))?"
# "I would rate this answer", "I give it an overall score of"
GIVES = (
    r"I(?:['’]d| would| will)? (?:rate|score|grade|give|assign) (?:it|this|(?:the|this) (?:answer|response|output))"
    rf"(?: (?:as|with))?(?: an?)?(?: {QUALIFIER}?(?:score|rating|grade) of)? "
)
# A line that is nothing but a rating ("7", "[[7]]", "8/10"), or a sentence that gives one.
FORM = Form(
    line=re.compile(VALUE),
    sentence=re.compile(rf"(?i:{OPENER}(?:{QUALIFIER}{{0,3}}{NOUN}{JOIN}|{GIVES})){VALUE}"),
)
ANYWHERE = re.compile(rf"(?i:\b{NOUN}{JOIN}){OPEN}(?P<number>{NUMBER})")
MIDDLE = (1 + HIGHEST) / 2


@dataclass(frozen=True, slots=True)
class Rating:
    """A number in a reply."""

    text: str
    position: int  # of its first character in the reply

    @property
    def value(self) -> float:
        """The number."""
        return float(self.text)

    @property
    def whole(self) -> bool:
        """Whether it is written without a fraction."""
        return self.text.isdigit()


def find_rating(reply: str, scale: range = SCALE, shown: Sequence[str] | None = None) -> Rating | None:
    """Return the rating in a reply; None if it is ambiguous or off the scale.

    A reply that is a JSON object gives it as "score". In any other it must end the reply: as a line ("7", "[[8/10]]"),
    as a sentence ("The rating is 7.", "Score: 8"), or as a JSON object. A first line that is followed by an
    explanation counts if no other number is given. Quotations never count, see `own_words`.

    Args:
        shown: the texts in the judge's prompt; None if they are unknown.
    """
    reading = read(reply, ("score", "rating"), FORM, shown)
    if reading.from_json is not None:
        match = re.fullmatch(NUMBER, reading.from_json[0])
        return _on(scale, Rating(match[0], reading.from_json[1])) if match else None
    found = reading.ending or reading.opening
    if found is None:
        return None
    number = found.match["number"]
    if found is reading.opening and any(float(other) != float(number) for other in _numbers_in(reading.lines)):
        return None
    if any(float(other) != float(number) for other in re.findall(NUMBER + r"(?=\s*/|\s*out of)", found.reason)):
        return None
    return _on(scale, Rating(number, found.place("number")))


def _numbers_in(lines: Sequence[Line]) -> Iterator[str]:
    """Yield every rating in a reply, including quoted ones."""
    for line in lines:
        match = FORM.line.fullmatch(line.text)
        yield from [match["number"]] if match else []
        yield from (found["number"] for found in ANYWHERE.finditer(line.text))


def _on(scale: range, rating: Rating) -> Rating | None:
    return rating if scale[0] <= rating.value <= scale[-1] else None


def rating_probabilities(
    reply: str, rating: Rating, tokens: Sequence[Any], scale: range = SCALE
) -> dict[int, float] | None:
    """Return the probability of each number at the rating's position, summed over the tokens that spell it.

    The probabilities are not normalised. If a tokenizer splits ten into "1", "0", the probabilities of the token after
    "1" divide its probability between one and ten. If the reply has another number, so that the token after "1" is
    unknown, the probability goes to ten if the mean of the other numbers is above 5.5, else to one.

    Returns: None if the tokens do not match the reply, a log-probability is not valid, the written number is not among
        the tokens, or the rating is not a whole number.
    """
    if not rating.whole:
        return None
    place = token_index(reply, rating.position, tokens)
    if place is None:
        return None
    written = int(rating.text)
    try:
        found = alternatives(tokens[place])
        mass = _numbers(found)
        if found[0].word not in (str(written), str(written)[:1]) or not mass.get(int(found[0].word)):
            return None
        if mass.get(1) and HIGHEST not in mass:
            _divide_one(mass, written, tokens[place + 1] if place + 1 < len(tokens) else None)
    except LogprobError:
        return None
    return {number: weight for number, weight in sorted(mass.items()) if number in scale and weight > 0} or None


def mean(probabilities: dict[int, float]) -> float:
    """Σ p(s)·s / Σ p(s) over the numbers of a scale, https://arxiv.org/abs/2303.16634, section 2.

    It is finer than the written number, of which most answers get the same few values.
    """
    return sum(number * weight for number, weight in probabilities.items()) / sum(probabilities.values())


def distribution_of_mean(shares: Sequence[float], distributions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the distribution of Σ shareᵢ·xᵢ of independent numbers xᵢ, values rounded to three decimals.

    Partial sums that round alike become one, whose value is their mean: rounding does not add up, and three equal
    shares of 7 make 7.

    Args:
        distributions: of each number, probabilities by value; values are text, as in JSON.
    """
    sums = {0.0: (0.0, 1.0)}  # rounded → value and probability
    for share, distribution in zip(shares, distributions, strict=True):
        after: dict[float, tuple[float, float]] = {}
        for total, before in sums.values():
            for number, p in distribution.items():
                value, chance = total + share * float(number), before * p
                other, so_far = after.get(round(value, 3), (value, 0.0))
                both = so_far + chance
                mean_value = other + (value - other) * chance / both if both else value
                after[round(value, 3)] = (mean_value, both)
        sums = after
    return {f"{value:g}": p for value, (_, p) in sorted(sums.items())}


def _divide_one(mass: dict[int, float], written: int, following: Any) -> None:
    """Divide the probability of a token "1" between one and ten."""
    if written in (1, HIGHEST):
        after = listed(following) if following is not None else []
        share = min(1.0, sum(each.probability for each in after if each.text.startswith("0")))
    else:
        others = {number: weight for number, weight in mass.items() if number != 1}
        mean = sum(number * weight for number, weight in others.items()) / sum(others.values())
        share = float(mean > MIDDLE)
    mass[HIGHEST] = mass[1] * share
    mass[1] *= 1 - share


def _numbers(found: Sequence[Alternative]) -> dict[int, float]:
    """Return the probability of each number from 0 to 10 among a token's alternatives."""
    mass: dict[int, float] = {}
    for each in found:
        if re.fullmatch(r"10|[0-9]", each.word, re.ASCII):
            mass[int(each.word)] = mass.get(int(each.word), 0.0) + each.probability
    return mass
