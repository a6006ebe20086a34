"""Pairs from verdicts that are all known, by hand."""

from typing import Any

import pytest

from alignment.calls.store import Sampled
from alignment.data.rows import SingleVerdict
from alignment.evaluate.judging import Comparison, Listing, Rating, Verdict
from reward.feedback.strategies import Listwise, Pairwise, Pointwise, key_of, pairs_to_label, strategy_of

SAMPLE = Sampled(0, "p", ["a", "b", "c"], [True] * 3)
PAIRS = [(0, 1), (0, 2), (1, 2)]


def verdicts_of(way: Any, answer: Any, sample: Sampled = SAMPLE) -> dict[Any, Verdict]:
    pairs = pairs_to_label(sample, pairs_per_prompt=None, seed=0)
    return {key_of(question): answer(question) for question in way.questions(sample, pairs)}


def test_samples_of_each_order_are_averaged_before_the_orders() -> None:
    said = {("a", "b", 0): 1.0, ("a", "b", 1): 0.0, ("b", "a", 0): 0.0, ("b", "a", 1): 0.0}

    def answer(question: Comparison) -> Verdict:
        return Verdict(said[question.first, question.second, question.repeat], "ok", details={"mass": 0.8})

    way, sample = Pairwise(2), Sampled(0, "p", ["a", "b"], [True, True])
    pair = way.label(sample, (0, 1), verdicts_of(way, answer, sample))
    # shown first: (1 + 0) / 2; swapped: (0 + 0) / 2 for "b"; 0.5 + (0.5 - 0) / 2 = 0.75
    assert (pair.probability, pair.status) == (0.75, "ok")
    assert pair.verdicts == (
        SingleVerdict("first", 0, 1.0, "ok", 0.8),
        SingleVerdict("swapped", 0, 0.0, "ok", 0.8),
        SingleVerdict("first", 1, 0.0, "ok", 0.8),
        SingleVerdict("swapped", 1, 0.0, "ok", 0.8),
    )


def test_a_sample_that_failed_is_left_out_and_an_order_without_any_leaves_no_label() -> None:
    way, sample = Pairwise(2), Sampled(0, "p", ["a", "b"], [True, True])

    def once(question: Comparison) -> Verdict:
        return Verdict(None, "refusal") if question.repeat else Verdict(1.0 if question.first == "a" else 0.0, "ok")

    assert way.label(sample, (0, 1), verdicts_of(way, once, sample)).probability == 1.0

    def one_order(question: Comparison) -> Verdict:
        return Verdict(1.0, "ok") if question.first == "a" else Verdict(None, "truncated")

    pair = way.label(sample, (0, 1), verdicts_of(way, one_order, sample))
    assert (pair.probability, pair.status) == (None, "truncated")
    assert [asked.status for asked in pair.verdicts] == ["ok", "truncated", "ok", "truncated"]


def test_a_list_is_asked_in_two_opposite_orders_without_doubles() -> None:
    sample = Sampled(4, "p", ["x", "y", "x", "z"], [True] * 4)
    asked = list(Listwise(2, seed=1).questions(sample, PAIRS))
    assert [question.repeat for question in asked] == [0, 0, 1, 1]
    for forward, backward in (asked[:2], asked[2:]):
        assert forward.answers == backward.answers[::-1]
        assert forward.order == backward.order[::-1]
        assert sorted(forward.answers) == ["x", "y", "z"]
        assert [sample.responses[place] for place in forward.order] == list(forward.answers)
    assert asked == list(Listwise(2, seed=1).questions(sample, PAIRS))


def test_lists_become_pairs() -> None:
    def alphabetical(question: Listing) -> Verdict:
        return Verdict(None, "ok", scores=tuple(-float(ord(text)) for text in question.answers))

    way = Listwise()
    pairs = [way.label(SAMPLE, pair, verdicts_of(way, alphabetical)) for pair in PAIRS]
    assert [pair.probability for pair in pairs] == [1.0, 1.0, 1.0]
    assert {asked.shown for asked in pairs[0].verdicts} == {"first", "swapped"}

    def as_shown(question: Listing) -> Verdict:  # whatever comes first is best
        return Verdict(None, "ok", scores=tuple(-float(place) for place in range(len(question.answers))))

    pairs = [way.label(SAMPLE, pair, verdicts_of(way, as_shown)) for pair in PAIRS]
    assert {(pair.probability, pair.status) for pair in pairs} == {(0.5, "tie")}
    assert all(asked.probability == 1.0 for pair in pairs for asked in pair.verdicts)

    failed = {key: Verdict(None, "parse_error") for key in verdicts_of(way, as_shown)}
    assert way.label(SAMPLE, (0, 1), failed).status == "parse_error"


def test_ratings_become_pairs_with_their_gap_as_margin() -> None:
    said = {"a": 7.0, "b": 4.0, "c": 4.0}
    way = Pointwise()
    verdicts = verdicts_of(way, lambda question: Verdict(None, "ok", scores=(said[question.answer],)))
    assert [key for key in verdicts] == [key_of(Rating("p", text)) for text in "abc"]
    found = [way.label(SAMPLE, pair, verdicts) for pair in PAIRS]
    assert [(pair.probability, pair.margin, pair.status) for pair in found] == [
        (1.0, 3.0, "ok"),
        (1.0, 3.0, "ok"),
        (0.5, 0.0, "tie"),
    ]
    assert way.evidence(SAMPLE, verdicts) == {"ratings": [7.0, 4.0, 4.0]}


def test_distributions_of_ratings_give_a_probability() -> None:
    details = {"a": {"distribution": {"3": 0.5, "5": 0.5}}, "b": {"distribution": {"3": 0.6, "4": 0.2}}}

    def answer(question: Rating) -> Verdict:
        return Verdict(None, "ok", details=details[question.answer], scores=(4.0,))

    way, sample = Pointwise(), Sampled(0, "p", ["a", "b"], [True, True])
    # b: 3 with 0.75, 4 with 0.25. a = 3 (0.5): ties 0.75, loses 0.25 -> 0.375; a = 5 (0.5): wins -> 1
    pair = way.label(sample, (0, 1), verdicts_of(way, answer, sample))
    assert pair.probability == pytest.approx(0.5 * 0.375 + 0.5 * 1.0)


def test_an_acceptable_rating_labels_each_answer() -> None:
    details = {"a": {"distribution": {"3": 0.4, "7": 0.1}}, "b": {}}

    def answer(question: Rating) -> Verdict:
        if question.answer == "c":
            return Verdict(None, "refusal")
        score = 8.0 if question.answer == "b" and question.repeat else 4.0
        return Verdict(None, "ok", details=details[question.answer], scores=(score,))

    way, sample = Pointwise(2, acceptable=7.0), Sampled(0, "p", ["a", "b", "c"], [True] * 3)
    found = way.evidence(sample, verdicts_of(way, answer, sample))
    # a: 0.1 of 0.5 is 7; b: 4, then 8
    assert found["desirable"] == pytest.approx([0.2, 0.5, None])
    assert "desirable" not in Pointwise(2).evidence(sample, verdicts_of(way, answer, sample))


def test_means_of_ratings_are_compared_without_their_rounding() -> None:
    ratings = {"a": (7, 7, 7), "b": (8, 7, 6)}
    means = {answer: sum(1 / 3 * rating for rating in given) for answer, given in ratings.items()}  # as in a jury
    assert means["a"] < means["b"] == 7

    def answer(question: Rating) -> Verdict:
        return Verdict(None, "ok", scores=(means[question.answer],))

    way, sample = Pointwise(acceptable=7.0), Sampled(0, "p", ["a", "b"], [True] * 2)
    verdicts = verdicts_of(way, answer, sample)
    assert way.evidence(sample, verdicts)["desirable"] == [1.0, 1.0]
    assert way.label(sample, (0, 1), verdicts).status == "tie"


def test_a_rating_that_failed_leaves_its_pairs_without_a_label() -> None:
    def answer(question: Rating) -> Verdict:
        return Verdict(None, "refusal") if question.answer == "b" else Verdict(None, "ok", scores=(5.0,))

    way = Pointwise()
    verdicts = verdicts_of(way, answer)
    statuses = [way.label(SAMPLE, pair, verdicts).status for pair in PAIRS]
    assert statuses == ["refusal", "tie", "refusal"]
    assert way.evidence(SAMPLE, verdicts)["ratings"] == [5.0, None, 5.0]


def test_the_way_is_the_judges() -> None:
    assert strategy_of("pairwise", samples=3, seed=1) == Pairwise(3)
    assert strategy_of("listwise", samples=3, seed=1) == Listwise(3, 1)
    assert strategy_of("pointwise", samples=3, seed=1) == Pointwise(3)
    assert strategy_of("pointwise", samples=3, seed=1, acceptable=7.0) == Pointwise(3, 7.0)
