"""Rows of every layout brought to one mean the same as before."""

import dataclasses
import json

import pytest

from alignment.data.detection import decoded
from alignment.data.fields import BadRow
from alignment.data.layouts import Only
from alignment.data.readers import RawRow
from alignment.data.recognition import recognise
from alignment.data.rows import Demonstration, Ranking
from alignment.errors import AlignmentError
from alignment.prepare.conversion import converter
from tests.data.layout_rows import CASES
from tests.prepare.running import prepare, write_rows


def meaning(parsed):
    """Return what a row means, a lone prompt of text as a message of the user."""
    if isinstance(parsed, Demonstration):
        turns = parsed.conversation()
        return turns, parsed.trained(), parsed.tools and json.loads(parsed.tools), parsed.desirable
    if isinstance(parsed, Only):
        prompt = parsed.prompt
        return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return parsed.prompt, parsed.responses, [dataclasses.replace(pair, verdicts=()) for pair in parsed.pairs]


@pytest.mark.parametrize("name", CASES)
def test_a_converted_row_means_the_same(name):
    row = decoded(CASES[name].row)
    layout = recognise(row, name)
    for parsed in layout.read(row):
        to = "ranking" if isinstance(parsed, Ranking) else "messages"
        if (isinstance(parsed, Demonstration) and not parsed.prompt) or layout.name == "answers":
            with pytest.raises(BadRow):
                converter(to)(parsed, RawRow("f:1", row), layout)
            continue
        new = json.loads(json.dumps(converter(to)(parsed, RawRow("f:1", row), layout)))
        again = recognise(new, name)
        assert again.name in (to, "kto")
        (read,) = again.read(new)
        assert meaning(read) == meaning(parsed)


def test_data_sets_of_two_layouts_are_prepared_together(tmp_path):
    files = [
        write_rows(tmp_path / "a.jsonl", [{"instruction": "Hi", "output": "Ho", "id": 7}]),
        write_rows(tmp_path / "b.jsonl", [{"prompt": "q", "completion": "a"}]),
    ]
    run = prepare(tmp_path, files, {"kind": "clean"}, layout="messages")
    turns = [[turn["content"] for turn in row["messages"]] for row in run.rows()]
    assert turns == [["Hi", "Ho"], ["q", "a"]]
    assert [row["id"] for row in run.rows()] == [7, None]
    with pytest.raises(AlignmentError, match="compares no answers"):
        prepare(tmp_path, files, {"kind": "clean"}, layout="ranking", overwrite=True)


def test_labelled_and_plain_rows_stay_apart(tmp_path):
    files = [
        write_rows(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "x", "label": True}]),
        write_rows(tmp_path / "b.jsonl", [{"prompt": "q", "completion": "a"}]),
    ]
    with pytest.raises(AlignmentError, match=r"layouts kto \(.*a.jsonl:1\) and messages"):
        prepare(tmp_path, files, {"kind": "clean"}, layout="messages")
