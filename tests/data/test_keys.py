"""Unread keys of rows and messages: rejected if they look like content, ignored otherwise."""

import json

import pytest
import yaml

from alignment.data import load_demonstrations, load_prompts, load_rankings
from alignment.data.keys import as_yaml, is_content, is_harmless
from alignment.data.load import load_answers
from tests.data import written
from tests.data.written import PAIR, A, U

B = {"role": "assistant", "content": "No."}
S = {"role": "system", "content": "Be brief."}
TURNS = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
TOOLS = '[{"name": "add"}]'
SIDES = {"chosen": "It is so.", "rejected": "It is not."}


def load(tmp_path, *rows, loader=load_demonstrations, **more):
    return written.load(tmp_path, *rows, loader=loader, **more)


def refused(tmp_path, *rows, loader=load_demonstrations, **more):
    return written.refused(tmp_path, *rows, loader=loader, **more)


# --- rows


UNREAD = [
    ("question", "columns: {prompt: question} for the layout preference", {"question": "Why?", **SIDES}),
    ("user", "columns: {prompt: user} for", {"user": "Why is it?", "chosen": [A], "rejected": [B]}),
    ("user", "prompt is a key of", {"user": "Why is it?", "chosen": [U, A], "rejected": [U, B]}),
    ("response", "columns: {completion: response} for the layout prompt_", {"prompt": "Why?", "response": "So."}),
    ("answer", "columns: {completion: answer}", {"prompt": "Why?", "answer": "42"}),
    ("answer", "completion is a key of kto", {"prompt": "Why?", "answer": 42}),
    ("context", "columns: {input: context}.", {"instruction": "Why?", "output": "So.", "context": "It rains."}),
    ("sytem", "columns: {system: sytem}.", {"instruction": "Why?", "output": "So.", "sytem": "Hm."}),
    ("system_prompt", "columns: {system: system_prompt}.", {"messages": [U, A], "system_prompt": "Hm."}),
    ("functions", "columns: {tools: functions}.", {"messages": [U, A], "functions": [{"name": "add"}]}),
    ("desirable", "columns: {label: desirable} for the layout kto", {"conversations": TURNS, "desirable": True}),
    ("images", "Only text is supported", {"messages": [U, A], "images": ["a.jpg"]}),
    ("image", "Only text is supported", {"messages": [U, A], "image": {"bytes": None, "path": "a.jpg"}}),
    ("rejected_response", "columns: {rejected: rejected_response}", {"messages": [U, A], "rejected_response": "No."}),
    ("weight", "To train without, set ignore_columns: [weight]", {"messages": [U, A], "weight": 0}),
    ("source", "ignore_columns: [source]", {"prompt": "Why?", "completion": "So.", "source": "A story\nof two lines"}),
    ("generations", "ignore_columns", {"prompt": "Why?", "responses": ["a", "b"], "generations": ["a", "c"]}),
    ("notes", "ignore_columns: [notes]", {**PAIR, "notes": {"of": [{"kind": "the text"}]}}),
    ("loss_mask", "set ignore_columns: [loss_mask]", {"messages": [U, A], "loss_mask": [0, 1]}),
    ("weights", "set ignore_columns: [weights]", {"conversations": TURNS, "weights": [0, 1.0]}),
    ("labels", "set ignore_columns: [labels]", {"messages": [U, A], "labels": [0, 1]}),
    ("importance", "set ignore_columns: [importance]", {"messages": [U, A], "importance": 0.1}),
    ("sampling_weight_2", "ignore_columns: [sampling_weight_2]", {"messages": [U, A], "sampling_weight_2": 3}),
    ("upsample", "set ignore_columns: [upsample]", {"prompt": "Why?", "completion": "So.", "upsample": 3}),
    ("token_advantages", "set ignore_columns: [token_advantages]", {"messages": [U, A], "token_advantages": [0.5]}),
    ("label_type", "set ignore_columns: [label_type]", {"prompt": "Why?", "completion": "So.", "label_type": "bad"}),
    ("feedback", "set ignore_columns: [feedback]", {"prompt": "Why?", "completion": "So.", "feedback": -1}),
    ("swapped", "set ignore_columns: [swapped]", {**PAIR, "swapped": False}),
    ("turn_weights", "set ignore_columns: [turn_weights]", {"messages": [U, A], "turn_weights": [0, 1]}),
    ("trainOnTurn", "set ignore_columns: [trainOnTurn]", {"messages": [U, A], "trainOnTurn": False}),
    ("options", "set ignore_columns: [options]", {"messages": [U, A], "options": [{"kind": 1, "train": False}]}),
    ("is_trainable", "set ignore_columns: [is_trainable]", {"prompt": "Why?", "completion": "So.", "is_trainable": 0}),
    (
        "chat_template_kwargs",
        "set ignore_columns: [chat_template_kwargs]",
        {"messages": [U, A], "chat_template_kwargs": {"enable_thinking": False}},
    ),
    ("context", "expected input and", {"instruction": "Why?", "instances": [{"output": "So.", "context": "x"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("key", "remedy", "row"), UNREAD)
@pytest.mark.parametrize("loader", [load_demonstrations, load_rankings, load_answers, load_prompts])
def test_content_that_nothing_reads_ends_the_run(tmp_path, key, remedy, row, loader):
    for on_bad_row in ("stop", "skip"):
        message = refused(tmp_path, row, loader=loader, on_bad_row=on_bad_row)
        assert message.startswith("d.jsonl:1: ")
        assert key in message
        assert remedy in message


def test_the_refusal_names_line_key_and_what_the_layout_reads(tmp_path):
    good = {"messages": [U, A]}
    assert refused(tmp_path, good, {**good, "rubric": "Be kind."}) == (
        "d.jsonl:2: the layout messages does not read 'rubric' ('Be kind.'); it reads messages, system, tools. To "
        "train without, set ignore_columns: [rubric]."
    )


# Rows as popular data sets have them.
ORDINARY = {
    "alpaca": {"instruction": "Why?", "input": "", "output": "So.", "text": "Below…\n### Why?\n### So."},
    "ultrachat": {"prompt": "Why?", "prompt_id": "ab", "messages": [U, A], "category": "Open QA"},
    "openhermes": {"conversations": TURNS, "topic": None, "views": None, "source": "x", "system_prompt": None},
    "slimorca": {"conversations": [{**TURNS[0], "weight": 0.0}, {**TURNS[1], "weight": 1.0}]},
    "numbers": {**PAIR, "usage": {"total_tokens": 3}, "logprobs": [-0.5], "in_gsm8k_train": False, "stats": {"a": 1}},
    "openai": {"messages": [{**U, "name": "Ann"}, {**A, "refusal": None, "weight": 1}], "parallel_tool_calls": False},
    "capybara": {"source": "x", "messages": [U, A], "num_turns": 1},
    "llamafactory": {"conversations": TURNS, "system": "", "tools": "", "images": []},
    "wikipedia": {"id": "1", "url": "http://x", "title": "Tea", "text": "Tea is."},
    "fineweb": {"text": "Tea.", "id": "<u>", "dump": "CC", "file_path": "s3://x", "token_count": 3},
    "reviews": {"text": "Good.", "label": 1},
    "pandas": {"__index_level_0__": 3, "prompt": "q", "completion": "a"},
    "ultrafeedback": {
        "prompt": "Why?", "prompt_id": "ab", "chosen": [U, A], "rejected": [U, B], "messages": [U, A],
        "score_chosen": 8.0, "score_rejected": 7.0,
    },
    "orpo-dpo-mix": {"source": "x", "chosen": [U, A], "prompt": "Why?", "rejected": [U, B], "question": "Why?"},
    "ultrafeedback-cleaned": {**PAIR, "chosen-rating": 5.0, "chosen-model": "m", "rejected-model": "n", "source": "x"},
    "rewardbench": {**PAIR, "chosen_model": "m", "rejected_model": "n", "subset": "x", "id": 3},
    "rewardbench 2": {
        **PAIR, "chosen": ["Because."], "rejected": ["No.", "Hm."], "num_correct": 1, "models": ["a", "b"],
        "additional_metadata": {"rubric": "two\nlines"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_rows_still_load(tmp_path, name):
    assert len(load(tmp_path, ORDINARY[name]).rows) == 1


def test_a_copy_of_what_is_read_is_not_content_and_another_text_is(tmp_path):
    assert load(tmp_path, {"messages": [U, A], "prompt": " Why? "}).formats == {str(tmp_path / "d.jsonl"): "messages"}
    assert "does not read 'prompt' ('Who?')" in refused(tmp_path, {"messages": [U, A], "prompt": "Who?"})
    row = {"instruction": "Why?", "output": "So.", "text": "### Why?"}
    assert "does not read 'text'" in refused(tmp_path, row)


def test_two_layouts_that_fit_ask_for_the_format(tmp_path):
    row = {"messages": [U, A], "prompt": "Once", "completion": " more"}
    assert "Two layouts fit the row, so name the one to read: set format: messages or format: prompt_completion" in (
        refused(tmp_path, row)
    )
    assert load(tmp_path, row, format="messages").rows[0].completion == "Because."
    assert load(tmp_path, row, format="prompt_completion").rows[0].completion == " more"
    assert "does not read 'context'" in refused(tmp_path, {**row, "context": "x"}, format="messages")
    thumb = {"messages": [U, A], "label": True, "prompt": "Once", "completion": " more"}
    assert "does not read 'prompt' ('Once'), 'completion'" in refused(tmp_path, thumb)


def test_a_prompt_that_the_conversations_do_not_hold_is_refused(tmp_path):
    row = {"chosen": [U, A], "rejected": [U, B]}
    assert load(tmp_path, {**row, "prompt": [U]}, loader=load_rankings).rows[0].prompt == [U]
    for prompt in ("Who?", [S, U], [{"role": "user", "content": "Who?"}]):
        assert "'prompt' differs from" in refused(tmp_path, {**row, "prompt": prompt}, loader=load_rankings)


# --- system and tools


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [U], "chosen": [A], "rejected": [B]},
        PAIR,
        {"prompt": "Why?", "chosen": [U, A], "rejected": [U, B]},
        {"prompt": "Why?", "chosen": ["Because."], "rejected": ["No."]},
        {"chosen": [U, A], "rejected": [U, B]},
        {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
        {"conversations": TURNS[:1], "chosen": TURNS[1], "rejected": {"from": "gpt", "value": "No."}},
        {"prompt": "Why?", "responses": ["Because.", "No."], "ranks": [1, 2]},
    ],
)
def test_system_and_tools_stand_before_the_prompt_of_a_pair(tmp_path, row):
    row = {**row, "system": "Be brief.", "tools": json.loads(TOOLS)}
    (found,) = load(tmp_path, row, loader=load_rankings).rows
    assert (found.prompt, found.responses) == ([{**S, "tools": TOOLS}, U], ["Because.", "No."])


@pytest.mark.parametrize("row", [{"prompt": "Why?", "completion": "Because."}, {"prompt": [U], "completion": [A]}])
def test_system_and_tools_stand_before_the_prompt_of_a_completion(tmp_path, row):
    (found,) = load(tmp_path, {**row, "system": "Be brief.", "tools": TOOLS}).rows
    assert (found.prompt, found.completion, found.tools) == ([S, U], "Because.", TOOLS)
    (prompt,) = load(tmp_path, {"prompt": row["prompt"], "system": "Be brief."}, loader=load_prompts).rows
    assert prompt == [S, U]


def test_a_system_that_has_no_place_or_two_are_refused(tmp_path):
    row = {"messages": [S, U, A]}
    assert load(tmp_path, {**row, "system": "Be brief."}).rows[0].prompt == [S, U]
    assert "'system' differs from the system message" in refused(tmp_path, {**row, "system": "Be long."})
    bare = {"system": "Be brief.", "chosen": "Why? So.", "rejected": "Why? Not."}
    assert "'system' goes before messages" in refused(tmp_path, bare, loader=load_rankings)


def test_labels_of_prompts_with_tools_keep_them(tmp_path):
    row = {"prompt": [{**U, "tools": TOOLS}], "responses": ["a", "b"], "ranks": [1, 2]}
    assert load(tmp_path, row, loader=load_rankings).rows[0].prompt == [{**U, "tools": TOOLS}]


def test_a_tools_result_is_not_learned_as_an_answer(tmp_path):
    tool = {"role": "tool", "content": "sunny"}
    row = {"chosen": [U, B, tool, A], "rejected": [U, A, tool, B]}
    assert (
        "'chosen' goes on after the answer with which it parts from the other conversation, with a message of the tool"
        in refused(tmp_path, row, loader=load_rankings)
    )


# --- messages


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"loss_mask": 0}, "Mark messages that are not to be trained with weight: 0"),
        ({"train_detail": [{"begin_offset": 0, "end_offset": 2, "train": False}]}, "'train_detail' ([{'begin_offset'"),
        ({"loss_mask": [0, 1]}, "Mark messages that are not to be trained with weight: 0"),
        ({"options": {"loss": False}}, "'options' (an object with loss)"),
        ({"probs": [0.5, 0.5]}, "'probs' ([0.5, 0.5])"),
        ({"thought": "Hm."}, "Give the reasoning of a message of the assistant as reasoning_content"),
        ({"images": ["a.jpg"]}, "'images' (['a.jpg'])"),
        ({"tool_call": [{"name": "add", "arguments": "{}"}]}, "the nearest is tool_calls"),
        ({"audio": {"id": "x"}}, "A message has the keys role, content, name, tool_calls"),
        ({"prefix": True}, "'prefix' (True)"),
        ({"value": "Other."}, "'value' ('Other.')"),
        ({"name": 3}, "'name' is a number, not text"),
    ],
)
def test_content_of_a_message_that_nothing_reads_ends_the_run(tmp_path, extra, words):
    row = {"messages": [U, {**A, **extra}, U, A]}
    message = refused(tmp_path, row)
    assert message.startswith("d.jsonl:1: 'messages[1]'")
    assert words in message
    (key,) = extra
    if key != "name":
        assert refused(tmp_path, row, on_bad_row="skip") == message
        assert len(load(tmp_path, row, ignore_columns=[key]).rows) == 1


def test_a_mark_on_what_is_not_trained_is_refused_too(tmp_path):
    assert "'messages[0]' has the key 'train' (True)" in refused(tmp_path, {"messages": [{**U, "train": True}, A]})
    calling = {**U, "tool_calls": [{"function": {"name": "add"}}]}
    assert "only the assistant calls tools" in refused(tmp_path, {"messages": [calling, A]})


@pytest.mark.parametrize(
    ("mark", "is_trained"),
    [
        ({"weight": 0}, False),
        ({"weight": 0.0}, False),
        ({"train": False}, False),
        ({"training": False}, False),
        ({"loss": False}, False),
        ({"weight": 1}, True),
        ({"loss": True}, True),
        ({"train": None}, True),
    ],
)
@pytest.mark.parametrize("layout", ["messages", "conversations", "prompt and completion", "completion"])
def test_a_mark_takes_a_message_of_the_assistant_out_of_the_loss(tmp_path, mark, is_trained, layout):
    marked = {**A, **mark}
    row = {
        "messages": {"messages": [U, marked, U, A]},
        "conversations": {"conversations": [TURNS[0], {**TURNS[1], **mark}, *TURNS]},
        "prompt and completion": {"prompt": [U, marked, U], "completion": "Because."},
        "completion": {"prompt": "Why?", "completion": [marked, U, A]},
    }[layout]
    (found,) = load(tmp_path, row).rows
    assert found.prompt == [U, A, U]
    assert found.trained() == ([1, 3] if is_trained else [3])


def test_a_conversation_ends_with_its_last_trained_answer(tmp_path):
    (found,) = load(tmp_path, {"messages": [U, A, U, {**B, "weight": 0}]}).rows
    assert (found.prompt, found.completion, found.trained()) == ([U], "Because.", [1])
    message = refused(tmp_path, {"messages": [U, {**A, "weight": 0}]})
    assert "'messages' has no message of the assistant that is trained" in message
    assert "begins with a message of the assistant, which answers nothing" in refused(tmp_path, {"messages": [A, U, A]})
    assert load(tmp_path, {"messages": [{**A, "weight": 0}, U, B]}).rows[0].trained() == [2]


def test_marks_in_compared_conversations_are_harmless_but_on_the_answer(tmp_path):
    before = [U, {**A, "weight": 0}, U]
    row = {"chosen": [*before, A], "rejected": [*before, B]}
    assert load(tmp_path, row, loader=load_rankings).rows[0].prompt == [U, A, U]
    row["chosen"] = [*before, {**A, "weight": 0}]
    assert "'chosen' ends with an answer that is marked with weight 0" in refused(tmp_path, row, loader=load_rankings)


def test_marks_that_mean_neither_are_refused(tmp_path):
    for mark in (0.5, 2, "yes", -1):
        row = {"messages": [U, {**A, "weight": mark}]}
        assert "a message is trained or not: give 1 or 0, true or false" in refused(tmp_path, row)
    row = {"messages": [U, {**A, "weight": 1, "train": False}]}
    assert "'messages[1]' has weight and train that contradict each other" in refused(tmp_path, row)


def test_reasoning_is_read_under_each_of_its_names(tmp_path):
    for name in ("reasoning_content", "reasoning", "thinking"):
        (found,) = load(tmp_path, {"messages": [U, {**A, name: "Hm."}, U, {**B, name: "Well."}]}).rows
        assert found.conversation() == [U, {**A, "reasoning": "Hm."}, U, {**B, "reasoning": "Well."}]
    row = {"messages": [U, {**A, "reasoning": "Hm.", "thinking": "Well."}]}
    assert "'messages[1]' has two different texts of reasoning" in refused(tmp_path, row)
    assert "is not read" in refused(tmp_path, {"messages": [{**U, "reasoning": "Hm."}, A]})


@pytest.mark.parametrize("loader", [load_demonstrations, load_rankings, load_answers, load_prompts])
@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_message_of_the_assistant_is_a_bad_row_at_any_place(tmp_path, loader, empty):
    before = [U, {**A, "content": empty}, U]
    rows = [
        {"prompt": before, "chosen": [A], "rejected": [B]},
        {"prompt": before, "responses": ["a", "b"], "ranks": [1, 2]},
    ]
    if loader in (load_demonstrations, load_prompts):
        rows += [{"messages": [*before, A]}, {"instruction": "Why?", "output": "So.", "history": [["Hi", empty]]}]
    if loader is load_prompts:
        rows += [{"messages": before}]
    for row in rows:
        assert "message 2 of the conversation is an empty message of the assistant" in refused(
            tmp_path, row, loader=loader
        )


def test_harmless_keys_of_a_message(tmp_path):
    extra = {
        "id": 3,
        "timestamp": 1.5,
        "model": "m",
        "lang": "en",
        "metadata": {"note": "two\nlines"},
        "logprobs": None,
        "token_ids": [1, 2],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 2}},
    }
    assert len(load(tmp_path, {"messages": [{**U, **extra}, {**A, **extra}]}).rows) == 1


# --- columns and ignore_columns


def test_columns_maps_names(tmp_path):
    row = {"system": "Be brief.", "question": "Why?", "good": "Because.", "bad": "No."}
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    assert "To read them as the layout preference, set columns: {chosen: good, prompt: question, rejected: bad}" in (
        refused(tmp_path, row, loader=load_rankings)
    )
    (found,) = load(tmp_path, row, loader=load_rankings, columns=columns).rows
    assert (found.prompt, found.responses) == ([S, U], ["Because.", "No."])
    swapped = {"prompt": "So.", "completion": "Why?"}
    (found,) = load(tmp_path, swapped, columns={"prompt": "completion", "completion": "prompt"}).rows
    assert (found.prompt, found.completion) == ("Why?", "So.")


def test_columns_that_cannot_be_meant(tmp_path):
    row = {"prompt": "Why?", "completion": "So.", "question": "Who?"}
    assert "columns takes prompt from 'query', which no row has; found prompt, completion, question" in (
        refused(tmp_path, row, columns={"prompt": "query"})
    )
    assert (
        "d.jsonl:1: columns takes prompt from 'question', and the row has prompt too; set ignore_columns: [prompt]"
        in (refused(tmp_path, row, columns={"prompt": "question"}))
    )
    (found,) = load(tmp_path, row, columns={"prompt": "question"}, ignore_columns=["prompt"]).rows
    assert found.prompt == "Who?"
    twice = {"prompt": "question", "completion": "question"}
    assert "columns takes 'question' for two keys" in refused(tmp_path, row, columns=twice)


def test_a_key_to_leave_out_that_nothing_has_is_refused(tmp_path):
    row = {"messages": [U, {**A, "reasoning": "Hm."}]}
    fault = refused(tmp_path, row, ignore_columns=["reasoning", "reasonin"])
    assert fault.endswith(
        "d.jsonl: ignore_columns names 'reasonin', which no row and no message has. Correct the name, or take it out."
    )
    assert len(load(tmp_path, row, ignore_columns=["reasoning"]).rows) == 1


def test_ignore_columns_leaves_keys_out(tmp_path):
    row = {"messages": [U, A], "images": ["a.jpg"], "notes": "x"}
    assert "does not read 'notes'" in refused(tmp_path, row, ignore_columns=["images"])
    assert len(load(tmp_path, row, ignore_columns=["images", "notes"]).rows) == 1
    assert len(load(tmp_path, row, columns=["messages"]).rows) == 1


# --- exports of annotation tools


def test_unread_fields_of_annotation_tools_are_refused(tmp_path):
    fields = {"prompt": "Why?", "answer1": "a", "answer2": "b", "hint": "Think."}
    given = {"best": [{"value": "answer1", "user_id": "u"}]}
    result = {"type": "pairwise", "to_name": "answer1,answer2", "value": {"selected": "left"}}
    for row in (
        {"id": "1", "fields": fields, "responses": given},
        {"id": 1, "data": fields, "annotations": [{"completed_by": 1, "result": [result]}]},
    ):
        message = refused(tmp_path, row, loader=load_rankings)
        assert "hint: not read; the prompt is prompt and the answers are answer1, answer2" in message
        assert len(load(tmp_path, row, loader=load_rankings, ignore_columns=["hint"]).rows) == 1


# --- what is content, and what is harmless


@pytest.mark.parametrize("value", [None, "", "  ", [], {}, 3, 1.5, True, [1, 2], {"a": 1}, "3.5", {"a": [None, " "]}])
def test_no_content(value):
    assert not is_content(value)


@pytest.mark.parametrize("value", ["a", ["a"], [{"content": "a"}], {"a": {"b": ["c"]}}, b"\x89PNG"])
def test_content(value):
    assert is_content(value)


@pytest.mark.parametrize(
    "key",
    [
        "id", "_id", "prompt_id", "conversationId", "uuid", "sha256", "__index_level_0__", "Unnamed: 0", "",
        "source", "data_source", "chosen-model", "model_name", "category",
        "task_type", "language", "created_at", "score", "rating_b", "url", "tags",
        "annotator",
    ],
)  # fmt: skip
def test_harmless_names_stand_for_labels_alone(key):
    assert is_harmless(key, "short")
    assert is_harmless(key, ["short", "too"])
    assert not is_harmless(key, "two\nlines")
    assert not is_harmless(key, "x" * 201)


def test_an_object_under_a_label_is_harmless_where_its_keys_are():
    assert is_harmless("reward_model", {"name": "m", "version": "two", "score": 0.5, "size": 7})
    assert not is_harmless("reward_model", {"style": "rule", "ground_truth": r"\frac{1}{2}"})
    assert not is_harmless("sources", [{"name": "a", "passage": "It rained."}])


def test_metadata_holds_anything_and_other_names_are_not_harmless():
    assert is_harmless("metadata", {"text": "two\nlines"})
    assert not any(is_harmless(key, "short") for key in ("question", "context", "notes", "idea", "hint"))
    assert is_harmless("user", "u17")
    assert not is_harmless("user", "Why is it?")


def test_a_message_of_a_tree_with_a_key_that_nothing_reads_is_refused(tmp_path):
    notes = {"lang": "en", "review_result": True, "synthetic": False, "labels": {"spam": {"value": 0.1}}, "emojis": {}}
    replies = [
        {"message_id": str(rank), "text": f"So {rank}.", "role": "assistant", "rank": rank, "replies": [], **notes}
        for rank in range(2)
    ]
    tree = {"message_id": "a", "text": "Why?", "role": "prompter", "replies": replies, **notes}
    row = {"message_tree_id": "a", "tree_state": "ready_for_export", "prompt": tree}
    assert load(tmp_path, row, loader=load_rankings).rows[0].responses == ["So 0.", "So 1."]
    replies[1]["context"] = "It rains."
    message = refused(tmp_path, row, loader=load_rankings)
    assert "a message of the tree has 'context' ('It rains.'), which is not read" in message
    assert load(tmp_path, row, loader=load_rankings, ignore_columns=["context"]).rows[0].responses == ["So 0.", "So 1."]


def test_ignored_keys_of_a_row_stay_in_its_tools_calls_and_parts_of_a_content(tmp_path):
    tools = [{"name": "add", "description": "Adds.", "parameters": {"type": "object"}}]
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": {"name": "x"}}}
    parts = [{"type": "text", "text": "Why?"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    names = ("description", "text", "name", "type", "arguments")
    row = {"messages": turns, "tools": tools, **dict.fromkeys(names, "A long text\nof two lines")}
    (found,) = load(tmp_path, row, ignore_columns=list(names)).rows
    assert json.loads(found.tools) == tools
    assert (found.prompt, json.loads(found.answer["tool_calls"])) == ([U], [call])


def test_ignored_keys_are_left_out_of_an_annotations_answer(tmp_path):
    result = {"type": "pairwise", "to_name": "a1,a2", "value": {"selected": "left", "by": "a lot"}}
    row = {"data": {"prompt": "Why?", "a1": "So.", "a2": "No."}, "annotations": [{"result": [result]}]}
    assert "a result's 'value' has 'by' ('a lot')" in refused(tmp_path, row, loader=load_rankings)
    assert load(tmp_path, row, loader=load_rankings, ignore_columns=["by"]).rows[0].responses == ["So.", "No."]


@pytest.mark.parametrize("value", ["2024-01-31", "2024-01-31T10:00:00", "2024-01-31 10:00:00.123+00:00"])
def test_a_date_is_not_content_and_a_text_with_one_is(tmp_path, value):
    row = {"prompt": "Why?", "completion": "So."}
    assert load(tmp_path, row | {"asked": value}).rows
    assert "does not read 'asked'" in refused(tmp_path, row | {"asked": f"{value} at home"})


@pytest.mark.parametrize(
    "key", ["plain", "with space", "a: b", "yes", "12", "\0odd", "ä", "tab\t", "{x}", "#x", "it's", ""]
)
def test_a_key_in_a_remedy_is_what_yaml_reads(key):
    written = as_yaml(key)
    assert written.isprintable()
    assert yaml.safe_load(f"[{written}]") == [key]
    assert yaml.safe_load(f"{{ours: {written}}}") == {"ours": key}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("skip", True),
        ("is_deleted", True),
        ("excluded", 1),
        ("isValid", False),
        ("keep", False),
        ("use", 0),
        ("is_correct", False),
        ("truncated", True),
        ("is_tie", 1),
        ("isSafe", False),
    ],
)
def test_a_mark_that_leaves_a_row_out_is_refused_and_its_contrary_is_harmless(tmp_path, key, value):
    row = {"prompt": "Why?", "completion": "So."}
    message = written.refused(tmp_path, {**row, key: not value}, {**row, key: value}, loader=load_demonstrations)
    assert f"d.jsonl:2: the layout prompt_completion does not read '{key}' ({value})" in message
    assert f"ignore_columns: [{key}]" in message
    assert len(written.load(tmp_path, {**row, key: not value}, loader=load_demonstrations).rows) == 1


@pytest.mark.parametrize("key", ["template", "category", "type", "task_name", "skill"])
def test_a_sentence_under_any_name_of_a_source_is_content(tmp_path, key):
    row = {"prompt": "Why?", "completion": "So."}
    assert (
        len(written.load(tmp_path, {**row, key: "closed question answering v1.2"}, loader=load_demonstrations).rows)
        == 1
    )
    message = written.refused(tmp_path, {**row, key: "Answer in French only."}, loader=load_demonstrations)
    assert f"does not read '{key}' ('Answer in French only.')" in message
