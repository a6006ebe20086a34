"""Tool calls as data sets write them: brought to OpenAI's form, or refused with a remedy that works."""

import json

import pytest

from alignment.data import load_demonstrations, load_prompts, load_rankings
from tests.data import written
from tests.data.written import A, U

GIVEN = {"name": "get", "arguments": {"q": "x"}}
CALL = {"type": "function", "function": GIVEN}
RESULT = {"role": "tool", "content": "42"}
TOOLS = [{"type": "function", "function": {"name": "get", "description": "Gets."}}]


def load(tmp_path, *turns, loader=load_demonstrations, **keys):
    return written.load(tmp_path, {"messages": [U, *turns]}, loader=loader, **keys).rows[0]


def refused(tmp_path, *turns, **keys):
    return written.refused(tmp_path, {"messages": [U, *turns]}, loader=load_demonstrations, **keys)


def calling(*calls, **keys):
    return {"role": "assistant", "content": "", "tool_calls": list(calls), **keys}


def calls(row):
    return json.loads(row.answer["tool_calls"])


@pytest.mark.parametrize(
    "turn",
    [
        calling(CALL),
        calling({"function": GIVEN}),
        calling(GIVEN),
        calling({"name": "get", "arguments": '{"q": "x"}'}),
        calling(json.dumps(CALL)),
        {"role": "assistant", "content": None, "tool_calls": json.dumps([GIVEN])},
        {"role": "assistant", "content": "", "function_call": {"name": "get", "arguments": '{"q": "x"}'}},
        {"role": "assistant", "tool_calls": [], "function_call": GIVEN},
        {"role": "function_call", "content": json.dumps(GIVEN)},
        {"role": "tool_call", "content": json.dumps({"name": "get", "arguments": '{"q": "x"}'})},
        {"from": "function_call", "value": json.dumps([GIVEN])},
        {"from": "function_call", "value": GIVEN},
        {"from": "function_call", "value": [CALL]},
    ],
)
def test_a_call_is_read_in_each_of_its_forms(tmp_path, turn):
    row = load(tmp_path, turn)
    assert [call["function"] for call in calls(row)] == [GIVEN]
    assert row.completion == f"<tool_call>\n{json.dumps(GIVEN)}\n</tool_call>"


@pytest.mark.parametrize("arguments", [None, "", " ", "null", {}, "{}"])
def test_a_call_without_arguments_has_an_empty_object(tmp_path, arguments):
    for turn in (calling({"function": {"name": "get", "arguments": arguments}}), calling({"name": "get"})):
        assert calls(load(tmp_path, turn))[0]["function"] == {"name": "get", "arguments": {}}


@pytest.mark.parametrize("arguments", [[1, 2], "[1, 2]", 3, True, "3"])
def test_arguments_that_are_not_object_are_refused(tmp_path, arguments):
    assert "the 'arguments' of a call are" in refused(tmp_path, calling({"name": "get", "arguments": arguments}))


def test_calls_and_words_are_kept(tmp_path):
    row = load(tmp_path, calling(CALL, content=[{"type": "text", "text": "I look."}], name="Bo"))
    assert row.answer["content"].startswith("I look.\n<tool_call>\n")
    assert row.answer["name"] == "Bo"
    assert load(tmp_path, {**A, "tool_calls": "[]"}, U, A).prompt[1] == A
    text = f"I look.\n<tool_call>\n{json.dumps(GIVEN)}\n</tool_call>"
    assert load(tmp_path, calling(CALL, content=text)).completion == text
    assert "holds <tool_call> and calls" in refused(tmp_path, calling(CALL, content="Use <tool_call>."))


def test_a_thought_before_a_call_of_sharegpt_stays_before_it(tmp_path):
    row = load(tmp_path, {"role": "function_call", "content": f"<think>hmm</think>{json.dumps(GIVEN)}"})
    assert row.completion.startswith("<think>hmm</think>\n<tool_call>\n")
    assert [call["function"] for call in calls(row)] == [GIVEN]


@pytest.mark.parametrize("text", [str(GIVEN), 'get(q="x")', "I call get.", "<think>hmm</think>get()"])
def test_a_call_of_sharegpt_that_is_not_json_is_refused(tmp_path, text):
    turn = {"from": "function_call", "value": text}
    message = refused(tmp_path, turn)
    assert "which is not JSON" in message
    assert "give the message the role gpt" in message
    assert load(tmp_path, {**turn, "from": "gpt"}).completion == text


@pytest.mark.parametrize(
    ("turn", "key"),
    [
        (calling({**CALL, "result": "42"}), "result"),
        (calling({**CALL, "weight": 0}), "weight"),
        (calling({**CALL, "result": 42}), "result"),
        (calling({**GIVEN, "result": [42]}), "result"),
        (calling({"function": {**GIVEN, "result": "42"}}), "result"),
        ({"role": "assistant", "content": "", "function_call": {**GIVEN, "result": "42"}}, "result"),
    ],
)
def test_keys_of_a_call_that_nothing_reads_are_refused(tmp_path, turn, key):
    message = refused(tmp_path, turn)
    assert f"has '{key}'" in message
    assert f"set ignore_columns: [{key}]" in message
    assert calls(load(tmp_path, turn, ignore_columns=[key]))[0]["function"] == GIVEN
    noted = calling({"id": "a", "index": 0, **CALL})
    assert calls(load(tmp_path, noted)) == noted["tool_calls"]


def test_keys_of_a_call_in_json_text_are_to_be_taken_out_of_it(tmp_path):
    message = refused(tmp_path, {"from": "function_call", "value": json.dumps({**GIVEN, "result": "42"})})
    assert "has 'result' ('42'), which is not read" in message
    assert "remove it from the JSON text" in message
    assert "has 'parameters'" in refused(tmp_path, calling({"name": "get", "parameters": {"q": "x"}}))


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        (calling("get"), "a call: not JSON"),
        (calling(3), "a call is a number"),
        (calling({"function": "get", "arguments": {}}), "the 'function' of a call is text"),
        (calling({"arguments": {}}), "a call has no 'name'"),
        ({"role": "assistant", "content": "", "tool_calls": {"name": "get"}}, "not a list of calls"),
        (calling(CALL, function_call=GIVEN), "has 'tool_calls' and 'function_call'; keep one"),
        ({**U, "function_call": GIVEN}, "has the key 'function_call'"),
    ],
)
def test_an_invalid_call_is_refused(tmp_path, turn, words):
    assert words in refused(tmp_path, turn)


@pytest.mark.parametrize("role", ["tool", "tool_response", "tool_result", "function", "observation", "ipython"])
def test_a_tools_result_is_read_under_each_role(tmp_path, role):
    assert load(tmp_path, calling(CALL), {"role": role, "content": "42"}, A).prompt[2] == RESULT


@pytest.mark.parametrize("place", [1, 2])
def test_tools_of_a_later_message_are_refused_and_read_of_the_row(tmp_path, place):
    turns = [U, A, U, A]
    turns[place] = {**turns[place], "tools": TOOLS}
    message = written.refused(tmp_path, {"messages": turns}, loader=load_demonstrations)
    assert f"'messages[{place}]' has 'tools'" in message
    assert "give them as the row's key tools" in message
    row = {"messages": [U, A, U, A], "tools": TOOLS}
    assert json.loads(written.load(tmp_path, row, loader=load_demonstrations).rows[0].tools) == TOOLS


def test_tools_of_the_first_message_are_kept_behind_a_system_and_beside_those_of_the_row(tmp_path):
    first = {**U, "tools": TOOLS}
    row = {"messages": [first, A], "system": "Be brief."}
    (found,) = written.load(tmp_path, row, loader=load_demonstrations).rows
    assert (found.prompt, json.loads(found.tools)) == ([{"role": "system", "content": "Be brief."}, U], TOOLS)
    assert written.load(tmp_path, {"messages": [first, A], "tools": TOOLS}, loader=load_demonstrations).rows
    other = {"messages": [first, A], "tools": [{"name": "other"}]}
    for loader in (load_demonstrations, load_prompts):
        assert "have different 'tools'; keep one" in written.refused(tmp_path, other, loader=loader)
    pair = {"prompt": [first], "chosen": [A], "rejected": [{**A, "content": "No."}]}
    (found,) = written.load(tmp_path, pair, loader=load_rankings).rows
    assert json.loads(found.prompt[0]["tools"]) == TOOLS


@pytest.mark.parametrize("tools", [None, "", " ", "[]", "{}", "null", [], {}])
def test_no_tools_in_any_form_are_none(tmp_path, tools):
    (row,) = written.load(tmp_path, {"messages": [U, A], "tools": tools}, loader=load_demonstrations).rows
    assert row.tools is None


def test_a_result_that_is_not_text_is_refused_with_a_remedy(tmp_path):
    message = refused(tmp_path, calling(CALL), {"role": "tool", "content": {"sum": 4}}, A)
    assert "'messages[2]' 'content' is an object, not text; write it as JSON text" in message


def test_keys_of_a_content_part_that_nothing_reads_are_refused(tmp_path):
    part = {"type": "text", "text": "So.", "cache_control": {"type": "ephemeral"}, "image_url": None}
    assert load(tmp_path, {"role": "assistant", "content": [part]}).completion == "So."
    message = refused(tmp_path, {"role": "assistant", "content": [{**part, "weight": 0}]})
    assert "a part of 'messages[1]' 'content' has 'weight' (0), which is not read; type, text are read" in message
