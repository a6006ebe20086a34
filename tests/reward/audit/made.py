"""Labels and people's votes made up for the tests."""

from collections.abc import Sequence

from alignment.data.rows import Pair, Ranking, SingleVerdict
from reward.audit.items import Judged, People, items_of


def asked(shown: str, probability: float | None, *, repeat: int = 0, mass: float | None = None) -> SingleVerdict:
    """What the judge said when the answers were `shown`; `probability` is of the answer shown first."""
    status = "parse_error" if probability is None else "tie" if probability == 0.5 else "ok"
    return SingleVerdict(shown, repeat, probability, status, mass)


def pair(probability: float | None, *verdicts: SingleVerdict, ends: tuple[int, int] = (0, 1)) -> Pair:
    status = "parse_error" if probability is None else "tie" if probability == 0.5 else "ok"
    return Pair(*ends, probability, status, verdicts=verdicts)


def both_orders(first: float, swapped: float, **more: int) -> Pair:
    """A pair asked in both orders; each probability is of the answer shown first."""
    return pair(0.5 + (first - swapped) / 2, asked("first", first, **more), asked("swapped", swapped, **more))


def ranking(prompt: str, *pairs: Pair, responses: Sequence[str] = ("first", "second"), **provenance: object) -> Ranking:
    return Ranking(prompt, list(responses), list(pairs), dict(provenance))


def judged(*rankings: Ranking) -> Judged:
    return Judged("judge", list(items_of(rankings)), list(rankings))


def people(judge: Judged, votes: Sequence[Sequence[float]]) -> People:
    """Votes on each of a judge's items in order: 1 for its first answer, 0 a tie, -1 for its second."""
    found = People()
    for item, cast in zip(judge.items, votes, strict=True):
        turn = -1 if item.turned else 1
        if cast:
            found.votes[item.key] = {f"person {i}": [turn * vote] for i, vote in enumerate(cast)}
    return found
