"""Lines end at \\n alone, whatever stands in their texts."""

import ast
import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment.errors import AlignmentError
from alignment.json_lines import line_of, lines_of, objects_of, read_ours, split
from alignment.run.files import append_jsonl, read_jsonl, write_jsonl

ROOT = Path(__file__).parents[1]
ENDS = "\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # where str.splitlines splits beside \n


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers(-9, 9))))
def test_rows_of_any_text_are_read_as_they_were_written(rows):
    text = lines_of(rows)
    assert list(objects_of(text.encode(), "x")) == rows
    assert len(text.splitlines()) == len(rows)  # for readers that split there
    assert [json.loads(line) for line in text.splitlines()] == rows


@pytest.mark.parametrize("character", [*ENDS, "\n", "\x00", "\ud800", "\ufeff", "\ufffe"])
def test_every_end_of_a_line_survives_our_files(tmp_path, character):
    row = {"prompt": f"a{character}b", f"k{character}": [f"{character}"]}
    write_jsonl(tmp_path / "x.jsonl", [row, row])
    append_jsonl(tmp_path / "x.jsonl", row)
    assert read_jsonl(tmp_path / "x.jsonl") == [row] * 3


@pytest.mark.parametrize("character", ENDS.strip("\r\x0b\x0c\x1c\x1d\x1e"))
def test_a_file_of_unescaped_ends_is_read_too(tmp_path, character):
    """A file that an earlier version wrote holds them as they are."""
    rows = [{"prompt": f"a{character}b"}] * 2
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert read_jsonl(tmp_path / "x.jsonl") == rows


def test_a_cut_off_last_line_is_left_out_wherever_it_is_cut():
    content = lines_of([{"a": "é\u2028"}, {"b": "日本"}]).encode()
    for end in range(len(content)):
        kept = list(objects_of(content[:end], "x"))
        assert (
            kept == ([{"a": "é\u2028"}, {"b": "日本"}] if end == len(content) - 1 else [{"a": "é\u2028"}])[: len(kept)]
        )


@pytest.mark.parametrize("line", [b"{", b"[1]", b"\xff", b'{"a": 1, "a": 2}', b"[" * 9999, b"\0"])
def test_another_damaged_line_is_named(tmp_path, line):
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 1}\n')
    with pytest.raises(AlignmentError, match=r"x\.jsonl:2: .*changed or damaged"):
        read_ours(tmp_path / "x.jsonl")


def test_blank_lines_keep_the_numbers_of_the_others():
    assert list(split(b"\n \r\na\n\nb")) == [(3, b"a"), (5, b"b")]


def test_a_diverged_loss_is_read_as_it_was_written():
    (row,) = objects_of(line_of({"loss": float("nan"), "kl": float("inf")}).encode(), "x")
    assert row["loss"] != row["loss"]
    assert row["kl"] == float("inf")


def test_python_s_csv_splits_rows_at_none_of_the_others():
    """What `alignment.data.readers` builds on: only \\n and \\r end a row of a CSV."""
    for character in ENDS.removeprefix("\r"):
        assert list(csv.reader(io.StringIO(f"a{character}b,c\n", newline=""))) == [[f"a{character}b", "c"]]


OF_NO_ROWS = {  # what a process printed and /proc/cpuinfo; a job file's lines, to show them
    "benchmarks/ppo_trl.py",
    "benchmarks/comparison.py",
    "alignment/launch/command.py",
}


def readers_that_split_at_more(tree):
    """Functions that read a file or JSON, and use str.splitlines on more than an error's words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            calls = [inner.func for inner in ast.walk(node) if isinstance(inner, ast.Call)]
            methods = [function for function in calls if isinstance(function, ast.Attribute)]
            splits = [ast.unparse(one.value) for one in methods if one.attr == "splitlines"]
            reads = {one.attr for one in methods} & {"read_text", "read_bytes", "read", "loads", "open"}
            if reads and any("error" not in words for words in splits):
                yield node.name


def test_no_reader_of_a_file_splits_it_at_more_than_line_feeds():
    found = {}
    for package in ("alignment", "reward", "recipes", "benchmarks"):
        for file in sorted((ROOT / package).rglob("*.py")):
            names = list(readers_that_split_at_more(ast.parse(file.read_text(encoding="utf-8"))))
            if names and str(file.relative_to(ROOT)) not in OF_NO_ROWS:
                found[str(file)] = names
    assert found == {}


def test_the_walk_sees_such_a_reader():
    assert list(readers_that_split_at_more(ast.parse("def f(p):\n    return p.read_text().splitlines()"))) == ["f"]
