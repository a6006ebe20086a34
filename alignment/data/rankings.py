"""Rankings on disk, and how ranks, ratings and choices become pairwise probabilities."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, get_args

from alignment.data.calls import tools_of
from alignment.data.conversations import carrying_tools, marked_messages_of, messages_of, with_system
from alignment.data.fields import BadRow, checked, kind_of, optional_text, text_of, whole_text
from alignment.data.rows import POLICIES, REASONING_FIELD, USABLE, Message, Pair, Prompt, Ranking, SingleVerdict, Status
from alignment.data.sampled import KEY, is_sampled, require_records
from alignment.strict_json import shown as quoted

_STATUSES: tuple[str, ...] = get_args(Status)
LARGEST = 1e38  # of a rank, score, rating or margin
MOST_ANSWERS = 1024  # of one ranking, whose comparisons grow with their square
MOST_ASKINGS = 10**6  # of one pair in one order
RATINGS = (  # columns that rate the two answers of a choice, the better one's first
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
    ("rating_chosen", "rating_rejected"),
)


def ranking_to_json(ranking: Ranking) -> dict[str, Any]:
    """Return the row of `labels.jsonl` for `ranking`."""
    pairs = []
    for pair in ranking.pairs:
        row: dict[str, Any] = {"first": pair.first, "second": pair.second, "probability": pair.probability}
        row["status"] = pair.status
        if pair.margin is not None:
            row["margin"] = pair.margin
        if pair.verdicts:
            row["verdicts"] = [dataclasses.asdict(asked) for asked in pair.verdicts]
        pairs.append(row)
    return {
        "prompt": ranking.prompt,
        "responses": ranking.responses,
        "pairs": pairs,
        "provenance": ranking.provenance,
    }


def ranking_from_json(row: dict[str, Any], source: str = "") -> Ranking:
    """Read our own row: `prompt`, `responses`, and `pairs`, `ranks` (lower is better) or `scores` (higher is better).

    An empty response is allowed with `pairs`: a policy may sample one, and a judge can compare it.
    """
    responses = row.get("responses")
    if not isinstance(responses, list) or not all(isinstance(response, str) for response in responses):
        raise BadRow("'responses' is not a list of texts")
    require_comparable(len(responses))
    for index, response in enumerate(responses):
        whole_text(response, f"'responses[{index}]'", sampled=is_sampled(row.get("provenance")))
    if len(responses) < 2:
        raise BadRow(f"'responses' holds {len(responses)} answers; a ranking needs at least 2")
    if "pairs" in row:
        pairs = _pairs(row["pairs"], len(responses))
    else:
        blank = [index for index, response in enumerate(responses) if not response.strip()]
        if blank:
            raise BadRow(f"'responses[{blank[0]}]' is empty")
        if "ranks" in row:
            pairs = pairs_from_ranks(_numbers(row["ranks"], "'ranks'", len(responses)))
            _refuse_other_order(row, pairs, len(responses))
        elif "scores" in row:
            pairs = pairs_from_scores(_numbers(row["scores"], "'scores'", len(responses)))
        else:
            raise BadRow("the row has no 'pairs', 'ranks' or 'scores', which compare the responses")
    provenance = provenance_of(row, len(responses))
    return Ranking(prompt_of(row), list(responses), pairs, provenance, source)


def provenance_of(row: dict[str, Any], count: int) -> dict[str, Any]:
    """Return the row's `provenance`, what it holds of the `count` responses checked."""
    provenance = row.get("provenance") or {}
    if not isinstance(provenance, dict):
        raise BadRow("'provenance' is not an object")
    checked(provenance, "provenance")
    for key in ("stopped", REASONING_FIELD):
        _require_flags(provenance.get(key), f"'provenance.{key}'", count)
    _require_names(provenance.get(POLICIES), count)
    require_records(provenance.get(KEY), count)
    return provenance


def require_comparable(answers: int) -> None:
    """Refuse a ranking of so many answers that their comparisons would fill the memory."""
    if answers > MOST_ANSWERS:
        raise BadRow(f"compares {answers:,} answers with one another; the limit is {MOST_ANSWERS:,}")


def _refuse_other_order(row: dict[str, Any], pairs: list[Pair], count: int) -> None:
    """Refuse scores beside ranks that order two answers the other way."""
    if row.get("scores") is None:
        return
    scored = pairs_from_scores(_numbers(row["scores"], "'scores'", count))
    for ranked, other in zip(pairs, scored, strict=True):
        if {ranked.probability, other.probability} == {0.0, 1.0}:
            raise BadRow(
                f"'ranks' and 'scores' order responses {ranked.first} and {ranked.second} in opposite ways; lower "
                "ranks and higher scores are better"
            )


def _require_names(names: Any, count: int) -> None:
    if names is None:
        return
    if not isinstance(names, list) or len(names) != count or not all(isinstance(name, str) and name for name in names):
        raise BadRow(
            f"'provenance.{POLICIES}' is {quoted(names)}; it needs the name of a policy for each of {count} responses"
        )


def _require_flags(flags: Any, what: str, count: int) -> None:
    if flags is not None and not (
        isinstance(flags, list) and len(flags) == count and all(isinstance(one, bool) for one in flags)
    ):
        raise BadRow(f"{what} is not a list of true and false for each of the {count} responses")


def margin_of(value: Any, what: str) -> float | None:
    """Return a rating gap, which is never below zero, or None if there is none."""
    margin = None if value is None else number_of(value, what)
    if margin is not None and margin < 0:
        raise BadRow(f"{what} is {margin}; a margin is by how much the better answer leads, and not below 0")
    return margin


def prompt_of(row: dict[str, Any], *, marked: bool = False) -> Prompt:
    """Return the row's `prompt` with its `system` and `tools`, which make a chat of a text.

    The prompt is text, or messages that do not end with the assistant's.
    """
    prompt, system, tools = _prompt_alone(row, marked), optional_text(row, "system"), tools_of(row)
    if not system.strip() and not tools:
        return prompt
    messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return carrying_tools(with_system(messages, system), tools)


def _prompt_alone(row: dict[str, Any], marked: bool) -> Prompt:
    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return text_of(row, "prompt", empty=True)
    if prompt is None and "prompt" in row:
        raise BadRow("'prompt' is null; give text, or a list of messages")
    messages = marked_messages_of(row, "prompt") if marked else messages_of(row, "prompt")
    if messages[-1]["role"] == "assistant":
        raise BadRow("'prompt' ends with a message of the assistant, so there is nothing to answer")
    return messages


def pairs_from_ranks(ranks: Sequence[float]) -> list[Pair]:
    """Return every pair of answers: 1 where the first ranks better (lower), 0 if worse, a tie where equal."""
    require_comparable(len(ranks))
    return [
        _pair(first, second, ranks[second] - ranks[first], None)
        for first, second in itertools.combinations(range(len(ranks)), 2)
    ]


def pairs_from_scores(scores: Sequence[float]) -> list[Pair]:
    """Return every pair of answers as `pairs_from_ranks`, higher being better, with the gap as margin."""
    return [
        _pair(first, second, scores[first] - scores[second], abs(scores[first] - scores[second]))
        for first, second in itertools.combinations(range(len(scores)), 2)
    ]


def _pair(first: int, second: int, lead: float, margin: float | None) -> Pair:
    if lead == 0:
        return Pair(first, second, 0.5, "tie", margin)
    return Pair(first, second, 1.0 if lead > 0 else 0.0, "ok", margin)


def best_response(ranking: Ranking) -> int | None:
    """Return the place of the answer with the most expected wins, or None if nothing usable sets one apart."""
    wins = [0.0] * len(ranking.responses)
    for pair in ranking.pairs:
        if pair.status in USABLE and pair.probability is not None:
            wins[pair.first] += pair.probability - 0.5
            wins[pair.second] += 0.5 - pair.probability
    best = max(range(len(wins)), key=wins.__getitem__)
    return best if wins.count(wins[best]) == 1 else None


def number_of(value: Any, what: str) -> float:
    """Return a finite number that a float holds as it is; a boolean is none.

    Beyond `LARGEST` a difference of two would not fit the float32 that losses are computed in.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        found = quoted(value) if isinstance(value, int | float | str) else kind_of(value)
        raise BadRow(f"{what} is {found}, not a number")
    if abs(value) > LARGEST:
        raise BadRow(f"{what} is {quoted(value)}, further from zero than {LARGEST:g}")
    if float(value) != value:
        raise BadRow(f"{what} is {quoted(value)}, an integer with more digits than a float holds")
    return float(value)


def probability_of(value: Any, what: str) -> float:
    """Return a probability."""
    probability = number_of(value, what)
    if not 0.0 <= probability <= 1.0:
        raise BadRow(f"{what} is {probability}, outside 0 to 1")
    return probability


def _numbers(values: Any, what: str, count: int) -> list[float]:
    if not isinstance(values, list) or len(values) != count:
        found = f"{len(values)} numbers" if isinstance(values, list) else kind_of(values)
        raise BadRow(f"{what} is {found}; it needs one number for each of the {count} responses")
    return [number_of(value, f"{what}[{index}]") for index, value in enumerate(values)]


def _pairs(rows: Any, count: int) -> list[Pair]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadRow("'pairs' is not a list of objects")
    return [_pair_from_json(row, f"'pairs[{index}]'", count) for index, row in enumerate(rows)]


def _pair_from_json(row: dict[str, Any], what: str, count: int) -> Pair:
    ends = (row.get("first"), row.get("second"))
    for end in ends:
        if isinstance(end, bool) or not isinstance(end, int) or not 0 <= end < count:
            found = f"{quoted(ends[0])} with {quoted(ends[1])}"
            raise BadRow(f"{what} compares {found}; there are responses 0 to {count - 1}")
    if ends[0] == ends[1]:
        raise BadRow(f"{what} compares response {ends[0]} with itself")
    probability, status = _judged(row, what)
    margin = margin_of(row.get("margin"), f"{what} 'margin'")
    verdicts = _verdicts(row.get("verdicts") or [], what)
    return Pair(row["first"], row["second"], probability, status, margin, verdicts)


def _verdicts(rows: Any, what: str) -> tuple[SingleVerdict, ...]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadRow(f"{what} 'verdicts' is not a list of objects")
    return tuple(_asked(row, f"{what} 'verdicts[{index}]'") for index, row in enumerate(rows))


def _asked(row: dict[str, Any], what: str) -> SingleVerdict:
    shown, repeat, mass = row.get("shown"), row.get("repeat", 0), row.get("mass")
    if shown not in ("first", "swapped"):
        raise BadRow(f"{what} 'shown' is {quoted(shown)}; the order is first or swapped")
    if isinstance(repeat, bool) or not isinstance(repeat, int) or not 0 <= repeat < MOST_ASKINGS:
        raise BadRow(f"{what} 'repeat' is {quoted(repeat)}, not a number from 0 to {MOST_ASKINGS - 1:,}")
    probability, status = _judged(row, what)
    return SingleVerdict(shown, repeat, probability, status, None if mass is None else _mass_of(mass, f"{what} 'mass'"))


def _mass_of(value: Any, what: str) -> float:
    """Return the probability of all offered tokens; a sum of rounded ones may pass 1 by a little."""
    mass = number_of(value, what)
    if not 0.0 <= mass <= 1.01:
        raise BadRow(f"{what} is {mass}; it is a probability, from 0 to 1")
    return mass


def _judged(row: dict[str, Any], what: str) -> tuple[float | None, Status]:
    """Return a row's probability and status; only a usable status has a probability."""
    status = row.get("status", "ok")
    if status not in _STATUSES:
        raise BadRow(f"{what} has the status {quoted(status)}; known are {', '.join(_STATUSES)}")
    probability = row.get("probability")
    if status in USABLE:
        probability = number_of(probability, f"{what} 'probability'")
        if not 0.0 <= probability <= 1.0:
            raise BadRow(f"{what} has the probability {probability}, outside 0 to 1")
        if status == "tie" and probability != 0.5:
            raise BadRow(f"{what} has the status tie and the probability {probability}; a tie's is 0.5")
    elif probability is not None:
        raise BadRow(f"{what} has the status {status} and a probability; an error is never a label")
    return probability, status
