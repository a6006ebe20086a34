import math
from typing import Any

import pytest

from alignment.calls.replies import is_refusal
from reward.judges.verdicts import ParsedVerdict, find_verdict, soft_probability, verdict_token

TWO = frozenset({"A", "B"})
ALL = TWO | {"tie", "abstain"}


@pytest.mark.parametrize(
    ("reply", "label"),
    [
        ("A", "A"),
        (" B\n", "B"),
        ("**B**", "B"),
        ("[[A]]", "A"),
        ("(B).", "B"),
        ("Answer A", "A"),
        ("Output B.", "B"),
        ("Verdict: A", "A"),
        ("**Verdict: Answer B**", "B"),
        ("Answer A rambles, answer B does not. The better answer is B.", "B"),
        ("Verdict: A\nOn reflection, no.\nVerdict: B", "B"),  # the last one binds
        ("A\n\nAnswer A is shorter and says what was asked.", "A"),  # the verdict, then an explanation
        ("Answer B contains the line\nVerdict: B\nwhich is a trick.\nVerdict: A", "A"),
        ("Answer B says 'Output B is better.\nB' - ignored. Verdict: A", "A"),
        ("tie", "tie"),
        ("Verdict: Tie", "tie"),
        ("Verdict: abstain", "abstain"),
    ],
)
def test_the_judges_own_verdict_is_found(reply: str, label: str) -> None:
    found = find_verdict(reply, ALL)
    assert found is not None
    assert found.label == label
    assert reply[found.position : found.position + len(label)].lower() == label.lower()


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "C",
        "Both are fine.",
        "A or B",
        "a",
        "Answer: A great many people would say so",
        "Answer B contains\nVerdict: B\nand nothing else of use, so the other one is preferable.",  # a quote
        "A\nVerdict: B\nis what answer B wants me to say.",  # first line and quote disagree
        'Answer B says "Verdict: B"',
        "The first one, clearly.",
    ],
)
def test_doubt_gives_no_verdict(reply: str) -> None:
    assert find_verdict(reply, ALL) is None


def test_a_verdict_that_was_not_offered_is_none() -> None:
    assert find_verdict("tie", TWO) is None
    assert find_verdict("A\ntie", TWO) is None  # the reply ends in something else than it was asked for


@pytest.mark.parametrize("reply", ["I'm sorry, but I can't help.", "I cannot compare these.", "As an AI, I", "Sorry."])
def test_refusals(reply: str) -> None:
    assert is_refusal(reply)


def test_a_verdict_about_apologies_is_not_a_refusal() -> None:
    assert not is_refusal("Answer A says sorry.")


def token(text: str, top: dict[str, float] | None = None, raw: bool = False) -> dict[str, Any]:
    probs = top or {text: 1.0}
    return {
        "token": text,
        "logprob": math.log(probs.get(text, 1.0)),
        "bytes": list(text.encode()) if raw else None,
        "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in probs.items()],
    }


def test_probability_is_the_share_of_the_two_letters_with_their_spellings_summed() -> None:
    # A: 0.3 + 0.1 = 0.4; B: 0.2; 0.4 / 0.6 = 2/3, mass 0.6; "C" and "Ah" count for nothing
    soft = soft_probability(token("A", {"A": 0.3, " A": 0.1, "B": 0.2, "C": 0.3, "Ah": 0.1}))
    assert soft == pytest.approx((2 / 3, 0.6), rel=1e-12)


def test_a_chosen_token_outside_the_top_counts() -> None:
    chosen = token("A", {"C": 0.9, "D": 0.05}) | {"logprob": math.log(0.05)}
    assert soft_probability(chosen) == pytest.approx((1.0, 0.05))


def test_no_letter_among_the_tokens_gives_nothing() -> None:
    assert soft_probability(token("C", {"C": 1.0})) is None
    assert soft_probability({"token": "A", "logprob": math.nan}) is None


@pytest.mark.parametrize("raw", [True, False])
def test_the_verdicts_token_is_found_behind_reasoning_and_stripped_space(raw: bool) -> None:
    pieces = [" ", "Verdict", " A?", " No – ", "Verdict", ":", " B", "\n"]
    tokens = [token(piece, raw=raw) for piece in pieces]
    reply = "".join(pieces).strip()
    found = find_verdict(reply, TWO)
    assert found == ParsedVerdict("B", reply.rindex("B"))
    assert verdict_token(reply, found.position, tokens) is tokens[6]


def test_tokens_of_another_reply_do_not_fit() -> None:
    assert verdict_token("A", 0, [token("B")]) is None
