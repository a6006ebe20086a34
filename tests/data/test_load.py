"""Files, folders, the Hub and mixtures: what is read, where each row stands, and what bad input says."""

import gzip
import hashlib
import json

import pytest

from alignment.config.schema import DatasetEntry
from alignment.data import load_demonstrations, load_prompts, load_rankings
from alignment.data.sources import read_hub
from alignment.errors import DataError

ROWS = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(10)]
PICTURE = b"\x89PNG\r\n\x1a\n"


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def load(*entries, on_bad_row="stop", loader=load_demonstrations, **more):
    entries = [DatasetEntry(**entry) if isinstance(entry, dict) else DatasetEntry(path=str(entry)) for entry in entries]
    return loader(entries, on_bad_row=on_bad_row, seed=3, **more)


def completions(loaded):
    return [row.completion for row in loaded.rows]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content)
    return path


def message_of(*args, **more):
    with pytest.raises(DataError) as caught:
        load(*args, **more)
    return str(caught.value)


def parquet(path, rows):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


# --- every kind of file gives the same rows, each with its place


def test_jsonl_counts_lines_and_passes_over_blank_ones(tmp_path):
    path = write(tmp_path / "a.jsonl", "\n" + jsonl(ROWS[:1]) + "  \r\n" + jsonl(ROWS[1:2]))
    loaded = load(path)
    assert [row.source for row in loaded.rows] == [f"{path}:2", f"{path}:4"]
    assert loaded.files == {str(path): hashlib.sha256(path.read_bytes()).hexdigest()}


def test_json_array_gives_the_line_of_each_element(tmp_path):
    path = write(tmp_path / "a.json", json.dumps(ROWS[:3], indent=1))
    # [ is line 1; every element has 4 lines: { prompt completion }
    assert [row.source for row in load(path).rows] == [f"{path}:2", f"{path}:6", f"{path}:10"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson", "a.JSONL"])
def test_byte_order_mark_and_lines_in_json(tmp_path, name):
    path = write(tmp_path / name, b"\xef\xbb\xbf" + jsonl(ROWS).encode())
    assert completions(load(path)) == [f"c{i}" for i in range(10)]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz"])
def test_gzip(tmp_path, name):
    path = write(tmp_path / name, gzip.compress(jsonl(ROWS).encode()))
    loaded = load(path)
    assert completions(loaded) == [f"c{i}" for i in range(10)]
    assert loaded.rows[9].source == f"{path}:10"


def test_parquet(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "system": None}]
    path = parquet(tmp_path / "a.parquet", rows)
    (row,) = load(path).rows
    assert (row.prompt, row.completion, row.source) == ([{"role": "user", "content": "a"}], "b", f"{path}:1")


def test_csv_with_breaks_in_cells(tmp_path):
    path = write(tmp_path / "a.csv", 'prompt,completion\n"one\ntwo",three\n\nfour,"fi""ve"\n')
    loaded = load(path)
    assert [(row.prompt, row.completion) for row in loaded.rows] == [("one\ntwo", "three"), ("four", 'fi"ve')]
    assert [row.source for row in loaded.rows] == [f"{path}:2", f"{path}:5"]


def test_csv_holds_lists_and_labels_as_text(tmp_path):
    cell = json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]).replace('"', '""')
    path = write(tmp_path / "a.csv", f'messages,label\n"{cell}",True\n"{cell}",False\n')
    assert len(load(path).rows) == 1
    assert len(load(path, loader=load_prompts).rows) == 2


@pytest.mark.parametrize(
    ("columns", "cells", "probability", "margin"),
    [
        ("margin", "1.5", 1.0, 1.5),
        ("margin", "", 1.0, None),
        ("probability,margin", "0.8, 2 ", 0.8, 2.0),
        ("score_chosen,score_rejected", "8,2.5", 1.0, 5.5),
        ("chosen-rating,rejected-rating", "5,3", 1.0, 2.0),
        ("score_chosen,score_rejected", ",2.5", 1.0, None),
    ],
)
def test_csv_holds_numbers_as_text(tmp_path, columns, cells, probability, margin):
    path = write(tmp_path / "a.csv", f"prompt,chosen,rejected,{columns}\np,a,b,{cells}\n")
    (row,) = load(path, loader=load_rankings).rows
    assert (row.pairs[0].probability, row.pairs[0].margin) == (probability, margin)


@pytest.mark.parametrize("cell", ["high", "true", "1.5.1", '"1,5"', "nan", "1e999", "[1]", "-1"])
def test_csv_holds_other_text_in_place_of_a_number(tmp_path, cell):
    path = write(tmp_path / "a.csv", f"prompt,chosen,rejected,margin\np,a,b,{cell}\n")
    with pytest.raises(DataError, match=r"a\.csv:2: 'margin' is"):
        load(path, loader=load_rankings)


def test_rows_whose_comparisons_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("alignment.data.source_rows.MOST_COMPARISONS", 5)
    row = {"prompt": "p", "responses": ["a", "b", "c"], "ranks": [1, 2, 3]}
    path = write(tmp_path / "a.jsonl", "".join(json.dumps({**row, "prompt": str(n)}) + "\n" for n in range(2)))
    with pytest.raises(DataError, match=r"a\.jsonl:2: with this row the data compares answers more than 5 times"):
        load(path, loader=load_rankings)


def test_csv_cell_longer_than_pythons_limit(tmp_path):
    path = write(tmp_path / "a.csv", f"text\n{'x' * 200_000}\n")
    assert len(load(path).rows[0].completion) == 200_000


def test_text_is_parted_by_blank_lines(tmp_path):
    path = write(tmp_path / "a.txt", "one\ntwo\r\n\n \nthree\x85four\n")
    loaded = load(path)
    assert completions(loaded) == ["one\ntwo", "three\x85four"]
    assert [row.source for row in loaded.rows] == [f"{path}:1", f"{path}:5"]


def test_text_is_parted_by_end_of_text_lines_where_there_are_such(tmp_path):
    path = write(tmp_path / "a.txt", "one\n\ntwo\n<|endoftext|>\nthree\n")
    assert completions(load(path)) == ["one\n\ntwo", "three"]


# --- folders


def test_folder_reads_all_files_in_order_and_each_in_its_format(tmp_path):
    write(tmp_path / "b.jsonl", jsonl([{"text": "t"}]))
    write(tmp_path / "a.json", json.dumps(ROWS[:2]))
    write(tmp_path / "c.csv", "prompt,completion\nx,y\n")
    write(tmp_path / "LICENSE.txt", "You may.")
    write(tmp_path / ".cache/d.jsonl", "junk")
    loaded = load(tmp_path)
    assert completions(loaded) == ["c0", "c1", "t", "y"]
    assert list(loaded.formats.values()) == ["prompt_completion", "text", "prompt_completion"]


def test_folder_keeps_splits_apart(tmp_path):
    write(tmp_path / "train.jsonl", jsonl(ROWS[:6]))
    write(tmp_path / "my_test-00000-of-00001.jsonl", jsonl(ROWS[6:8]))
    write(tmp_path / "dev/rows.jsonl", jsonl(ROWS[8:]))
    assert completions(load(tmp_path)) == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert completions(load({"path": str(tmp_path), "split": "test"})) == ["c6", "c7"]
    assert completions(load({"path": str(tmp_path), "split": "validation[1:]"})) == ["c9"]
    write(tmp_path / "extra.jsonl", jsonl(ROWS[:1]))  # beside files with a split in their names it has none
    assert len(load(tmp_path).rows) == 6
    message = message_of({"path": str(tmp_path), "split": "gold"})
    assert message == f"{tmp_path} has no split 'gold'; its file names give test, train, validation."


def test_folder_of_a_labelling_run_gives_its_rankings(tmp_path):
    ranking = {"prompt": "p", "responses": ["a", "b"], "scores": [1, 2]}
    write(tmp_path / "labels.jsonl", jsonl([ranking]))
    write(tmp_path / "manifest.json", "{}")
    write(tmp_path / "samples.jsonl", jsonl(ROWS))
    loaded = load(tmp_path, loader=load_rankings)
    assert list(loaded.files) == [str(tmp_path / "labels.jsonl")]
    assert loaded.rows[0].responses == ["a", "b"]


def test_data_files_data_dir_and_name_choose_in_a_folder(tmp_path):
    write(tmp_path / "en/one/a.jsonl", jsonl(ROWS[:1]))
    write(tmp_path / "en/one/b.jsonl", jsonl(ROWS[1:2]))
    write(tmp_path / "de/c.jsonl", jsonl(ROWS[2:3]))
    assert completions(load({"path": str(tmp_path), "data_files": "*/c.jsonl"})) == ["c2"]
    assert completions(load({"path": str(tmp_path), "data_dir": "en", "name": "one"})) == ["c0", "c1"]
    given = {"path": "json", "data_files": [str(tmp_path / "de/c.jsonl"), str(tmp_path / "en/one/b.jsonl")]}
    assert completions(load(given)) == ["c2", "c1"]  # as `load_dataset("json", data_files=...)`
    assert "data_files z*.jsonl matches nothing" in message_of({"path": str(tmp_path), "data_files": "z*.jsonl"})
    assert "is not a folder; data_dir and name" in message_of({"path": str(tmp_path), "name": "fr"})
    given = {"path": str(tmp_path / "de/c.jsonl"), "name": "fr"}
    assert "is one file, so name has no meaning there" in message_of(given)


def test_slices_and_columns(tmp_path):
    path = str(write(tmp_path / "a.jsonl", jsonl([{**row, "chosen": "x", "rejected": "y"} for row in ROWS])))
    columns = ["prompt", "completion"]
    assert len(load({"path": path, "split": "train[:3]", "format": "preference"}).rows) == 3
    assert completions(load({"path": path, "split": "train[2:40%]", "columns": columns})) == ["c2", "c3"]
    assert "Two layouts fit the row" in message_of({"path": path})
    assert load({"path": path, "format": "preference"}).formats == {path: "preference"}
    assert load({"path": path, "columns": columns}).formats == {path: "prompt_completion"}
    message = message_of({"path": path, "columns": ["text"]})
    assert message == f"{path}:1: columns names text, which the row lacks; it has prompt, completion, chosen, rejected."
    assert message_of({"path": path, "split": "train[20:]"}) == "split: train[20:] selects none of 10 rows."
    assert "split: train[-5:] is not understood" in message_of({"path": path, "split": "train[-5:]"})
    assert "split: train[:150%] goes beyond 100%" in message_of({"path": path, "split": "train[:150%]"})
    assert len(load({"path": path, "split": "train[:100%]", "columns": columns}).rows) == 10
    assert len(load({"path": path, "split": "train[:12.5%]", "columns": columns}).rows) == 1  # 1.25 of 10 rows
    assert "split: train[:100.5%] goes beyond 100%" in message_of({"path": path, "split": "train[:100.5%]"})
    assert "split: train[:1.5] is not understood" in message_of({"path": path, "split": "train[:1.5]"})


def test_a_layout_that_is_read_by_name_alone(tmp_path):
    path = str(write(tmp_path / "a.jsonl", jsonl([{"instruction": "Translate.", "input": "Oui.", "output": "Yes."}])))
    prompts = [load({"path": path, "format": name}).rows[0].prompt[0]["content"] for name in (None, "stanford_alpaca")]
    assert prompts == ["Translate.\nOui.", "Translate.\n\n### Input:\nOui."]


# --- the Hub, through `datasets`


def test_hub_rows_come_through_datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "hub/train.jsonl", jsonl(ROWS))
    entry = DatasetEntry(path=str(tmp_path / "hub"), split="train[:4]")
    source = read_hub(entry)  # a folder is to `datasets` what a Hub id is
    assert [row.value for row in source.rows] == ROWS[:4]
    assert source.rows[3].where == f"{entry.path}[train[:4]]:4"
    assert source.sha256
    assert source.from_hub
    entry = DatasetEntry(path=str(tmp_path / "hub"), split="train[:12.5%]")
    assert [row.value for row in read_hub(entry).rows] == ROWS[: round(0.125 * len(ROWS))]


def test_an_unavailable_hub_id_is_refused():
    message = message_of("nobody/nothing-of-this-name")
    assert message.startswith("nobody/nothing-of-this-name is not a file or folder here, and loading it from the Hub f")


def test_folder_that_datasets_saved(tmp_path):
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    loaded = load({"path": str(tmp_path / "saved"), "split": "train[8:]"})
    assert completions(loaded) == ["c8", "c9"]


# --- mixtures


def test_fractions_agree_with_trl(tmp_path, monkeypatch):
    """As `trl.get_dataset` 1.16: 2 : 6 of 10 and 9 rows; total = min(10/0.25, 9/0.75) = 12; so 3 and 9 rows."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    one = str(write(tmp_path / "one/train.jsonl", jsonl(ROWS)))
    two = str(
        write(tmp_path / "two/train.jsonl", jsonl([{"prompt": f"q{i}", "completion": f"d{i}"} for i in range(9)]))
    )
    loaded = load({"path": one, "fraction": 2.0}, {"path": two, "fraction": 6.0})
    assert completions(loaded) == ["c0", "c1", "c2", *(f"d{i}" for i in range(9))]

    from trl import DatasetMixtureConfig, get_dataset
    from trl.scripts.utils import DatasetConfig

    mixture = get_dataset(
        DatasetMixtureConfig(
            datasets=[
                DatasetConfig(path=str(tmp_path / "one"), fraction=2.0),
                DatasetConfig(path=str(tmp_path / "two"), fraction=6.0),
            ]
        )
    )
    assert mixture["train"]["completion"] == completions(loaded)


def test_fraction_for_some_is_refused(tmp_path):
    path = str(write(tmp_path / "a.jsonl", jsonl(ROWS)))
    message = message_of({"path": path, "fraction": 0.5}, {"path": path})
    assert message == "fraction is given for some of the datasets and not for others; give it for all or none."


def test_max_samples_takes_from_the_shuffled_rows(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl(ROWS))
    assert completions(load(path)) == [f"c{i}" for i in range(10)]
    taken = completions(load(path, max_samples=4))
    assert len(set(taken)) == 4
    assert taken == completions(load(path, max_samples=4))
    assert taken != [f"c{i}" for i in range(4)]


# --- bad rows


BAD_LINES = [
    (b'{"prompt": "a"', "invalid JSON: Expecting ',' delimiter: line 1 column 15 (char 14)"),
    (b'{"prompt": "a"}', "the field 'completion' is missing; found prompt"),
    (b'{"prompt": "a", "completion": ""}', "'completion' is empty"),
    (b'{"prompt": "a", "completion": 5}', "'completion' is a number, not text"),
    (b'["a", "b"]', "the row is a list, not an object with named fields"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_bad_row_stops_or_is_skipped_and_named(tmp_path, line, reason):
    path = write(tmp_path / "a.jsonl", jsonl(ROWS[:1]).encode() + line + b"\n" + jsonl(ROWS[1:2]).encode())
    assert message_of(path) == f"{path}:2: {reason}. Correct the row, or set on_bad_row: skip."
    loaded = load(path, on_bad_row="skip")
    assert completions(loaded) == ["c0", "c1"]
    assert loaded.skipped == [f"{path}:2: {reason}"]


@pytest.mark.parametrize("letter", [b"\xff", "é".encode("latin-1")])
def test_a_row_in_another_encoding_is_not_to_be_skipped(tmp_path, letter):
    line = b'{"prompt": "a", "completion": "' + letter + b'"}\n'
    path = write(tmp_path / "a.jsonl", jsonl(ROWS[:1]).encode() + line)
    reason = f"invalid UTF-8: byte 0x{letter[0]:02x} at position 31"
    assert message_of(path) == f"{path}:2: {reason}. Save the file as UTF-8."
    assert load(path, on_bad_row="skip").skipped == [f"{path}:2: {reason}"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_joined_files_keep_no_byte_order_mark(tmp_path, name):
    row = b"\xef\xbb\xbf" + jsonl(ROWS[:1]).encode()
    assert completions(load(write(tmp_path / name, row + row + row.strip()))) == ["c0"] * 3


def test_documents_of_joined_files_keep_no_byte_order_mark(tmp_path):
    path = write(tmp_path / "a.txt", b"one\n\n\xef\xbb\xbftwo\n")
    assert completions(load(path)) == ["one", "two"]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_header_of_a_joined_csv_is_not_a_row(tmp_path, mark):
    path = write(tmp_path / "a.csv", b"prompt,completion\nx,y\n" + mark + b"prompt,completion\nz,w\n")
    assert message_of(path).startswith(f"{path}:3: the header stands here again, as where files were joined; take")
    assert completions(load(path, on_bad_row="skip")) == ["y", "w"]


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([*ROWS[:1], {"prompt": None, "completion": "c"}], "2: 'prompt' is null; give text, or a list of messages"),
        ([{"prompt": None, "completion": "c"}], "1: 'prompt' is null; the layout prompt_completion needs prompt, comp"),
    ],
)
def test_a_prompt_that_is_null_is_named_as_such(tmp_path, rows, fault):
    path = write(tmp_path / "a.jsonl", jsonl(rows))
    assert message_of(path).startswith(f"{path}:{fault}")


def test_bad_first_row_does_not_decide_the_format(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl([{"answer": 1}, *ROWS]))
    assert message_of(path).startswith(f"{path}:1: no layout has these keys: answer. Known layouts")
    loaded = load(path, on_bad_row="skip")
    assert len(loaded.rows) == 10
    assert loaded.skipped == [f"{path}:1: no layout has these keys: answer"]


def test_a_named_format_is_used_without_detection(tmp_path):
    path = str(write(tmp_path / "a.jsonl", jsonl([{"prompt": "p", "completion": "c", "text": "t"}])))
    assert completions(load({"path": path, "format": "text"})) == ["t"]
    assert "the field 'instruction' is missing" in message_of({"path": path, "format": "alpaca"})
    assert "format: csv is not known; known are" in message_of({"path": path, "format": "csv"})


def test_bad_rows_of_csv_and_parquet(tmp_path):
    path = write(tmp_path / "a.csv", "prompt,completion\nx,y\nx\n")
    assert message_of(path).startswith(f"{path}:3: 1 cells where the header has 2.")
    path = parquet(tmp_path / "a.parquet", [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": None}])
    assert message_of(path).startswith(f"{path}:2: the field 'completion' is missing")


def test_skipping_all_rows_is_an_error(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl([{"prompt": "a", "completion": ""}] * 5))
    message = message_of(path, on_bad_row="skip")
    assert message == f"{path} gives no usable row; 5 were skipped.\n  {path}:1: 'completion' is empty"


# --- files that cannot be read at all; `on_bad_row: skip` does not help


BAD_FILES = [
    ("a.jsonl", b"", "is empty: it holds no rows."),
    ("a.jsonl", b"\n \n", "is empty: it holds no rows."),
    ("a.json", b"[]", "is empty: it holds no rows."),
    ("a.csv", b"prompt,completion\n", "is empty: it holds no rows."),
    ("a.txt", b"\n\n", "is empty: it holds no rows."),
    ("a.jsonl.gz", b'{"text": "a"}', "is not a whole gzip file: Not a gzipped file"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "a"}', mtime=0)[:-9], "is not a whole gzip file: "),
    ("a.parquet", b"PAR1nonsense", "is not a readable Parquet file: "),
    ("a.json", b'[{"text": "a"},\n{"text": }]', ":2: invalid JSON: Expecting value."),
    ("a.json", b'[{"text": "a"}\n{"text": "b"}]', ":2: invalid JSON: the array is not closed or a comma is missing."),
    ("a.json", b'[{"text": "a"},\n', ":2: invalid JSON: Expecting value."),
    ("a.json", b'[{"text": "a"}]\n]', ":2: invalid JSON: something follows the array."),
    ("a.json", b'[{"text": "a"},\n{"text": "\xff"}]', ":2: invalid UTF-8: byte 0xff at position 26. Save the file as"),
    ("a.txt", b"one\ntwo \xe9\n", ":2: invalid UTF-8: byte 0xe9"),
    ("a.csv", b'text\n"a', ":2: invalid CSV: unexpected end of data."),
    ("a.docx", b"PK", " has no known data extension; wanted .jsonl, .json, .parquet, .csv, .txt, or .gz of these."),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_unreadable_file_is_named(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    found = message_of(path, on_bad_row="skip")
    assert found.startswith(str(path))
    assert message in found


def test_deep_nesting_is_a_bad_row(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl(ROWS) + '{"a":' * 100_000 + "\n")
    assert "nested too deeply" in message_of(path) or "invalid JSON" in message_of(path)
    path = write(tmp_path / "a.json", "[" * 100_000)
    assert "invalid JSON" in message_of(path)


def test_paths_that_hold_no_data(tmp_path):
    assert message_of(tmp_path / "none.jsonl").startswith(f"{tmp_path}/none.jsonl does not exist.")
    assert message_of("data/rows.jsonl").startswith("data/rows.jsonl does not exist.")
    (tmp_path / "void").mkdir()
    assert message_of(tmp_path / "void").endswith("found nothing.")
    for index in range(3):
        write(tmp_path / f"pictures/{index}.png", PICTURE)
    assert message_of(tmp_path / "pictures") == (
        f"{tmp_path}/pictures holds no data files: expected .jsonl, .json, .parquet, .csv, .txt (or .gz of these), "
        "found 3 files (.png)."
    )


def test_data_of_another_kind_is_refused_with_what_the_stage_needs(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl(ROWS))
    message = message_of(path, loader=load_rankings, on_bad_row="skip")
    assert message.startswith(f"{path}:1: the format prompt_completion holds no comparisons of answers")
    path = write(tmp_path / "b.jsonl", jsonl([{"text": "once"}]))
    assert "the format text has no prompts" in message_of(path, loader=load_prompts)


@pytest.mark.parametrize("damage", ["cut", "offset", "text", "state"])
def test_damaged_saved_data_set_is_refused_in_one_line(tmp_path, damage):
    import datasets

    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    content = arrow.read_bytes()
    if damage == "cut":
        arrow.write_bytes(content[: len(content) // 2])
    elif damage == "state":
        write(tmp_path / "saved" / "state.json", "[" * 10_000)
    elif damage == "text":
        arrow.write_bytes(content.replace(b"c4", b"\xff\xff"))
    else:  # the offsets of the texts c0, c1 … are 0, 2, 4 …
        offsets = b"".join(number.to_bytes(4, "little") for number in (0, 2, 4, 6))
        assert offsets in content
        arrow.write_bytes(content.replace(offsets, offsets[:4] + b"\x00\x00\x00\x7f" + offsets[8:]))
    message = message_of(tmp_path / "saved", on_bad_row="skip")
    assert message.startswith(f"{tmp_path}/saved")
    assert len(message.splitlines()) == 1
