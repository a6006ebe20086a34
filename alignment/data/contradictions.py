"""Rows that prefer opposite answers to one prompt.

A hard choice that names no judge and no person is taken for the truth, so two opposite ones cannot both be right. What
a judge or a person said, and a probability between 0 and 1, is an opinion: those may differ and are averaged.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.data.rows import Prompt, Ranking

VOICES = ("judge", "annotator", "source")  # keys of `provenance` that name the labeller
VOICE_COLUMNS = frozenset(
    f"{who}{end}"
    for who in ("annotator", "judge", "labeler", "labeller", "rater", "worker", "user")
    for end in ("", "s", "_id", "_name")
)
Claim = tuple[bytes, bool]  # prompt and both answers, and whether the lower of the two answers is the better one


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two rows of which at most one is right."""

    first: int  # places in the rows that were given
    second: int


def claims_of(ranking: Ranking, row: Any) -> list[Claim]:
    """Return what a row states of its answers; nothing for the opinion of one annotator.

    Args:
        row: as its file holds it.
    """
    named = not VOICE_COLUMNS.isdisjoint(row) if isinstance(row, dict) else False
    return [] if named or is_opinion(ranking) else list(_claims(ranking))


def is_opinion(ranking: Ranking) -> bool:
    """Whether a ranking names the judge or person that compared its answers."""
    return any(ranking.provenance.get(key) for key in VOICES)


def _claims(ranking: Ranking) -> Iterator[Claim]:
    prompt = _text_of(ranking.prompt)
    for pair in ranking.pairs:
        if pair.status != "ok" or pair.probability not in (0.0, 1.0):
            continue
        better, worse = ranking.responses[pair.first].strip(), ranking.responses[pair.second].strip()
        if pair.probability == 0.0:
            better, worse = worse, better
        key = json.dumps([prompt, *sorted((better, worse))]).encode()
        yield hashlib.sha256(key).digest()[:16], better < worse


def _text_of(prompt: Prompt) -> Any:
    """Plain text and a single message of the user with that text are the same question."""
    if isinstance(prompt, str):
        return prompt.strip()
    if len(prompt) == 1 and prompt[0]["role"] == "user" and len(prompt[0]) == 2:
        return prompt[0]["content"].strip()
    return [[message["role"], message["content"].strip()] for message in prompt]


def same_text(ranking: Ranking) -> tuple[int, int] | None:
    """Return two answers of a ranking that are one text and yet ordered; None if there are none."""
    for pair in ranking.pairs:
        hard = pair.status == "ok" and pair.probability in (0.0, 1.0)
        if hard and ranking.responses[pair.first] == ranking.responses[pair.second]:
            return pair.first, pair.second
    return None


def contradictions(rows: Sequence[Sequence[Claim]]) -> Iterator[Contradiction]:
    """Yield rows whose claims are the opposite of an earlier row's, or of their own."""
    known: dict[bytes, tuple[bool, int]] = {}
    for place, claims in enumerate(rows):
        for key, lower_is_better in claims:
            said, first = known.setdefault(key, (lower_is_better, place))
            if said != lower_is_better:
                yield Contradiction(first, place)
