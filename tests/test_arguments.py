"""Impossible arguments of a command are refused before it runs."""

import os
from pathlib import Path

import pytest

from alignment.cli.arguments import require_arguments
from alignment.errors import RecipeError
from alignment.planner.machine import MOST_GPUS, machine, parse_bytes


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("a\nb", "a control character"),
        ("a\x1b[31mb", "a control character"),
        ("a\u2028b", "a line separator"),
        ("\udcff", "a byte that is not UTF-8"),
        ("x" * 5000, "it has 5000 characters, more than the 4096"),
        (Path("ü" * 200), "a name in it is longer than the 255 bytes"),
    ],
)
def test_an_invalid_argument_is_refused_in_one_line(word, said):
    for given in (word, ["good", word]):
        with pytest.raises(RecipeError) as told:
            require_arguments({"output": given})
        assert said in str(told.value)
        assert str(told.value).startswith("output ")
        assert str(told.value).isprintable()
        assert len(str(told.value)) < 250


@pytest.mark.parametrize("word", ["", " "])
def test_an_empty_word_among_several_is_refused(word):
    with pytest.raises(RecipeError, match=r"files '.?': it is empty"):
        require_arguments({"files": ["good", word]})


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(RecipeError, match="a link that leads back to itself"):
        require_arguments({"run": tmp_path / "loop"})


def test_a_possible_api_key_is_not_shown():
    with pytest.raises(RecipeError) as told:
        require_arguments({"api_key_env": "sk-secret\n"})
    assert "secret" not in str(told.value)


def test_paths_names_and_numbers_pass(tmp_path):
    strange = tmp_path / "文件 with blanks, \u3000 and 'quotes'"
    require_arguments(
        {"run": strange, "model": "org/model", "files": ["a", "b"], "seed": 3, "output": None, "chat": False}
    )
    require_arguments({"run": Path(os.devnull), "missing": tmp_path / "nope"})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gpus": 10**400}, f"at most {MOST_GPUS} are planned for"),
        ({"gpus": 0}, "at least one device is needed"),
        ({"memory": "1" + "0" * 400 + "GB"}, "is not a size"),
        ({"memory": "100000TB"}, "is not a size"),
        ({"tflops": float("inf")}, "--tflops inf: give a number above 0"),
        ({"tflops": float("nan")}, "--tflops nan: give a number above 0"),
        ({"strategy": ""}, "--strategy  is not known"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_in_one_line(given, said):
    with pytest.raises(RecipeError) as told:
        machine(**{"gpus": 1, "memory": "80GiB", "strategy": None, **given})
    assert said in str(told.value)
    assert len(str(told.value)) < 200
    assert parse_bytes("80GiB") == 80 * 2**30


def test_an_output_that_replaces_an_input_is_refused(tmp_path):
    rows, run = tmp_path / "rows.jsonl", tmp_path / "run"
    run.mkdir()
    files = [rows, run / "labels.jsonl", run / "manifest.json", run / "adapter_config.json", run / "model.safetensors"]
    for file in files:
        file.write_text("{}")
    (tmp_path / "link.jsonl").symlink_to(rows)
    for output in (rows, tmp_path / "link.jsonl", run / ".." / "rows.jsonl"):
        for name in ("json", "json_out", "out", "output", "suggestions", "calibrated"):
            with pytest.raises(RecipeError, match=r"it is also read, and would be replaced; name another file"):
                require_arguments({"files": [str(rows)], name: output})
    for output in files[1:]:
        with pytest.raises(RecipeError, match=r"it is a file of .*, which is read, and would be replaced"):
            require_arguments({"labels": [run], "json": output})
    with pytest.raises(RecipeError, match="json names the same file; name another"):
        require_arguments({"labels": [rows], "json": tmp_path / "new", "out": run / ".." / "new"})


def test_an_output_that_replaces_an_earlier_one_is_not_refused(tmp_path):
    for name in ("audit.html", "numbers.json", "people.jsonl"):
        (tmp_path / name).write_text("{}")
        require_arguments({"labels": [tmp_path], "output": tmp_path / name})
    require_arguments({"labels": [tmp_path], "output": tmp_path / "manifest.json"})  # there is none to replace
