"""The layout of a whole file: found over all rows, printed once, and asked for where two fit."""

import pytest

from alignment.data import load_demonstrations, load_prompts, load_rankings
from tests.data import written
from tests.data.written import PAIR, A, U

CHAT = {"messages": [U, A]}
HH = {"chosen": "\n\nHuman: Why?\n\nAssistant: Because.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."}


def load(tmp_path, *rows, loader=load_rankings, **more):
    return written.load(tmp_path, *rows, loader=loader, **more)


def refused(tmp_path, *rows, loader=load_rankings, **more):
    return written.refused(tmp_path, *rows, loader=loader, **more)


@pytest.mark.parametrize(
    ("odd", "rest", "layout", "fault"),
    [
        ({"prompt": "Why?"}, PAIR, "preference", "the field 'chosen' is missing"),
        ({"chosen": "Why? So.", "rejected": "Why? Not."}, PAIR, "preference", "the field 'prompt' is missing"),
        ({"chosen": "Why? So.", "rejected": "Why? Not."}, HH, "hh", "'chosen' does not begin with '\\n\\nHuman:'"),
        ({"messages": [U, A]}, {**CHAT, "label": True}, "kto", "'label' is None"),
        (
            {"prompt": "Why?", "responses": ["a", "b"]},
            {"prompt": "Who?", "responses": ["a", "b"], "ranks": [1, 2]},
            "ranking",
            "the row has no 'pairs', 'ranks' or 'scores'",
        ),
        (
            {"prompt": "Why?"},
            {"prompt": "Who?", "completion": "I."},
            "prompt_completion",
            "the field 'completion' is missing",
        ),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_no_row_decides_for_the_others(tmp_path, odd, rest, layout, fault, first):
    rows = [odd, rest] if first else [rest, odd]
    message = refused(tmp_path, *rows, loader=load_prompts)
    assert message.startswith(f"d.jsonl:{1 if first else 2}: ")
    assert fault in message
    loaded = load(tmp_path, *rows, loader=load_prompts, on_bad_row="skip")
    assert list(loaded.formats.values()) == [layout]
    assert (len(loaded.rows), len(loaded.skipped)) == (1, 1)


@pytest.mark.parametrize(
    ("one", "other", "layouts"),
    [
        (CHAT, {"instruction": "Why?", "output": "So."}, "messages (d.jsonl:1) and alpaca (d.jsonl:2)"),
        (CHAT, {"conversations": [U, A]}, "sharegpt (d.jsonl:2) and messages (d.jsonl:1)"),
        (PAIR, {"text": "Once."}, "preference (d.jsonl:1) and text (d.jsonl:2)"),
    ],
)
def test_a_file_of_two_layouts_asks_for_the_format(tmp_path, one, other, layouts):
    for rows in ((one, other), (one, one, other)):
        message = refused(tmp_path, *rows, on_bad_row="skip")
        assert message.replace("d.jsonl:3", "d.jsonl:2").startswith(f"d.jsonl: its rows fit the layouts {layouts}.")
        assert "Name the one to read with format" in message
    named = layouts.split(" ")[0]
    loaded = load(tmp_path, one, other, format=named, on_bad_row="skip", loader=load_demonstrations)
    assert (len(loaded.rows), len(loaded.skipped)) == (1, 1)


def test_fields_that_are_null_do_not_make_a_layout(tmp_path):
    null = dict.fromkeys(("messages", "conversations", "instruction", "output", "text", "system"))
    assert list(load(tmp_path, {**null, **PAIR}).formats.values()) == ["preference"]


@pytest.mark.parametrize(
    "change",
    [lambda text: f" {text}", lambda text: text.lstrip(), lambda text: f"\n\n\n{text}"],
)
def test_transcripts_with_other_blanks_at_their_start_are_hh(tmp_path, change):
    loaded = load(tmp_path, {key: change(text) for key, text in HH.items()}, HH)
    assert list(loaded.formats.values()) == ["hh"]
    assert [(row.prompt, row.responses) for row in loaded.rows] == [([U], ["Because.", "No."])] * 2


def test_transcripts_that_the_assistant_begins_and_wide_colons(tmp_path):
    hello = {key: f"\n\nAssistant: Hello.{text}" for key, text in HH.items()}
    assert [one["role"] for one in load(tmp_path, hello).rows[0].prompt] == ["assistant", "user"]
    wide = {key: text.replace(":", "：") for key, text in HH.items()}
    assert "'chosen' does not begin with '\\n\\nHuman:'" in refused(tmp_path, wide)


@pytest.mark.parametrize(
    ("row", "loader", "line"),
    [
        (PAIR, load_rankings, "preference; first row: prompt text 'Why?', 'Because.' beats 'No.'"),
        (
            {**PAIR, "probability": 0.0},
            load_rankings,
            "preference; first row: prompt text 'Why?', 'No.' beats 'Because.'",
        ),
        (
            {**PAIR, "probability": 0.75},
            load_rankings,
            "preference; first row: prompt text 'Why?', 'Because.' beats 'No.', probability 0.75",
        ),
        (HH, load_rankings, "hh; first row: prompt of 1 message (user) ending 'Why?', 'Because.' beats 'No.'"),
        (
            CHAT,
            load_demonstrations,
            "messages; first row: prompt of 1 message (user) ending 'Why?', answer 'Because.'",
        ),
        (
            {**CHAT, "system": "Hm.", "tools": '[{"name": "add"}]'},
            load_demonstrations,
            "messages; first row: prompt of 2 messages (system, user) with tools ending 'Why?', answer 'Because.'",
        ),
        ({"text": "Once\nmore."}, load_demonstrations, "text; first row: text 'Once\\nmore.'"),
        ({"prompt": "Why?"}, load_prompts, "prompt; first row: prompt text 'Why?', no answer"),
        (
            {"prompt": "Why?", "responses": ["a", "b", "c"], "ranks": [1, 2, 3]},
            load_rankings,
            "ranking; first row: prompt text 'Why?', 3 answers in 3 comparisons, the first 'a'",
        ),
    ],
)
def test_each_detected_file_prints_one_line(tmp_path, capsys, row, loader, line):
    load(tmp_path, row, row | {"id": 2}, loader=loader)
    assert capsys.readouterr().err == f"{tmp_path}/d.jsonl: layout {line}\n"
    load(tmp_path, row, row, loader=loader)
    assert capsys.readouterr().err == ""  # a run reads a file several times


def test_a_file_whose_format_is_named_prints_its_line_too(tmp_path, capsys):
    load(tmp_path, PAIR, format="preference")
    assert capsys.readouterr().err.startswith(f"{tmp_path}/d.jsonl: layout preference; first row: prompt text 'Why?'")


def test_rows_that_are_left_out_are_counted_in_one_line(tmp_path, capsys):
    loaded = load(tmp_path, PAIR, {**PAIR, "chosen": ""}, {**PAIR, "chosen": None}, on_bad_row="skip")
    assert len(loaded.rows) == 1
    (line,) = capsys.readouterr().err.splitlines()[1:]
    assert line == f"left out 2 of 3 rows (on_bad_row: skip); the first is {tmp_path}/d.jsonl:2: 'chosen' is empty"


def test_a_file_has_prompts_of_one_kind(tmp_path):
    text, chat = {"prompt": "Why?", "completion": "So."}, {"prompt": [U], "completion": "So."}
    system = {**text, "system": "Be kind."}
    for other in (chat, system):
        for rows in ([text, other], [other, text]):
            message = refused(tmp_path, *rows, loader=load_demonstrations, on_bad_row="skip")
            places = (rows.index(text) + 1, rows.index(other) + 1)
            assert f":{places[0]} has a prompt of text, and " in message
            assert f":{places[1]} one of messages (a column of system or tools" in message
    assert len(load(tmp_path, {**system, "system": "Be brief."}, system, loader=load_demonstrations).rows) == 2


def test_labels_may_be_of_files_of_both_kinds(tmp_path):
    rows = [{**PAIR, "prompt": prompt, "provenance": {"judge": "j"}} for prompt in ("Why?", [U])]
    assert len(load(tmp_path, *rows).rows) == 2
