"""Rows that prefer opposite answers to one prompt, and answers that are preferred to themselves."""

import functools
import json
import operator

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data.load import load_answers, load_demonstrations, load_prompts, load_rankings
from alignment.errors import DataError
from tests.data import written

TURN = [{"role": "user", "content": "p"}]
ONE = {"prompt": "p", "chosen": "a", "rejected": "b"}
OTHER = {"prompt": "p", "chosen": "b", "rejected": "a"}
APART = {"prompt": "q", "chosen": "b", "rejected": "a"}


def ranked(ranks, prompt="p", responses=("a", "b"), **more):
    return {"prompt": prompt, "responses": list(responses), "ranks": ranks, **more}


def judged(probability, **provenance):
    pair = {"first": 0, "second": 1, "probability": probability}
    return {"prompt": "p", "responses": ["a", "b"], "pairs": [pair], "provenance": provenance}


def write(folder, *files):
    entries = []
    for number, rows in enumerate(files):
        file = folder / f"{number}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        entries.append(DatasetEntry(path=str(file)))
    return entries


OPPOSITE = [
    [[ONE, APART, OTHER]],
    [[ONE], [OTHER]],  # in two files
    [[ONE], [ranked([2, 1])]],  # in two layouts
    [[ranked([1, 2]), ranked([2, 1])]],
    [[ranked([1, 2]), ranked([1, 2], responses=("b", "a"))]],
    [[ONE], [{"prompt": TURN, "chosen": " b\n", "rejected": "a"}]],  # plain text and a message with it
    [[ranked([1, 2, 3], responses="abc"), ranked([1, 2], responses="cb")]],
    [[judged(1.0), judged(0.0)]],
    [[judged(1.0), {**judged(1.0), "responses": ["b", "a"]}]],
    [[{**judged(1.0), "pairs": [*judged(1.0)["pairs"], {"first": 1, "second": 0, "probability": 1.0}]}]],
]


@pytest.mark.parametrize("files", OPPOSITE)
def test_opposite_choices_end_the_run_with_both_places_or_are_left_out_both(tmp_path, files):
    entries = write(tmp_path, *files)
    for load in (load_rankings, load_demonstrations):
        with pytest.raises(DataError, match=r"prefers (the other of|each of)") as caught:
            load(entries, on_bad_row="stop", seed=0)
        assert len(str(caught.value).splitlines()) == 1
        if len(functools.reduce(operator.iadd, files, [])) > 1:
            assert str(caught.value).count(".jsonl:") == 2
    if APART not in files[0]:
        with pytest.raises(DataError, match=r"gives no usable row; [12] were skipped"):
            load_rankings(entries, on_bad_row="skip", seed=0)


def test_only_the_contradicting_rows_are_left_out_and_named(tmp_path):
    (entry,) = write(tmp_path, [ONE, APART, OTHER, ONE])
    loaded = load_rankings([entry], on_bad_row="skip", seed=0)
    assert [row.prompt for row in loaded.rows] == ["q", "p"]
    assert loaded.skipped == [
        f"{entry.path}:1: {entry.path}:3 prefers the other of the two answers for the same prompt",
        f"{entry.path}:3: prefers the other of the two answers that {entry.path}:1 compares for the same prompt",
    ]


AGREEING = [
    [ONE, ONE, APART],
    [ONE, {**OTHER, "prompt": "P"}],  # another prompt
    [ONE, {**OTHER, "probability": 0.9}],  # an opinion
    [{**ONE, "annotator": "x"}, {**OTHER, "annotator": "y"}],
    [judged(1.0, annotator="x"), judged(0.0, annotator="y")],
    [judged(1.0, judge="m"), judged(0.0, judge="m")],
    [judged(0.8), judged(0.1)],
    [ranked([1, 1]), ranked([1, 2])],  # a tie contradicts nothing
]


@pytest.mark.parametrize("rows", AGREEING)
def test_copies_opinions_and_ties_are_kept(tmp_path, rows):
    assert len(load_rankings(write(tmp_path, rows), on_bad_row="stop", seed=0).rows) == len(rows)


def test_rows_that_are_not_trained_on_may_contradict(tmp_path):
    entries = write(tmp_path, [ONE, OTHER])
    assert len(load_prompts(entries, on_bad_row="stop", seed=0).rows) == 2
    assert len(load_answers(entries, on_bad_row="stop", seed=0).rows) == 2
    assert len(load_rankings(entries, on_bad_row="stop", seed=0, agreeing=False).rows) == 2


@pytest.mark.parametrize(
    "row",
    [
        ranked([1, 2], responses=["a", "a"]),
        {"prompt": "p", "responses": ["a", "b", "a"], "scores": [3, 2, 1]},
        {**judged(1.0), "responses": ["a", "a"]},
        {"prompt": "p", "chosen": ["a", "c"], "rejected": ["b", "a"]},
    ],
)
def test_one_text_is_not_better_than_itself(tmp_path, row):
    with pytest.raises(DataError, match=r":1: answers \d and \d are the same text and yet one is preferred"):
        load_rankings(write(tmp_path, [row]), on_bad_row="stop", seed=0)


def test_one_text_twice_may_tie(tmp_path):
    rows = [ranked([1, 1, 2], responses="aab"), judged(0.5), {**judged(0.5), "responses": ["a", "a"]}]
    assert len(load_rankings(write(tmp_path, rows), on_bad_row="stop", seed=0).rows) == 3


@pytest.mark.parametrize(
    ("chosen", "rejected", "numbers"),
    [
        ("chosen_reward", "rejected_reward", (1, 2)),
        ("reward_chosen", "reward_rejected", (-0.5, 0.5)),
        ("chosen-score", "rejected-score", (1, 1.5)),
        ("chosenRating", "rejectedRating", (3, 4)),
        ("rank_chosen", "rank_rejected", (2, 1)),
    ],
)
def test_recorded_numbers_that_prefer_the_rejected_answer_are_refused(tmp_path, chosen, rejected, numbers):
    row = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
    better = {**row, chosen: numbers[1], rejected: numbers[0]}
    wrong = {**row, "prompt": "Who?", chosen: numbers[0], rejected: numbers[1]}
    message = written.refused(tmp_path, better, wrong, loader=load_rankings)
    assert f"d.jsonl:2: '{chosen}' {numbers[0]} and '{rejected}' {numbers[1]} prefer the rejected answer" in message
    equal = {**row, chosen: 1, rejected: 1}
    assert len(written.load(tmp_path, better, equal, loader=load_rankings).rows) == 2
