"""NUL is refused in every text that is trained; text that was decoded wrongly before is counted and reported."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations, load_prompts, load_rankings
from alignment.errors import DataError
from alignment.meter import say_once
from tests.data import written
from tests.data.written import PAIR, A, U

NUL = "a\0b"
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": NUL}}}]}
HASHES = dict.fromkeys(("tokenizer_sha256", "template_sha256", "prompt_sha256"), "ab")


@pytest.mark.parametrize(
    ("loader", "row"),
    [
        (load_demonstrations, {"text": NUL}),
        (load_demonstrations, {"prompt": "Why?", "completion": NUL}),
        (load_demonstrations, {"messages": [{**U, "content": NUL}, A]}),
        (load_demonstrations, {"messages": [{**one, "content": [{"type": "text", "text": NUL}]} for one in (U, A)]}),
        (load_demonstrations, {"messages": [U, {**A, "reasoning_content": NUL}]}),
        (load_demonstrations, {"messages": [U, CALL]}),
        (load_demonstrations, {"messages": [U, A], "tools": [{"name": "f", "description": NUL}]}),
        (load_demonstrations, {"instruction": "Why?", "output": "No.", "history": [[NUL, "b"]]}),
        (load_rankings, {**PAIR, "rejected": NUL}),
        (load_rankings, {"prompt": "Why?", "chosen": [NUL], "rejected": ["b"]}),
        (load_rankings, {"prompt": "Why?", "responses": ["a", NUL], "ranks": [1, 2]}),
        (load_prompts, {"prompt": [{**U, "content": NUL}]}),
    ],
)
def test_nul_in_a_text_is_refused(tmp_path, loader, row):
    message = written.refused(tmp_path, row, loader=loader)
    assert message.startswith("d.jsonl:1: ")
    assert "holds a NUL character at position 1, as no text does" in message
    assert "\0" not in message
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="holds a NUL character"):
        loader([DatasetEntry(path=str(tmp_path / "d.parquet"))], on_bad_row="stop", seed=0)


def test_nul_in_an_answer_that_a_policy_sampled_is_kept_with_its_tokens(tmp_path):
    sampled = {**HASHES, "prompt_ids": [1], "response_ids": [[3], [4]]}
    for provenance in ({"stopped": [True, True]}, {"sampled_tokens": [sampled]}):
        row = {"prompt": "Why?", "responses": [NUL, "b"], "pairs": [{"first": 0, "second": 1, "probability": 1.0}]}
        (found,) = written.load(tmp_path, {**row, "provenance": provenance}, loader=load_rankings).rows
        assert found.responses[0] == NUL


@pytest.mark.parametrize("text", ["caf\ufffd au lait", "it\u00e2\u20ac\u2122s"])
def test_rows_that_were_decoded_wrongly_before_are_counted_with_the_first(tmp_path, text, capsys):
    say_once.cache_clear()
    rows = [{"messages": [U, A]}, {"messages": [{**U, "content": text}, A]}, {"messages": [U, {**A, "content": text}]}]
    assert len(written.load(tmp_path, *rows, loader=load_demonstrations).rows) == 3
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "decoded wrongly" in one]
    assert "d.jsonl: 2 rows hold text that was decoded wrongly before it was saved" in line
    assert f"d.jsonl:2, {text!r}" in line


def test_whole_text_and_sampled_answers_are_not_reported_as_damaged(tmp_path, capsys):
    say_once.cache_clear()
    written.load(tmp_path, {"messages": [U, {**A, "content": "Café — 10 €, „ja“ 中文 🙂"}]}, loader=load_demonstrations)
    row = {"prompt": "Why?", "responses": ["a\ufffd", "b"], "pairs": [], "provenance": {"stopped": [False, True]}}
    written.load(tmp_path, row, loader=load_rankings)
    assert "decoded wrongly" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (json.dumps({"messages": [U, A]}) + "\n\n" + json.dumps({"messages": [U, A]}) + "\n", "jsonl"),
        (json.dumps([PAIR]), "jsonl"),
        (json.dumps([PAIR, PAIR], indent=2), "json"),
        (json.dumps({"data": [PAIR]}, indent=2), "json"),
    ],
)
def test_a_text_file_that_holds_json_is_refused_with_the_name_to_give_it(tmp_path, content, kind):
    path = tmp_path / "d.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"d\.txt holds JSON.* Rename it to \.{kind};"):
        load_demonstrations([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0)


@pytest.mark.parametrize("content", ['{"a": 1}\nis an object.\n', "[1] A note.\n\n[2] Another.\n", "{\n", "[1, 2]\n"])
def test_a_text_file_that_only_shows_json_is_read(tmp_path, content):
    path = tmp_path / "d.txt"
    path.write_text(content)
    assert load_demonstrations([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0).rows


@pytest.mark.parametrize("header", ["prompt;completion", "prompt;completion, long", "prompt\tcompletion,x", "a|b"])
def test_a_csv_whose_header_is_parted_by_another_mark_is_refused(tmp_path, header):
    path = tmp_path / "d.csv"
    path.write_text(f"{header}\nx;y, z\n")
    with pytest.raises(DataError, match=r"d\.csv:1: the columns are parted by .* by commas; save it so\.") as caught:
        load_demonstrations([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0)
    assert ("is the name of a column, rename it" in str(caught.value)) == ("," in header)
    path.write_text("sep=,\nprompt,completion\nx,y\n")
    with pytest.raises(DataError, match="for Excel alone; remove it"):
        load_demonstrations([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0)


@pytest.mark.parametrize(
    "value",
    [
        {"prompt": ["a", "b"], "completion": ["c", "d"]},
        {"id": [1, 2], "instruction": ["a", "b"], "output": ["c", "d"]},
        {"prompt": {"0": "a", "1": "b"}, "completion": {"0": "c", "1": "d"}},
        {"columns": ["prompt", "completion"], "index": [0], "data": [["a", "b"]]},
    ],
)
def test_a_json_file_of_columns_is_refused_with_how_to_write_rows(tmp_path, value):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"d\.json holds columns, not rows: write an object for each row"):
        load_demonstrations([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0)


@pytest.mark.parametrize(
    ("loader", "value"),
    [
        (load_demonstrations, {"prompt": [U], "completion": [A]}),
        (load_rankings, {"prompt": "Why?", "chosen": ["a"], "rejected": ["b"]}),
        (load_rankings, {"chosen": [U, A], "rejected": [U, {**A, "content": "No."}]}),
        (load_demonstrations, {"messages": ["Why?", "Because."]}),
        (load_demonstrations, {"id": 1, "number": 2, "prompt": "Why?", "completion": "Because."}),
        (load_demonstrations, {"metadata": {"0": "a"}, "instruction": "Why?", "input": "", "output": "Because."}),
    ],
)
def test_a_json_file_of_one_row_with_lists_is_read(tmp_path, loader, value):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(value))
    assert len(loader([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0).rows) == 1
