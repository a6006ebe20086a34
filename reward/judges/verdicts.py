"""Reading a verdict out of a judge model's reply, and its probability out of the log-probabilities."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from reward.judges.logprobs import LogprobError, alternatives, token_index

REFUSAL = re.compile(
    r"^\W*(i['’]?m sorry|sorry\b|i apologi[sz]e|i\s+(can['’]?t|cannot|won['’]?t|will not|(am|['’]m) (not able|unable))"
    r"|as an ai\b)",
    re.IGNORECASE,
)
LABEL = r"(A|B|[Tt]ie|TIE|[Aa]bstain|ABSTAIN)"
NOUN = r"(?i:answer|output|response|option)"
OPENING, CLOSING = r"[\s*_`\"'\[({]*", r"[\s*_`\"'\])}.!]*"
# A line that is nothing but a verdict, decorated perhaps: "B", "**Answer A**", "[[B]]".
BARE = re.compile(rf"^{OPENING}(?:{NOUN}\s+)?{LABEL}{CLOSING}$")
# "Verdict: B" at the end of a line. No quotation mark may follow: a quoted verdict is somebody else's.
MARKED = re.compile(
    r"(?i:\b(?:verdict|answer|choice|winner|judge?ment))\s*(?:(?i:is)|:|=)+"
    rf"[\s*_`\[({{]*(?:{NOUN}\s+)?{LABEL}[\s*_`\])}}.!]*$"
)
SEPARATOR = r"\s*(?:>+|≻|,)\s*"
# A whole reply that is one JSON object, in a fence perhaps.
OBJECT = re.compile(r"^\s*(?:```(?:json)?\s*)?(\{.*\})\s*(?:```)?\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Found:
    """A well-formed verdict in a reply."""

    label: str  # "A", "B", "tie" or "abstain"
    position: int  # of the label's first character in the reply


def find_verdict(reply: str, offered: Collection[str]) -> Found | None:
    """Return the last well-formed verdict; None where the reply's verdict is in doubt.

    A reply that is a JSON object gives it as "verdict". In any other the verdict must end the reply. One that opens it,
    with an explanation behind, counts where no other verdict disagrees; any other may be the judge quoting an answer,
    and is never taken for its own.
    """
    value = json_value(reply, "verdict")
    if value is not None:
        return Found(value[0], value[1]) if value[0] in offered else None
    found: list[Found] = []
    start, first_line, last_line = 0, None, None
    for line in reply.splitlines(keepends=True):
        text = line.rstrip()
        verdict = None
        if text.strip():
            bare = BARE.match(text)
            match = bare or MARKED.search(text)
            if match:
                label = match[1] if match[1] in ("A", "B") else match[1].lower()
                verdict = Found(label, start + match.start(1))
                if label in offered:
                    found.append(verdict)
            first_line = first_line or (text, bare is not None)
            last_line = verdict
        start += len(line)
    if not found or first_line is None:
        return None
    if last_line is not None:
        return found[-1] if last_line == found[-1] else None
    if first_line[1] and len({verdict.label for verdict in found}) == 1:
        return found[0]
    return None


def find_ranking(reply: str, offered: Sequence[str]) -> tuple[str, ...] | None:
    """Return the labels in the order that a reply gives, the best first; None where that is in doubt.

    It must name every label that was offered once and no other. A reply that is a JSON object gives it as "ranking",
    a list or a text such as "B > A > C"; in any other a line of this form must end the reply, or open it with an
    explanation behind and no other order.
    """
    value = json_value(reply, "ranking")
    if value is not None:
        return _permutation(value[0], offered)
    label = rf"(?:{NOUN}\s+)?([A-Z])"
    whole = re.compile(
        rf"^{OPENING}(?:(?i:ranking|order|verdict)\s*(?:(?i:is)|:|=)+{OPENING})?"
        rf"{label}(?:{SEPARATOR}{label}){{{len(offered) - 1}}}{CLOSING}$"
    )
    lines = [line.strip() for line in reply.splitlines() if line.strip()]
    orders = [_permutation(line, offered) if whole.match(line) else None for line in lines]
    if not orders:
        return None
    if orders[-1] is not None:
        return orders[-1]
    given = {order for order in orders if order is not None}
    return orders[0] if len(given) == 1 else None


def _permutation(text: str, offered: Sequence[str]) -> tuple[str, ...] | None:
    named = tuple(re.findall(r"(?<![A-Za-z])[A-Z](?![A-Za-z])", text))
    return named if sorted(named) == sorted(offered) else None


def json_value(reply: str, key: str) -> tuple[str, int] | None:
    """Return what a reply that is one JSON object gives under `key`, as a text, and where that begins in the reply.

    Returns: None where the reply is no such object. ("", 0) where it is, and the key is missing or given twice: the
        object may be something quoted.
    """
    match = OBJECT.match(reply)
    if match is None:
        return None
    doubles: list[bool] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        doubles.append([name for name, _ in pairs].count(key) > 1)
        return dict(pairs)

    try:
        value = json.loads(match[1], object_pairs_hook=collect)
    except (ValueError, RecursionError):
        return None
    places = [place.end() for place in re.finditer(rf'(?<!\\)"{key}"\s*:\s*"?', reply)]
    if key not in value or any(doubles) or len(places) != 1:
        return "", 0
    found = value[key]
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return ", ".join(found), places[0]
    readable = isinstance(found, str) or (isinstance(found, int | float) and not isinstance(found, bool))
    return (str(found), places[0]) if readable else ("", 0)


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
