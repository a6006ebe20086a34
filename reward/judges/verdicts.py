"""Reading a verdict out of a judge model's reply, and its probability out of the log-probabilities."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reward.judges.logprobs import LogprobError, alternatives, token_index
from reward.judges.own_words import (
    CLOSE,
    JOIN,
    MARKER,
    OPEN,
    OPENER,
    QUALIFIER,
    Form,
    Line,
    Value,
    is_shown,
    lines_of,
    without_question,
)
from reward.judges.reading import read

REFUSAL = re.compile(
    r"^\W*(i['’]?m sorry|sorry\b|i apologi[sz]e|i\s+(can['’]?t|cannot|won['’]?t|will not|(am|['’]m) (not able|unable))"
    r"|as an ai\b)",
    re.IGNORECASE,
)
LABEL = r"(?P<label>A|B|[Tt]ie|TIE|[Aa]bstain|ABSTAIN)"
BETTER = r"(?P<winner>[AB])\s?(?:>{1,3}|≻)\s?(?P<loser>[AB])|(?P<equal>A\s?=\s?B|B\s?=\s?A)"
ANSWER = r"(?:(?i:(?:the )?(?:answer|output|response|option|assistant|model|candidate|choice)) )?"
NOUN = (
    r"(?:verdict|answer|choice|winner|judge?ment|decision|preference|conclusion|ruling|pick|selection"
    rf"|{QUALIFIER}(?:response|output|option|one|assistant|candidate))"
)
VALUE = rf"(?P<opened>[\"'“‘])?{OPEN}(?:{ANSWER}{LABEL}|{BETTER}){CLOSE}(?(opened)[\"'”’]{CLOSE})"
# A line that is nothing but a verdict ("B", "Answer A.", "[[B]]", "A>>B"), or a sentence that gives one.
FORM = Form(
    line=re.compile(VALUE),
    sentence=re.compile(rf"(?i:{OPENER}{QUALIFIER}{{0,3}}{NOUN}{JOIN}){VALUE}"),
)
# What else in a reply may prefer an answer, quoted or not: it casts doubt on a verdict that only opens the reply.
BEST = r"(?:better|best|preferable|superior|stronger|correct|winner|preferred)"
WORSE = r"(?:worse|worst|inferior|weaker|wrong|incorrect|loser)"
PREFERENCES = (
    re.compile(rf"(?i:\b{NOUN}{JOIN}){OPEN}{ANSWER}{LABEL}\b"),
    re.compile(rf"\b(?P<label>[AB])\b (?i:is|was|seems|looks|would be)\b[\w ,]{{0,20}}\b(?i:{BEST})\b"),
    re.compile(r"\b(?P<label>[AB]) (?i:wins)\b"),
    re.compile(rf"(?i:\b(?:prefer|choose|chose|pick|select|favou?r|go with)) {ANSWER}(?P<label>[AB])\b"),
)
WORST_FIRST = re.compile(
    r"\bworst[- ](?:to|first)|\bascending|\breverse|\bincreasing|\bfrom (?:the )?(?:worst|weakest|least|lowest|bottom)"
    r"|\b(?:weakest|lowest|least)\b[\w ]{0,20}\b(?:to|first)\b",
    re.IGNORECASE,
)
ALONE = re.compile(  # a reply that is nothing but one of these
    rf"(?:{ANSWER}(?P<label>[AB]) (?i:is (?:the )?(?:clearly |much )?{BEST}(?: (?:answer|response|output|option|one))?"
    rf"|wins)|(?i:I(?:['’]d| would)? (?:prefer|choose|pick|select|go with)) {ANSWER}(?P<chosen>[AB])){CLOSE}"
)
AGAINST = re.compile(rf"\b(?P<label>[AB])\b (?i:is|was|seems|looks)\b[\w ,]{{0,20}}\b(?i:{WORSE})\b")


@dataclass(frozen=True, slots=True)
class Found:
    """A well-formed verdict in a reply."""

    label: str  # "A", "B", "tie" or "abstain"
    position: int  # of the label's first character in the reply


def find_verdict(reply: str, offered: Collection[str], shown: Sequence[str] | None = None) -> Found | None:
    r"""Return the verdict of a reply; None where it is in doubt.

    A reply that is a JSON object gives it as "verdict". In any other it must end the reply: as a line ("B", "[[A]]",
    "Answer A.", "A>>B"), as a sentence ("The better answer is B.", "Verdict: \boxed{B}"), or as a JSON object. A line
    that opens the reply, with an explanation behind, counts where nothing else prefers another answer. What is quoted
    never counts, see `own_words`.

    Args:
        offered: the labels that the judge may give. shown: the texts that it was shown; None where they are not known.
    """
    reading = read(reply, "verdict", FORM, shown)
    if reading.told is not None:
        return _in_json(reading.told, offered)
    found = reading.ending or reading.opening
    if found is None:
        return _alone(reading.lines, offered, shown)
    label = _label(found.match)
    if found is reading.opening and {label} != set(_preferred(reading.lines)):
        return None
    return _offered(label, found, offered)


def _alone(lines: Sequence[Line], offered: Collection[str], shown: Sequence[str] | None) -> Found | None:
    """Return the verdict of a reply that is one sentence, such as "Answer A is better"."""
    match = ALONE.fullmatch(lines[0].text) if len(lines) == 1 else None
    if match is None or MARKER.match(lines[0].written) or is_shown(match[0], without_question(shown or ())):
        return None
    group = "label" if match["label"] else "chosen"
    return Found(match[group], lines[0].places[match.start(group)]) if match[group] in offered else None


def _offered(label: str, value: Value, offered: Collection[str]) -> Found | None:
    group = next(name for name in ("label", "winner", "equal") if value.match[name])
    return Found(label, value.place(group)) if label in offered else None


def _label(match: re.Match[str]) -> str:
    """Return "A", "B", "tie", "abstain", or "" where an answer is said to be better than itself."""
    if match["equal"]:
        return "tie"
    if match["winner"]:
        return match["winner"] if match["winner"] != match["loser"] else ""
    label = str(match["label"])
    return label if label in ("A", "B") else label.lower()


def _in_json(value: tuple[str, int], offered: Collection[str]) -> Found | None:
    match = FORM.line.fullmatch(value[0])
    if match is None or _label(match) not in offered:
        return None
    group = next(name for name in ("label", "winner", "equal") if match[name])
    return Found(_label(match), value[1] + match.start(group))


def _preferred(lines: Sequence[Line]) -> Iterator[str]:
    """Yield the label of every verdict and preference in a reply, quoted ones too."""
    for line in lines:
        match = FORM.line.fullmatch(line.text)
        if match:
            yield _label(match)
        for pattern in PREFERENCES:
            for found in pattern.finditer(line.text):
                label = found["label"]
                yield label if label in ("A", "B") else label.lower()
        for found in AGAINST.finditer(line.text):
            yield "B" if found["label"] == "A" else "A"


def find_ranking(reply: str, offered: Sequence[str], shown: Sequence[str] | None = None) -> tuple[str, ...] | None:
    """Return the labels in the order that a reply gives, the best first; None where that is in doubt.

    It must name every label that was offered once and no other. A reply that is a JSON object gives it as "ranking",
    a list or a text such as "B > A > C"; in any other a line or sentence of this form must end the reply, or a line
    open it with an explanation behind and no other order. What is quoted never counts, see `own_words`.
    """
    letter = rf"{ANSWER}[A-Z]"
    orders = "|".join(rf"{letter}(?: ?{by} ?{letter}){{{len(offered) - 1}}}" for by in ("(?:>{1,3}|≻)", ","))
    value = rf"(?P<opened>[\"'“‘])?{OPEN}(?P<order>{orders}){CLOSE}(?(opened)[\"'”’]{CLOSE})"
    noun = r"(?:ranking|order|verdict)"
    form = Form(re.compile(value), re.compile(rf"(?i:{OPENER}{QUALIFIER}{{0,3}}{noun}{JOIN}){value}"))
    reading = read(reply, "ranking", form, shown)
    if reading.told is not None:
        match = form.line.fullmatch(reading.told[0])
        return _permutation(match["order"], offered) if match else None
    found = reading.ending or reading.opening
    if found is None or any(WORST_FIRST.search(line.text) for line in lines_of(reply)):
        return None
    others = {_permutation(other[0], offered) for line in reading.lines for other in re.finditer(orders, line.text)}
    return _permutation(found.match["order"], offered) if found is reading.ending or len(others) == 1 else None


def _permutation(text: str, offered: Sequence[str]) -> tuple[str, ...] | None:
    named = tuple(re.findall(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", text))
    return named if sorted(named) == sorted(offered) else None


def is_refusal(reply: str) -> bool:
    """Whether a reply without a verdict declines to give one."""
    return REFUSAL.match(reply) is not None


def verdict_token(reply: str, position: int, tokens: Sequence[Any]) -> dict[str, Any] | None:
    """Return the token of `logprobs.content` that holds the reply's character at `position`; None if none does."""
    index = token_index(reply, position, tokens)
    return tokens[index] if index is not None else None


def soft_probability(token: Any, label: str | None = None) -> tuple[float, float] | None:
    """Return P(A) / (P(A) + P(B)) and the mass P(A) + P(B) at the verdict token; None where they are in doubt.

    https://arxiv.org/abs/2309.00267, section 3.1. Tokens that spell the same letter, " A" and "A" say, are summed.

    Args:
        token: of `logprobs.content`. label: what the reply says; None: whichever letter the token spells.

    Returns: None where the token does not spell the label, its numbers are no log-probabilities, or the other letter
        is not among the alternatives and could be the likelier one.
    """
    try:
        found = alternatives(token)
    except LogprobError:
        return None
    written = found[0].word
    if written not in ("A", "B") or (label is not None and written != label):
        return None
    mass = {"A": 0.0, "B": 0.0}
    for each in found:
        if each.word in mass:
            mass[each.word] += each.probability
    other = "B" if written == "A" else "A"
    if mass[other] == 0.0:
        # A token that is not listed is at most as probable as those that are, and as what they leave.
        unlisted = min(1.0 - sum(each.probability for each in found), *(each.probability for each in found))
        if unlisted >= mass[written]:
            return None
    total = mass["A"] + mass["B"]
    return (mass["A"] / total, total) if total > 0 else None
