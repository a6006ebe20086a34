"""Answers with a label each: of thumbs, of a judge's probability, of comparisons; what has no label is refused."""

import pytest

from alignment.data import load_demonstrations, load_unpaired
from alignment.data.rows import REASONING_FIELD
from tests.data import written
from tests.data.written import A, U

TOOLS = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}]


def loaded(tmp_path, *rows, **keys):
    return written.load(tmp_path, *rows, loader=load_unpaired, **keys).rows


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [U, A]},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]},
        {"prompt": [U], "completion": [A]},
        {"instruction": "Why?", "input": "", "output": "Because."},
    ],
)
@pytest.mark.parametrize("key", ["label", "kto_tag"])
def test_both_thumbs_keep_their_answers(tmp_path, row, key):
    found = loaded(tmp_path, {**row, key: True}, {**row, key: False})
    assert [(one.prompt, one.responses, one.desirable) for one in found] == [
        ([U], ["Because."], (1.0,)),
        ([U], ["Because."], (0.0,)),
    ]
    assert [one.source.rpartition(":")[2] for one in found] == ["1", "2"]


def test_a_text_keeps_its_space(tmp_path):
    (found,) = loaded(tmp_path, {"prompt": "Why?", "completion": " So.", "label": 1})
    assert (found.prompt, found.responses) == ("Why?", [" So."])


def test_a_probability_is_a_label_and_fine_tuning_imitates_the_likely_ones(tmp_path):
    rows = [{"messages": [U, A], "probability": p} for p in (0.0, 0.3, 0.5, 0.8)]
    assert [one.desirable for one in loaded(tmp_path, *rows)] == [(0.0,), (0.3,), (0.5,), (0.8,)]
    imitated = written.load(tmp_path, *rows, loader=load_demonstrations).rows
    assert [one.source.rpartition(":")[2] for one in imitated] == ["4"]


def test_only_the_last_answer_is_judged_and_tools_and_reasoning_stay(tmp_path):
    turns = [U, A, U, {"role": "assistant", "content": "So.", "reasoning": "hm"}]
    (found,) = loaded(tmp_path, {"messages": turns, "tools": TOOLS, "label": True})
    assert [message["role"] for message in found.prompt] == ["user", "assistant", "user"]
    assert "weather" in found.prompt[0]["tools"]
    assert found.responses == ["<think>\nhm\n</think>\n\nSo."]
    assert found.provenance == {REASONING_FIELD: [True]}


def test_a_pair_makes_two_rows_as_trl_unpairs_it(tmp_path):
    from datasets import Dataset
    from trl.data_utils import unpair_preference_dataset

    rows = [{"prompt": f"q{n}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(3)]
    ours = {
        (one.prompt, answer, label == 1.0)
        for one in loaded(tmp_path, *rows)
        for answer, label in zip(one.responses, one.desirable, strict=True)
    }
    unpaired = unpair_preference_dataset(Dataset.from_list(rows))
    assert ours == {(row["prompt"], row["completion"], row["label"]) for row in unpaired}
    (soft,) = loaded(tmp_path, {**rows[0], "probability": 0.75})
    assert soft.desirable == (0.75, 0.25)


def test_an_answer_of_several_pairs_has_its_mean_probability(tmp_path):
    pairs = [
        {"first": 0, "second": 1, "probability": 0.9, "status": "ok"},
        {"first": 0, "second": 2, "probability": 0.5, "status": "tie"},
        {"first": 1, "second": 2, "probability": None, "status": "parse_error"},
    ]
    (found,) = loaded(tmp_path, {"prompt": "q", "responses": ["a", "b", "c", "d"], "pairs": pairs})
    # a: (0.9 + 0.5) / 2; b: 1 - 0.9; c: 1 - 0.5; d is in no pair
    assert found.desirable == pytest.approx((0.7, 0.1, 0.5, None))


def test_a_judge_of_single_answers_labels_them_itself(tmp_path):
    row = {"prompt": "q", "responses": ["a", "b"], "scores": [2, 1]}
    (found,) = loaded(tmp_path, {**row, "provenance": {"desirable": [0.9, None]}})
    assert found.desirable == (0.9, None)
    for wrong, told in (([0.9], "is not a list of 2 probabilities"), ([0.9, 2], "is 2.0, outside 0 to 1")):
        message = written.refused(tmp_path, {**row, "provenance": {"desirable": wrong}}, loader=load_unpaired)
        assert f"'provenance.desirable' {told}" in message


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"prompt": "q", "completion": "a"},
            "the format prompt_completion holds no labels of answers, which this stage",
        ),
        ({"prompt": "q"}, "the format prompt holds no labels of answers"),
        ({"prompt": "q", "responses": ["a", "b"]}, "the format answers holds no labels of answers"),
        (
            {"messages": [U], "label": True},
            "holds a label and no answer: the conversation ends with the user's message",
        ),
        ({"messages": [U, A], "probability": 1.5}, "'probability' is 1.5, outside 0 to 1"),
        ({"messages": [U, A], "probability": "high"}, "'probability' is 'high', not a number"),
        ({"messages": [U, A], "probability": 0.5, "label": True}, "the row has label and probability; keep one"),
    ],
)
def test_rows_without_a_label_are_refused(tmp_path, row, told):
    assert told in written.refused(tmp_path, row, loader=load_unpaired)


def test_a_row_without_the_label_of_its_file_is_refused(tmp_path):
    told = written.refused(tmp_path, {"messages": [U, A], "label": True}, {"messages": [U, A]}, loader=load_unpaired)
    assert "d.jsonl:2: 'label' is None, which marks no answer as good or bad" in told
