"""Every text that a layout's reader gives to training is found in the row, with its role, and can be replaced."""

import itertools
import json

import pytest

from alignment.data.detection import decoded
from alignment.data.formats import FORMATS
from alignment.data.rankings import RATINGS
from alignment.data.recognition import recognise
from alignment.data.rows import Demonstration
from alignment.data.texts import TEXTS, texts_of, with_texts
from alignment.data.thumbs import KEYS
from tests.data.layout_rows import CASES

NO_TEXTS = {  # keys of layouts that hold no text to read
    "pairs", "ranks", "scores", "provenance", "tools", "message_tree_id", "tree_state", "label", "better",
    "preference_strength", "winner", "fields", "id", "status", "data", "annotations", "probability", "margin",
}  # fmt: skip


def contents(prompt):
    return [prompt] if isinstance(prompt, str) else [m["content"] for m in prompt if not m.get("tool_calls")]


def test_every_key_that_a_layout_reads_is_a_text_or_is_known_as_none():
    keys = {key for layout in FORMATS for key in layout.reads}
    assert keys - TEXTS.keys() - NO_TEXTS == {*itertools.chain.from_iterable(RATINGS), *KEYS} - {"label"}


@pytest.mark.parametrize("name", CASES)
def test_prompts_and_answers_of_every_layout_are_found(name):
    row = decoded(CASES[name].row)
    layout = recognise(row, name)
    texts = texts_of(row, layout)
    of = {
        role: "\n".join(text.text for text in texts if text.role == role)
        for role in ("prompt", "answer", "rejected", "system")
    }
    every = "\n".join(of.values())
    for parsed in layout.read(row):
        for words in contents(parsed.prompt):
            assert all(line in every for line in words.split("\n")), (words, texts)
        if isinstance(parsed, Demonstration):
            if not (parsed.answer or {}).get("tool_calls"):
                assert parsed.completion.split("</think>\n\n")[-1] in of["answer"]
        else:
            for words in getattr(parsed, "responses", []):
                if "<tool_call>" not in words:
                    assert words.split("</think>\n\n")[-1] in of["answer"] + of.get("rejected", "")


@pytest.mark.parametrize("name", CASES)
def test_replaced_texts_are_in_their_places(name):
    row = decoded(CASES[name].row)
    before = json.dumps(row)
    texts = texts_of(row, recognise(row, name))
    new = with_texts(row, texts, [f"<{text.text}>" for text in texts])
    assert json.dumps(row) == before
    again = texts_of(new, recognise(new, name))
    assert [text.text for text in again] == [f"<{text.text}>" for text in texts]
    assert [text.role for text in again] == [text.role for text in texts]


def test_the_context_of_a_rejected_answer_repeats():
    row = {"chosen": "\n\nHuman: Hi\n\nAssistant: Yes", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}
    texts = texts_of(row, recognise(row, "x"))
    assert [(text.role, text.text, text.repeats) for text in texts] == [
        ("prompt", "Hi", False), ("answer", "Yes", False), ("prompt", "Hi", True), ("rejected", "No", False)
    ]  # fmt: skip


def test_an_empty_turn_of_a_transcript_ends_where_the_next_begins():
    row = {"chosen": "\n\nHuman: \n\nAssistant:  Hi \n\n\nHuman: a\n\nb\n\nAssistant:Yes\n"}
    texts = texts_of(
        {**row, "rejected": "\n\nHuman: a\n\nAssistant: b"}, next(one for one in FORMATS if one.name == "hh")
    )[:4]
    assert [(text.role, text.text) for text in texts] == [
        ("prompt", ""), ("prompt", "Hi"), ("prompt", "a\n\nb"), ("answer", "Yes")
    ]  # fmt: skip
    assert all(row["chosen"][text.span[0] : text.span[1]] == text.text for text in texts)
