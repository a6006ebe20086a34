import pytest

from alignment.data.fields import BadRow
from alignment.data.rankings import ranking_from_json, ranking_to_json
from alignment.data.recognition import named
from alignment.data.rows import Pair, Ranking, SingleVerdict

ASKED = (SingleVerdict("first", 0, 0.9, "ok", 0.97), SingleVerdict("swapped", 0, None, "refusal"))


def row(**changes):
    asked = {"shown": "first", "repeat": 0, "probability": 0.9, "status": "ok", **changes}
    pair = {"first": 0, "second": 1, "probability": 0.9, "status": "ok", "verdicts": [asked]}
    return {"prompt": "p", "responses": ["a", "b"], "pairs": [pair]}


def test_recorded_questions_are_read_as_written():
    ranking = Ranking("p", ["a", "b"], [Pair(0, 1, None, "refusal", verdicts=ASKED)], {"judge": "j"})
    assert ranking_from_json(ranking_to_json(ranking)) == ranking


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shown": "second"}, "'pairs\\[0\\]' 'verdicts\\[0\\]' 'shown' is 'second'; the order is first or swapped"),
        ({"repeat": -1}, "'repeat' is -1, not a number from 0"),
        ({"probability": 1.5}, "has the probability 1.5, outside 0 to 1"),
        ({"status": "api_error"}, "has the status api_error and a probability; an error is never a label"),
        ({"mass": "much"}, "'mass' is 'much', not a number"),
        ({"mass": -0.5}, "'mass' is -0.5; it is a probability, from 0 to 1"),
        ({"mass": 7}, "'mass' is 7.0; it is a probability"),
        ({"repeat": 10**90}, "'repeat' is 1000.*, not a number from 0 to 999,999"),
        ({"status": "tie"}, "has the status tie and the probability 0.9; a tie's is 0.5"),
    ],
)
def test_an_invalid_record_of_a_question_is_reported(changes, message):
    with pytest.raises(BadRow, match=message):
        ranking_from_json(row(**changes))


TOO_MANY = [str(number) for number in range(1025)]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("ranking", {"prompt": "p", "responses": TOO_MANY, "ranks": [*range(1025)]}),
        ("ranking", {"prompt": "p", "responses": TOO_MANY, "pairs": []}),
        ("answers", {"prompt": "p", "responses": TOO_MANY}),
        ("preference", {"prompt": "p", "chosen": TOO_MANY[:513], "rejected": TOO_MANY[513:]}),
        (
            "oasst",
            {
                "message_tree_id": "t",
                "prompt": {
                    "role": "prompter",
                    "text": "p",
                    "replies": [{"role": "assistant", "text": text, "rank": int(text)} for text in TOO_MANY],
                },
            },
        ),
    ],
)
def test_answers_whose_comparisons_would_fill_the_memory_are_refused(name, row):
    with pytest.raises(BadRow, match="compares 1,025 answers with one another; the limit is 1,024"):
        named(name).read(row)
