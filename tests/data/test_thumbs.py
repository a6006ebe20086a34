"""Labels of good and bad answers are read in every form that data sets use; others are refused with what is allowed."""

import pytest

from alignment.data import load_demonstrations, load_prompts
from alignment.meter import say_once
from tests.data import written
from tests.data.written import A, U

ALLOWED = "write true or false, 1 or 0, desirable or undesirable, chosen or rejected, thumbs_up or thumbs_down"
FORMS = [
    (True, False), (1, 0), (1.0, 0.0), ("true", "false"), ("True", "False"), ("1", "0"), ("1.0", "0.0"),
    ("desirable", "undesirable"), ("chosen", "rejected"), ("thumbs_up", "thumbs_down"), ("Thumbs up", "thumbs-down"),
]  # fmt: skip
LAYOUTS = [
    {"messages": [U, A]},
    {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]},
    {"prompt": "Why?", "completion": "Because."},
    {"prompt": [U], "completion": [A]},
    {"instruction": "Why?", "input": "", "output": "Because."},
]


@pytest.mark.parametrize(("good", "bad"), FORMS)
@pytest.mark.parametrize("key", ["label", "kto_tag"])
def test_a_label_in_any_form_keeps_the_good_answers(tmp_path, good, bad, key):
    for row in LAYOUTS:
        rows = [{**row, key: bad}, {**row, key: good}]
        found = written.load(tmp_path, *rows, loader=load_demonstrations)
        assert [one.source.rpartition(":")[2] for one in found.rows] == ["2"]
        assert found.rows[0].completion == "Because."
        assert set(found.formats.values()) == {"kto"}
        assert len(written.load(tmp_path, *rows, loader=load_prompts).rows) == 2


@pytest.mark.parametrize("label", ["good", "maybe", "", [True], {"value": 1}])
def test_any_other_label_is_refused_with_what_is_allowed(tmp_path, label):
    for row in LAYOUTS:
        message = written.refused(tmp_path, {**row, "label": True}, {**row, "label": label}, loader=load_demonstrations)
        assert "d.jsonl:2: 'label' is " in message
        assert ALLOWED in message
    skipped = written.load(
        tmp_path, {**row, "label": True}, {**row, "label": label}, loader=load_demonstrations, on_bad_row="skip"
    )
    assert len(skipped.rows) == 1


@pytest.mark.parametrize("other", [2, 5, -1, 0.5, "3", "4.0"])
@pytest.mark.parametrize("on_bad_row", ["stop", "skip"])
def test_ones_and_zeros_among_ratings_are_refused_whatever_on_bad_row_is(tmp_path, other, on_bad_row):
    rows = [{"messages": [U, A], "label": 1}, {"messages": [U, A], "label": other}]
    message = written.refused(tmp_path, *rows, loader=load_demonstrations, on_bad_row=on_bad_row)
    assert "d.jsonl:2: 'label' is " in message
    assert "ratings or classes, and 1 and 0 do not mean good and bad" in message
    assert ALLOWED[1:] in message


def test_a_row_with_two_labels_or_none_is_refused(tmp_path):
    both = {"messages": [U, A], "label": True, "kto_tag": False}
    message = written.refused(tmp_path, both, loader=load_demonstrations)
    assert "the row has label and kto_tag; keep one" in message
    none = {**both, "kto_tag": None, "label": None}
    message = written.refused(tmp_path, none, {**none, "label": True}, loader=load_demonstrations)
    assert "d.jsonl:1: 'label' is None, which marks no answer as good or bad" in message


def test_a_csv_and_a_renamed_column_are_read(tmp_path):
    (tmp_path / "d.csv").write_text("prompt,completion,kto_tag\nWhy?,Because.,TRUE\nWhy?,No.,0\n")
    from alignment.config.schema import DatasetEntry

    (found,) = load_demonstrations([DatasetEntry(path=str(tmp_path / "d.csv"))], on_bad_row="stop", seed=0).rows
    assert found.completion == "Because."
    rows = [{"messages": [U, A], "thumbs_up": 1}, {"messages": [U, A], "thumbs_up": 0}]
    assert "columns: {label: thumbs_up}" in written.refused(tmp_path, *rows, loader=load_demonstrations)
    assert len(written.load(tmp_path, *rows, loader=load_demonstrations, columns={"label": "thumbs_up"}).rows) == 1


@pytest.mark.parametrize("label", [0, 3, 2.0, "sports", "1", [0, 4]])
def test_the_class_of_a_text_is_left_out_and_reported(tmp_path, label, capsys):
    say_once.cache_clear()
    (found,) = written.load(tmp_path, {"text": "Once.", "label": label}, loader=load_demonstrations).rows
    assert found.completion == "Once."
    assert f"layout text, without its label {label!r}, which is taken for a class" in capsys.readouterr().err


@pytest.mark.parametrize(
    "label", [True, False, "bad", "Thumbs down", "undesirable", "-1", -1, 0.5, [True], {"good": 1}]
)
def test_a_label_that_says_good_or_bad_of_a_text_is_refused(tmp_path, label):
    rows = {"text": "Once.", "label": 1}, {"text": "Twice.", "label": label}
    message = written.refused(tmp_path, *rows, loader=load_demonstrations, on_bad_row="skip")
    assert "d.jsonl:2: the layout text does not read 'label'" in message
    assert message.endswith("set ignore_columns: [label].")
    assert len(written.load(tmp_path, *rows, loader=load_demonstrations, ignore_columns=["label"]).rows) == 2
