"""One good row of every layout, and how a row is spoiled."""

import copy
import json

from hypothesis import strategies as st

U, A = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
HH = "\n\nHuman: Why?\n\nAssistant: "
PAIR = {"first": 0, "second": 1, "probability": 0.75, "status": "ok", "margin": 1.5}
ASKED = {"shown": "swapped", "repeat": 0, "probability": 0.25, "status": "ok", "mass": 0.9}
TREE = {
    "message_tree_id": "t",
    "prompt": {
        "message_id": "m",
        "role": "prompter",
        "text": "Why?",
        "replies": [{"role": "assistant", "text": text, "rank": rank, "replies": []} for rank, text in enumerate("ab")],
    },
}
GOOD = {
    "ranking": {"prompt": "Why?", "responses": ["a", "b", "c"], "ranks": [1, 2, 2]},
    "scores": {"prompt": [U], "responses": ["a", "b"], "scores": [0.5, -1], "id": 7},
    "pairs": {
        "prompt": "Why?",
        "responses": ["a", ""],
        "pairs": [{**PAIR, "verdicts": [ASKED]}],
        "provenance": {"judge": "m", "stopped": [True, False], "policy": {"path": "p"}},
    },
    "answers": {"prompt": "Why?", "responses": ["a", "b"]},
    "oasst": TREE,
    "llmbar": {"input": "Why?", "output_1": "a", "output_2": "b", "label": 2},
    "argilla": {
        "id": "1",
        "fields": {"prompt": "Why?", "response1": "a", "response2": "b"},
        "responses": {"best": [{"value": "response2", "user_id": "u", "status": "submitted"}]},
    },
    "argilla_ranking": {
        "fields": {"prompt": "Why?", "response1": "a", "response2": "b"},
        "responses": {
            "order": [{"value": [{"value": "response1", "rank": 1}, {"value": "response2", "rank": 2}], "user_id": "u"}]
        },
    },
    "argilla_ratings": {
        "fields": {"prompt": "Why?", "response1": "a", "response2": "b"},
        "responses": {f"response{n}-rating": [{"value": n, "user_id": "u"}] for n in (1, 2)},
    },
    "argilla_flat": {
        "id": "1",
        "prompt": "Why?",
        "response1": "a",
        "response2": "b",
        "best.responses": ["response1", "response2"],
        "best.responses.users": ["u", "v"],
        "best.responses.status": ["submitted", "draft"],
    },
    "label_studio": {
        "id": 3,
        "data": {"prompt": "Why?", "text1": "a", "text2": "b"},
        "annotations": [
            {
                "completed_by": {"id": 1},
                "result": [{"type": "pairwise", "to_name": "text1,text2", "value": {"selected": "left"}}],
            }
        ],
    },
    "label_studio_ranker": {
        "data": {"prompt": "Why?", "items": [{"id": "x", "body": "a"}, {"id": "y", "body": "b"}]},
        "annotations": [
            {"completed_by": 2, "result": [{"type": "ranker", "value": {"ranker": {"r": ["y", "x"], "_": []}}}]}
        ],
    },
    "sharegpt_dpo": {
        "conversations": [{"from": "human", "value": "Why?"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": {"from": "gpt", "value": "b"},
        "tools": '[{"name": "f"}]',
    },
    "preference": {"prompt": "Why?", "chosen": "a", "rejected": "b", "probability": 0.9, "margin": 2, "subset": "s"},
    "alpaca_preference": {"instruction": "Why?", "input": "x", "chosen": "a", "rejected": "b"},
    "preference_scores": {"prompt": "Why?", "chosen": "a", "rejected": "b", "score_chosen": 3, "score_rejected": 1.5},
    "preference_chat": {"prompt": [U], "chosen": [U, A], "rejected": [U, {**A, "content": "No."}]},
    "preference_lists": {"prompt": "Why?", "chosen": ["a"], "rejected": ["b", "c"]},
    "implicit": {"chosen": "Why? So.", "rejected": "Why? No."},
    "hh": {"chosen": HH + "a", "rejected": HH + "b"},
    "kto": {"messages": [U, A], "label": True},
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "Why?"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
            {"from": "observation", "value": "1"},
            {"from": "gpt", "value": "a"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "system": "Be short.",
    },
    "messages": {
        "messages": [U, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}, U, A]
    },
    "self_instruct": {"instruction": "Why?", "instances": [{"input": "x", "output": "a"}]},
    "alpaca": {"instruction": "Why?", "input": "x", "output": "a", "history": [["q", "r"]], "system": "s"},
    "prompt_completion": {"prompt": "Why?", "completion": "So."},
    "text": {"text": "Once."},
    "prompt": {"prompt": [U]},
}
HUGE, DUPLICATE, DEEP = "@huge@", "@twice@", "@deep@"  # what json.dumps cannot write; replaced in its text
VALUES = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        2,
        -1,
        3,
        0.5,
        10**30,
        2**53 + 1,
        1e308,
        -1e308,
        1e38,
        1e39,
        float("nan"),
        float("inf"),
        -float("inf"),
        5e-324,
        "",
        " ",
        "1",
        "true",
        "nan",
        "a",
        "\ud800",
        "x\udfff",
        "\u2028",
        "\x85",
        "\x00",
        "\x1c\r\n",
        "\x1b[31m",
        "\u202e",
        "x" * 70_000,
        "[",
        '[{"a": 1, "a": 2}]',
        "[" * 500 + "]" * 500,
        "[1e999]",
        [],
        {},
        [[]],
        [None],
        [1, "a"],
        ["a", "b"],
        [True, False],
        {"a": 1},
        {"role": "user"},
        {"": {}},
        [{"role": "user", "content": "x"}],
        HUGE,
        DUPLICATE,
        DEEP,
    ]
).map(copy.deepcopy)


def places(value, path=()):
    """Yield the path to every part of a value."""
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(part, (*path, key))


@st.composite
def spoiled_copy(draw, good):
    """A copy of a value with one or two parts replaced, taken out, renamed, doubled or added."""
    row = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 2))):
        found = list(places(row))
        if found:
            _spoil(draw, row, draw(st.sampled_from(found)))
    return row


def _spoil(draw, row, path):
    *above, key = path
    holder = row
    for step in above:
        holder = holder[step]
    what = draw(st.sampled_from(["replace", "replace", "replace", "drop", "rename", "double", "add"]))
    if what == "replace":
        holder[key] = draw(VALUES)
    elif what == "drop":
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif what == "rename":
        holder[draw(st.sampled_from(["", "\ud800", "a\nb", "x" * 500, key.upper()]))] = holder.pop(key)
    else:
        holder[draw(st.sampled_from(["label", "scores", "tools", "provenance", "pairs", "chosen", "extra"]))] = draw(
            VALUES
        )


@st.composite
def spoiled(draw, names=tuple(GOOD)):
    """A layout's name and its row, spoiled."""
    name = draw(st.sampled_from(names))
    return name, draw(spoiled_copy(GOOD[name]))


def text_of(row, ascii_only=True):
    """A row as JSON text, with what json.dumps does not write."""
    text = json.dumps(row, ensure_ascii=ascii_only)
    text = text.replace(f'"{HUGE}"', "9" * 5000).replace(f'"{DEEP}"', "[" * 3000 + "]" * 3000)
    return text.replace(f'"{DUPLICATE}"', '{"role": "user", "content": "x", "role": "user"}')
