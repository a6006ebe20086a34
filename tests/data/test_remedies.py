"""Comparisons and labels of other programs: read whole, or refused with a remedy that keeps the question."""

import pytest

from alignment.data import load_demonstrations, load_prompts, load_rankings
from alignment.data.remedies import columns_text
from tests.data import written
from tests.data.test_published import remedy_in
from tests.data.written import PAIR, A, U

B = {"role": "assistant", "content": "No."}
SIDES = {"chosen": "It rained a lot.", "rejected": "It rained a bit."}


def load(tmp_path, *rows, loader=load_rankings, **entry):
    return written.load(tmp_path, *rows, loader=loader, **entry).rows


def refused(tmp_path, *rows, loader=load_rankings, **entry):
    return written.refused(tmp_path, *rows, loader=loader, **entry)


@pytest.mark.parametrize("key", ["messages", "conversations"])
@pytest.mark.parametrize(
    ("good", "bad"), [("Because.", "No."), (A, B), ([A], [B]), ({"from": "gpt", "value": "Because."}, B)]
)
def test_two_answers_to_a_conversation_are_compared(tmp_path, key, good, bad):
    (found,) = load(tmp_path, {key: [U], "chosen": good, "rejected": bad})
    assert (found.prompt, found.responses) == ([U], ["Because.", "No."])


def test_answers_that_begin_alike_do_not_become_the_prompt(tmp_path):
    (found,) = load(tmp_path, {"messages": [U], **SIDES})
    assert (found.prompt, found.responses) == ([U], list(SIDES.values()))
    assert "nothing to answer" in refused(tmp_path, {"messages": [U, A], **SIDES})


def test_a_copy_of_the_better_conversation_changes_nothing(tmp_path):
    row = {"messages": [U, A], "chosen": [U, A], "rejected": [U, B]}
    for more in ({}, {"prompt": "Why?"}):
        (found,) = load(tmp_path, row | more)
        assert (found.prompt, found.responses) == ([U], ["Because.", "No."])


def test_the_last_message_beats_a_rejected_one(tmp_path):
    row = {"messages": [U, A], "rejected_response": "No."}
    remedy = remedy_in(refused(tmp_path, row))
    assert remedy == {"columns": {"rejected": "rejected_response"}}
    (found,) = load(tmp_path, row, **remedy)
    assert (found.prompt, found.responses) == ([U], ["Because.", "No."])
    (found,) = load(tmp_path, row, loader=load_demonstrations, **remedy)
    assert (found.prompt, found.completion) == ([U], "Because.")


@pytest.mark.parametrize("key", ["question", "query"])
def test_no_remedy_loses_the_question(tmp_path, key):
    message = refused(tmp_path, {key: "Why?", **SIDES})
    assert "ignore_columns" not in message
    (found,) = load(tmp_path, {key: "Why?", **SIDES}, **remedy_in(message))
    assert (found.prompt, found.responses) == ("Why?", list(SIDES.values()))


def test_an_input_beside_the_instruction_of_a_comparison_is_joined_to_it(tmp_path):
    (found,) = load(tmp_path, {"instruction": "Why?", "input": "It rained.", **SIDES})
    assert (found.prompt, found.responses) == ([{**U, "content": "Why?\nIt rained."}], list(SIDES.values()))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Why?", "completion_a": "a", "completion_b": "b", "label": 0},
        {"conversation_input": [U], "generation_a": A, "generation_b": B, "winner": "model_a"},
    ],
)
@pytest.mark.parametrize("loader", [load_demonstrations, load_rankings])
def test_no_remedy_reads_one_of_the_compared_answers_or_none(tmp_path, row, loader):
    assert "columns: {" not in refused(tmp_path, row, loader=loader)


def test_labels_of_thumbs_are_read_of_instructions_too(tmp_path):
    rows = [
        {"instruction": "Why?", "input": "It rained.", "output": "So.", "system": "Hm.", "desirable": True},
        {"instruction": "Why?", "input": "", "output": "Bad.", "desirable": False},
    ]
    remedy = remedy_in(refused(tmp_path, *rows, loader=load_demonstrations))
    assert remedy == {"columns": {"label": "desirable"}}
    (found,) = load(tmp_path, *rows, loader=load_demonstrations, **remedy)
    system = {"role": "system", "content": "Hm."}
    assert (found.prompt, found.completion) == ([system, {**U, "content": "Why?\nIt rained."}], "So.")


def test_a_null_is_named_and_no_format_is_asked_for(tmp_path):
    message = refused(tmp_path, {**PAIR, "rejected": None})
    assert "'rejected' is null; the layout preference needs prompt, chosen, rejected" in message
    assert len(load(tmp_path, PAIR, {**PAIR, "rejected": None}, on_bad_row="skip")) == 1


def test_a_file_of_only_thumbs_down_is_refused_with_the_reason(tmp_path):
    row = {"prompt": "Why?", "completion": "No.", "label": False}
    message = refused(tmp_path, row, row, loader=load_demonstrations)
    assert "2 hold no answer to learn: their label is false" in message


@pytest.mark.parametrize(
    ("prompt", "good", "bad"),
    [
        ("\n\nHuman: hi\n\nAssistant:", " a", " b"),
        ("Why?", "\nabc", "\nd"),
        ("Tell me why it rained so much", "abc", "d"),
    ],
)
def test_answers_that_repeat_the_prompt_are_refused_and_read_without(tmp_path, prompt, good, bad):
    row = {"prompt": prompt, "chosen": prompt + good, "rejected": prompt + bad}
    message = refused(tmp_path, row, row | {"prompt": prompt})
    assert "chosen and rejected begin with the prompt, in 2 of 2 rows" in message
    assert "remove it from the answers" in message
    assert load(tmp_path, {"prompt": prompt, "chosen": good, "rejected": bad})[0].responses == [good, bad]
    row = {"prompt": prompt, "completion": prompt + good}
    assert "completion begin with the prompt" in refused(tmp_path, row, loader=load_demonstrations)


def test_few_answers_may_begin_as_their_prompts_do(tmp_path):
    echo = {"prompt": "Why?", "completion": "Why? So."}
    others = [{"prompt": f"Who {number}?", "completion": "Ann."} for number in range(2)]
    assert len(load(tmp_path, echo, *others, loader=load_demonstrations)) == 3
    assert load(tmp_path, {"prompt": "Hello", "completion": "Hello! What is it?"}, loader=load_demonstrations)


def test_a_message_alone_is_a_list_of_one(tmp_path):
    answers = {"chosen": A, "rejected": {**A, "content": "No."}}
    (found,) = load(tmp_path, {"prompt": U, **answers})
    assert (found.prompt, found.responses) == ([U], [A["content"], "No."])
    (shown,) = load(tmp_path, {"prompt": "Why?", "completion": A}, loader=load_demonstrations)
    assert (shown.prompt, shown.completion) == ([{"role": "user", "content": "Why?"}], A["content"])
    message = refused(tmp_path, {"conversations": [U], **answers, "chosen": {**A, "weight": 0}})
    assert "'chosen' ends with an answer that is marked with weight 0" in message


@pytest.mark.parametrize("key", ["winner", "preference", "choice", "better_response_id", "label", "labels"])
def test_a_verdict_is_not_a_copy_of_an_answer(tmp_path, key):
    row = {"prompt": "Which?", "chosen": "A", "rejected": "B", key: "B"}
    assert f"does not read '{key}' ('B')" in refused(tmp_path, row)
    assert load(tmp_path, {**row, "text": "Which? A B"} | {key: None})


@pytest.mark.parametrize("question", ["query", "question"])
def test_a_response_beside_a_rejected_one_is_the_chosen_one(tmp_path, question):
    row = {question: "Why?", "response": "So.", "rejected_response": "No."}
    message = refused(tmp_path, row)
    columns = {"chosen": "response", "prompt": question, "rejected": "rejected_response"}
    assert f"To read them as the layout preference, set {columns_text(columns)}" in message
    (found,) = load(tmp_path, row, columns=columns)
    assert (found.prompt, found.responses) == ("Why?", ["So.", "No."])


def test_messages_beside_rejected_messages_are_the_chosen_ones(tmp_path):
    row = {"messages": [U, A], "rejected_messages": [U, {**A, "content": "No."}]}
    columns = {"chosen": "messages", "rejected": "rejected_messages"}
    assert f"Set {columns_text(columns)} for the layout implicit_preference" in refused(tmp_path, row)
    (found,) = load(tmp_path, row, columns=columns)
    assert (found.prompt, found.responses) == ([U], [A["content"], "No."])


@pytest.mark.parametrize(
    ("key", "column"),
    [("answer", "target"), ("ground_truth", "answer"), ("Solution", "solution"), ("referense", "reference")],
)
def test_a_key_that_a_scorer_may_mean_is_named_with_its_column(tmp_path, key, column):
    def loader(entries, **more):
        return load_prompts(entries, columns={column: True}, **more)

    hint = f"A scorer reads {column}, which the row lacks; if {key} is meant, set columns: {{{column}: {key}}}."
    for value in ("It rained.", 42):  # content, and a number, which no layout reads
        message = refused(tmp_path, {"prompt": "Why?", key: value}, loader=loader)
        assert hint in message
        assert "d.jsonl:1" in message
        found = written.load(tmp_path, {"prompt": "Why?", key: value}, loader=loader, columns={column: key})
        assert found.columns == [{column: value}]
    unlike = refused(tmp_path, {"prompt": "Why?", "colour": "It is red."}, loader=loader)
    assert "A scorer reads" not in unlike


def test_a_conversation_under_another_name_is_named_though_its_messages_have_unread_keys(tmp_path):
    row = {"conversation": [{**U, "country": "US", "header": {"accept": "en us"}}, A], "hashed_ip": "ab"}
    message = refused(tmp_path, row, loader=load_demonstrations)
    assert "To read conversation as messages, set columns: {messages: conversation}" in message
    keys = {"columns": {"messages": "conversation"}, "ignore_columns": ["country", "header", "hashed_ip"]}
    (found,) = load(tmp_path, row, loader=load_demonstrations, **keys)
    assert (found.prompt, found.completion) == ([U], "Because.")


def test_an_object_that_holds_the_rows_is_refused_with_their_key(tmp_path):
    message = refused(tmp_path, {"version": "1", "data": [PAIR, PAIR]})
    assert "data holds rows of the layout preference; save that list alone as the file" in message


def test_a_conversation_rather_than_a_word_is_named_as_the_prompt(tmp_path):
    row = {"task": "Coding", "trajectory": [{"from": "user", "value": "Why?"}], **SIDES}
    message = refused(tmp_path, row)
    assert "If 'trajectory' is the prompt, set columns: {prompt: trajectory}" in message
    (found,) = load(tmp_path, row, columns={"prompt": "trajectory"}, ignore_columns=["task"])
    assert (found.prompt, found.responses) == ([U], list(SIDES.values()))
