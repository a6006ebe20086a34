"""Answers with a label each: from thumbs, from a judge of single answers, and from comparisons.

A pair with probability p makes two rows, one answer good with p and the other with 1 - p; with p = 1 these are TRL's
rows of `unpair_preference_dataset`. A loss that is an expectation over the label is linear in its probability, so the
rows of one answer that is in several pairs have the mean loss of one row with their mean probability: each answer of a
ranking makes one row.
"""

from dataclasses import fields
from typing import Any

from alignment.data.answers import TAGGED, require_readable, text_of_answer
from alignment.data.conversations import carrying_tools
from alignment.data.fields import BadRow
from alignment.data.rankings import probability_of
from alignment.data.rows import DESIRABLE, REASONING_FIELD, USABLE, Demonstration, Ranking, Unpaired


def unpaired_of_label(row: Demonstration, desirable: float | None, source: str) -> Unpaired:
    """Return the last answer of a conversation with its label, if it has one.

    Raises: BadRow where the answer's reasoning could not be separated again.
    """
    prompt = carrying_tools(row.prompt, row.tools) if isinstance(row.prompt, list) else row.prompt
    answer = row.answer or {"role": "assistant", "content": row.completion}
    has_field = "reasoning" in answer and TAGGED not in answer
    if has_field:
        require_readable(text_of_answer(answer), "the answer")
    provenance = {**(row.sampled.provenance if row.sampled else {}), **({REASONING_FIELD: [True]} if has_field else {})}
    return Unpaired(prompt, [text_of_answer(answer)], [], provenance, source, (desirable,))


def unpaired_of_ranking(ranking: Ranking) -> Unpaired:
    """Return the answers of a ranking with their labels.

    A label is the probability that a judge of single answers gave, else the mean probability of being the better answer
    in its usable pairs.

    Raises: BadRow where a judge's probabilities are not one for each answer.
    """
    kept = {field.name: getattr(ranking, field.name) for field in fields(Ranking)}
    if (judged := ranking.provenance.get(DESIRABLE)) is not None:
        return Unpaired(**kept, desirable=_probabilities(judged, len(ranking.responses)))
    given: list[list[float]] = [[] for _ in ranking.responses]
    for pair in ranking.pairs:
        if pair.status in USABLE and pair.probability is not None:
            given[pair.first].append(pair.probability)
            given[pair.second].append(1.0 - pair.probability)
    return Unpaired(**kept, desirable=tuple(sum(each) / len(each) if each else None for each in given))


def _probabilities(given: Any, count: int) -> tuple[float | None, ...]:
    what = f"'provenance.{DESIRABLE}'"
    if not isinstance(given, list) or len(given) != count:
        raise BadRow(f"{what} is not a list of {count} probabilities, one for each response")
    return tuple(None if one is None else probability_of(one, what) for one in given)
