"""Conversations that miss a turn are refused: a tool's result without a call, an answer that is a thought alone."""

import json

import pytest

from alignment.data import load_demonstrations, load_prompts, load_rankings
from tests.data import written
from tests.data.written import A, U

RESULT = {"role": "tool", "content": "42"}
SYSTEM = {"role": "system", "content": "Be brief."}
CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "get", "arguments": {}}}]}


def said(text):
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("before", "place"),
    [([U], 2), ([SYSTEM, U], 3), ([U, said("Let me look"), U], 4), ([U, CALL, U], 4)],
)
@pytest.mark.parametrize("role", ["tool", "observation", "ipython"])
def test_a_tools_result_without_a_call_before_it_is_refused(tmp_path, before, place, role):
    turns = [*before, {**RESULT, "role": role}]
    wanted = f"message {place} of the conversation is the result of a tool, and no call of the assistant stands before"
    for row, loader in (
        ({"messages": [*turns, A]}, load_demonstrations),
        ({"messages": turns}, load_prompts),
        ({"prompt": turns, "chosen": [A], "rejected": [said("No.")]}, load_rankings),
    ):
        assert wanted in written.refused(tmp_path, row, loader=loader)


@pytest.mark.parametrize(
    "call",
    [
        CALL,
        {"role": "function_call", "content": json.dumps({"name": "get", "arguments": {}})},
        said("<functioncall> get"),
        said("Action: search\nAction Input: weather"),
        said("```python\nget()\n```"),
        said('[TOOL_CALLS] [{"name": "get"}]'),
    ],
)
def test_results_behind_a_call_in_any_form_are_read(tmp_path, call):
    (row,) = written.load(tmp_path, {"messages": [U, call, RESULT, RESULT, A]}, loader=load_demonstrations).rows
    assert [message["role"] for message in row.prompt] == ["user", "assistant", "tool", "tool"]


@pytest.mark.parametrize("thought", ["<think>hmm</think>", "\n<think>\nhmm\n</think>\n\n", "[THINK]hmm[/THINK]"])
def test_an_answer_that_is_a_thought_alone_is_refused(tmp_path, thought):
    for row, loader in (
        ({"messages": [U, said(thought)]}, load_demonstrations),
        ({"messages": [U, said(thought), U, A]}, load_demonstrations),
        ({"messages": [U, {**said(""), "reasoning_content": "hmm"}]}, load_demonstrations),
        ({"prompt": "Q", "completion": thought}, load_demonstrations),
        ({"instruction": "Q", "output": thought}, load_demonstrations),
        ({"prompt": "Q", "chosen": thought, "rejected": "No."}, load_rankings),
        ({"prompt": [U], "chosen": [A], "rejected": [said(thought)]}, load_rankings),
    ):
        message = written.refused(tmp_path, row, loader=loader)
        assert "empty" in message
        assert "after its reasoning; write the answer behind it, or take the row out" in message


@pytest.mark.parametrize("text", ["<think>hmm</think>So.", "Write <think> and </think>", "<think>a</think>b</think>"])
def test_an_answer_with_text_beside_its_thought_is_read(tmp_path, text):
    (row,) = written.load(tmp_path, {"messages": [U, said(text)]}, loader=load_demonstrations).rows
    assert row.completion == text


def test_an_empty_answer_before_an_untrained_one_is_refused(tmp_path):
    row = {"messages": [U, said(""), U, {**A, "weight": 0}]}
    message = written.refused(tmp_path, row, loader=load_demonstrations)
    assert "the last answer that is trained is an empty message." in message


def calling(*ids):
    functions = [{"id": one, "type": "function", "function": {"name": f"get_{one}", "arguments": {}}} for one in ids]
    return {"role": "assistant", "content": "", "tool_calls": functions}


def result(of):
    return {**RESULT, "tool_call_id": of}


@pytest.mark.parametrize(
    ("turns", "wanted"),
    [
        ([calling("a"), said("Let me see."), result("a")], "the next message is of the assistant, not the result"),
        ([calling("a")], "the next message is of the assistant, not the result"),
        ([calling("a"), calling("b"), result("a"), result("b")], "put several calls into one message"),
        ([calling("a"), result("x")], "the tool_call_id 'x', which is not a call's id there"),
        ([calling("a", "b"), result("b"), result("a")], "in another order than the calls, b, a; most chat templates"),
        ([calling("a", "b"), result("a")], "no result behind it has the tool_call_id 'b' of one of its calls"),
        ([calling("a"), result("a"), result("a")], "two results behind it have the tool_call_id 'a'; keep one"),
        (
            [CALL, said("Yes."), U],
            "message 2 of the conversation calls 'get', and the next message is of the assistant",
        ),
    ],
)
def test_calls_and_results_that_do_not_belong_together_are_refused(tmp_path, turns, wanted):
    for row, loader in (
        ({"messages": [U, *turns, A]}, load_demonstrations),
        ({"prompt": [U, *turns, A, U], "chosen": [A], "rejected": [said("No.")]}, load_rankings),
        ({"messages": [U, *turns, A, U]}, load_prompts),
    ):
        assert wanted in written.refused(tmp_path, row, loader=loader)


@pytest.mark.parametrize(
    "turns",
    [
        [calling("a"), result("a"), calling("b"), result("b")],
        [calling("a"), result("a"), calling("a"), result("a")],  # an id may come again
        [calling("a", "b"), result("a"), result("b")],
        [calling("a", "b"), RESULT],  # without ids one message may hold both results
        [{**CALL, "content": "Let me see."}, RESULT],
        [CALL, result("a")],
        [calling("a"), U],  # a call may end a turn
        [said("<tool_call>\n{}\n</tool_call>"), said("Let me see.")],  # it may be no call
    ],
)
def test_calls_with_their_results_are_read(tmp_path, turns):
    (row,) = written.load(tmp_path, {"messages": [U, *turns, A]}, loader=load_demonstrations).rows
    assert len(row.prompt) == 1 + len(turns)
    (ending,) = written.load(tmp_path, {"messages": [U, *turns[:1]]}, loader=load_demonstrations).rows
    assert ending.prompt == [U]


@pytest.mark.parametrize(
    ("prompt", "header"),
    [
        ("\n\nHuman: Why?\n\nAssistant:", "Human:"),
        ("User: Why?\nAssistant: ", "User:"),
        ("### Human: a\n### AI:", "### Human:"),
    ],
)
def test_an_answer_to_a_transcript_that_holds_the_users_next_turn_is_refused(tmp_path, prompt, header):
    longer = f" So.\n\n{header} And?\n\nAssistant: Yes."
    for row, loader in (
        ({"prompt": prompt, "completion": longer}, load_demonstrations),
        ({"prompt": prompt, "chosen": " So.", "rejected": longer}, load_rankings),
        ({"prompt": prompt, "responses": [longer, " So."], "ranks": [1, 2]}, load_rankings),
    ):
        message = written.refused(tmp_path, row, loader=loader)
        assert f"d.jsonl:1: an answer goes on with '{header}', a turn of the user" in message
        whole = json.loads(json.dumps(row).replace(json.dumps(longer), json.dumps(f" It says {header} so.")))
        assert written.load(tmp_path, whole, loader=loader).rows
    sampled = {"prompt": prompt, "responses": [longer, "b"], "pairs": [], "provenance": {"stopped": [True, True]}}
    assert written.load(tmp_path, sampled, loader=load_rankings).rows
    asked = {"prompt": "Write a chat.", "completion": longer}
    assert written.load(tmp_path, asked, loader=load_demonstrations).rows
