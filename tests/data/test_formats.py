"""What each layout becomes, by hand, and what a faulty row of it says."""

import copy
import json

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_rankings
from alignment.data.fields import BadRow
from alignment.data.formats import FORMATS
from alignment.data.layouts import Only
from alignment.data.recognition import named, recognise
from alignment.data.rows import Demonstration, Pair, Ranking
from alignment.errors import DataError

U = {"role": "user", "content": "Why?"}
A = {"role": "assistant", "content": "Because."}
TOOLS = '[{"name": "add"}]'
CALL = '{"name": "add", "arguments": {"a": 1}}'
CALL_MESSAGE = {
    "role": "assistant",
    "content": f"<tool_call>\n{CALL}\n</tool_call>",
    "tool_calls": f'[{{"type": "function", "function": {CALL}}}]',
}


def choice(prompt, chosen="Because.", rejected="No.", **pair):
    return Ranking(prompt, [chosen, rejected], [Pair(0, 1, **{"probability": 1.0, **pair})])


# name, format, row, what it becomes
CASES = [
    ("alpaca", "alpaca", {"instruction": "Why?", "input": "", "output": "Because."}, Demonstration([U], "Because.")),
    (
        "alpaca with input, system and history",
        "alpaca",
        {
            "instruction": "Add.",
            "input": "1 2",
            "output": "3",
            "system": "Be brief.",
            "history": [["Why?", "Because."]],
        },
        Demonstration(
            [{"role": "system", "content": "Be brief."}, U, A, {"role": "user", "content": "Add.\n1 2"}], "3"
        ),
    ),
    (
        "alpaca with input alone",
        "alpaca",
        {"instruction": "", "input": "Why?", "output": "Because."},
        Demonstration([U], "Because."),
    ),
    ("alpaca without input", "alpaca", {"instruction": "Why?", "output": "Because."}, Demonstration([U], "Because.")),
    ("messages", "messages", {"messages": [U, A]}, Demonstration([U], "Because.")),
    (
        "messages in parts",
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}, A]},
        Demonstration([U], "Because."),
    ),
    (
        "messages with a tool call",
        "messages",
        {
            "messages": [
                U,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
                },
                {"role": "tool", "content": "1", "tool_call_id": "x"},
                A,
            ],
            "tools": [{"name": "add"}],
        },
        Demonstration(
            [U, CALL_MESSAGE, {"role": "tool", "content": "1", "tool_call_id": "x"}], "Because.", tools=TOOLS
        ),
    ),
    (
        "sharegpt",
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Why?"},
                {"from": "gpt", "value": "Because."},
            ]
        },
        Demonstration([{"role": "system", "content": "Be brief."}, U], "Because."),
    ),
    (
        "sharegpt with tools",
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "Why?"},
                {"from": "function_call", "value": CALL},
                {"from": "observation", "value": "1"},
                {"from": "gpt", "value": "Because."},
            ],
            "tools": TOOLS,
        },
        Demonstration([U, CALL_MESSAGE, {"role": "tool", "content": "1"}], "Because.", tools=TOOLS),
    ),
    (
        "prompt and completion",
        "prompt_completion",
        {"prompt": "Why?", "completion": " Because."},
        Demonstration("Why?", " Because."),
    ),
    (
        "prompt and completion as messages",
        "prompt_completion",
        {"prompt": [U], "completion": [A]},
        Demonstration([U], "Because."),
    ),
    ("text", "text", {"id": 1, "text": "Once."}, Demonstration("", "Once.")),
    (
        "self-instruct",
        "self_instruct",
        {"instruction": "Why?", "instances": [{"input": "", "output": "Because."}]},
        Demonstration([U], "Because."),
    ),
    ("thumb up", "kto", {"messages": [U, A], "label": True}, Demonstration([U], "Because.", desirable=1.0)),
    ("thumb down", "kto", {"messages": [U, A], "label": False}, Demonstration([U], "Because.", desirable=0.0)),
    ("a probability", "kto", {"messages": [U, A], "probability": 0.3}, Demonstration([U], "Because.", desirable=0.3)),
    (
        "unpaired preference",
        "kto",
        {"prompt": "Why?", "completion": " Because.", "label": True},
        Demonstration("Why?", " Because.", desirable=1.0),
    ),
    ("prompt", "prompt", {"prompt": "Why?"}, Only("Why?")),
    (
        "explicit preference",
        "preference",
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No."},
        choice("Why?"),
    ),
    (
        "explicit preference as messages",
        "preference",
        {"prompt": [U], "chosen": [A], "rejected": [{"role": "assistant", "content": "No."}]},
        choice([U]),
    ),
    (
        "preference whose sides repeat the prompt",  # HuggingFaceH4/ultrafeedback_binarized
        "preference",
        {
            "prompt": "Why?",
            "chosen": [U, A],
            "rejected": [U, {"role": "assistant", "content": "No."}],
            "score_chosen": 8.5,
            "score_rejected": 6,
        },
        choice([U], margin=2.5),
    ),
    (
        "preference with a probability",
        "preference",
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "probability": 0.8},
        choice("Why?", probability=0.8),
    ),
    (
        "preference without a winner",
        "preference",
        {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "probability": 0.5},
        choice("Why?", probability=0.5, status="tie"),
    ),
    (
        "implicit prompt",
        "implicit_preference",
        {"chosen": [U, A], "rejected": [U, {"role": "assistant", "content": "No."}]},
        choice([U]),
    ),
    (
        "implicit prompt as text, cut at a word's end",  # the sides share "Why? No" too
        "implicit_preference",
        {"chosen": "Why? Nothing.", "rejected": "Why? Not so."},
        choice("Why?", " Nothing.", " Not so."),
    ),
    (
        "implicit prompt in a script without spaces",
        "implicit_preference",
        {"chosen": "为什么？因为。", "rejected": "为什么？不。"},
        choice("为什么？", "因为。", "不。"),
    ),
    (
        "hh",
        "hh",
        {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
        choice([U]),
    ),
    (
        "hh with two turns of the assistant in a row",
        "hh",
        {
            "chosen": "\n\nHuman: Why?\n\nAssistant: Because.\n\nAssistant: Yes.",
            "rejected": "\n\nHuman: Why?\n\nAssistant: Because.\n\nAssistant: No.",
        },
        choice([U], "Because.\n\nYes.", "Because.\n\nNo."),
    ),
    (
        "hh with two turns of the human in a row",
        "hh",
        {
            "chosen": "\n\nHuman: Hm.\n\nHuman: Why?\n\nAssistant: Because.",
            "rejected": "\n\nHuman: Hm.\n\nHuman: Why?\n\nAssistant: No.",
        },
        choice([{"role": "user", "content": "Hm.\n\nWhy?"}]),
    ),
    (
        "sharegpt preference",
        "sharegpt_dpo",
        {
            "conversations": [{"from": "human", "value": "Why?"}],
            "chosen": {"from": "gpt", "value": "Because."},
            "rejected": {"from": "gpt", "value": "No."},
        },
        choice([U]),
    ),
    (
        "llmbar",
        "llmbar",
        {"input": "Why?", "output_1": "No.", "output_2": "Because.", "label": 2},
        Ranking([U], ["No.", "Because."], [Pair(0, 1, 0.0)]),
    ),
    (
        "ranks",  # a is best, b and c are equal
        "ranking",
        {"prompt": "Why?", "responses": ["b", "a", "c"], "ranks": [2, 1, 2]},
        Ranking("Why?", ["b", "a", "c"], [Pair(0, 1, 0.0), Pair(0, 2, 0.5, "tie"), Pair(1, 2, 1.0)]),
    ),
    (
        "scores",
        "ranking",
        {"prompt": [U], "responses": ["a", "b"], "scores": [1.5, 4]},
        Ranking([U], ["a", "b"], [Pair(0, 1, 0.0, "ok", 2.5)]),
    ),
    (
        "pairs",
        "ranking",
        {
            "prompt": "Why?",
            "responses": ["a", ""],
            "pairs": [
                {"first": 1, "second": 0, "probability": 0.25, "status": "ok", "margin": 2},
                {"first": 0, "second": 1, "probability": None, "status": "api_error"},
            ],
            "provenance": {"judge": "people"},
        },
        Ranking("Why?", ["a", ""], [Pair(1, 0, 0.25, "ok", 2.0), Pair(0, 1, None, "api_error")], {"judge": "people"}),
    ),
    (
        "oasst",
        "oasst",
        {
            "message_tree_id": "t",
            "prompt": {
                "message_id": "m",
                "role": "prompter",
                "text": "Why?",
                "replies": [
                    {"role": "assistant", "text": "No.", "rank": 1, "replies": []},
                    {"role": "assistant", "text": "Because.", "rank": 0, "replies": []},
                    {"role": "assistant", "text": "Spam.", "rank": 2, "replies": [], "deleted": True},
                    {"role": "assistant", "text": "Hm.", "rank": None, "replies": []},
                ],
            },
        },
        Ranking([U], ["No.", "Because."], [Pair(0, 1, 0.0)], {"judge": "people", "message_id": "m"}),
    ),
]


@pytest.mark.parametrize(("layout", "row", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_layout_is_recognised_and_read(layout, row, expected):
    found = recognise(row, "here")
    assert found.name == layout
    assert found.read(row) == [expected]
    assert named(layout) is found


def test_self_instruct_gives_a_row_for_each_instance():
    row = {"instruction": "Why?", "instances": [{"input": "a", "output": "b"}, {"input": "c", "output": "d"}]}
    rows = named("self_instruct").read(row)
    assert [one.prompt[0]["content"] for one in rows] == ["Why?\na", "Why?\nc"]
    assert [one.completion for one in rows] == ["b", "d"]


def test_unknown_keys_name_what_was_found_and_what_is_known():
    with pytest.raises(DataError) as caught:
        recognise({"question": "?", "reply": "!"}, "qa.jsonl:1")
    message = str(caught.value)
    assert message.startswith("qa.jsonl:1: no layout has these keys: question, reply. To read them as ")
    assert (
        "To read them as the layout alpaca, set columns: {instruction: question, output: reply}. Known layouts"
        in message
    )
    for layout in FORMATS:
        assert f"  {layout.name}: {layout.keys}" in message


def test_unknown_name_lists_the_known():
    with pytest.raises(DataError, match=r"format: alpacca is not known; known are ranking, answers, oasst, .*alpaca"):
        named("alpacca")


FAULTS = [
    ("alpaca", {"instruction": "Why?"}, "the field 'output' is missing; found instruction"),
    ("alpaca", {"instruction": "Why?", "output": "  "}, "'output' is empty"),
    ("alpaca", {"instruction": "Why?", "output": 3}, "'output' is a number, not text"),
    ("alpaca", {"instruction": "Why?", "output": "3", "history": ["x"]}, "'history' is not a list of"),
    ("text", {"text": "\ud83d"}, "'text' holds half of a surrogate pair at position 0"),
    ("messages", {"messages": []}, "'messages' is an empty list"),
    ("messages", {"messages": [U, {"role": "assistant", "content": ""}]}, "'messages' ends with an empty answer"),
    ("messages", {"messages": [U, {"role": "wizard", "content": "x"}]}, "'messages[1]' has the unknown role 'wizard'"),
    ("messages", {"messages": [U, {"role": "assistant"}]}, "'messages[1]' has no 'content'"),
    ("messages", {"messages": [A]}, "'messages' holds an answer without a prompt"),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "image"}]}, A]}, "has a part that is not text"),
    ("messages", {"messages": [{"role": "system", "content": "x"}]}, "ends with a message of the system"),
    ("sharegpt", {"conversations": "hi"}, "'conversations' is text, not a list of messages"),
    ("sharegpt", {"conversations": [{"value": "x"}]}, "'conversations[0]' has neither 'role' nor 'from'; found value"),
    ("sharegpt", {"conversations": [U, A], "tools": "[{"}, "'tools' is not JSON"),
    ("kto", {"messages": [U, A], "label": [1]}, "'label' is [1], which marks no answer as good or bad"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same answer"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": None}, "'rejected' is null, not text"),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "c", "probability": 2}, "'probability' is 2.0, outside"),
    (
        "preference",
        {"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 1, "score_rejected": 2},
        "'score_chosen' 1 is below 'score_rejected' 2",
    ),
    ("implicit_preference", {"chosen": "Why? So.", "rejected": "What?"}, "do not begin with the same prompt"),
    ("implicit_preference", {"chosen": "Why? So.", "rejected": "Why?"}, "'rejected' is an empty answer"),
    ("hh", {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "a"}, "'rejected' does not begin with"),
    (
        "hh",
        {
            "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
            "rejected": "\n\nHuman: a\n\nAssistant: e",
        },
        "'chosen' goes on after the answer with which it parts from the other conversation, with a message of the user",
    ),
    (
        "implicit_preference",
        {"chosen": [U, A], "rejected": [U, {"role": "assistant", "content": "No."}, U, A]},
        "'rejected' goes on after the answer with which it parts",
    ),
    (
        "hh",
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a"},
        "'rejected' does not end with an answer of the assistant",
    ),
    ("llmbar", {"input": "a", "output_1": "b", "output_2": "c", "label": 3}, "'label' is 3, not 1 or 2"),
    ("ranking", {"prompt": "a", "responses": ["b"], "ranks": [1]}, "holds 1 answers; a ranking needs at least 2"),
    ("ranking", {"prompt": "a", "responses": ["b", "c"]}, "the row has no 'pairs', 'ranks' or 'scores'"),
    ("ranking", {"prompt": "a", "responses": ["b", "c"], "ranks": [1]}, "needs one number for each of the 2 responses"),
    ("ranking", {"prompt": "a", "responses": ["b", "c"], "scores": [1, float("nan")]}, "'scores'[1] is nan"),
    ("ranking", {"prompt": "a", "responses": ["b", " "], "ranks": [1, 2]}, "'responses[1]' is empty"),
    (
        "ranking",
        {"prompt": "a", "responses": ["b", "c"], "pairs": [{"first": 0, "second": 2, "probability": 1}]},
        "'pairs[0]' compares 0 with 2; there are responses 0 to 1",
    ),
    (
        "ranking",
        {"prompt": "a", "responses": ["b", "c"], "pairs": [{"first": 0, "second": 0, "probability": 1}]},
        "compares response 0 with itself",
    ),
    (
        "ranking",
        {"prompt": "a", "responses": ["b", "c"], "pairs": [{"first": 0, "second": 1, "probability": 1.5}]},
        "has the probability 1.5, outside 0 to 1",
    ),
    (
        "ranking",
        {"prompt": "a", "responses": ["b", "c"], "pairs": [{"first": 0, "second": 1, "status": "maybe"}]},
        "has the status 'maybe'; known are ok, tie",
    ),
    (
        "ranking",
        {
            "prompt": "a",
            "responses": ["b", "c"],
            "pairs": [{"first": 0, "second": 1, "status": "api_error", "probability": 1}],
        },
        "an error is never a label",
    ),
    ("prompt", {"prompt": " "}, "'prompt' is empty"),
    ("prompt", {"prompt": [U, A]}, "'prompt' ends with a message of the assistant"),
    ("self_instruct", {"instruction": "a", "instances": {}}, "'instances' is not a list of input and output"),
]


@pytest.mark.parametrize(("layout", "row", "message"), FAULTS)
def test_fault_is_named(layout, row, message):
    with pytest.raises(BadRow) as caught:
        named(layout).read(row)
    assert message in str(caught.value)


def _damaged(value):
    """Every copy of a JSON value in which one part is replaced by something of another type, or gone."""
    yield from (None, 7, True, "", [], {}, [None], {"x": 1})
    places = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in places:
        for other in _damaged(part):
            damaged = copy.copy(value)
            damaged[key] = other
            yield damaged
        if isinstance(value, dict):
            yield {name: item for name, item in value.items() if name != key}


@pytest.mark.parametrize(("layout", "row"), [case[1:3] for case in CASES], ids=[case[0] for case in CASES])
def test_a_damaged_row_is_a_bad_row_and_nothing_else(layout, row):
    """No row, however broken, may end a run with a traceback."""
    bad = 0
    for damaged in _damaged(row):
        if not isinstance(damaged, dict):
            continue
        try:
            named(layout).read(damaged)
        except BadRow:
            bad += 1
    assert bad


@pytest.mark.parametrize("side", [lambda text: text, lambda text: {"role": "assistant", "content": text}])
def test_two_answers_beside_messages_answer_them(tmp_path, side):
    """Axolotl's layout for DPO; the messages were left aside before, and what the answers share became the prompt."""
    turn = [{"role": "user", "content": "Why is it?"}]
    row = {"messages": turn, "chosen": side("It rained a lot."), "rejected": side("It rained a bit.")}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = load_rankings([DatasetEntry(path=str(tmp_path / "a.jsonl"))], on_bad_row="stop", seed=0).rows
    assert found.prompt == turn
    assert found.responses == ["It rained a lot.", "It rained a bit."]


def test_the_remedy_for_a_column_beside_two_answers_is_to_read_it_as_the_prompt(tmp_path):
    row = {"user_input": "Why?", "chosen": "It rained.", "rejected": "It snowed."}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    entry = {"path": str(tmp_path / "a.jsonl")}
    with pytest.raises(DataError, match=r"If 'user_input' is the prompt, set columns: \{prompt: user_input\}"):
        load_rankings([DatasetEntry(**entry)], on_bad_row="stop", seed=0)
    mapped = DatasetEntry(**entry, columns={"prompt": "user_input"})
    assert load_rankings([mapped], on_bad_row="stop", seed=0).rows[0].prompt == "Why?"


def test_messages_that_two_conversations_share_stay_as_they_are():
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add", "arguments": {}}}] * 2}
    results = [{"role": "tool", "content": text, "tool_call_id": text} for text in ("one", "two")]
    shared = [U, call, *results, U, U]
    row = {"chosen": [*shared, A], "rejected": [*shared, {**A, "content": "No."}]}
    (found,) = recognise(row, "x:1").read(row)
    assert [message["role"] for message in found.prompt] == ["user", "assistant", "tool", "tool", "user", "user"]
    assert [message.get("tool_call_id") for message in found.prompt[2:4]] == ["one", "two"]
    beside = {"prompt": shared, "chosen": "Because.", "rejected": "No."}
    assert recognise(beside, "x:1").read(beside)[0].prompt == found.prompt
