"""Reading a verdict out of a judge model's reply, and its probability out of the log-probabilities."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.calls.logprobs import LogprobError, alternatives, token_index
from reward.judges.own_words import (
    CLOSE,
    JOIN,
    OPEN,
    OPENER,
    QUALIFIER,
    TAGGED,
    UNTAGGED,
    Form,
    Line,
    Value,
    closing,
    is_shown,
    lines_of,
    unfenced,
    unthought,
    without_question,
)
from reward.judges.reading import read

LABEL = r"(?P<label>A|B|(?<=[\[(])[ab](?=[\])])|[Tt]ie|TIE|[Aa]bstain|ABSTAIN)"
BETTER = (
    r"(?P<winner>[AB])\s?(?:>{1,3}|≻)\s?(?P<loser>[AB])|(?P<lesser>[AB])\s?(?:<{1,3}|≺)\s?(?P<greater>[AB])"
    r"|(?P<equal>A\s?=\s?B|B\s?=\s?A)"
)
ANSWER = r"(?:(?i:(?:the )?(?:answer|output|response|option|assistant|model|candidate|choice)) )?"
NOUN = (
    r"(?:verdict|result|answer|choice|winner|judge?ment|decision|preference|conclusion|ruling|pick|selection"
    rf"|{QUALIFIER}(?:response|output|option|one|assistant|candidate))"
)
BEST = r"(?:better|best|preferable|superior|stronger|correct|winner|preferred)"
MUCH = r"(?:(?:clearly|much|significantly|slightly|far|overall|marginally) )?"
IS_BEST = rf"(?i:is (?:the )?{MUCH}{BEST}(?: (?:answer|response|output|option|one|assistant|model))?|wins)"
# Words for a verdict in brackets behind them, as Arena-Hard asks for: "Assistant A is slightly better: [[A>B]]".
GLOSS = (
    rf"(?:{ANSWER}(?P<named>[AB]) {IS_BEST}|(?P<even>(?i:it['’]?s a )?(?i:tie)(?i:, relatively the same)?))"
    r"\s*[:,.]?\s*(?=\[\[)"
)
SHAPE = (
    rf"(?P<opened>[\"'“‘])?{TAGGED}(?:{GLOSS})?{OPEN}(?:{ANSWER}[\[({{]{{0,2}}{LABEL}%s|{BETTER})"
    rf"{CLOSE}{UNTAGGED}(?(opened)[\"'”’]{CLOSE})"
)
VALUE = SHAPE % ""
STATED = SHAPE % rf"(?:[\])}}]{{0,2}} {IS_BEST})?"  # "Verdict: Answer A is better"
SEPARATORS = (r"(?:>{1,3}|≻)", r",(?: ?(?:and|then)\b)?")  # between the labels of a ranking
RANK = re.compile(rf"(?P<rank>[0-9]{{1,2}})[.):] ?{ANSWER}[\[(]{{0,2}}(?P<label>[A-Z])[\])]{{0,2}}\.?")
CONCLUSION = (
    r"(?:and so|so|thus|hence|therefore|overall|finally|in conclusion|in summary|in short|to conclude|all in all)\b"
)
CONCLUDES = re.compile(CONCLUSION, re.IGNORECASE)
# A line that is nothing but a verdict ("B", "Answer A.", "[[B]]", "A>>B"), or a sentence that gives one.
FORM = Form(
    line=re.compile(VALUE),
    sentence=re.compile(rf"(?i:{OPENER}{QUALIFIER}{{0,3}}{NOUN}{JOIN}|(?:better|best)\s*[:：]){STATED}"),
)
# What else in a reply may prefer an answer, quoted or not: it casts doubt on a verdict that only opens the reply.
WORSE = r"(?:worse|worst|inferior|weaker|wrong|incorrect|loser)"
PREFERENCES = (
    re.compile(rf"(?i:\b{NOUN}{JOIN}){OPEN}{ANSWER}{LABEL}\b"),
    re.compile(rf"\b(?P<label>[AB])\b (?i:is|was|seems|looks|would be)\b[\w ,]{{0,20}}\b(?i:{BEST})\b"),
    re.compile(r"\b(?P<label>[AB]) (?i:wins)\b"),
    re.compile(r"(?i:\b(?:it(?:['’]s| is)|this is) (?:a )?(?P<label>tie)\b)"),
    re.compile(rf"(?i:\b(?:prefer|choose|chose|pick|select|favou?r|go with)) {ANSWER}(?P<label>[AB])\b"),
)
WORST_FIRST = re.compile(
    r"\bworst[- ](?:to|first)|\bascending|\breverse|\bincreasing|\bfrom (?:the )?(?:worst|weakest|least|lowest|bottom)"
    r"|\b(?:weakest|lowest|least)\b[\w ]{0,20}\b(?:to|first)\b",
    re.IGNORECASE,
)
# A sentence that prefers an answer without a verdict's noun: "Assistant A is better.", "I prefer B".
PREFERS = (
    rf"(?:{ANSWER}(?P<label>[AB]) {IS_BEST}(?: than {ANSWER}(?!(?P=label))[AB])?"
    rf"|(?i:I(?:['’]d| would)? (?:prefer|choose|pick|select|go with)) {ANSWER}[\[(]{{0,2}}(?P<chosen>[AB])"
    rf"(?: (?:over|to|rather than) {ANSWER}(?!(?P=chosen))[AB])?"
    rf"|(?i:(?:it(?:['’]s| is)|this is|I(?: would)? call (?:it|this)) (?:a )?(?P<tied>tie))"
    rf"|(?i:{CONCLUSION}\s*[,:：]?)\s*(?:{ANSWER}[\[(]{{0,2}}(?P<concluded>[AB])|(?P<so_tied>(?i:(?:a )?tie)))){CLOSE}"
)
PREFERENCE = Form(line=re.compile(rf"(?i:{OPENER}){PREFERS}"), sentence=re.compile(rf"(?i:{OPENER}){PREFERS}"))
PRAISE = re.compile(r"\b(?:correct|stronger)\b", re.IGNORECASE)
NAMED = re.compile(r"(?i:(?:(?:answer|output|response|option|assistant|model)[ _-])?)(?P<label>[ABab])")
LETTER = re.compile(r"\s*\**[AB]\**:\**\s*")  # "A:", the verdict of a judge that stops before an explanation
KEYS = ("verdict", "winner", "choice", "preference", "decision")  # of JSON objects
AGAINST = re.compile(rf"\b(?P<label>[AB])\b (?i:is|was|seems|looks)\b[\w ,]{{0,20}}\b(?i:{WORSE})\b")


@dataclass(frozen=True, slots=True)
class ParsedVerdict:
    """A well-formed verdict in a reply."""

    label: str  # "A", "B", "tie" or "abstain"
    position: int  # of the label's first character in the reply


def find_verdict(reply: str, offered: Collection[str], shown: Sequence[str] | None = None) -> ParsedVerdict | None:
    r"""Return the verdict of a reply; None if it is in doubt.

    A reply that is a JSON object gives it as one of `KEYS`. In any other it must end the reply: as a line ("B",
    "[[A]]", "Answer A.", "A>>B", "<verdict>A</verdict>"), as a sentence ("The better answer is B.", "Verdict:
    \boxed{B}", "Assistant A is better."), with a reason perhaps ("Verdict: A, because it is complete."), or as a JSON
    object. A line or sentence that opens the reply, with an explanation behind, counts where nothing else prefers
    another answer. What is quoted never counts, see `own_words`.

    Args:
        offered: the labels that the judge may give. shown: the texts that it was shown; None if they are not known.
    """
    reading = read(reply.replace(":", "") if LETTER.fullmatch(reply) else reply, KEYS, FORM, shown)
    if reading.from_json is not None:
        return _in_json(reading.from_json, offered)
    found = reading.ending or reading.opening
    if found is None:
        return _preferring(reply, offered, shown)
    label = _label(found.match)
    if found is reading.opening and {label} != set(_preferred(reading.lines)):
        return None
    if found.reason and any(other != label for other in _preferences(found.reason)):
        return None
    return _offered(label, found, offered)


def _preferring(reply: str, offered: Collection[str], shown: Sequence[str] | None) -> ParsedVerdict | None:
    """Return the verdict of a reply that ends in a sentence such as "Answer A is better".

    Where the reply prefers the other answer as well, in one respect perhaps, the sentence must be a conclusion.
    """
    reply = unthought(unfenced(reply))
    lines = lines_of(reply)
    found = closing(lines, reply, PREFERENCE, shown) if lines else None
    if found is None or found.reason or is_shown(found.sentence, without_question(shown or ())):
        return None
    before = found.line.text[: found.begins].rstrip()
    if before and before[-1] not in ".!?)" and not CONCLUDES.match(found.sentence):  # "Style - A wins" is about style
        return None
    group = next(name for name in ("label", "chosen", "tied", "concluded", "so_tied") if found.match[name])
    label = found.match[group] if len(found.match[group]) == 1 else "tie"
    others = {other for other in _preferred(lines) if other != label}
    weak = len(lines) > 1 and PRAISE.search(found.sentence)  # "Answer A is correct", and the other one perhaps too
    if label not in offered or ((others or weak) and not CONCLUDES.match(found.sentence)):
        return None
    return ParsedVerdict(label, found.place(group))


def _offered(label: str, value: Value, offered: Collection[str]) -> ParsedVerdict | None:
    return _label_at(label, value.place(_decided(value.match)), offered)


def _decided(match: re.Match[str]) -> str:
    """Return the group of the first letter by which a verdict is decided; the second of "A<B" follows from it."""
    return next(name for name in ("named", "even", "label", "winner", "lesser", "equal") if match[name])


def _label(match: re.Match[str]) -> str:
    """Return "A", "B", "tie", "abstain", or "" if a verdict contradicts itself."""
    if match["equal"]:
        label = "tie"
    elif match["winner"] or match["greater"]:
        label = match["winner"] or match["greater"]
        label = label if label != (match["loser"] or match["lesser"]) else ""
    else:
        label = match["label"].upper() if len(match["label"]) == 1 else match["label"].lower()
    gloss = "tie" if match["even"] else match["named"]
    return label if gloss in (None, label) else ""


def _in_json(value: tuple[str, int], offered: Collection[str]) -> ParsedVerdict | None:
    named = NAMED.fullmatch(value[0])
    if named is not None:  # "model_a", as LMSYS's files name a winner
        return _label_at(named["label"].upper(), value[1] + named.start("label"), offered)
    match = FORM.line.fullmatch(value[0])
    if match is None or _label(match) not in offered:
        return None
    return ParsedVerdict(_label(match), value[1] + match.start(_decided(match)))


def _label_at(label: str, position: int, offered: Collection[str]) -> ParsedVerdict | None:
    return ParsedVerdict(label, position) if label in offered else None


def _preferred(lines: Sequence[Line]) -> Iterator[str]:
    """Yield the label of every verdict and preference in a reply, quoted ones too."""
    for line in lines:
        match = FORM.line.fullmatch(line.text)
        if match:
            yield _label(match)
        yield from _preferences(line.text)


def _preferences(text: str) -> Iterator[str]:
    for pattern in PREFERENCES:
        for found in pattern.finditer(text):
            yield found["label"].upper() if len(found["label"]) == 1 else found["label"].lower()
    for found in AGAINST.finditer(text):
        yield "B" if found["label"] == "A" else "A"


def find_ranking(reply: str, offered: Sequence[str], shown: Sequence[str] | None = None) -> tuple[str, ...] | None:
    """Return the labels in the order that a reply gives, the best first; None if that is in doubt.

    It must name every label that was offered once and no other. A reply that is a JSON object gives it as "ranking",
    a list or a text such as "B > A > C"; in any other a line or sentence of this form must end the reply, or a line
    open it with an explanation behind and no other order. What is quoted never counts, see `own_words`.
    """
    if (listed := _listed(reply)) is not None:
        return _permutation(listed, offered)
    letter = rf"[\[(]{{0,2}}{ANSWER}[A-Z][\])]{{0,2}}"
    orders = "|".join(rf"{letter}(?: ?{by} ?{letter}){{{len(offered) - 1}}}" for by in SEPARATORS)
    value = rf"(?P<opened>[\"'“‘])?{TAGGED}{OPEN}(?P<order>{orders}){CLOSE}{UNTAGGED}(?(opened)[\"'”’]{CLOSE})"
    noun = r"(?:ranking|order|verdict|(?:from )?best to worst)"
    form = Form(re.compile(value), re.compile(rf"(?i:{OPENER}{QUALIFIER}{{0,3}}{noun}{JOIN}){value}"))
    reading = read(reply, ("ranking", "order"), form, shown)
    if reading.from_json is not None:
        match = form.line.fullmatch(reading.from_json[0])
        return _permutation(match["order"], offered) if match else None
    found = reading.ending or reading.opening
    if found is None or any(WORST_FIRST.search(line.text) for line in lines_of(reply)):
        return None
    others = {_permutation(other[0], offered) for line in reading.lines for other in re.finditer(orders, line.text)}
    return _permutation(found.match["order"], offered) if found is reading.ending or len(others) == 1 else None


def _listed(reply: str) -> str | None:
    """Return the labels of a reply that is a list and nothing else: in JSON, or a line for each rank."""
    words = unthought(unfenced(reply)).strip()
    if re.fullmatch(r"""\[\s*(?:(["'])[A-Z]\1\s*,?\s*)+\]""", words):
        return words
    ranks = [RANK.fullmatch(line.replace("*", "").strip()) for line in words.split("\n") if line.strip()]
    found = [match for match in ranks if match is not None]
    in_order = len(found) > 1 and [int(match["rank"]) for match in found] == [*range(1, len(ranks) + 1)]
    return ", ".join(match["label"] for match in found) if in_order else None


def _permutation(text: str, offered: Sequence[str]) -> tuple[str, ...] | None:
    named = tuple(re.findall(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", text))
    return named if sorted(named) == sorted(offered) else None


def verdict_token(reply: str, position: int, tokens: Sequence[Any]) -> dict[str, Any] | None:
    """Return the token of `logprobs.content` that holds the reply's character at `position`; None if none does."""
    index = token_index(reply, position, tokens)
    return tokens[index] if index is not None else None


def soft_probability(token: Any, label: str | None = None) -> tuple[float, float] | None:
    """Return P(A) / (P(A) + P(B)) and the mass P(A) + P(B) at the verdict token; None if they are in doubt.

    https://arxiv.org/abs/2309.00267, section 3.1. Tokens that spell the same letter, such as " A" and "A", are summed.

    Args:
        token: of `logprobs.content`. label: the label of the reply; None: whichever letter the token spells.

    Returns: None if the token does not spell the label, its numbers are no log-probabilities, or the other letter
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
