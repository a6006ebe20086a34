"""Messages, tools and arguments as JSON text, absent fields of columnar files, and encodings other than UTF-8."""

import json

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations, load_prompts, load_rankings
from alignment.errors import DataError

U = {"role": "user", "content": "Why?"}
A = {"role": "assistant", "content": "Because."}
B = {"role": "assistant", "content": "No."}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def load(path, *rows, loader=load_demonstrations):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return loader([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0).rows


def refused(path, *rows, loader=load_demonstrations):
    with pytest.raises(DataError) as caught:
        load(path, *rows, loader=loader)
    return str(caught.value).replace(f"{path.parent}/", "")


def call(arguments):
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": arguments}}],
    }


@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_conversations_as_json_text(tmp_path, key):
    (row,) = load(tmp_path / "d.jsonl", {key: json.dumps([U, A])})
    assert (row.prompt, row.completion) == ([U], "Because.")


def test_sides_and_prompts_as_json_text(tmp_path):
    path = tmp_path / "d.jsonl"
    sides = {"chosen": json.dumps([A]), "rejected": json.dumps([B])}
    (row,) = load(path, {"prompt": json.dumps([U]), **sides}, loader=load_rankings)
    assert (row.prompt, row.responses) == ([U], ["Because.", "No."])
    (row,) = load(path, {"prompt": json.dumps([U]), "completion": json.dumps([A])})
    assert (row.prompt, row.completion) == ([U], "Because.")
    assert load(path, {"prompt": json.dumps([{"content": "Why?", "role": "user"}])}, loader=load_prompts) == [[U]]


@pytest.mark.parametrize(
    "row",
    [
        {"text": json.dumps([U, A])},
        {"instruction": json.dumps([U]), "output": "So."},
        {"prompt": str([U]), "completion": "So."},
        {"prompt": str([{"content": "Why?", "role": "user"}]), "completion": "So."},
        {"prompt": str([{"name": "bob", "role": "user", "content": "Why?"}]), "completion": "So."},
        {"prompt": str(U), "completion": "So."},
        {"text": json.dumps({"messages": [U, A]})},
        {"text": json.dumps({"id": 3, "conversations": [{"id": 1, "from": "human", "value": "Why?"}]})},
        {"text": json.dumps(U)},
        {"prompt": json.dumps({"messages": [U]}), "completion": "So."},
    ],
)
def test_messages_as_text_are_not_learned_as_text(tmp_path, row):
    (key, *_) = row
    assert refused(tmp_path / "d.jsonl", row).startswith(f"d.jsonl:1: '{key}' is a list of messages as text")


def test_a_message_as_json_text_and_keys_before_its_role(tmp_path):
    named = json.dumps([{"name": "bob", **U}])
    (row,) = load(tmp_path / "d.jsonl", {"prompt": named, "completion": json.dumps(A)})
    assert (row.prompt, row.completion) == ([{**U, "name": "bob"}], "Because.")
    (row,) = load(tmp_path / "d.jsonl", {"prompt": "\r\n" + json.dumps(U), "completion": json.dumps(A)})
    assert (row.prompt, row.completion) == ([U], "Because.")


def test_keys_of_messages_in_json_text_are_ignored_as_others_are(tmp_path):
    row = {"messages": json.dumps([{**U, "notes": "x"}, A]), "question": "Why so?"}
    path = tmp_path / "d.jsonl"
    assert "has the key 'notes'" in refused(path, {"messages": row["messages"]})
    path.write_text(json.dumps(row) + "\n")
    entry = DatasetEntry(path=str(path), ignore_columns=["notes", "question"])
    assert load_demonstrations([entry], on_bad_row="stop", seed=0).rows[0].prompt == [U]


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "add"}]',
        "[1, 2]",
        "[see above]",
        '{"role": "x"}',
        '[{"value": 3}]',
        '[{"role": "admin"}]',
        '{"role": "x" "content": 3}',
        '{"from": "Ulm", "to": "Bonn", "content": "tea"}',
    ],
)
def test_other_json_is_text(tmp_path, text):
    assert load(tmp_path / "d.jsonl", {"prompt": "Give JSON.", "completion": text})[0].completion == text


def test_arguments_are_an_object_however_they_are_written(tmp_path):
    path = tmp_path / "d.jsonl"
    (told,) = load(path, {"messages": [U, call({"a": 1}), {"role": "tool", "content": "1"}, A]})
    for text, expected in (('{"a": 1}', {"a": 1}), ("", {})):
        (row,) = load(path, {"messages": [U, call(text), {"role": "tool", "content": "1"}, A]})
        assert json.loads(row.prompt[1]["tool_calls"])[0]["function"]["arguments"] == expected
        assert expected == {} or row == told
    turns = [
        {"from": "human", "value": "Why?"},
        {"from": "function_call", "value": json.dumps({"name": "add", "arguments": '{"a": 1}'})},
    ]
    (row,) = load(
        path, {"conversations": [*turns, {"from": "observation", "value": "1"}, {"from": "gpt", "value": "So."}]}
    )
    assert json.loads(row.prompt[1]["tool_calls"])[0]["function"]["arguments"] == {"a": 1}
    assert "the 'arguments' of a call: not JSON" in refused(path, {"messages": [U, call("{a"), A]})
    assert "the 'arguments' of a call are a list, not an object" in refused(path, {"messages": [U, call("[1]"), A]})


def test_tools_as_a_list_of_json_texts(tmp_path):
    path = tmp_path / "d.jsonl"
    (row,) = load(path, {"messages": [U, A], "tools": [json.dumps(TOOL)]})
    assert json.loads(row.tools) == [TOOL]
    assert "a tool: not JSON" in refused(path, {"messages": [U, A], "tools": ["add"]})


def test_labels_of_prompts_with_calls_keep_them(tmp_path):
    path = tmp_path / "d.jsonl"
    (row,) = load(path, {"messages": [U, call({"a": 1}), {"role": "tool", "content": "1"}, A]})
    (label,) = load(path, {"prompt": row.prompt, "responses": ["a", "b"], "ranks": [1, 2]}, loader=load_rankings)
    assert label.prompt == row.prompt


def test_absent_fields_of_a_columnar_file_are_left_out(tmp_path):
    import pyarrow
    import pyarrow.parquet

    calls = [
        {"type": "function", "function": {"name": name, "arguments": {key: 1}}}
        for name, key in (("f", "a"), ("g", "b"))
    ]
    rows = [
        {
            "messages": [
                U,
                {"role": "assistant", "content": "", "tool_calls": calls},
                {"role": "tool", "content": "1"},
                A,
            ]
        }
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    entry = DatasetEntry(path=str(tmp_path / "d.parquet"))
    (row,) = load_demonstrations([entry], on_bad_row="stop", seed=0).rows
    assert row.prompt[0] == U
    assert [one["function"]["arguments"] for one in json.loads(row.prompt[1]["tool_calls"])] == [{"a": 1}, {"b": 1}]


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "d.csv", "d.txt"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named_with_the_remedy(tmp_path, name, encoding):
    (tmp_path / name).write_bytes("prompt,completion\nWhy so?,Because.\n".encode(encoding))
    with pytest.raises(DataError, match=r"is UTF-16.* Save it as text in UTF-8\.$"):
        load_demonstrations([DatasetEntry(path=str(tmp_path / name))], on_bad_row="skip", seed=0)


@pytest.mark.parametrize("mark", ["\t", ";"])
def test_a_csv_parted_by_tabs_is_named(tmp_path, mark):
    (tmp_path / "d.csv").write_text(f"prompt{mark}completion\r\na{mark}b\r\n")
    with pytest.raises(DataError, match=r"d\.csv:1: the columns are parted by"):
        load_demonstrations([DatasetEntry(path=str(tmp_path / "d.csv"))], on_bad_row="stop", seed=0)


def test_lists_by_key_are_messages_as_datasets_stores_a_sequence_of_objects(tmp_path):
    turns = {"role": ["user", "assistant"], "content": ["Why?", "Because."], "name": [None, None]}
    (found,) = load(tmp_path / "d.jsonl", {"messages": turns})
    assert (found.prompt, found.completion) == ([U], "Because.")
    (found,) = load(tmp_path / "d.jsonl", {"conversations": {"from": ["human", "gpt"], "value": ["Why?", "Because."]}})
    assert (found.prompt, found.completion) == ([U], "Because.")
    uneven = {"messages": {**turns, "content": ["Why?"]}}
    assert "'messages[0]' has the unknown role ['user', 'assistant']" in refused(tmp_path / "d.jsonl", uneven)
